#!/usr/bin/env python3
"""What the machine code of products is made of: instructions of the hottest loop, from cubins that tests/test_cuda_text wrote.
sass.py NVDISASM FOLDER >TABLE      FOLDER: of DAV_CUDA_CUBINS; NVDISASM: the toolkit's, or of PyPI's triton wheel"""
import collections
import glob
import os
import re
import subprocess
import sys

KINDS = ["HMMA", "FFMA", "LDSM", "LDGSTS", "LDS", "LDG", "STS", "BAR"]


def instructions(text):
    """(opcode, target label or None) in order; labels by the index of the instruction that follows"""
    ops, labels = [], {}
    for line in text.splitlines():
        label = re.match(r"\s*(\.L_[\w$]+):", line)
        if label:
            labels[label.group(1)] = len(ops)
        op = re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*?);", line)
        if op:
            target = re.search(r"`\((\.L_[\w$]+)\)", op.group(2))
            ops.append((op.group(1), target.group(1) if target and op.group(1).startswith("BRA") else None))
    return ops, labels


def hottest_loop(ops, labels):
    """the innermost loop with the most tensor (else multiply-add) instructions"""
    best, best_key = (0, len(ops)), None
    for at, (op, target) in enumerate(ops):
        first = labels.get(target, at + 1) if target else at + 1
        if first > at:
            continue
        body = collections.Counter(o.split(".")[0] for o, _ in ops[first:at + 1])
        key = (body["HMMA"], body["FFMA"], -(at - first))
        if best_key is None or key > best_key:
            best, best_key = (first, at + 1), key
    return best


def main():
    disassembler, folder = sys.argv[1:3]
    print("kernel\tinstructions\tin the hottest loop\t" + "\t".join(KINDS) + "\tshare of HMMA or FFMA")
    for path in sorted(glob.glob(os.path.join(folder, "*.cubin"))):
        text = subprocess.run([disassembler, "-c", path], check=True, capture_output=True, text=True).stdout
        ops, labels = instructions(text)
        first, end = hottest_loop(ops, labels)
        count = collections.Counter(o.split(".")[0] for o, _ in ops[first:end])
        work = max(count["HMMA"], count["FFMA"])
        print(os.path.basename(path)[:-6], len(ops), end - first, *(count[k] for k in KINDS), f"{work / max(1, end - first):.2f}", sep="\t")


if __name__ == "__main__":
    main()
