#!/usr/bin/env python3
"""Writes tests/data/op_values.ir and tests/data/op_values.safetensors: small graphs in IR text, at least one for every op of ir/ops.def,
with inputs and expected outputs from NumPy and PyTorch in f64 (tensors CASE/INPUT and CASE/OUTPUT).  Where a float output is
expected its tensor is F64 and the program's answer may differ by rounding; everything else must be equal."""
import os

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")
NAMES = {"float64": "f64", "float32": "f32", "int64": "i64", "int32": "i32", "uint32": "u32", "bool": "bool"}
rng = np.random.default_rng(20)
texts, tensors = [], {}


class Case:
    """One graph, built line by line; values are numbers of lines."""

    def __init__(self, name):
        self.name, self.lines, self.outs = name, [], []

    def line(self, text, shape, dtype):
        self.lines.append(f"  %{len(self.lines) + 1} = {text} : {dtype}[{','.join(map(str, shape))}]")
        return len(self.lines)

    def input(self, name, value):
        tensors[f"{self.name}/{name}"] = value
        return self.line(f'input {{name="{name}" role=data}}', value.shape, NAMES[value.dtype.name])

    def op(self, op, args, shape, dtype="f32", attrs=""):
        operands = ", ".join(f"%{a}" for a in args)
        return self.line(f"{op} {operands}" + (f" {{{attrs}}}" if attrs else ""), shape, dtype)

    def out(self, name, value, expected):
        expected = np.asarray(expected)
        if expected.dtype.kind == "f":
            expected = expected.astype(np.float64)
        tensors[f"{self.name}/{name}"] = expected
        self.outs.append(f"{name}=%{value}")

    def done(self):
        texts.append(f'graph "{self.name}" {{\n' + "\n".join(self.lines) + "\n  return " + ", ".join(self.outs) + "\n}\n")


def f32(lo, hi, *shape):
    return rng.uniform(lo, hi, shape).astype(np.float32)


def simple(name, op, inputs, expected, attrs="", dtype=None):
    """One op on inputs a, b, c."""
    case = Case(name)
    args = [case.input("abc"[i], np.asarray(x)) for i, x in enumerate(inputs)]
    expected = np.asarray(expected)
    inferred = "f32" if expected.dtype.kind == "f" else NAMES[expected.dtype.name]
    case.out("out", case.op(op, args, expected.shape, dtype or inferred, attrs), expected)
    case.done()


def d(x):
    return np.asarray(x, dtype=np.float64)


# ---- elementwise ----
def half_even(x):
    return torch.round(torch.from_numpy(x)).numpy()


def elementwise():
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -2.5, 1e-30, -1e-30, 1e30, 88.0, -88.0, 100.0, -104.0],
                       np.float32)
    erf = lambda x: torch.erf(torch.from_numpy(x)).numpy()
    unary = {"neg": (np.negative, -3, 3), "abs": (np.abs, -3, 3), "sign": (np.sign, -3, 3), "floor": (np.floor, -3, 3),
             "ceil": (np.ceil, -3, 3), "round": (half_even, -3, 3), "sqrt": (np.sqrt, 0.1, 4),
             "rsqrt": (lambda x: 1 / np.sqrt(x), 0.1, 4), "exp": (np.exp, -4, 4), "expm1": (np.expm1, -3, 3), "log": (np.log, 0.1, 5),
             "log1p": (np.log1p, -0.9, 4), "sin": (np.sin, -6, 6), "cos": (np.cos, -6, 6), "atan": (np.arctan, -4, 4),
             "tanh": (np.tanh, -4, 4), "erf": (erf, -3, 3), "stop": (lambda x: x, -3, 3)}
    with np.errstate(all="ignore"):
        for op, (f, lo, hi) in unary.items():
            x = f32(lo, hi, 3, 7)
            simple(op, op, [x], f(d(x)))
            x = special[np.abs(special) != np.float32(1e30)] if op in ("sin", "cos") else special
            simple(op + "_special", op, [x], f(d(x)))
        x, y = f32(-3, 3, 5, 3), f32(-3, 3, 5, 3)
        y[1] = x[1]
        x[2], y[2] = [np.nan, 1, np.nan], [1, np.nan, np.nan]
        x[3], y[3] = [np.inf, -np.inf, np.inf], [-np.inf, np.inf, np.inf]
        binary = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum, "min": np.minimum,
                  "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
        for op, f in binary.items():
            simple(op, op, [x, y], f(d(x), d(y)))
        z = f32(-3, 3, 5, 3)
        simple("fma", "fma", [x, y, z], d(x) * d(y) + d(z))
        simple("select", "select", [x > 0, y, z], np.where(x > 0, d(y), d(z)))
        simple("select_i32", "select", [np.array([True, False]), np.array([1, 2], np.int32), np.array([3, 4], np.int32)],
               np.array([1, 4], np.int32))
    wide = np.linspace(-1e5, 1e5, 41).astype(np.float32)
    for op, f in (("sin", np.sin), ("cos", np.cos)):
        simple(op + "_wide", op, [wide], f(d(wide)))


