#!/usr/bin/env python3
"""What a second thread brings to dav, beside what it brings to the machine's own peak, in one run: every round measures the peak
and each work on one thread and on two.  scaling.py [WORK...] [--dtype f32,bf16] [--rounds 7]"""
import argparse
import os
import statistics
import tempfile

from compare import HERE, WORKS, Dav, build_peak, peak_now


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("works", nargs="*", metavar="WORK", help=", ".join(WORKS))
    ap.add_argument("--dtype", default="f32,bf16")
    ap.add_argument("--rounds", type=int, default=7)
    ap.add_argument("--seconds", type=float, default=0.5, help="a turn takes about this long")
    ap.add_argument("--dav", default=os.path.join(HERE, "..", "..", "build", "dav"))
    a = ap.parse_args()
    print("| work | dtype | dav 1 -> 2 threads | peak 1 -> 2 threads | dav's part of it |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        exe = build_peak(folder)
        for work in a.works or WORKS:
            for dtype in a.dtype.split(","):
                one, two = (Dav(os.path.abspath(a.dav), work, dtype, threads) for threads in (1, 2))
                gain, peak_gain = [], []
                for _ in range(a.rounds):
                    peaks = [peak_now(exe, dtype, threads) for threads in (1, 2)]
                    times = [statistics.median(who.turn(a.seconds)) for who in (one, two)]
                    gain.append(times[0] / times[1])
                    if all(peaks):
                        peak_gain.append(peaks[1] / peaks[0])
                g, p = statistics.median(gain), statistics.median(peak_gain) if peak_gain else float("nan")
                print(f"| {work} | {dtype} | {g:.2f} ({min(gain):.2f}..{max(gain):.2f}) "
                      f"| {p:.2f} ({min(peak_gain, default=p):.2f}..{max(peak_gain, default=p):.2f}) | {g / p:.2f} |", flush=True)


if __name__ == "__main__":
    main()
