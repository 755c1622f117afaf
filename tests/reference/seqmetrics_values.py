"""Makes seqmetrics_small.txt (sequences) and prints the values that tests/test_seqmetrics.c expects of them, in plain
Python.  With the .npz of yeast_split.py as argument: those of the yeast table too."""
import os
import random
import sys
from collections import Counter
from itertools import product

import numpy as np


def kmers(seqs, k):
    c = Counter(s[i : i + k] for s in seqs for i in range(len(s) - k + 1))
    return np.array([c["".join(w)] for w in product("ACGT", repeat=k)], float)


def levenshtein(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        left, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            left, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, left + (x != y))
    return row[-1]


def longest_run(s):
    best = run = 1
    for a, b in zip(s, s[1:]):
        run = run + 1 if a == b else 1
        best = max(best, run)
    return best


def gc(s):
    return (s.count("C") + s.count("G")) / len(s)


def markov_nats(train, test, order, strength):
    """Interpolated chain as runtime/markov.h says."""
    counts = Counter((s[p - c : p], s[p]) for s in train for p in range(len(s)) for c in range(min(p, order) + 1))
    total = Counter()
    for (x, _), n in counts.items():
        total[x] += n

    def p(x, a):
        prior = p(x[1:], a) if x else 0.25
        return (counts[x, a] + strength * prior) / (total[x] + strength)

    return -sum(np.log(p(s[max(0, i - order) : i], s[i])) for s in test for i in range(len(s))) / sum(map(len, test))


if __name__ == "__main__":
    random.seed(5)
    seqs = ["".join(random.choices("ACGT", [4, 2, 2, 3], k=random.choice([30, 64, 65, 80, 131]))) for _ in range(40)]
    seqs += [seqs[3], seqs[3], seqs[7][:-1], "A" * 12 + "C", "TTTTTTTTTTG"]
    with open(os.path.join(os.path.dirname(__file__), "seqmetrics_small.txt"), "w") as f:
        f.write("\n".join(seqs) + "\n")
    a, b = seqs[:20], seqs[20:]
    for k in (1, 3, 6):
        print("k", k, "sum", kmers(seqs, k).sum(), "correlation of halves %.15g" % np.corrcoef(kmers(a, k), kmers(b, k))[0, 1])
    print("3-mers AAA, ACG, TTT:", kmers(seqs, 3)[[0, 6, 63]])
    print("gc %.15g" % np.mean([gc(s) for s in seqs]), "runs >= 5, 11:", [np.mean([longest_run(s) >= r for s in seqs]) for r in (5, 11)])
    print("unique %.15g" % (len(set(seqs)) / len(seqs)))
    d = np.array([[levenshtein(x, y) for y in seqs] for x in seqs], float)
    n = len(seqs)
    each = d.sum(1) / (n - 1)
    print("pairs mean %.15g se %.15g" % (each.mean(), 2 * each.std(ddof=1) / np.sqrt(n)))
    near = d[20:, :20]
    print("nearest", near.min(1).astype(int).tolist(), "rows", near.argmin(1).tolist())
    print("markov 2, strength 3: %.15g" % markov_nats(a, b, 2, 3.0), "order 0, 1: %.15g" % markov_nats(a, b, 0, 1.0))
    if len(sys.argv) > 1:
        z = np.load(sys.argv[1])
        rows = ["".join("ACGT"[c] for c in r) for r in z["letters"]]
        v = z["values"]
        order = np.argsort(-np.where(np.isnan(v), -np.inf, v), kind="stable")[: -(-int((~np.isnan(v)).sum()) // 1000)]
        top = [rows[i] for i in order]
        print("top", len(top), "3-mer correlation top/all %.12g" % np.corrcoef(kmers(top, 3), kmers(rows, 3))[0, 1])
        print("top gc %.12g all gc %.12g" % (np.mean([gc(s) for s in top]), np.mean([gc(s) for s in rows])))
        print("run of 10: %.12g" % np.mean([longest_run(s) >= 10 for s in rows]))
        t = v[(z["folds"] == 3) & ~np.isnan(v)]
        print("test quantiles .1 .5 .9: ", np.quantile(t, [0.1, 0.5, 0.9]))
        va = [rows[i] for i in np.flatnonzero(z["folds"] == 2)]
        tr = [rows[i] for i in np.flatnonzero(z["folds"] <= 1)]
        print("markov 5, strength 2000 on validation: %.9f" % markov_nats(tr, va, 5, 2000.0))