def divide(x, y):
    """Towards zero, 0 where y is 0, wrapping."""
    out = [0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) for a, b in zip(x.tolist(), y.tolist())]
    return wrapped(out, x.dtype)


def remainder(x, y):
    return wrapped([0 if b == 0 else (abs(a) % abs(b)) * (-1 if a < 0 else 1) for a, b in zip(x.tolist(), y.tolist())], x.dtype)


def wrapped(values, dtype):
    bits = dtype.itemsize * 8
    values = [v % 2**bits for v in values]
    return np.array([v - 2**bits if dtype.kind == "i" and v >= 2**(bits - 1) else v for v in values], dtype)


def shifted(x, y, left):
    bits = x.dtype.itemsize * 8
    out = []
    for a, b in zip(x.tolist(), y.tolist()):
        inside = 0 <= b < bits
        out.append((a << b if inside else 0) if left else (a >> b if inside else -(a < 0)))
    return wrapped(out, x.dtype)


def integers():
    edge = {np.int32: [0, 1, -1, 7, -7, 2**31 - 1, -2**31, 1000003], np.int64: [0, 1, -1, 7, -7, 2**63 - 1, -2**63, 10**12 + 39],
            np.uint32: [0, 1, 2, 7, 2**32 - 1, 2**31, 2**31 - 1, 1000003]}
    for dtype, values in edge.items():
        pairs = [(a, b) for a in values for b in values]
        x, y = (np.array([p[i] for p in pairs], dtype) for i in (0, 1))
        exact = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
                 "max": max, "min": min, "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b}
        kind = NAMES[np.dtype(dtype).name]
        for op, f in exact.items():
            simple(f"{op}_{kind}", op, [x, y], wrapped([f(a, b) for a, b in zip(x.tolist(), y.tolist())], np.dtype(dtype)))
        simple(f"div_{kind}", "div", [x, y], divide(x, y))
        simple(f"rem_{kind}", "rem", [x, y], remainder(x, y))
        small = wrapped([-1, 0, 1, 5, 31, 32, 63, 64] * len(values), np.dtype(dtype))
        simple(f"shl_{kind}", "shl", [x, small], shifted(x, small, True))
        simple(f"shr_{kind}", "shr", [x, small], shifted(x, small, False))
        simple(f"not_{kind}", "not", [np.array(values, dtype)], ~np.array(values, dtype))
        for op, f in (("eq", np.equal), ("lt", np.less), ("ge", np.greater_equal)):
            simple(f"{op}_{kind}", op, [x, y], f(x, y))
    a, b = np.array([False, False, True, True]), np.array([False, True, False, True])
    for op, f in (("and", a & b), ("or", a | b), ("xor", a ^ b), ("eq", a == b), ("ne", a != b)):
        simple(f"{op}_bool", op, [a, b], f)
    simple("not_bool", "not", [a], ~a)


