"""Writes tests/data/ops.txt: every op of the table on small inputs, with results from NumPy and PyTorch in float64.

    python3 tests/reference/ops.py

A case: "case NAME", the text of a graph, a line "in NAME values..." an input, a line "out NAME values..." an output.
"""
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view

rng = np.random.default_rng(7)
lines = []
DTYPES = {"float64": "f64", "float32": "f32", "int64": "i64", "int32": "i32", "uint32": "u32", "bool": "bool"}
NAN, INF = math.nan, math.inf


class Named:
    """float64 numbers under the name of another dtype: as results they keep all their digits."""

    def __init__(self, array, dtype):
        self.array, self.dtype = np.asarray(array, np.float64), dtype


def F32(array):
    return Named(array, "f32")


def rounded(array, dtype):
    """What the 16-bit float next to each number stands for: an input."""
    half = {"bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    return Named(torch.tensor(array).to(half).to(torch.float64).numpy(), dtype)


def BF16(array):
    return rounded(array, "bf16")


def array_of(x):
    return x.array if isinstance(x, Named) else np.asarray(x)


def type_of(x):
    dtype = x.dtype if isinstance(x, Named) else DTYPES[array_of(x).dtype.name]
    return f"{dtype}[{','.join(map(str, array_of(x).shape))}]"


def number(v):
    if isinstance(v, (np.bool_, bool)):
        return str(int(v))
    if isinstance(v, np.integer):
        return str(int(v))
    text = repr(float(v))
    return text[:-2] if text.endswith(".0") else text


def values(x):
    return " ".join(number(v) for v in array_of(x).reshape(-1))


def raw(name, text, inputs, outputs):
    lines.append(f"case {name}")
    lines.append(text.strip("\n"))
    for kind, table in (("in", inputs), ("out", outputs)):
        for key, x in table.items():
            lines.append(f"{kind} {key} {values(x)}".rstrip())
    lines.append("")


def case(name, op, args, expect, attrs=""):
    """One node over inputs.  expect: an array whose dtype is that of the result."""
    text = [f'graph "{name}" {{']
    for i, x in enumerate(args):
        text.append(f'  %{i + 1} = input {{name="x{i}" role=data}} : {type_of(x)}')
    operands = ", ".join(f"%{i + 1}" for i in range(len(args)))
    text.append(f"  %{len(args) + 1} = {op} {operands}{' {' + attrs + '}' if attrs else ''} : {type_of(expect)}")
    text.append(f"  return y=%{len(args) + 1}\n}}")
    raw(f"{op}.{name}", "\n".join(text), {f"x{i}": x for i, x in enumerate(args)}, {"y": expect})


def f32(*shape, lo=-3.0, hi=3.0):
    return rng.uniform(lo, hi, shape).astype(np.float32)


def wide(x):
    return array_of(x).astype(np.float64)


def ints(*shape, lo=-9, hi=10, dtype=np.int32):
    return rng.integers(lo, hi, shape).astype(dtype)


def ilist(v):
    return "[" + ",".join(str(int(i)) for i in v) + "]"


SHAPES = [(1,), (3, 5), (2, 1, 7)]
SPECIAL = np.array([NAN, INF, -INF, -0.0, 0.0, 1.5, -2.5, 0.5], np.float32)


# ---- elementwise ----
UNARY = {
    "neg": (np.negative, -3, 3), "abs": (np.abs, -3, 3), "sign": (np.sign, -3, 3), "floor": (np.floor, -3, 3),
    "ceil": (np.ceil, -3, 3), "round": (np.round, -3, 3), "sqrt": (np.sqrt, 0.1, 4),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 0.1, 4), "exp": (np.exp, -4, 4), "expm1": (np.expm1, -3, 3),
    "log": (np.log, 0.1, 5), "log1p": (np.log1p, -0.9, 4), "sin": (np.sin, -6, 6), "cos": (np.cos, -6, 6),
    "atan": (np.arctan, -4, 4), "tanh": (np.tanh, -4, 4),
    "erf": (lambda x: torch.erf(torch.tensor(x)).numpy(), -3, 3), "stop": (lambda x: x, -3, 3),
}


