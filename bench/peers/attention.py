#!/usr/bin/env python3
"""Attention of Stable Diffusion's shapes: dav's against PyTorch's scaled_dot_product_attention, in turns within one run, the
machine's measured peak beside them.  Prints a markdown table.
attention.py BENCH PEAK [--rounds 5] [--threads 2] [--only REGEX]     BENCH: build/bench/attention, PEAK: built from peak.c"""
import argparse
import re
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F

SHAPES = [(1, 8, 4096, 4096, 40), (1, 8, 1024, 1024, 80), (1, 8, 256, 256, 160),
          (1, 8, 4096, 77, 40), (1, 8, 1024, 77, 80), (1, 8, 256, 77, 160)]


def gflop(shape, backward):
    b, h, l, s, d = shape
    return 2 * b * h * l * s * d * (7 if backward else 2) * 1e-9


def run_torch(shape, dtype, backward, runs):
    b, h, l, s, d = shape
    q, k, v = (torch.randn(b, h, n, d, dtype=dtype, requires_grad=backward) for n in (l, s, s))
    w = torch.randn(b, h, l, d, dtype=dtype)
    times = []
    for i in range(runs + 1):
        start = time.perf_counter()
        if backward:
            q.grad = k.grad = v.grad = None
            F.scaled_dot_product_attention(q, k, v).backward(w)
        else:
            with torch.no_grad():
                F.scaled_dot_product_attention(q, k, v)
        if i:
            times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def run_dav(bench, shape, dtype, backward, runs, threads):
    words = [bench, *map(str, shape), dtype, "backward" if backward else "forward", str(runs), str(threads)]
    return min(map(float, subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()))


def spread(x):
    return f"{statistics.median(x):.2f} ({min(x):.2f}-{max(x):.2f})"


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("bench")
    a.add_argument("peak")
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--only", default="")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    print("| queries x keys, width | dtype | direction | dav ms | PyTorch ms | PyTorch / dav | dav GFLOP/s | peak GFLOP/s |")
    print("|---|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        for dtype in ("f32", "bf16"):
            for backward in (False, True):
                name = f"{shape[2]} x {shape[3]}, {shape[4]} | {dtype} | {'forward and backward' if backward else 'forward'}"
                if o.only and not re.search(o.only, name):
                    continue
                runs = 3 if gflop(shape, backward) > 5 else 10
                ours, theirs, ratio, peak = [], [], [], []
                for _ in range(o.rounds):
                    ours.append(run_dav(o.bench, shape, dtype, backward, runs, o.threads))
                    theirs.append(run_torch(shape, torch.bfloat16 if dtype == "bf16" else torch.float32, backward, runs))
                    ratio.append(theirs[-1] / ours[-1])
                    said = subprocess.run([o.peak, str(o.threads)], check=True, capture_output=True, text=True).stdout
                    peak.append(float(re.search(rf'"{dtype}_{o.threads}": ([\d.]+)', said).group(1)))
                rate = gflop(shape, backward) / statistics.median(ours) * 1e3
                print(f"| {name} | {spread(ours)} | {spread(theirs)} | {spread(ratio)} | {rate:.0f} | {statistics.median(peak):.0f} |",
                      flush=True)


if __name__ == "__main__":
    main()