def casts():
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 0.9, -0.9, 1.5, -1.5, 3e9, -3e9, 5e9, 1e20, -1e20, 2147483520.0, 7.0], np.float32)
    def saturate(lo, hi, dtype):
        return np.array([0 if np.isnan(v) else int(min(max(np.trunc(v) if np.isfinite(v) else v, lo), hi)) for v in d(x).tolist()], dtype)
    simple("cast_f32_i32", "cast", [x], saturate(-2**31, 2**31 - 1, np.int32), "to=i32")
    simple("cast_f32_i64", "cast", [x], saturate(-2**63, 2**63 - 1, np.int64), "to=i64")
    simple("cast_f32_u32", "cast", [x], saturate(0, 2**32 - 1, np.uint32), "to=u32")
    simple("cast_f32_bool", "cast", [x], x != 0, "to=bool")
    i = np.array([0, 1, -1, 16777217, 2**31 - 1, -2**31], np.int32)
    simple("cast_i32_f32", "cast", [i], d(i.astype(np.float32)), "to=f32")
    w = np.array([0, -1, 2**53 + 1, 2**63 - 1, -2**63, 16777219], np.int64)
    simple("cast_i64_f32", "cast", [w], d(w.astype(np.float32)), "to=f32")
    simple("cast_u32_f32", "cast", [np.array([0, 2**32 - 1, 16777217], np.uint32)], d(np.array([0, 2**32 - 1, 16777217], np.uint32).astype(np.float32)), "to=f32")
    simple("cast_bool_f32", "cast", [np.array([True, False])], d([1, 0]), "to=f32")
    # narrow floats have no NumPy type: they come back as f32
    y = np.concatenate([f32(-3, 3, 40), np.array([np.nan, np.inf, 65519.0, 65520.0, 1e-7, 6e-8, 2.98e-8, 1.00390625, 1.01171875, 3.4e38], np.float32)])
    for narrow, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        case = Case(f"cast_f32_{narrow}_f32")
        v = case.op("cast", [case.input("a", y)], y.shape, narrow, f"to={narrow}")
        case.out("out", case.op("cast", [v], y.shape, "f32", "to=f32"), torch.from_numpy(y).to(dtype).double().numpy())
        case.done()
    simple("bitcast_f32_u32", "bitcast", [y], y.view(np.uint32), "to=u32")
    simple("bitcast_i32_f32", "bitcast", [np.array([0x3f800000, 0x40490fdb, 1], np.int32)], d(np.array([0x3f800000, 0x40490fdb, 1], np.int32).view(np.float32)), "to=f32")


# ---- reductions and shapes ----
def ints(values):
    return "[" + ",".join(str(int(v)) for v in values) + "]"


def reductions():
    x = f32(-3, 3, 3, 1, 5, 4)
    x[1, 0, 2] = x[1, 0, 3]
    for axes in ((0,), (3,), (1, 2), (0, 1, 2, 3), (0, 3)):
        tag = "".join(map(str, axes))
        for op, f in (("sum", np.sum), ("reduce_max", np.max), ("reduce_min", np.min)):
            simple(f"{op}_{tag}", op, [x], f(d(x), axis=axes, keepdims=True), f"axes={ints(axes)}")
    long = f32(-1, 1, 2, 1003)
    simple("sum_long", "sum", [long], d(long).sum(1, keepdims=True), "axes=[1]")
    holes = x.copy()
    holes[2, 0, 1, 3] = np.nan
    simple("reduce_max_nan", "reduce_max", [holes], np.max(d(holes), axis=3, keepdims=True), "axes=[3]")
    i = rng.integers(-9, 9, (4, 6)).astype(np.int32)
    simple("sum_i32", "sum", [i], i.sum(1, keepdims=True).astype(np.int32), "axes=[1]")
    simple("reduce_min_i32", "reduce_min", [i], i.min(0, keepdims=True), "axes=[0]")
    ties = np.array([[1, 3, 3, 2], [np.nan, 9, np.nan, 9], [-np.inf, -np.inf, -np.inf, -np.inf]], np.float32)
    simple("argmax", "argmax", [ties], np.array([[1], [0], [0]], np.int32), "axis=1")
    simple("argmax_axis0", "argmax", [x[:, 0, :, 0]], np.argmax(x[:, :1, :, 0].reshape(3, 5), axis=0)[None].astype(np.int32), "axis=0")


