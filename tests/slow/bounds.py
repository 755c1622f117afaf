#!/usr/bin/env python3
"""The bounds of `dav run`: whatever the files hold, it ends by itself within 2 s and 1 GiB, with one line and no output.
   tests/slow/bounds.py build/dav
Each case is a process of its own; time and memory are what wait4 says of it (OMP_NUM_THREADS as the caller has it).  Processor
time is bounded as well as time on the wall, so that a busy machine is told from a slow program."""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

SECONDS, BYTES = 2.0, 1 << 30
DAV = os.path.realpath(sys.argv[1])
DATA = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "data", "run")
WEIGHTS = "diffusion_pytorch_model.safetensors"


def run(arguments, said):
    """(status, wall, processor seconds, peak bytes); ended by force after 60 s"""
    start = time.monotonic()
    p = subprocess.Popen([DAV, *arguments], stdout=subprocess.DEVNULL, stderr=said)
    while True:
        pid, status, used = os.wait4(p.pid, os.WNOHANG)
        wall = time.monotonic() - start
        if pid:
            return os.waitstatus_to_exitcode(status), wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
        if wall > 60:
            p.kill()
        time.sleep(0.002)


def header(text, rest=b""):
    return struct.pack("<Q", len(text)) + text + rest


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def many_tensors(n):
    return header(json.dumps({f"t{i}": tensor("F32", [0], 0, 0) for i in range(n)}).encode())


def sparse(path, size, head=b""):
    with open(path, "wb") as f:
        f.write(head)
        f.truncate(size)


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


BINARY = {  # what stands in place of a safetensors file
    "empty": lambda p: write(p, b""),
    "seven bytes": lambda p: write(p, b"1234567"),
    "header of 2^63": lambda p: write(p, struct.pack("<Q", 1 << 63) + b"{}"),
    "header longer than the file": lambda p: write(p, struct.pack("<Q", 1 << 20) + b"{}"),
    "header of 99 MB of blanks": lambda p: write(p, header(b"{" + b" " * 99_000_000 + b"}")),
    "header of 50 MB of brackets": lambda p: write(p, header(b"[" * 50_000_000)),
    "200,000 tensors": lambda p: write(p, many_tensors(200_000)),
    "offsets of 2^62": lambda p: write(p, header(json.dumps({"seq": tensor("I64", [1 << 62], 0, 1 << 62)}).encode())),
    "shape overflows": lambda p: write(p, header(json.dumps({"seq": tensor("I64", [1 << 32, 1 << 32, 16], 0, 0)}).encode())),
    "100 GB of holes": lambda p: sparse(p, 100 << 30),
    "8 GB tensor of holes": lambda p: sparse(
        p, 120 + (8 << 30), header(json.dumps({"seq": tensor("I64", [1 << 24, 64], 0, 8 << 30)}).encode().ljust(112))),
    "endless device": lambda p: os.symlink("/dev/zero", p),
    "pipe that nobody writes": os.mkfifo,
    "folder": os.mkdir,
    "random bytes": lambda p: write(p, os.urandom(1 << 20)),
}
CONFIG = {
    "empty": b"", "nul": b"\0" * 1000, "50 MB of brackets": b"[" * 50_000_000,
    "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "100 MB of blanks": b" " * 100_000_000,
    "not UTF-8": b'{"_class_name": "\xff\xfe"}', "number": b"12", "long string": b'{"_class_name": "' + b"x" * 50_000_000 + b'"}',
    "huge sizes": b'{"_class_name": "DNAConv", "hidden_dim": 99999999, "num_cnn_stacks": 9999999, "length": 99999999}',
    "many stacks": b'{"_class_name": "DNAConv", "hidden_dim": 128, "num_cnn_stacks": 100000, "length": 200}',
    "many dilations": b'{"_class_name": "DNAConv", "dilations": [' + b"1," * 1_000_000 + b"1]}",
}

bad = 0
worst = {}


def judge(kind, name, place, result, said, refused, out):
    global bad
    status, wall, cpu, peak = result
    lines = said.decode(errors="replace").splitlines()
    faults = []
    if cpu > SECONDS:
        faults.append(f"{cpu:.2f} s of processor time")
    if wall > SECONDS and cpu > SECONDS / 2:
        faults.append(f"{wall:.2f} s")
    if wall > 10 * SECONDS:
        faults.append("hangs")
    if peak > BYTES:
        faults.append(f"{peak / 2**20:.0f} MiB")
    if refused and (status not in (1, 2) or len(lines) != 1 or place not in lines[0] or os.path.exists(out)):
        faults.append(f"status {status}, said {lines[:2]}")
    if not refused and status:
        faults.append(f"status {status}, said {lines[:2]}")
    w = worst.setdefault(kind, [0, 0, 0, 0])
    worst[kind] = [w[0] + 1, max(w[1], wall), max(w[2], cpu), max(w[3], peak)]
    if faults:
        bad += 1
        print(f"{kind}: {name}: {', '.join(faults)}")


def case(work, kind, name, folder, inputs, place, refused, vjp):
    out = os.path.join(work, "out")
    if os.path.exists(out):
        os.remove(out)
    with open(os.path.join(work, "said"), "w+b") as said:
        result = run(["run", folder, "--in", inputs, "--out", out] + (["--vjp"] if vjp else []), said)
        said.seek(0)
        judge(kind, name, place, result, said.read(), refused, out)


def main():
    with tempfile.TemporaryDirectory() as work:
        for name in sorted(os.listdir(DATA)):
            folder = os.path.join(DATA, name)
            if os.path.exists(os.path.join(folder, "in.safetensors")):
                with open(os.path.join(folder, "in.safetensors"), "rb") as f:
                    vjp = b'"grad.' in f.read(1 << 16)
                case(work, "normal", name, folder, os.path.join(folder, "in.safetensors"), "", False, vjp)
        tiny = os.path.join(DATA, "dnaconv-tiny")
        for name, make in BINARY.items():
            bad_in = os.path.join(work, "bad.safetensors")
            make(bad_in)
            case(work, "input", name, tiny, bad_in, "bad.safetensors", True, True)
            folder = os.path.join(work, "model")
            os.mkdir(folder)
            shutil.copy(os.path.join(tiny, "config.json"), folder)
            os.rename(bad_in, os.path.join(folder, WEIGHTS))
            case(work, "weights", name, folder, os.path.join(tiny, "in.safetensors"), WEIGHTS, True, True)
            shutil.rmtree(folder)
        for name, text in CONFIG.items():
            folder = os.path.join(work, "model")
            os.mkdir(folder)
            write(os.path.join(folder, "config.json"), text)
            shutil.copy(os.path.join(tiny, WEIGHTS), folder)
            case(work, "config", name, folder, os.path.join(tiny, "in.safetensors"), folder, True, True)
            shutil.rmtree(folder)
    for kind, (n, wall, cpu, peak) in worst.items():
        print(f"{kind}: {n} cases, at most {wall:.2f} s ({cpu:.2f} s of processor time), {peak / 2**20:.0f} MiB")
    print("all within 2 s and 1 GiB" if not bad else f"{bad} cases break the contract")
    return bad > 0


sys.exit(main())
