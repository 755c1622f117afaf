#!/usr/bin/env python3
"""Writes tests/data/tutorial: the tutorial's transformer in PyTorch (f64), with drawn weights, its logits and every gradient."""
import json
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from draw import draw

CONFIG = {"_class_name": "Transformer", "alphabet_size": 5, "length": 6, "width": 8, "layers": 2, "heads": 2}
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "tutorial")


def shapes():
    v, l, w = CONFIG["alphabet_size"], CONFIG["length"], CONFIG["width"]
    out = {"embed.weight": (w, v, 7), "embed.bias": (w,), "place": (l, w)}
    for i in range(CONFIG["layers"]):
        p = f"layers.{i}."
        for norm in ("norm1", "norm2"):
            out |= {f"{p}{norm}.weight": (w,), f"{p}{norm}.bias": (w,)}
        for name, o, k in (("query", w, w), ("key", w, w), ("value", w, w), ("out", w, w), ("up", 4 * w, w), ("down", w, 4 * w)):
            out |= {f"{p}{name}.weight": (o, k), f"{p}{name}.bias": (o,)}
    return out | {"norm.weight": (w,), "norm.bias": (w,), "head.weight": (v, w), "head.bias": (v,)}


def forward(p, seq):
    w, heads = CONFIG["width"], CONFIG["heads"]

    def lin(name, x):
        return F.linear(x, p[name + ".weight"], p[name + ".bias"])

    def norm(name, x):
        return F.layer_norm(x, (w,), p[name + ".weight"], p[name + ".bias"])

    x = F.conv1d(seq.transpose(1, 2), p["embed.weight"], p["embed.bias"], padding=3).transpose(1, 2) + p["place"]
    for i in range(CONFIG["layers"]):
        b = f"layers.{i}."
        h = norm(b + "norm1", x)
        q, k, v = (lin(b + name, h).unflatten(-1, (heads, -1)).transpose(1, 2) for name in ("query", "key", "value"))
        x = x + lin(b + "out", F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
        x = x + lin(b + "down", F.gelu(lin(b + "up", norm(b + "norm2", x))))
    return lin("head", norm("norm", x))


def main():
    os.makedirs(OUT, exist_ok=True)
    weights = {k: draw(k, "F32", s, 0, 0.5) for k, s in shapes().items()}
    seq = draw("seq", "F32", (3, CONFIG["length"], CONFIG["alphabet_size"]), 0.5, 0.5)
    cotangent = draw("grad.logits", "F32", seq.shape, 0, 1)
    p = {k: v.double().requires_grad_() for k, v in weights.items()}
    x = seq.double().requires_grad_()
    logits = forward(p, x)
    (logits * cotangent).sum().backward()
    expected = {"logits": logits.detach(), "grad.seq": x.grad} | {"grad." + k: v.grad for k, v in p.items()}
    save_file(weights, os.path.join(OUT, "diffusion_pytorch_model.safetensors"))
    save_file({"seq": seq, "grad.logits": cotangent}, os.path.join(OUT, "in.safetensors"))
    save_file({k: v.contiguous() for k, v in expected.items()}, os.path.join(OUT, "expected.safetensors"))
    with open(os.path.join(OUT, "config.json"), "w") as f:
        json.dump(CONFIG, f)


if __name__ == "__main__":
    main()