def shapes():
    x = f32(-3, 3, 3, 1, 4)
    simple("broadcast", "broadcast", [x], np.broadcast_to(d(x), (3, 5, 4)), "shape=[3,5,4]")
    simple("reshape", "reshape", [x], d(x).reshape(2, 6), "shape=[2,6]")
    simple("transpose", "transpose", [x], d(x).transpose(2, 0, 1), "perm=[2,0,1]")
    y = f32(-3, 3, 5, 7)
    simple("slice", "slice", [y], d(y)[1:5:2, 0:7:3], "start=[1,0] limit=[5,7] stride=[2,3]")
    simple("pad", "pad", [y], np.pad(d(y), ((1, 0), (2, 3)), constant_values=0.5), "lo=[1,2] hi=[0,3] fill=0.5")
    z = f32(-3, 3, 5, 2)
    simple("concat", "concat", [y, z, y], np.concatenate([d(y), d(z), d(y)], 1), "axis=1")
    simple("reverse", "reverse", [y], d(y)[::-1, ::-1], "axes=[0,1]")
    simple("dyn_slice", "dyn_slice", [y, np.array(3, np.int32)], d(y)[:, 3:5], "axis=1 size=2")
    simple("dyn_slice_clamped", "dyn_slice", [y, np.array(99, np.int32)], d(y)[:, 5:7], "axis=1 size=2")
    simple("dyn_slice_negative", "dyn_slice", [y, np.array(-4, np.int32)], d(y)[0:2], "axis=0 size=2")
    for tag, start, at in (("", 2, 2), ("_clamped", 77, 5), ("_negative", -1, 0)):
        updated = d(y).copy()
        updated[:, at:at + 2] = d(z)
        simple("dyn_update" + tag, "dyn_update", [y, z, np.array(start, np.int32)], updated, "axis=1")
    windows()
    case = Case("leaves")
    case.out("ones", case.line("const {value=1.5}", (2, 3), "f32"), np.full((2, 3), 1.5))
    case.out("literal", case.line("literal {data=[1,-2.5,3]}", (3,), "f32"), d([1, -2.5, 3]))
    case.out("iota", case.line("iota {axis=1}", (2, 4), "i32"), np.tile(np.arange(4, dtype=np.int32), (2, 1)))
    case.done()


def windowed(x, axis, size, step, dilation, pad, count, fill):
    """out[.., i, .., k] = x[.., i*step + k*dilation - pad, ..]"""
    x = np.moveaxis(x, axis, 0)
    out = np.full((count,) + x.shape[1:] + (size,), fill)
    for i in range(count):
        for k in range(size):
            at = i * step + k * dilation - pad
            if 0 <= at < x.shape[0]:
                out[i, ..., k] = x[at]
    return np.moveaxis(out, 0, axis)


def windows():
    x = f32(-3, 3, 2, 9, 3)
    for tag, n in (("", (1, 3, 2, 1, 1, 5, -9.0)), ("_dilated", (1, 4, 1, 3, 4, 8, 0.0)), ("_overhang", (2, 2, 2, 1, 0, 2, 7.0))):
        axis, size, step, dilation, pad, count, fill = n
        simple("window" + tag, "window", [x], windowed(d(x), *n),
               f"axis={axis} size={size} step={step} dilation={dilation} pad={pad} count={count} fill={fill}")
    y = f32(-3, 3, 2, 5, 3, 4)  # 5 windows of 4 along axis 1, folded to length 9
    out = np.zeros((2, 9, 3))
    for i in range(5):
        for k in range(4):
            at = 2 * i + k - 1
            if 0 <= at < 9:
                out[:, at] += d(y)[:, i, :, k]
    simple("fold", "fold", [y], out, "axis=1 step=2 dilation=1 pad=1 count=9")


