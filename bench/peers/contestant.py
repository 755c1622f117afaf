"""What every peer shares: the work's numbers, and the loop that lets compare.py run many peers in turns.

A contestant is a process: it warms up, prints {"ready": ...}, then for each line SECONDS on its standard input runs the work for
about that long (once at least) and prints {"times": [s, ...]}.  Between turns it sleeps, so that only one of them is at work."""
import json
import re
import sys
import time

HIDDEN, SYMBOLS, MASK, WIDTH, EPS = 128, 5, 4, 9, 1e-3
DILATIONS = [d for d in (1, 1, 4, 16, 64) for _ in range(4)]


def parse_work(work):
    """dna-train-b64-L200 -> ("train", 64, 200)"""
    kind, batch, length = re.fullmatch(r"dna-(fwd|train)-b(\d+)-L(\d+)", work).groups()
    return kind, int(batch), int(length)


def gflop(work):
    """(all, useful) GFLOP, 2 a multiply-add of matmuls and convolutions; useful leaves out products with padding.
    Backward: two products for each one of the forward, but no gradient to the sequence and to the time features."""
    kind, b, length = parse_work(work)
    def taps(d):
        return sum(max(0, length - abs(i - WIDTH // 2) * d) for i in range(WIDTH))
    first = SYMBOLS * HIDDEN
    dense = (len(DILATIONS) + 1) * HIDDEN * HIDDEN
    last = length * HIDDEN * (HIDDEN + SYMBOLS)
    def total(rows):
        forward = first * rows(1) + sum(HIDDEN * HIDDEN * rows(d) for d in DILATIONS) + last + dense
        once = first * rows(1) + HIDDEN * HIDDEN
        return 2e-9 * b * (forward if kind == "fwd" else 3 * forward - once)
    return total(lambda d: WIDTH * length), total(taps)


def serve(once, check, versions):
    start = time.perf_counter()
    result = once()
    first = time.perf_counter() - start
    check(result)
    once()
    print(json.dumps({"ready": True, "first_call_s": first, "versions": versions}), flush=True)
    for line in sys.stdin:
        budget, times = float(line), []
        while not times or sum(times) + times[-1] < budget:
            start = time.perf_counter()
            result = once()
            times.append(time.perf_counter() - start)
        check(result)
        print(json.dumps({"times": times}), flush=True)