def elementwise():
    for op, (fn, lo, hi) in UNARY.items():
        for shape in SHAPES:
            x = f32(*shape, lo=lo, hi=hi)
            case("x".join(map(str, shape)), op, [x], F32(fn(wide(x))))
        case("special", op, [SPECIAL], F32(fn(wide(SPECIAL))))
        x = f32(4, lo=lo, hi=hi).astype(np.float64)
        case("f64", op, [x], fn(x))
    edge32 = np.array([-(2**31), -1, 0, 1, 2**31 - 1], np.int32)
    edge64 = np.array([-(2**63), -1, 0, 1, 2**63 - 1], np.int64)
    for edge in (edge32, edge64):
        kind = DTYPES[edge.dtype.name]
        case(f"wrap_{kind}", "neg", [edge], np.negative(edge))
        case(f"wrap_{kind}", "abs", [edge], np.abs(edge))
        case(kind, "sign", [edge], np.sign(edge))
    case("bool", "not", [np.array([True, False, True])], np.array([False, True, False]))
    case("i32", "not", [edge32], ~edge32)
    case("u32", "not", [np.array([[0, 5, 2**32 - 1]], np.uint32)], np.array([[2**32 - 1, 2**32 - 6, 0]], np.uint32))
    for op, fn in {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum,
                   "min": np.minimum}.items():
        for shape in SHAPES:
            x, y = f32(*shape), f32(*shape, lo=0.2)
            case("x".join(map(str, shape)), op, [x, y], F32(fn(wide(x), wide(y))))
        a, b = (g.reshape(-1).astype(np.float32) for g in np.meshgrid(SPECIAL, SPECIAL))
        case("special", op, [a, b], F32(fn(wide(a), wide(b))))
        if op == "div":
            continue
        for edge in (edge32, edge64, np.array([0, 1, 7, 2**31, 2**32 - 1], np.uint32)):
            a, b = (g.reshape(-1) for g in np.meshgrid(edge, edge))
            case(f"wrap_{DTYPES[edge.dtype.name]}", op, [a, b], fn(a, b))
    a = np.array([7, -7, 7, -7, 5, -(2**31), -(2**31)], np.int32)
    b = np.array([2, 2, -2, -2, 0, -1, 0], np.int32)
    case("towards_zero", "div", [a, b], np.array([3, -3, -3, 3, 0, -(2**31), 0], np.int32))
    case("i32", "rem", [a, b], np.array([1, -1, 1, -1, 0, 0, 0], np.int32))
    case("i64", "rem", [a.astype(np.int64), b.astype(np.int64)], np.array([1, -1, 1, -1, 0, 0, 0], np.int64))
    u = np.array([2**32 - 1, 10, 3], np.uint32)
    case("u32", "rem", [u, np.array([16, 3, 0], np.uint32)], np.array([15, 1, 0], np.uint32))
    case("u32", "div", [u, np.array([2, 3, 0], np.uint32)], np.array([2**31 - 1, 3, 0], np.uint32))
    t = np.array([0, 0, 1, 1], bool)
    s = np.array([0, 1, 0, 1], bool)
    for op, fn in {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}.items():
        case("bool", op, [t, s], fn(t, s))
        a, b = ints(3, 5, lo=-99, hi=99), ints(3, 5, lo=-99, hi=99)
        case("i32", op, [a, b], fn(a, b))
        case("u32", op, [a.astype(np.uint32), b.astype(np.uint32)], fn(a.astype(np.uint32), b.astype(np.uint32)))
    a = np.array([1, -5, 3, 2**31 - 1, -1, -8, 6], np.int32)
    b = np.array([31, 2, 32, 1, 40, -1, 0], np.int32)
    wrapped = lambda v: np.array([int(i) & 0xFFFFFFFF for i in v], np.uint32).view(np.int32)
    past = lambda y: y < 0 or y >= 32
    case("i32", "shl", [a, b], wrapped([0 if past(y) else int(x) << int(y) for x, y in zip(a, b)]))
    case("i32", "shr", [a, b], np.array([(-1 if x < 0 else 0) if past(y) else int(x) >> int(y) for x, y in zip(a, b)], np.int32))
    ua, ub = a.view(np.uint32), np.array([31, 2, 32, 1, 40, 7, 0], np.uint32)
    case("u32", "shl", [ua, ub], np.array([(0 if y >= 32 else int(x) << int(y)) & 0xFFFFFFFF for x, y in zip(ua, ub)], np.uint32))
    case("u32", "shr", [ua, ub], np.array([0 if y >= 32 else int(x) >> int(y) for x, y in zip(ua, ub)], np.uint32))
    la, lb = a.astype(np.int64) * 2**31, b.astype(np.int64) + 1
    case("i64", "shl", [la, lb], np.array([0 if y < 0 or y >= 64 else np.int64(x) << np.int64(y) for x, y in zip(la, lb)], np.int64))
    case("i64", "shr", [la, lb], np.array([(-1 if x < 0 else 0) if y < 0 or y >= 64 else int(x) >> int(y) for x, y in zip(la, lb)], np.int64))
    for op, fn in {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
                   "ge": np.greater_equal}.items():
        a, b = (g.reshape(-1).astype(np.float32) for g in np.meshgrid(SPECIAL, SPECIAL))
        case("special", op, [a, b], fn(a, b))
        a, b = ints(2, 1, 7, lo=-2, hi=3), ints(2, 1, 7, lo=-2, hi=3)
        case("i32", op, [a, b], fn(a, b))
        a, b = np.array([2**53, 2**53 + 1], np.int64), np.array([2**53 + 1, 2**53], np.int64)
        case("i64", op, [a, b], fn(a, b))
        u, v = np.array([0, 2**31, 2**32 - 1], np.uint32), np.array([1, 2**31, 5], np.uint32)
        case("u32", op, [u, v], fn(u, v))
    for shape in SHAPES:
        c, x, y = rng.random(shape) < 0.5, f32(*shape), f32(*shape)
        case("x".join(map(str, shape)), "select", [c, x, y], np.where(c, x, y))
        x, y, z = f32(*shape), f32(*shape), f32(*shape)
        case("x".join(map(str, shape)), "fma", [x, y, z], F32(wide(x) * wide(y) + wide(z)))
    c = np.array([1, 0, 1], bool)
    case("nan_not_taken", "select", [c, np.array([1, NAN, 3], np.float32), np.array([NAN, 5, NAN], np.float32)], np.array([1, 5, 3], np.float32))
    case("i64", "select", [c, np.array([1, 2, 3]), np.array([4, 5, 6])], np.array([1, 5, 3]))
    case("bool", "select", [c, c, ~c], np.array([1, 1, 1], bool))