def indexing():
    x, idx = f32(-3, 3, 6, 3), np.array([[5, 0, -1, 6], [2, 2, 0, 2**31 - 1]], np.int32)
    def take(table, i):
        ok = (i >= 0) & (i < table.shape[0])
        return np.where(ok[..., None], table[np.clip(i, 0, table.shape[0] - 1)], 0.0)
    simple("gather", "gather", [x, idx], take(d(x), idx), "batch=0")
    simple("gather_i64", "gather", [x, idx.astype(np.int64)], take(d(x), idx), "batch=0")
    b, bi = f32(-3, 3, 2, 5, 3), np.array([[4, 0, 9], [1, 1, 2]], np.int32)
    simple("gather_batch", "gather", [b, bi], np.stack([take(d(b[k]), bi[k]) for k in range(2)]), "batch=1")
    rows = f32(-3, 3, 4, 6)
    one = np.array([5, 0, 3, 7], np.int32)
    simple("gather_along", "gather", [rows, one], np.where(one < 6, d(rows)[np.arange(4), np.clip(one, 0, 5)], 0.0), "batch=1")
    upd = f32(-3, 3, 2, 4, 3)
    added = d(x).copy()
    for i in np.ndindex(idx.shape):
        if 0 <= idx[i] < 6:
            added[idx[i]] += d(upd)[i]
    simple("scatter_add", "scatter_add", [x, idx, upd], added, "batch=0")
    y = f32(-1, 1, 3, 6)
    c = np.cumsum(d(y), 1)
    r = np.cumsum(d(y)[:, ::-1], 1)[:, ::-1]
    for tag, e, v, out in (("", 0, 0, c), ("_exclusive", 1, 0, c - d(y)), ("_reverse", 0, 1, r), ("_both", 1, 1, r - d(y))):
        simple("cumsum" + tag, "cumsum", [y], out, f"axis=1 exclusive={e} reverse={v}")
    simple("cumsum_axis0", "cumsum", [y], np.cumsum(d(y), 0), "axis=0 exclusive=0 reverse=0")
    s = np.array([[3, 1, 2, 1, 3], [0, np.nan, -1, np.inf, -np.inf]], np.float32)
    simple("argsort", "argsort", [s], np.array([[1, 3, 2, 0, 4], [4, 2, 0, 3, 1]], np.int32), "axis=1 descending=0")
    simple("argsort_descending", "argsort", [s], np.array([[0, 4, 2, 1, 3], [3, 0, 2, 4, 1]], np.int32), "axis=1 descending=1")


# ---- contraction ----
def contractions():
    t = lambda x: torch.from_numpy(x).double()
    a, b = f32(-1, 1, 7, 13), f32(-1, 1, 13, 5)
    simple("matmul", "contract", [a, b], d(a) @ d(b), 'spec="a c, c b -> a b | c=13"')
    simple("matmul_transposed", "contract", [a, b.T.copy()], d(a) @ d(b), 'spec="a c, b c -> a b | c=13"')
    p, q = f32(-1, 1, 3, 4, 6), f32(-1, 1, 3, 5, 6)
    simple("matmul_batched", "contract", [p, q], np.einsum("abd,acd->abc", d(p), d(q)), 'spec="a b d, a c d -> a b c | d=6"')
    simple("dot", "contract", [a, a], (d(a) * d(a)).sum(), 'spec="a b, a b -> | a=7 b=13"')
    simple("outer", "contract", [a[0], b[0]], np.outer(d(a[0]), d(b[0])), 'spec="a, b -> a b"')
    x, w = f32(-1, 1, 2, 11, 4), f32(-1, 1, 3, 4, 6)  # channels last; taps, in, out
    for step, dil, pad in ((1, 1, 1), (2, 1, 0), (1, 4, 4), (3, 2, 5), (1, 16, 16)):
        y = F.conv1d(t(x).transpose(1, 2), t(w).permute(2, 1, 0), stride=step, dilation=dil, padding=pad).transpose(1, 2).numpy()
        b_ = "b" if step == 1 else f"{step}*b"
        d_ = "d" if dil == 1 else f"{dil}*d"
        off = f"-{pad}" if pad else ""
        simple(f"conv1d_s{step}_d{dil}_p{pad}", "contract", [x, w], y, f'spec="a {b_}+{d_}{off} e, d e c -> a b c | d=3 e=4"')
    y = F.conv_transpose1d(t(x).transpose(1, 2), t(w).permute(1, 2, 0), stride=2, padding=1).transpose(1, 2).numpy()
    simple("conv1d_transposed", "contract", [x, w], y, 'spec="a (b-d+1)/2 e, d e c -> a b c | d=3 e=4"')
    g, gw = f32(-1, 1, 2, 9, 3, 4), f32(-1, 1, 3, 3, 4, 5)  # 3 groups of 4 -> 5 channels; taps, group, in, out
    y = F.conv1d(t(g).reshape(2, 9, 12).transpose(1, 2), t(gw).permute(1, 3, 2, 0).reshape(15, 4, 3), padding=1, groups=3)
    simple("conv1d_grouped", "contract", [g, gw], y.transpose(1, 2).reshape(2, 9, 3, 5).numpy(),
           'spec="a b+e-1 c f, e c f d -> a b c d | e=3 f=4"')
    i, k = f32(-1, 1, 2, 6, 7, 3), f32(-1, 1, 3, 2, 3, 4)
    y = F.conv2d(t(i).permute(0, 3, 1, 2), t(k).permute(3, 2, 0, 1), stride=(2, 1), padding=(1, 0)).permute(0, 2, 3, 1).numpy()
    simple("conv2d", "contract", [i, k], y, 'spec="a 2*b+e-1 c+f g, e f g d -> a b c d | e=3 f=2 g=3"')
    v, vk = f32(-1, 1, 1, 4, 5, 3, 2), f32(-1, 1, 2, 3, 2, 2, 3)
    y = F.conv3d(t(v).permute(0, 4, 1, 2, 3), t(vk).permute(4, 3, 0, 1, 2), padding=(0, 1, 0)).permute(0, 2, 3, 4, 1).numpy()
    simple("conv3d", "contract", [v, vk], y, 'spec="a b+f c+g-1 d+h i, f g h i e -> a b c d e | f=2 g=3 h=2 i=2"')


