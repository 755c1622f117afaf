#!/usr/bin/env python3
"""Writes tests/data/frontend.safetensors: for each case of tests/test_frontend.c its inputs CASE/in.I, parameters CASE/param.NAME,
the cotangent CASE/cotangent, and what PyTorch says in f64: CASE/out, and CASE/grad.I for floating inputs, CASE/grad.NAME."""
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from draw import draw

RESULT = {}


def case(name, *shapes, params=None, scale=1.0, offset=0.0, ints=None):
    def keep(fn):
        x = [draw(f"{name}/in.{i}", "I64", s, 0, ints[i]) if ints and ints[i] else draw(f"{name}/in.{i}", "F32", s, offset, scale)
             for i, s in enumerate(shapes)]
        p = {k: draw(f"{name}/param.{k}", "F32", s, 0, 1.0) for k, s in (params or {}).items()}
        p = {k: v.abs() + 0.5 if k.endswith("running_var") else v for k, v in p.items()}
        xd = [v.double().requires_grad_() if v.is_floating_point() else v for v in x]
        pd = {k: v.double().requires_grad_("running" not in k) for k, v in p.items()}
        out = fn(*xd, **({"p": pd} if params else {}))
        RESULT.update({f"{name}/in.{i}": v for i, v in enumerate(x)})
        RESULT.update({f"{name}/param.{k}": v for k, v in p.items()})
        RESULT[f"{name}/out"] = out.detach().to(torch.float32) if out.is_floating_point() else out
        leaves = {f"grad.{i}": v for i, v in enumerate(xd)} | {f"grad.{k}": v for k, v in pd.items()}
        leaves = {k: v for k, v in leaves.items() if v.requires_grad}
        if out.is_floating_point() and leaves:
            c = draw(f"{name}/cotangent", "F32", out.shape, 0, 1.0)
            RESULT[f"{name}/cotangent"] = c
            grads = torch.autograd.grad((out * c).sum(), list(leaves.values()), allow_unused=True)
            for (k, v), g in zip(leaves.items(), grads):
                RESULT[f"{name}/{k}"] = (torch.zeros_like(v) if g is None else g).float()
        return fn
    return keep


def _scan(h, xs):
    """h' = tanh(h + x) * 0.9; stacks h' * x after the final h."""
    stack = []
    for x in xs:
        h = torch.tanh(h + x) * 0.9
        stack.append(h * x)
    return torch.cat([h[None], torch.stack(stack)])


def _penalty(x):
    """|d sum(x^3 / (1 + x)) / dx|^2: the gradient of a gradient."""
    g = torch.autograd.grad((x**3 / (1 + x)).sum(), x, create_graph=True)[0]
    return (g * g).sum(-1)


case("conv1d", (2, 6, 11), params={"c.weight": (4, 3, 3), "c.bias": (4,)})(
    lambda x, p: F.conv1d(x, p["c.weight"], p["c.bias"], stride=2, padding=3, dilation=2, groups=2))
case("conv1d-depthwise", (1, 5, 7), params={"c.weight": (5, 1, 4)})(
    lambda x, p: F.conv1d(x, p["c.weight"], padding=1, groups=5))
case("conv2d", (2, 3, 6, 5), params={"c.weight": (4, 3, 3, 2), "c.bias": (4,)})(
    lambda x, p: F.conv2d(x, p["c.weight"], p["c.bias"], stride=(2, 1), padding=(1, 2), dilation=(1, 2)))
case("conv3d", (1, 2, 4, 3, 5), params={"c.weight": (2, 2, 2, 3, 3), "c.bias": (2,)})(
    lambda x, p: F.conv3d(x, p["c.weight"], p["c.bias"], stride=(1, 1, 2), padding=(0, 1, 1)))
case("conv3d-groups", (2, 4, 4, 3, 5), params={"c.weight": (6, 2, 2, 3, 2), "c.bias": (6,)})(
    lambda x, p: F.conv3d(x, p["c.weight"], p["c.bias"], stride=(1, 2, 2), padding=(0, 1, 1), dilation=(2, 1, 1), groups=2))
case("transposed3d-groups", (1, 4, 2, 3, 2), params={"c.weight": (4, 3, 2, 3, 2), "c.bias": (6,)})(
    lambda x, p: F.conv_transpose3d(x, p["c.weight"], p["c.bias"], stride=(2, 1, 1), padding=(0, 1, 0), groups=2))
case("transposed1d", (2, 4, 5), params={"c.weight": (4, 3, 3), "c.bias": (6,)})(
    lambda x, p: F.conv_transpose1d(x, p["c.weight"], p["c.bias"], stride=3, padding=1, output_padding=2, dilation=2, groups=2))
case("transposed2d", (1, 2, 3, 4), params={"c.weight": (2, 3, 4, 3), "c.bias": (3,)})(
    lambda x, p: F.conv_transpose2d(x, p["c.weight"], p["c.bias"], stride=(2, 1), padding=(1, 0)))