def halves():
    """16-bit floats compute wider and round once."""
    for dtype in ("bf16", "f16"):
        x, y, z = (rounded(f32(3, 5, lo=0.2), dtype) for _ in range(3))
        for op in ("exp", "tanh", "rsqrt", "log", "erf", "neg"):
            case(dtype, op, [x], Named(UNARY[op][0](x.array), dtype))
        for op, fn in {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum}.items():
            case(dtype, op, [x, y], Named(fn(x.array, y.array), dtype))
        case(dtype, "lt", [x, y], x.array < y.array)
        case(dtype, "fma", [x, y, z], Named(x.array * y.array + z.array, dtype))
        case(dtype, "select", [x.array > 1, x, y], Named(np.where(x.array > 1, x.array, y.array), dtype))
        case(dtype, "sum", [x], Named(x.array.sum(1, keepdims=True), dtype), "axes=[1]")
        case(dtype, "reduce_max", [x], Named(x.array.max(0, keepdims=True), dtype), "axes=[0]")
        case(dtype, "argmax", [x], np.argmax(x.array, 1, keepdims=True).astype(np.int32), "axis=1")
        case(dtype, "cumsum", [x], Named(x.array.cumsum(0), dtype), "axis=0 exclusive=0 reverse=0")
        case(dtype, "transpose", [x], Named(x.array.T, dtype), "perm=[1,0]")
        case(dtype, "pad", [x], Named(np.pad(x.array, 1, constant_values=0.5), dtype), "lo=[1,1] hi=[1,1] fill=0.5")
        contract(f"{dtype}_{dtype}", x, y, "a c, b c -> a b | c=5", Named(x.array @ y.array.T, dtype))
        contract(f"{dtype}_f32", x, y, "a c, b c -> a b | c=5", F32(x.array @ y.array.T))
        case(f"{dtype}_to_f32", "cast", [x], F32(x.array), "to=f32")
        case(f"{dtype}_to_i32", "cast", [x], x.array.astype(np.int32), "to=i32")
        whole = ints(4, lo=-2000, hi=2000)
        case(f"i32_to_{dtype}", "cast", [whole], rounded(whole, dtype), f"to={dtype}")
        case(f"f32_to_{dtype}_ties", "cast", [TIES], rounded(TIES, dtype), f"to={dtype}")


TIES = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1 + 3 * 2**-11, 65519, 65520, 2**-25, 3 * 2**-25, 257, 259, 2049, 2051, INF], np.float32)


# ---- casts ----
def saturate(x, dtype):
    info = np.iinfo(dtype)
    return np.array([0 if math.isnan(v) else info.max if v >= info.max else info.min if v <= info.min else int(v) for v in x], dtype)


def casts():
    x = np.array([NAN, INF, -INF, 1.9, -1.9, 3e9, -3e9, 5e18, 1e19, -1e19, -0.0, 4294967040.0, 2147483520.0], np.float32)
    for dtype in (np.int32, np.int64, np.uint32):
        kind = DTYPES[np.dtype(dtype).name]
        case(f"f32_to_{kind}", "cast", [x], saturate(x, dtype), f"to={kind}")
        case(f"f64_to_{kind}", "cast", [x.astype(np.float64)], saturate(x, dtype), f"to={kind}")
    case("f32_to_bool", "cast", [x], x != 0, "to=bool")
    x = f32(3, 5) * 1e3
    case("f32_to_bf16", "cast", [x], BF16(x), "to=bf16")
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, 1e-40, 257, 259, NAN, INF], np.float32)
    case("ties_to_bf16", "cast", [ties], BF16(ties), "to=bf16")
    case("f64_to_f32", "cast", [np.array([1 / 3, 1e300, -1e-300, 16777217])],
         np.array([1 / 3, 1e300, -1e-300, 16777217]).astype(np.float32), "to=f32")
    big = np.array([2**53 + 1, 2**24 + 1, -(2**24) - 3, 2**62 + 2**38 + 1, 2**63 - 1], np.int64)
    case("i64_to_f32", "cast", [big], big.astype(np.float32), "to=f32")
    case("i64_to_f64", "cast", [big], big.astype(np.float64), "to=f64")
    case("i64_to_i32", "cast", [big], big.astype(np.int32), "to=i32")
    case("i64_to_bool", "cast", [np.array([0, 2, -256])], np.array([0, 1, 1], bool), "to=bool")
    case("i32_to_u32", "cast", [np.array([-1, 5], np.int32)], np.array([2**32 - 1, 5], np.uint32), "to=u32")
    case("u32_to_i64", "cast", [np.array([2**32 - 1, 5], np.uint32)], np.array([2**32 - 1, 5]), "to=i64")
    case("bool_to_f32", "cast", [np.array([[True], [False]])], np.array([[1], [0]], np.float32), "to=f32")
    x = f32(2, 3)
    case("f32_to_i32", "bitcast", [x], x.view(np.int32), "to=i32")
    case("i32_to_f32", "bitcast", [x.view(np.int32)], x, "to=f32")
    case("f32_to_u32", "bitcast", [x[:1, :1]], x[:1, :1].view(np.uint32), "to=u32")
    case("f64_to_i64", "bitcast", [wide(x)], wide(x).view(np.int64), "to=i64")