# ---- compositions that fusion takes apart ----
def denoiser_block(name, batch, length, channels, step):
    """x + relu(conv(layer_norm(x + time))): the block of the DNA denoiser, channels last."""
    t = lambda v: torch.from_numpy(v).double()
    case = Case(name)
    shape, row = (batch, length, channels), (batch, length, 1)
    full = f"shape={ints(shape)}"
    x, time = f32(-1, 1, *shape), f32(-1, 1, batch, channels)
    gain, bias, w, wb = f32(0.5, 1.5, channels), f32(-1, 1, channels), f32(-0.5, 0.5, 3, channels, channels), f32(-1, 1, channels)
    vx, vt, vg, vb, vw, vwb = (case.input(n, v) for n, v in zip(("x", "time", "gain", "bias", "w", "wb"), (x, time, gain, bias, w, wb)))
    def spread(v, *inner):
        return case.op("broadcast", [case.op("reshape", [v], inner, attrs=f"shape={ints(inner)}")], shape, attrs=full)
    h = case.op("add", [vx, spread(vt, batch, 1, channels)], shape)
    many = case.line(f"const {{value={1 / channels!r}}}", row, "f32")
    mean = case.op("mul", [case.op("sum", [h], row, attrs="axes=[2]"), many], row)
    h = case.op("sub", [h, case.op("broadcast", [mean], shape, attrs=full)], shape)
    variance = case.op("mul", [case.op("sum", [case.op("mul", [h, h], shape)], row, attrs="axes=[2]"), many], row)
    eps = case.line("const {value=1e-05}", row, "f32")
    scale = case.op("rsqrt", [case.op("add", [variance, eps], row)], row)
    h = case.op("mul", [h, case.op("broadcast", [scale], shape, attrs=full)], shape)
    h = case.op("add", [case.op("mul", [h, spread(vg, 1, 1, channels)], shape), spread(vb, 1, 1, channels)], shape)
    tap = "d" if step == 1 else f"{step}*d"
    h = case.op("contract", [h, vw], shape, attrs=f'spec="a b+{tap}-{step} e, d e c -> a b c | d=3 e={channels}"')
    h = case.op("add", [h, spread(vwb, 1, 1, channels)], shape)
    h = case.op("max", [h, case.line("const {value=0}", shape, "f32")], shape)
    y = F.layer_norm(t(x) + t(time)[:, None], (channels,), t(gain), t(bias)).transpose(1, 2)
    y = F.conv1d(y, t(w).permute(2, 1, 0), t(wb), dilation=step, padding=step).transpose(1, 2)
    case.out("out", case.op("add", [vx, h], shape), (t(x) + F.relu(y)).numpy())
    case.done()


def compositions():
    for batch, length, channels, step in ((2, 24, 8, 1), (1, 9, 6, 2), (1, 37, 12, 8), (3, 5, 20, 4), (1, 1, 4, 1), (2, 40, 64, 16)):
        denoiser_block(f"conv_block_b{batch}_l{length}_c{channels}_d{step}", batch, length, channels, step)
    a, b = f32(-1, 1, 1, 9, 6), f32(-1, 1, 3, 6, 6)
    y = F.conv1d(torch.from_numpy(a).double().transpose(1, 2), torch.from_numpy(b).double().permute(2, 1, 0), padding=1)
    simple("conv1d_batch1", "contract", [a, b], y.transpose(1, 2).numpy(), 'spec="a b+d-1 e, d e c -> a b c | d=3 e=6"')