case("matmul", (3, 4), (4, 5))(torch.matmul)
case("matmul-batch", (2, 1, 3, 4), (5, 4, 2))(torch.matmul)
case("matmul-batch-one", (1, 3, 4), (1, 4, 2))(torch.matmul)
case("matmul-vector", (4,), (3, 4, 2))(torch.matmul)
case("matmul-column", (2, 3, 4), (4,))(torch.matmul)
case("matmul-dot", (4,), (4,))(torch.matmul)
case("linear", (2, 3, 4), params={"l.weight": (5, 4), "l.bias": (5,)})(lambda x, p: F.linear(x, p["l.weight"], p["l.bias"]))
case("layer-norm", (2, 5, 3), params={"n.weight": (5,), "n.bias": (5,)})(
    lambda x, p: F.layer_norm(x.transpose(1, 2), (5,), p["n.weight"], p["n.bias"]).transpose(1, 2))
case("rms-norm", (2, 3, 5), params={"n.weight": (5,)})(
    lambda x, p: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * p["n.weight"])
case("group-norm", (2, 6, 4), params={"n.weight": (6,), "n.bias": (6,)})(
    lambda x, p: F.group_norm(x, 3, p["n.weight"], p["n.bias"]))
case("batch-norm", (2, 3, 4), params={"n.weight": (3,), "n.bias": (3,), "n.running_mean": (3,), "n.running_var": (3,)})(
    lambda x, p: F.batch_norm(x, p["n.running_mean"], p["n.running_var"], p["n.weight"], p["n.bias"]))
case("gelu", (4, 7), scale=4.0)(F.gelu)
case("gelu-tanh", (4, 7), scale=4.0)(lambda x: F.gelu(x, approximate="tanh"))
case("silu", (4, 7), scale=120.0)(F.silu)
case("sigmoid", (4, 7), scale=120.0)(torch.sigmoid)
case("softplus", (4, 7), scale=120.0)(lambda x: torch.logaddexp(x, torch.zeros_like(x)))
case("softmax", (3, 5, 2), scale=60.0)(lambda x: torch.softmax(x, 1))
case("log-softmax", (3, 5), scale=60.0)(lambda x: torch.log_softmax(x, -1))
case("logsumexp", (3, 5, 2), scale=60.0)(lambda x: torch.logsumexp(x, 1))
case("cross-entropy", (2, 3, 5), (2, 3), ints=(None, 5))(
    lambda x, y: F.cross_entropy(x.reshape(6, 5), y.reshape(6), reduction="none").reshape(2, 3))
case("cross-entropy-wide", (2, 100), (2,), ints=(None, 100))(lambda x, y: F.cross_entropy(x, y, reduction="none"))
case("mean-var", (2, 3, 4))(lambda x: x.mean((0, 2)) + x.var((0, 2), unbiased=False))
case("max-pool", (2, 3, 9))(lambda x: F.max_pool1d(x, 3, stride=2, padding=1))
case("max-pool2d", (1, 2, 6, 5))(lambda x: F.max_pool2d(x, (2, 3)))
case("avg-pool2d", (1, 2, 6, 7))(lambda x: F.avg_pool2d(x, (3, 2), stride=(2, 2), padding=(1, 1)))
case("attention", (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 7))(F.scaled_dot_product_attention)
case("attention-causal", (2, 4, 5), (2, 4, 5), (2, 4, 3))(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))
case("embedding", (2, 3), params={"e.weight": (7, 4)}, ints=(7,))(lambda i, p: F.embedding(i, p["e.weight"]))
case("take", (3, 5, 2), (2, 2), ints=(None, 5))(lambda x, i: x[:, i])
case("one-hot", (2, 3), ints=(4,))(lambda i: F.one_hot(i, 4).double())
case("top-k", (2, 6, 2))(lambda x: torch.topk(x, 3, dim=1)[0])
case("cumsum", (2, 5))(lambda x: torch.flip(torch.cumsum(torch.flip(x, (1,)), 1), (1,)) - x)
case("broadcast", (3, 1, 2), (4, 1), (2,))(lambda x, y, z: torch.where(x > y, x * y, z) - 0.5 / (x * x + 1))
case("shapes", (4, 6))(lambda x: torch.cat([F.pad(x[:, 1:-1:2], (1, 2), value=3.0), torch.flip(x[:, :5], (1,))], 1).T)
case("window", (2, 9))(lambda x: F.pad(x, (1, 1)).unfold(1, 4, 2))
case("fold", (1, 4, 3))(lambda x: F.fold(x.transpose(1, 2), (1, 9), (1, 3), dilation=(1, 2), stride=(1, 2), padding=(0, 1))
                        .reshape(1, 9))
case("loop", (3,), (4, 3))(lambda h, xs: _scan(h, xs))
case("call", (2, 4), params={"a.l.weight": (4, 4), "a.l.bias": (4,), "b.l.weight": (4, 4), "b.l.bias": (4,)})(
    lambda x, p: torch.tanh(F.linear(torch.tanh(F.linear(x, p["a.l.weight"], p["a.l.bias"])), p["b.l.weight"], p["b.l.bias"])))
case("second-order", (3, 4), offset=1.5)(lambda x: _penalty(x))


def main():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "frontend.safetensors")
    save_file({k: v.contiguous() for k, v in RESULT.items()}, path)
    print(f"{path}: {len(RESULT)} tensors, {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main()
