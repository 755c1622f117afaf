"""Numbers from a counter, the same bits in Python and in C (tests/support/draw.c): big test cases are a recipe, not a file.

Element i of the tensor NAME is drawn from z = splitmix64(fnv1a64(NAME) + (i + 1) * golden ratio):
floats are offset + scale * (z >> 40) / 2^23 - scale, uniform in offset +- scale; integers are offset + z % scale."""
import numpy as np

TORCH = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16", "I64": "int64", "I32": "int32"}


def fnv1a64(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def bits(name, count):
    z = np.uint64(fnv1a64(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def draw(name, dtype, shape, offset, scale):
    import torch
    z = bits(name, int(np.prod(shape, dtype=np.int64)))
    if dtype[0] == "I":
        values = offset + (z % np.uint64(scale)).astype(np.int64)
    else:
        values = offset + scale * ((z >> np.uint64(40)).astype(np.float64) / 2**23 - 1)
    return torch.from_numpy(values).reshape(tuple(shape)).to(getattr(torch, TORCH[dtype]))


def signs(name, count):
    """+1 or -1 for each element: a sum with these signs is the checksum of a tensor of which only samples are kept."""
    return 1.0 - 2.0 * (bits("sign of " + name, count) >> np.uint64(63)).astype(np.float64)


def sample_indices(name, count, n):
    return (bits("sample of " + name, n) % np.uint64(count)).astype(np.int64)