# ---- randomness and regions ----
def philox(counter, key):
    """Philox4x32-10 (Salmon et al., 2011): four words from four counter words and two key words."""
    c, k = [int(v) for v in counter], [int(v) for v in key]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


# the known answers that come with Random123
assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
assert philox([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def randomness():
    key = np.array([0xA4093822, 0x299F31D0], np.uint32)
    rows = np.array([[0, 0, 0], [7, 2**32 - 1, 3], [1, 2, 3]], np.uint32)
    out = [[philox([e // 4, *row], key)[e % 4] for e in range(10)] for row in rows]
    simple("random", "random", [key, rows], np.array(out, np.uint32).reshape(3, 2, 5), "shape=[3,2,5]")


def regions():
    x = f32(-1, 1, 2, 3)
    case = Case("call_twice")
    region = ['    @1 "square_plus_one" {', '      %1 = input {name="v" role=data} : f32[2,3]', "      %2 = mul %1, %1 : f32[2,3]",
              "      %3 = const {value=1} : f32[2,3]", "      %4 = add %2, %3 : f32[2,3]", "      return y=%4", "    }"]
    v = case.input("a", x)
    case.lines.append("  %2 = call %1 {graph=@1} : (f32[2,3])\n" + "\n".join(region))
    case.op("pick", [2], x.shape, attrs="index=0")
    case.lines.append("  %4 = call %3 {graph=@1} : (f32[2,3])")
    once = d(x) ** 2 + 1
    case.out("out", case.op("pick", [4], x.shape, attrs="index=0"), once**2 + 1)
    case.done()

    case = Case("loop_recurrence")  # h = tanh(h * w + s[i]); the stack of all h
    h0, s, w = f32(-1, 1, 4), f32(-1, 1, 5, 4), f32(-1, 1, 4)
    for name, value in (("h", h0), ("s", s), ("w", w)):
        v = case.input(name, value)
    region = ['    @1 "step" {', '      %1 = input {name="h" role=data} : f32[4]', '      %2 = input {name="s" role=data} : f32[4]',
              '      %3 = input {name="w" role=data} : f32[4]', "      %4 = mul %1, %3 : f32[4]", "      %5 = add %4, %2 : f32[4]",
              "      %6 = tanh %5 : f32[4]", "      %7 = neg %6 : f32[4]", "      return h=%6, minus=%7", "    }"]
    case.lines.append("  %4 = loop %1, %2, %3 {graph=@1 trip=5 carry=1 scan=1} : (f32[4], f32[5,4])\n" + "\n".join(region))
    h, stack = d(h0), []
    for i in range(5):
        h = np.tanh(h * d(w) + d(s)[i])
        stack.append(-h)
    case.out("last", case.op("pick", [4], (4,), attrs="index=0"), h)
    case.out("stack", case.op("pick", [4], (5, 4), attrs="index=1"), np.stack(stack))
    case.done()

    case = Case("grad_of_grad")  # y = sum(x^3): dy/dx = 3 x^2, and the gradient of its sum is 6 x
    v = case.input("x", x)
    case.op("mul", [1, 1], x.shape)
    case.op("mul", [2, 1], x.shape)
    case.op("sum", [3], (1, 1), attrs="axes=[0,1]")
    case.op("reshape", [4], (), attrs="shape=[]")
    case.lines.append("  %6 = grad %5, %1 : (f32[2,3])")
    case.op("pick", [6], x.shape, attrs="index=0")
    case.op("sum", [7], (1, 1), attrs="axes=[0,1]")
    case.op("reshape", [8], (), attrs="shape=[]")
    case.lines.append("  %10 = grad %9, %1 : (f32[2,3])")
    case.op("pick", [10], x.shape, attrs="index=0")
    case.out("first", 7, 3 * d(x) ** 2)
    case.out("second", 11, 6 * d(x))
    case.done()


for part in (elementwise, integers, casts, reductions, shapes, indexing, contractions, compositions, randomness, regions):
    part()
with open(os.path.join(OUT, "op_values.ir"), "w") as f:
    f.write("\n".join(texts))
save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, os.path.join(OUT, "op_values.safetensors"))
print(f"{len(texts)} cases")
