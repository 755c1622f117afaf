#!/usr/bin/env python3
"""What the machine code of products is made of: instructions of the hottest loop, from cubins that tests/test_cuda_text wrote.
sass.py NVDISASM FOLDER >TABLE      FOLDER: of DAV_CUDA_CUBINS; NVDISASM: the toolkit's, or of PyPI's triton wheel
Status 1 when a loop's tensor instructions are not those of its tile, or too few of a large tile's instructions are."""
import collections
import concurrent.futures
import glob
import os
import re
import subprocess
import sys

KINDS = ["HMMA", "FFMA", "LDSM", "LDGSTS", "LDS", "LDG", "STS", "BAR"]
LARGE = 100 * 128  # of rows and columns; two thirds of 128 x 128
# tf32: each warp rounds the elements that it reads, by an instruction each, before sm_90 by two; without any rounding it would be 0.46
LEAST = {"dav_mma_tile": lambda level: 0.5, "dav_tf32_tile": lambda level: 0.28 if level >= 90 else 0.2}


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
    """the innermost loop with the most tensor (else multiply-add) instructions, that with copies of two alike"""
    loops = [(labels[target], at) for at, (op, target) in enumerate(ops) if target and labels.get(target, at + 1) <= at]
    best, best_key = (0, len(ops)), None
    for first, at in loops:
        if any(first <= f and l <= at and (f, l) != (first, at) for f, l in loops):
            continue
        body = collections.Counter(o.split(".")[0] for o, _ in ops[first:at + 1])
        key = (body["HMMA"], body["BAR"] > 0, body["FFMA"], -(at - first))  # without a barrier: what follows when all is copied
        if best_key is None or key > best_key:
            best, best_key = (first, at + 1), key
    return best


def tiles_of(kernel):
    """(name of the tile's type, its numbers, tensor instructions of a step) of each tile in a kernel's text"""
    for kind, numbers in re.findall(r"typedef (dav_\w+_tile)<([\d, ]+)>", kernel):
        mr, nr, down, across, kc, stages = map(int, numbers.split(", ")[:6])
        fragments = -(-mr // (16 * down)) * -(-nr // (8 * across))
        yield kind, (mr, nr, down, across, kc, stages), fragments * kc // (16 if kind == "dav_mma_tile" else 8)


def complaint(kernel, level, hmma, share, whole):
    """what is wrong with a kernel's hottest loop, whose sums may be a single step that is no loop; None: nothing"""
    tiles = [t for t in tiles_of(kernel) if t[0] != "dav_fma_tile"]
    if not tiles:
        return None
    expected = [t[2] for t in tiles]
    if hmma not in expected and not (hmma == 0 and whole >= sum(expected)):
        return f"{hmma} tensor instructions in the loop, expected one of {expected}; {whole} in all"
    kind, (mr, nr, *_), _ = max(tiles, key=lambda t: t[2])
    lines = all(a == b == "true" for a, b in re.findall(r"typedef dav_panels<.*?, (true|false), (true|false), \d+, \d+, \d+>", kernel))
    if hmma and lines and mr * nr >= LARGE and round(share, 2) < LEAST[kind](level):
        return f"{share:.2f} of the loop are tensor instructions, expected {LEAST[kind](level)}"
    return None


def row(disassembler, path):
    """a kernel's line of the table, and what is wrong with it"""
    text = subprocess.run([disassembler, "-c", path], check=True, capture_output=True, text=True).stdout
    with open(path[:-6] + ".cu") as f:
        kernel = f.read()
    ops, labels = instructions(text)
    first, end = hottest_loop(ops, labels)
    count = collections.Counter(o.split(".")[0] for o, _ in ops[first:end] if o != "NOP")
    work, size = max(count["HMMA"], count["FFMA"]), max(1, sum(count.values()))
    name = os.path.basename(path)[:-6]
    level = int(re.search(r"-sm_(\d+)", name).group(1))
    kind, numbers, _ = max(tiles_of(kernel), key=lambda t: t[1][0] * t[1][1])
    tile = f"{kind[4:-5]} {numbers[0]}x{numbers[1]}x{numbers[4]}"
    line = "\t".join(map(str, [name, tile, len(ops), size, *(count[k] for k in KINDS), f"{work / size:.2f}"]))
    problem = complaint(kernel, level, count["HMMA"], work / size, sum(o.startswith("HMMA") for o, _ in ops))
    return line, problem and f"{name}: {problem}"


def main():
    disassembler, folder = sys.argv[1:3]
    print("kernel\ttile\tinstructions\tin the hottest loop\t" + "\t".join(KINDS) + "\tshare of HMMA or FFMA")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(lambda path: row(disassembler, path), sorted(glob.glob(os.path.join(folder, "*.cubin")))))
    for line, _ in rows:
        print(line)
    problems = [problem for _, problem in rows if problem]
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(len(problems) > 0)


if __name__ == "__main__":
    main()
