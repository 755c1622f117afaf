#!/usr/bin/env python3
"""dav and its peers on the same works in one run: in every round each one gets a turn, one after another on an otherwise idle
machine, with the machine's peak measured before and after the round.  Prints a markdown table; --out keeps every number as
JSON lines.  compare.py [WORK...] [--dtype f32,bf16] [--rounds 7] [--only REGEX] [--no-compile] [--no-dav] [--out FILE]"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

from contestant import gflop

HERE = os.path.dirname(os.path.abspath(__file__))
WORKS = ["dna-fwd-b64-L200", "dna-fwd-b64-L80", "dna-train-b64-L200", "dna-train-b64-L80"]
TUNED = "glibc.malloc.trim_threshold=8000000000:glibc.malloc.mmap_threshold=8000000000"
RELEASED = "pytorch released"


def contestants(dtype, with_compile):
    """name -> (command without the work, environment)"""
    torch = [sys.executable, "dna_torch.py", "--dtype"]
    out = {}
    for layout in ("released", "channels-last"):
        name, command = f"pytorch {layout}", torch + [dtype, "--layout", layout]
        out[name] = command, {}
        out[name + ", tuned malloc"] = command, {"GLIBC_TUNABLES": TUNED}
        if with_compile:
            out[name + ", compiled"] = command + ["--compile"], {}
    if dtype == "bf16":
        out["pytorch channels-last, all bf16"] = torch + ["bf16-module", "--layout", "channels-last"], {}
    out["jax"] = [sys.executable, "dna_jax.py", "--dtype", dtype], {}
    return out


class Peer:
    def __init__(self, command, extra, work, threads):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **extra}
        self.process = subprocess.Popen(command[:2] + [work] + command[2:], cwd=HERE, env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.ready = self.answer()

    def answer(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(self.process.stderr.read()[-2000:])

    def turn(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return self.answer()["times"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Dav:
    """One `dav bench` a turn, which compiles (or finds its cache), warms up and times as long as the others."""

    def __init__(self, binary, work, dtype, threads):
        self.command = [binary, "bench", work, "--dtype", dtype, "--threads", str(threads), "--json"]
        self.ready = {"ready": True}

    def turn(self, seconds):
        r = subprocess.run(self.command + ["--repeats", "1", "--min-s", str(seconds)], capture_output=True, text=True)
        lines = [json.loads(line) for line in r.stdout.splitlines() if line.startswith("{")]
        if r.returncode or not lines:
            raise RuntimeError(f"{' '.join(self.command)}: status {r.returncode}: {r.stderr.strip()}")
        self.ready.setdefault("first_call_s", lines[-1]["first_call_s"])
        self.ready["versions"] = {"dav": lines[-1]["version"]}
        return lines[-1]["times"]

    def close(self):
        pass


def build_peak(folder):
    exe = os.path.join(folder, "peak")
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-fopenmp", os.path.join(HERE, "peak.c"), "-o", exe], check=True)
    return exe


def peak_now(exe, dtype, threads):
    line = json.loads(subprocess.run([exe, str(threads), "0.15"], capture_output=True, text=True, check=True).stdout)
    return line.get(f"{dtype}_{threads}")


def race(a, work, dtype, exe):
    """-> (name -> times, name -> what its first line said, peaks)"""
    field, times, peaks = {}, {}, []
    try:
        if not a.no_dav:
            field["dav"] = Dav(a.dav, work, dtype, a.threads)
        for name, (command, extra) in contestants(dtype, not a.no_compile).items():
            if re.search(a.only, name):
                print(f"  starting {name}", file=sys.stderr)
                field[name] = Peer(command, extra, work, a.threads)
        for round_number in range(a.rounds):
            print(f"  round {round_number + 1} of {a.rounds}", file=sys.stderr)
            peaks.append(peak_now(exe, dtype, a.threads))
            for name, one in field.items():
                time.sleep(0.2)  # the one before stops spinning
                times.setdefault(name, []).extend(one.turn(a.seconds))
        peaks.append(peak_now(exe, dtype, a.threads))
    finally:
        for one in field.values():
            one.close()
    return times, {name: one.ready for name, one in field.items()}, [p for p in peaks if p]


def lines_of(work, dtype, threads, times, ready, peaks):
    every, useful = gflop(work)
    for name, t in times.items():
        median = statistics.median(t)
        yield {"work": work, "peer": name, "dtype": dtype, "threads": threads, "median_s": round(median, 5),
               "min_s": round(min(t), 5), "max_s": round(max(t), 5), "repeats": len(t), "gflop": round(every, 2),
               "gflops": round(every / median, 1), "useful_gflops": round(useful / median, 1),
               "peak_gflops": [round(p, 1) for p in peaks],
               "pct_peak_useful": round(100 * useful / median / max(peaks), 1) if peaks else None,
               "first_call_s": ready[name].get("first_call_s"), "versions": ready[name].get("versions")}


def table(lines):
    print("| work | dtype | who | median s | min..max (n) | useful GFLOP/s | % peak | peak in the run |\n|---|---|---|---|---|---|---|---|")
    for d in sorted(lines, key=lambda d: (d["work"], d["dtype"], d["median_s"])):
        peak = f"{min(d['peak_gflops']):.0f}..{max(d['peak_gflops']):.0f}" if d["peak_gflops"] else ""
        print(f"| {d['work']} | {d['dtype']} | {d['peer']} | {d['median_s']:.4f} | {d['min_s']:.4f}..{d['max_s']:.4f} ({d['repeats']}) "
              f"| {d['useful_gflops']} | {d['pct_peak_useful']} | {peak} |")


def ratios(lines):
    print("\n| work | dtype | dav s | best peer | its s | dav ahead of it | dav ahead of released PyTorch |\n|---|---|---|---|---|---|---|")
    for key in sorted({(d["work"], d["dtype"]) for d in lines}):
        row = {d["peer"]: d["median_s"] for d in lines if (d["work"], d["dtype"]) == key}
        dav = row.pop("dav", None)
        if not dav or not row:
            continue
        best = min(row, key=row.get)
        released = f"{row[RELEASED] / dav:.2f}" if RELEASED in row else ""
        print(f"| {key[0]} | {key[1]} | {dav:.4f} | {best} | {row[best]:.4f} | {row[best] / dav:.2f} | {released} |")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("works", nargs="*", metavar="WORK", help=", ".join(WORKS))
    ap.add_argument("--dtype", default="f32,bf16")
    ap.add_argument("--rounds", type=int, default=7)
    ap.add_argument("--seconds", type=float, default=0.5, help="a turn takes about this long")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--only", default="", metavar="REGEX", help="peers whose name it matches")
    ap.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    ap.add_argument("--no-dav", action="store_true")
    ap.add_argument("--dav", default=os.path.join(HERE, "..", "..", "build", "dav"))
    ap.add_argument("--out", help="JSON lines, appended")
    a = ap.parse_args()
    a.dav = os.path.abspath(a.dav)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        exe = build_peak(folder)
        for work in a.works or WORKS:
            for dtype in a.dtype.split(","):
                print(f"{work} {dtype}", file=sys.stderr)
                new = list(lines_of(work, dtype, a.threads, *race(a, work, dtype, exe)))
                lines += new
                if a.out:
                    with open(a.out, "a") as f:
                        f.writelines(json.dumps(d) + "\n" for d in new)
    table(lines)
    ratios(lines)


if __name__ == "__main__":
    main()
