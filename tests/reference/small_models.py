#!/usr/bin/env python3
"""Writes tests/data/models/CASE: SeqCNN and TinyDenoiser in PyTorch (f64) with drawn weights: outputs and every gradient."""
import json
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from draw import draw

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "models")


def seq_cnn(c, p, x):
    act = {"relu": F.relu, "silu": F.silu, "gelu": F.gelu}[c["activation"]]
    h = x.transpose(1, 2)
    for i, (k, pool) in enumerate(zip(c["kernels"], c["pool"])):
        h = act(F.conv1d(h, p[f"convs.{i}.weight"], p[f"convs.{i}.bias"], padding=k // 2))
        h = F.max_pool1d(h, pool)
    h = act(F.linear(h.flatten(1), p["dense.weight"], p["dense.bias"]))
    return {"y": F.linear(h, p["head.weight"], p["head.bias"])}


def seq_cnn_shapes(c):
    out, width, length = {}, c["letters"], c["length"]
    for i, (o, k, pool) in enumerate(zip(c["channels"], c["kernels"], c["pool"])):
        out |= {f"convs.{i}.weight": (o, width, k), f"convs.{i}.bias": (o,)}
        width, length = o, (length + 2 * (k // 2) - k + 1) // pool
    return out | {"dense.weight": (c["dense"], width * length), "dense.bias": (c["dense"],),
                  "head.weight": (c["outputs"], c["dense"]), "head.bias": (c["outputs"],)}


def tiny(c, p, seq, t):
    h = F.linear(seq.flatten(1), p["first.weight"], p["first.bias"])
    h = torch.tanh(h + F.linear(t[:, None], p["time.weight"], p["time.bias"]))
    return {"logits": F.linear(h, p["second.weight"], p["second.bias"]).reshape(seq.shape)}


def tiny_shapes(c):
    n, h = c["length"] * c["alphabet_size"], c["hidden_dim"]
    return {"first.weight": (h, n), "first.bias": (h,), "time.weight": (h, 1), "time.bias": (h,), "second.weight": (n, h),
            "second.bias": (n,)}


CASES = {
    "seqcnn": (dict(_class_name="SeqCNN", letters=4, length=17, channels=[6, 5], kernels=[5, 4], pool=[2, 3], dense=7, outputs=2,
                    activation="relu"), seq_cnn, seq_cnn_shapes, {"x": (3, 17, 4)}),
    "seqcnn-silu": (dict(_class_name="SeqCNN", letters=3, length=8, channels=[4], kernels=[3], pool=[1], dense=3, outputs=1,
                         activation="silu"), seq_cnn, seq_cnn_shapes, {"x": (2, 8, 3)}),
    "tiny": (dict(_class_name="TinyDenoiser", alphabet_size=3, length=4, hidden_dim=5), tiny, tiny_shapes,
             {"seq": (4, 4, 3), "t": (4,)}),
}


def main():
    for name, (config, forward, shapes, inputs) in CASES.items():
        folder = os.path.join(OUT, name)
        os.makedirs(folder, exist_ok=True)
        weights = {k: draw(k, "F32", s, 0, 0.5) for k, s in shapes(config).items()}
        x = {k: draw(k, "F32", s, 0.5, 0.5) for k, s in inputs.items()}
        p = {k: v.double().requires_grad_() for k, v in weights.items()}
        xd = {k: v.double().requires_grad_() for k, v in x.items()}
        out = forward(config, p, **xd)
        cotangents = {"grad." + k: draw("grad." + k, "F32", v.shape, 0, 1) for k, v in out.items()}
        sum((v * cotangents["grad." + k]).sum() for k, v in out.items()).backward()
        expected = {k: v.detach() for k, v in out.items()} | {"grad." + k: v.grad for k, v in (xd | p).items()}
        save_file(weights, os.path.join(folder, "diffusion_pytorch_model.safetensors"))
        save_file(x | cotangents, os.path.join(folder, "in.safetensors"))
        save_file({k: v.contiguous() for k, v in expected.items()}, os.path.join(folder, "expected.safetensors"))
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(config, f)


if __name__ == "__main__":
    main()