# ---- reductions, orders ----
def reductions():
    shapes = [((7,), (0,)), ((3, 5), (1,)), ((2, 1, 7), (0, 2)), ((2, 3, 1, 4), (1, 2)), ((1, 1), (0, 1))]
    ties = np.array([[1, 3, 3, -1], [2, 2, 0, 2], [-INF, INF, INF, 0], [0.0, NAN, 5, NAN]], np.float32)
    for op, fn in {"sum": np.sum, "reduce_max": np.max, "reduce_min": np.min}.items():
        for shape, axes in shapes:
            x = f32(*shape)
            case("x".join(map(str, shape)), op, [x], F32(fn(wide(x), axis=axes, keepdims=True)), f"axes={ilist(axes)}")
        case("special", op, [ties], F32(fn(wide(ties), axis=1, keepdims=True)), "axes=[1]")
        x = ints(3, 4, lo=2**30, hi=2**31 - 1)
        with np.errstate(over="ignore"):
            case("i32", op, [x], fn(x, axis=0, keepdims=True, **({"dtype": np.int32} if op == "sum" else {})), "axes=[0]")
        x = np.array([[2**53, 2**53 + 1, 2**53 + 3]], np.int64)
        case("i64", op, [x], fn(x, axis=1, keepdims=True), "axes=[1]")
    for name, x, axis in [("3x5", f32(3, 5), 1), ("2x1x7", f32(2, 1, 7), 0), ("size1", f32(2, 1), 1), ("ties", ties, 1),
                          ("i32", ints(4, 3, lo=0, hi=3), 0)]:
        case(name, "argmax", [x], np.argmax(x, axis=axis, keepdims=True).astype(np.int32), f"axis={axis}")
        for descending in (0, 1):
            order = np.argsort(-x if descending else x, axis=axis, kind="stable").astype(np.int32)
            case(f"{name}_{descending}", "argsort", [x], order, f"axis={axis} descending={descending}")
        for exclusive in (0, 1):
            for reverse in (0, 1):
                y = wide(x)
                y = np.flip(y, axis) if reverse else y
                total = np.cumsum(y, axis=axis)
                if exclusive:
                    total = np.concatenate([np.zeros_like(total.take([0], axis)), total.take(range(total.shape[axis] - 1), axis)], axis)
                total = np.flip(total, axis) if reverse else total
                expect = total.astype(np.int32) if x.dtype == np.int32 else F32(total)
                case(f"{name}_{exclusive}{reverse}", "cumsum", [x], expect, f"axis={axis} exclusive={exclusive} reverse={reverse}")


# ---- leaves and shapes ----
def leaf(name, op, attrs, expect):
    raw(f"{op}.{name}", f'graph "{name}" {{\n  %1 = {op} {{{attrs}}} : {type_of(expect)}\n  return y=%1\n}}', {}, {"y": expect})


def shapes():
    leaf("f32", "const", "value=0.1", F32(np.full((2, 3), 0.1)))
    leaf("i64", "const", "value=-7", np.full((1,), -7))
    leaf("nan", "const", "value=nan", np.full((2,), NAN))
    leaf("f32", "literal", "data=[1,-2.5,inf,nan]", F32([[1, -2.5], [INF, NAN]]))
    leaf("i32", "literal", "data=[-2147483648,2147483647]", np.array([-(2**31), 2**31 - 1], np.int32))
    leaf("bool", "literal", "data=[1,0,1]", np.array([[1, 0, 1]], bool))
    leaf("f32", "iota", "axis=1", F32(np.broadcast_to(np.arange(5), (3, 5))))
    leaf("i32", "iota", "axis=0", np.broadcast_to(np.arange(3)[:, None, None], (3, 1, 2)).astype(np.int32))
    leaf("i64", "iota", "axis=2", np.broadcast_to(np.arange(4), (1, 2, 4)).astype(np.int64))
    for a, b in [((1,), (4,)), ((3, 1, 5), (3, 2, 5)), ((1, 1), (1, 3)), ((2, 1), (2, 1))]:
        x = f32(*a)
        case("x".join(map(str, b)), "broadcast", [x], np.broadcast_to(x, b), f"shape={ilist(b)}")
    for a, b in [((6,), (2, 3)), ((2, 3, 1), (3, 2)), ((1,), ())]:
        x = f32(*a)
        case("to_" + "x".join(map(str, b)), "reshape", [x], x.reshape(b), f"shape={ilist(b)}")
    for a, perm in [((2, 3), (1, 0)), ((2, 1, 5), (2, 0, 1)), ((2, 3, 4, 5), (0, 2, 3, 1))]:
        x = f32(*a)
        case("x".join(map(str, a)), "transpose", [x], x.transpose(perm), f"perm={ilist(perm)}")
    x = ints(3, 4, dtype=np.int64)
    case("i64", "transpose", [x], x.T, "perm=[1,0]")
    for a, start, limit, stride in [((7,), (1,), (6,), (2,)), ((3, 5), (0, 2), (3, 5), (1, 3)), ((2, 1, 4), (1, 0, 0), (2, 1, 4), (1, 1, 4))]:
        x = f32(*a)
        y = x[tuple(slice(*t) for t in zip(start, limit, stride))]
        case("x".join(map(str, a)), "slice", [x], y, f"start={ilist(start)} limit={ilist(limit)} stride={ilist(stride)}")
    for a, lo, hi, fill in [((3,), (2,), (0,), 0.5), ((2, 3), (1, 0), (1, 2), NAN), ((1, 1, 2), (0, 1, 0), (0, 0, 3), -1)]:
        x = f32(*a)
        y = np.pad(x, list(zip(lo, hi)), constant_values=fill)
        case("x".join(map(str, a)), "pad", [x], y, f"lo={ilist(lo)} hi={ilist(hi)} fill={number(fill)}")
    x = ints(2)
    case("i32", "pad", [x], np.pad(x, 1, constant_values=7), "lo=[1] hi=[1] fill=7")
    for parts, axis in [([(2,), (3,)], 0), ([(2, 1), (2, 4), (2, 2)], 1), ([(1, 3, 2)], 2), ([(1, 2), (2, 2)], 0)]:
        xs = [f32(*s) for s in parts]
        case(f"{len(parts)}_axis{axis}_{parts[0][0]}", "concat", xs, np.concatenate(xs, axis), f"axis={axis}")
    for a, axes in [((5,), (0,)), ((3, 4), (0, 1)), ((2, 1, 3), (1, 2))]:
        x = f32(*a)
        case("x".join(map(str, a)), "reverse", [x], np.flip(x, axes), f"axes={ilist(axes)}")


