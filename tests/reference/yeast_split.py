"""The split of the yeast table by the rule in runtime/split.h, written a second time: plain strings and dictionaries.
Prints what tests/test_data.c expects.  usage: yeast_split.py yeast_promoters.txt.gz [out.npz]"""
import gzip
import sys
from collections import defaultdict

import numpy as np

M = (1 << 64) - 1
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def read(path):
    rows = []
    for line in list(gzip.open(path, "rt"))[1:]:
        f = line.rstrip("\n").split("\t")
        if f[1] == "TRUE":
            rows.append((f[0][20:100], float("nan") if f[5] == "NA" else float(f[5])))
    return rows


def components(seqs):
    parent = list(range(len(seqs)))

    def find(a):
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        return a

    first = {}
    for i, s in enumerate(seqs):
        back = s.translate(COMPLEMENT)[::-1]
        for j in range(len(s) - 19):
            a, b = find(first.setdefault(min(s[j : j + 20], back[len(s) - 20 - j : len(s) - j]), i)), find(i)
            parent[max(a, b)] = min(a, b)
    groups = defaultdict(list)
    for i in range(len(seqs)):
        groups[find(i)].append(i)
    return list(groups.values())


def fold(key):
    h = 0xCBF29CE484222325
    for c in key.encode():
        h = ((h ^ c) * 0x100000001B3) & M
    h = ((h ^ h >> 30) * 0xBF58476D1CE4E5B9) & M
    h = ((h ^ h >> 27) * 0x94D049BB133111EB) & M
    u = (h ^ h >> 31) / 2**64
    return 0 if u < 0.38 else 1 if u < 0.80 else 2 if u < 0.88 else 3


if __name__ == "__main__":
    rows = read(sys.argv[1])
    groups = components([r[0] for r in rows])
    big = max(groups, key=len)
    folds = np.zeros(len(rows), np.int8)
    ids = np.zeros(len(rows), np.int32)
    for k, g in enumerate(groups):
        ids[g] = k
        folds[g] = 0 if g is big else fold(min(rows[i][0] for i in g))
    values = np.array([r[1] for r in rows])
    print("rows", len(rows), "components", len(groups), "largest", len(big))
    print("fold rows", [int((folds == f).sum()) for f in range(4)])
    print("measured ", [int(((folds == f) & ~np.isnan(values)).sum()) for f in range(4)])
    weight = (np.arange(len(rows)) % 1009 + 1).astype(np.int64)
    print("checksum of folds", int((folds * weight).sum()), "of components", int((ids * weight).sum()))
    print("measured mean %.9f sd %.9f" % (np.nanmean(values), np.nanstd(values, ddof=1)))
    print("quantiles .5 .99 .999", np.nanquantile(values, [0.5, 0.99, 0.999]))
    if len(sys.argv) > 2:
        letters = np.array([["ACGT".index(c) for c in r[0]] for r in rows], np.uint8)
        np.savez(sys.argv[2], letters=letters, folds=folds, components=ids, values=values)
