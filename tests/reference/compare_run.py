#!/usr/bin/env python3
"""Runs `dav run` on every case of models.py, in full size, and prints the worst disagreement with the f64 reference:
max|a-b| / (max|b| + 1e-6), allowed 1e-4 forward and 1e-3 for gradients.  compare_run.py [CASE...] [--binary build/dav]"""
import argparse
import os
import subprocess
import sys
import tempfile

from safetensors.torch import load_file

sys.path.insert(0, os.path.dirname(__file__))
from models import CASES, write

TOLERANCE = {False: 1e-4, True: 1e-3}


def disagreements(out, expected):
    for name, b in expected.items():
        if name not in out:
            yield float("inf"), name
        else:
            a = out[name].double().reshape(b.shape)
            yield ((a - b).abs().max() / (b.abs().max() + 1e-6)).item(), name


def run(binary, name, extra):
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        write(folder, case, whole=True)
        out = os.path.join(folder, "out.safetensors")
        command = [binary, "run", folder, "--in", os.path.join(folder, "in.safetensors"), "--out", out, *extra]
        r = subprocess.run(command + ["--vjp"] * case.get("vjp", True), capture_output=True, text=True)
        if r.returncode:
            print(f"{name:22} FAILED, status {r.returncode}: {r.stderr.strip()}")
            return False
        expected = load_file(os.path.join(folder, "expected.safetensors"))
        ok = True
        for is_gradient in (False, True):
            part = {k: v for k, v in expected.items() if k.startswith("grad.") == is_gradient}
            if part:
                worst, where = max(disagreements(load_file(out), part))
                ok &= worst <= TOLERANCE[is_gradient]
                print(f"{name:22} {'gradient' if is_gradient else 'forward':8} {worst:9.2e} of {TOLERANCE[is_gradient]:.0e}"
                      f"  worst at {where}{'' if worst <= TOLERANCE[is_gradient] else '  FAILED'}")
        return ok


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("cases", nargs="*", help="all by default")
    ap.add_argument("--binary", default=os.path.join(os.path.dirname(__file__), "..", "..", "build", "dav"))
    ap.add_argument("--dtype", help="passed on to dav run")
    a = ap.parse_args()
    results = []
    for name in a.cases or CASES:
        if CASES[name].get("weights") and "DAV_TEST_DATA" not in os.environ:
            print(f"{name:22} SKIPPED, needs DAV_TEST_DATA")
        else:
            results.append(run(a.binary, name, ["--dtype", a.dtype] if a.dtype else []))
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