def windows():
    for a, axis, size, step, dilation, pad, count, fill in [
            ((7,), 0, 3, 1, 1, 1, 7, 0), ((2, 9, 3), 1, 3, 2, 2, 2, 4, -INF), ((1, 5), 1, 1, 1, 1, 0, 5, 0), ((4, 2), 0, 2, 3, 1, 0, 2, 9)]:
        x = f32(*a)
        attrs = f"axis={axis} size={size} step={step} dilation={dilation} pad={pad} count={count}"
        right = max(0, (count - 1) * step + (size - 1) * dilation + 1 - pad - a[axis])
        span = (size - 1) * dilation + 1
        widths = [(0, 0)] * len(a)
        widths[axis] = (pad, right)
        view = sliding_window_view(np.pad(x, widths, constant_values=fill), span, axis)
        view = view.take(range(0, count * step, step), axis)[..., ::dilation]
        case("x".join(map(str, a)), "window", [x], view, attrs + f" fill={number(fill)}")
        t = torch.zeros(a, dtype=torch.float64, requires_grad=True)
        torch_pad = [p for w in reversed(widths) for p in w]
        y = F.pad(t, torch_pad).unfold(axis, span, step).narrow(axis, 0, count)[..., ::dilation]
        g = f32(*view.shape)
        (y * torch.tensor(g)).sum().backward()
        attrs = f"axis={axis} step={step} dilation={dilation} pad={pad} count={a[axis]}"
        case("x".join(map(str, a)), "fold", [g], F32(t.grad.numpy()), attrs)


def indexing():
    for a, axis, size in [((7,), 0, 3), ((2, 5), 1, 2), ((3, 1, 2), 0, 1)]:
        for start in (-4, 1, 99):
            x, u = f32(*a), f32(*[size if i == axis else d for i, d in enumerate(a)])
            at = min(max(start, 0), a[axis] - size)
            where = tuple(slice(at, at + size) if i == axis else slice(None) for i in range(len(a)))
            index = np.array(start, np.int32)
            name = "x".join(map(str, a)) + f"_at_{start}"
            case(name, "dyn_slice", [x, index], x[where], f"axis={axis} size={size}")
            y = x.copy()
            y[where] = u
            case(name, "dyn_update", [x, u, index], y, f"axis={axis}")
    for xs, ishape, batch, dtype in [((5,), (3,), 0, np.int32), ((4, 3), (2, 2), 0, np.int64), ((2, 4, 3), (2, 5), 1, np.int32),
                                     ((2, 1, 6), (2, 1), 2, np.int32), ((3, 2), (), 0, np.int64)]:
        x = f32(*xs)
        idx = rng.integers(-1, xs[batch] + 1, ishape).astype(dtype)
        outer = xs[:batch]
        rows = ishape[batch:]
        y = np.zeros(ishape + xs[batch + 1:])
        base, upd = f32(*xs), f32(*(ishape + xs[batch + 1:]))
        total = wide(base)
        for b in np.ndindex(*outer):
            for r in np.ndindex(*rows):
                i = int(idx[b + r])
                if 0 <= i < xs[batch]:
                    y[b + r] = x[b + (i,)]
                    total[b + (i,)] += upd[b + r]
        name = "x".join(map(str, xs)) + f"_{len(ishape)}"
        case(name, "gather", [x, idx], F32(y), f"batch={batch}")
        case(name, "scatter_add", [base, idx, upd], F32(total), f"batch={batch}")


# ---- contractions ----
def contract(name, a, b, spec, expect):
    case(name, "contract", [a, b], expect, f'spec="{spec}"')


def t64(x):
    return torch.tensor(wide(x))


def index(loop, stride, tap, dilation, pad):
    left = loop if stride == 1 else f"{stride}*{loop}"
    right = tap if dilation == 1 else f"{dilation}*{tap}"
    return f"{left}+{right}" + (f"-{pad}" if pad else "")


def contractions():
    for m, k, n in [(1, 1, 1), (3, 5, 2), (4, 1, 7)]:
        a, b = f32(m, k), f32(k, n)
        contract(f"matmul_{m}x{k}x{n}", a, b, f"a c, c b -> a b | c={k}", F32(wide(a) @ wide(b)))
        a, b = f32(2, m, k), f32(2, n, k)
        contract(f"batched_{m}x{k}x{n}", a, b, f"a b d, a c d -> a b c | d={k}", F32(np.einsum("abd,acd->abc", wide(a), wide(b))))
    a, b = f32(3, 4), f32(3, 4)
    contract("dot", a, b, "a b, a b -> | a=3 b=4", F32(np.sum(wide(a) * wide(b))))
    contract("outer", a[0], b[1], "a, b -> a b", F32(np.outer(wide(a[0]), wide(b[1]))))
    contract("matmul_bf16", BF16(a), BF16(b), "a c, b c -> a b | c=4", F32(BF16(a).array @ BF16(b).array.T))
    contract("matmul_f64", wide(a), wide(b), "a c, b c -> a b | c=4", wide(a) @ wide(b).T)
    for n, l, c, o, k, s, d, p in [(2, 7, 3, 4, 3, 1, 1, 1), (1, 9, 2, 1, 3, 2, 2, 2), (2, 5, 1, 3, 1, 1, 1, 0), (1, 4, 2, 2, 5, 1, 3, 6)]:
        x, w = f32(n, l, c), f32(k, c, o)  # channels last
        tx, tw = t64(x).permute(0, 2, 1).requires_grad_(), t64(w).permute(2, 1, 0).requires_grad_()
        y = F.conv1d(tx, tw, stride=s, dilation=d, padding=p)
        lo = y.shape[2]
        name = f"l{l}_k{k}_s{s}_d{d}_p{p}"
        contract("conv1d_" + name, x, w, f"a {index('b', s, 'd', d, p)} e, d e c -> a b c | d={k} e={c}", F32(y.detach().permute(0, 2, 1).numpy()))
        g = f32(n, lo, o)
        y.backward(t64(g).permute(0, 2, 1))
        back = f"(b-{d}*d+{p})/{s}" if s > 1 else f"b-{d}*d+{p}"
        contract("conv1d_dx_" + name, g, w, f"a {back} e, d c e -> a b c | d={k} e={o}", F32(tx.grad.permute(0, 2, 1).numpy()))
        weight = index("a", d, "e", s, p)
        contract("conv1d_dw_" + name, x, g, f"d {weight} b, d e c -> a b c | d={n} e={lo}", F32(tw.grad.permute(2, 1, 0).numpy()))
    x, w = f32(2, 6, 2, 3), f32(3, 2, 3, 2)  # two groups of channels
    tx = t64(x).reshape(2, 6, 6).permute(0, 2, 1)
    tw = t64(w).permute(1, 3, 2, 0).reshape(4, 3, 3)
    y = F.conv1d(tx, tw, groups=2, padding=1).permute(0, 2, 1).reshape(2, 6, 2, 2)
    contract("conv1d_groups", x, w, "a b+e-1 c f, e c f d -> a b c d | e=3 f=3", F32(y.numpy()))
    x, w = f32(2, 3, 8), f32(4, 3, 3)  # channels first
    y = F.conv1d(t64(x), t64(w), stride=2, padding=1)
    contract("conv1d_ncl", x, w, "a d 2*c+e-1, b d e -> a b c | d=3 e=3", F32(y.numpy()))
    x, w = f32(1, 5, 6, 2), f32(3, 3, 2, 3)
    y = F.conv2d(t64(x).permute(0, 3, 1, 2), t64(w).permute(3, 2, 0, 1), stride=2, padding=1)
    contract("conv2d", x, w, "a 2*b+e-1 2*c+f-1 g, e f g d -> a b c d | e=3 f=3 g=2", F32(y.permute(0, 2, 3, 1).numpy()))
    y = F.conv2d(t64(x).permute(0, 3, 1, 2), t64(w).permute(3, 2, 0, 1), dilation=(2, 1))
    contract("conv2d_dilated", x, w, "a b+2*e c+f g, e f g d -> a b c d | e=3 f=3 g=2", F32(y.permute(0, 2, 3, 1).numpy()))
    x, w = f32(2, 3, 3, 2), f32(2, 2, 2, 3)
    y = F.conv_transpose2d(t64(x).permute(0, 3, 1, 2), t64(w).permute(2, 3, 0, 1), stride=2)
    contract("conv2d_transposed", x, w, "a (b-e)/2 (c-f)/2 g, e f g d -> a b c d | e=2 f=2 g=2", F32(y.permute(0, 2, 3, 1).numpy()))
    x, w = f32(1, 3, 4, 3, 2), f32(2, 2, 2, 2, 2)
    y = F.conv3d(t64(x).permute(0, 4, 1, 2, 3), t64(w).permute(4, 3, 0, 1, 2), padding=1)
    contract("conv3d", x, w, "a b+f-1 c+g-1 d+h-1 i, f g h i e -> a b c d e | f=2 g=2 h=2 i=2", F32(y.permute(0, 2, 3, 4, 1).numpy()))


# ---- randomness, regions, kernels ----
def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def randomness():
    # known answers of Random123 (kat_vectors)
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox([2**32 - 1] * 4, [2**32 - 1] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert philox([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0]) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
    for shape in [(1, 4), (2, 7), (3, 2, 5)]:
        key = rng.integers(0, 2**32, 2).astype(np.uint32) if shape[0] > 1 else np.zeros(2, np.uint32)
        rows = rng.integers(0, 2**32, (shape[0], 3)).astype(np.uint32) if shape[0] > 1 else np.zeros((1, 3), np.uint32)
        count = int(np.prod(shape[1:]))
        y = [[philox([e // 4, *map(int, r)], map(int, key))[e % 4] for e in range(count)] for r in rows]
        case("x".join(map(str, shape)), "random", [key, rows], np.array(y, np.uint32).reshape(shape), f"shape={ilist(shape)}")


def regions():
    x, w = f32(2, 3), f32(2, 3)
    block = '''    @1 "block" {
      %1 = input {name="a" role=data} : f32[2,3]
      %2 = input {name="b" role=data} : f32[2,3]
      %3 = mul %1, %2 : f32[2,3]
      %4 = add %3, %1 : f32[2,3]
      return y=%4, p=%3
    }'''
    y1 = wide(x) * wide(w) + wide(x)
    raw("call.twice", f'''graph "twice" {{
  %1 = input {{name="x" role=data}} : f32[2,3]
  %2 = input {{name="w" role=param}} : f32[2,3]
  %3 = call %1, %2 {{graph=@1}} : (f32[2,3], f32[2,3])
{block}
  %4 = pick %3 {{index=0}} : f32[2,3]
  %5 = call %4, %2 {{graph=@1}} : (f32[2,3], f32[2,3])
  %6 = pick %5 {{index=0}} : f32[2,3]
  %7 = pick %5 {{index=1}} : f32[2,3]
  return y=%6, p=%7
}}''', {"x": x, "w": w}, {"y": F32(y1 * wide(w) + y1), "p": F32(y1 * wide(w))})
    raw("fuse.one", f'''graph "one" {{
  %1 = input {{name="x" role=data}} : f32[2,3]
  %2 = fuse %1, %1 {{graph=@1 kind=0}} : (f32[2,3], f32[2,3])
{block}
  %3 = pick %2 {{index=0}} : f32[2,3]
  return y=%3
}}''', {"x": x}, {"y": F32(wide(x) ** 2 + wide(x))})
    c, s, k = f32(2), f32(4, 2), f32(2)
    carried, stack = wide(c), []
    for row in wide(s):
        carried = carried * row + wide(k)
        stack.append(carried * 2)
    raw("loop.scan", '''graph "scan" {
  %1 = input {name="c" role=data} : f32[2]
  %2 = input {name="s" role=data} : f32[4,2]
  %3 = input {name="k" role=data} : f32[2]
  %4 = loop %1, %2, %3 {graph=@1 trip=4 carry=1 scan=1} : (f32[2], f32[4,2])
    @1 "body" {
      %1 = input {name="c" role=data} : f32[2]
      %2 = input {name="s" role=data} : f32[2]
      %3 = input {name="k" role=data} : f32[2]
      %4 = mul %1, %2 : f32[2]
      %5 = add %4, %3 : f32[2]
      %6 = add %5, %5 : f32[2]
      return c=%5, y=%6
    }
  %5 = pick %4 {index=0} : f32[2]
  %6 = pick %4 {index=1} : f32[4,2]
  return c=%5, y=%6
}''', {"c": c, "s": s, "k": k}, {"c": F32(carried), "y": F32(np.array(stack))})
    raw("loop.fibonacci", '''graph "fibonacci" {
  %1 = input {name="a" role=data} : i32[]
  %2 = input {name="b" role=data} : i32[]
  %3 = loop %1, %2 {graph=@1 trip=10 carry=2 scan=0} : (i32[], i32[], i32[10])
    @1 "body" {
      %1 = input {name="a" role=data} : i32[]
      %2 = input {name="b" role=data} : i32[]
      %3 = add %1, %2 : i32[]
      return a=%2, b=%3, seen=%1
    }
  %4 = pick %3 {index=1} : i32[]
  %5 = pick %3 {index=2} : i32[10]
  return b=%4, seen=%5
}''', {"a": np.array(0, np.int32), "b": np.array(1, np.int32)},
        {"b": np.array(89, np.int32), "seen": np.array([0, 1, 1, 2, 3, 5, 8, 13, 21, 34], np.int32)})
    raw("loop.never", '''graph "never" {
  %1 = input {name="a" role=data} : f32[2]
  %2 = loop %1 {graph=@1 trip=0 carry=1 scan=0} : (f32[2])
    @1 "body" {
      %1 = input {name="a" role=data} : f32[2]
      %2 = neg %1 : f32[2]
      return a=%2
    }
  %3 = pick %2 {index=0} : f32[2]
  return y=%3
}''', {"a": x[0, :2]}, {"y": x[0, :2]})
    raw("host.double", '''graph "double" {
  %1 = input {name="x" role=data} : f32[2,3]
  %2 = host %1 {name="double"} : f32[2,3]
  return y=%2
}''', {"x": x}, {"y": F32(2 * wide(x))})


def kernels():
    x = f32(3, 7)
    raw("kernel.softplus_rows", '''graph "rows" {
  %1 = input {name="x" role=data} : f32[3,7]
  %2 = kernel %1 {graph=@1} : (f32[3,7], f32[3])
    @1 {
      %1 = buf {name="p0" role=in index=0} : f32[3,7]
      %2 = buf {name="p1" role=out index=1} : f32[3,7]
      %3 = buf {name="p2" role=out index=2} : f32[3]
      %4 = for {kind=parallel nums=[0,3,1]} : i64[]
        %5 = acc {value=0 kind=add} : f32[]
        %6 = const {value=7} : i64[]
        %7 = mul %4, %6 : i64[]
        %8 = for {kind=vector nums=[0,7,1]} : i64[]
          %9 = add %7, %8 : i64[]
          %10 = load %1, %9 : f32[]
          %11 = exp %10 : f32[]
          %12 = log1p %11 : f32[]
          %13 = store %2, %9, %12
          %14 = acc_update %5, %12
        %15 = end %8
        %16 = acc_get %5 : f32[]
        %17 = const {value=0} : i64[]
        %18 = gt %4, %17 : bool[]
        %19 = if %18
          %20 = store %3, %4, %16
        %21 = end %19
        %22 = not %18 : bool[]
        %23 = if %22
          %24 = neg %16 : f32[]
          %25 = store %3, %4, %24
        %26 = end %23
      %27 = end %4
    }
  %3 = pick %2 {index=0} : f32[3,7]
  %4 = pick %2 {index=1} : f32[3]
  return y=%3, s=%4
}''', {"x": x}, {"y": F32(np.log1p(np.exp(wide(x)))), "s": F32(np.log1p(np.exp(wide(x))).sum(1) * [-1, 1, 1])})
    a, b = f32(3, 5), f32(5, 4)
    raw("kernel.tile", '''graph "tile" {
  %1 = input {name="a" role=data} : f32[3,5]
  %2 = input {name="b" role=data} : f32[5,4]
  %3 = kernel %1, %2 {graph=@1} : (f32[3,4])
    @1 {
      %1 = buf {name="p0" role=in index=0} : f32[3,5]
      %2 = buf {name="p1" role=in index=1} : f32[5,4]
      %3 = buf {name="p2" role=out index=2} : f32[3,4]
      %4 = for {kind=parallel nums=[0,1,1]} : i64[]
        %5 = tile {mr=3 nr=4} : f32[3,4]
        %6 = const {value=0} : i64[]
        %7 = const {value=3} : i64[]
        %8 = const {value=5} : i64[]
        %9 = tile_contract %5, %1, %2, %6, %6, %6, %7, %8 {nums=[1,1,0,5,1,4,1,0]}
        %10 = for {kind=row nums=[0,3,1]} : i64[]
          %11 = const {value=4} : i64[]
          %12 = mul %10, %11 : i64[]
          %13 = for {kind=vector nums=[0,4,1]} : i64[]
            %14 = tile_get %5, %10, %13 : f32[]
            %15 = add %12, %13 : i64[]
            %16 = store %3, %15, %14
          %17 = end %13
        %18 = end %10
      %19 = end %4
    }
  %4 = pick %3 {index=0} : f32[3,4]
  return y=%4
}''', {"a": a, "b": b}, {"y": F32(wide(a) @ wide(b))})
    key = [0x12345678, 0x9ABCDEF0]
    raw("kernel.philox", '''graph "philox" {
  %1 = input {name="key" role=data} : u32[2]
  %2 = kernel %1 {graph=@1} : (u32[4])
    @1 {
      %1 = buf {name="p0" role=in index=0} : u32[2]
      %2 = buf {name="p1" role=out index=1} : u32[4]
      %3 = for {kind=parallel nums=[0,4,1]} : i64[]
        %4 = const {value=0} : i64[]
        %5 = const {value=1} : i64[]
        %6 = load %1, %4 : u32[]
        %7 = load %1, %5 : u32[]
        %8 = cast %3 {to=u32} : u32[]
        %9 = const {value=5} : u32[]
        %10 = philox %6, %7, %8, %9, %9, %9 {index=2} : u32[]
        %11 = store %2, %3, %10
      %12 = end %3
    }
  %3 = pick %2 {index=0} : u32[4]
  return y=%3
}''', {"key": np.array(key, np.uint32)}, {"y": np.array([philox([i, 5, 5, 5], key)[2] for i in range(4)], np.uint32)})
    x = F32(np.array([-3.25, 0.75, 5.5, 0.0]))
    raw("kernel.exp2", '''graph "exp2" {
  %1 = input {name="x" role=data} : f32[4]
  %2 = kernel %1 {graph=@1} : (f32[4])
    @1 {
      %1 = buf {name="p0" role=in index=0} : f32[4]
      %2 = buf {name="p1" role=out index=1} : f32[4]
      %3 = for {kind=parallel nums=[0,4,1]} : i64[]
        %4 = load %1, %3 : f32[]
        %5 = exp2 %4 {to=f32} : f32[]
        %6 = store %2, %3, %5
      %7 = end %3
    }
  %3 = pick %2 {index=0} : f32[4]
  return y=%3
}''', {"x": x}, {"y": F32(np.exp2(wide(x)))})


def main():
    with np.errstate(all="ignore"):
        for part in (elementwise, halves, casts, reductions, shapes, windows, indexing, contractions, randomness, regions, kernels):
            part()
    tests = pathlib.Path(__file__).resolve().parent.parent
    (tests / "data" / "ops.txt").write_text("\n".join(lines))


main()
