#!/usr/bin/env python3
"""Writes the cases of `dav run` (tests/data/run/): model folders, inputs, and what an f64 reference gives for every output and
every gradient.  `models.py` writes all of them; `models.py --materialise DIR` writes those that are kept as recipes in full.

CASE/config.json, CASE/in.safetensors, CASE/expected.safetensors and the weights; a case with recipe.txt (reference/draw.py)
keeps neither weights nor input, and expected.safetensors holds for a large tensor NAME only samples: NAME has their values,
`at:NAME` their flat indices, `norm:NAME` the largest |value| and the checksum sum(sign * value).
A case with recipe.txt and `weights` in it takes its weights from that file of the folder DAV_TEST_DATA."""
import argparse
import json
import os
import sys

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, os.path.dirname(__file__))
from draw import draw, sample_indices, signs
from networks import DNA_DEFAULTS, NETWORKS

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "data", "run")
WEIGHTS = "diffusion_pytorch_model.safetensors"
SAMPLES = 64


def dna(**changes):
    return {**DNA_DEFAULTS, **changes}


TINY = dna(hidden_dim=8, num_cnn_stacks=1, length=24)
# name -> config, inputs (name: dtype, shape, offset, scale), recipe?, file of real weights, dtypes of stored weights
CASES = {
    "dnaconv-tiny": dict(config=TINY, inputs={"seq": ("I64", (2, 24), 0, 5), "t": ("F32", (2,), 0.5, 0.5)}),
    "dnaconv-forward": dict(config=dna(hidden_dim=6, num_cnn_stacks=1, length=9, dilations=[2], dropout=0.1), vjp=False,
                            inputs={"seq": ("I64", (1, 9), 0, 5), "t": ("F32", (1,), 0, 0)}),
    "dnaconv-relaxed": dict(config=dna(hidden_dim=6, num_cnn_stacks=2, length=23, dilations=[1, 3, 16]),
                            inputs={"seq": ("F32", (3, 23, 5), 0.5, 0.5), "t": ("F32", (3,), 1.0, 1.0)}),
    "dnaconv-odd": dict(config=dna(hidden_dim=12, num_cnn_stacks=2, length=37, kernel_size=5, dilations=[1, 2, 8],
                                   fourier_scale=16), inputs={"seq": ("I64", (1, 37), 0, 5), "t": ("F32", (1,), 0.5, 0.5)}),
    "dnaconv-mixed-dtypes": dict(config=dna(hidden_dim=10, num_cnn_stacks=1, length=15, kernel_size=3, dilations=[1, 7]),
                                 inputs={"seq": ("I64", (5, 15), 0, 5), "t": ("F32", (5,), 0.5, 0.5)},
                                 stored=("F64", "BF16", "F16", "F32")),
    "dnaconv-true-size": dict(config=dna(), recipe=True,
                              inputs={"seq": ("I64", (2, 200), 0, 5), "t": ("F32", (2,), 0.5, 0.5)}),
    "transformer-tiny": dict(config=dict(_class_name="SeqTransformer", alphabet_size=5, length=11, width=8, layers=2, heads=2,
                                         expansion=3), inputs={"seq": ("I64", (2, 11), 0, 5), "t": ("F32", (2,), 0.5, 0.5)}),
    "transformer-relaxed": dict(config=dict(_class_name="SeqTransformer", alphabet_size=7, length=80, width=64, layers=4, heads=4),
                                recipe=True, inputs={"seq": ("F32", (2, 80, 7), 0.5, 0.5), "t": ("F32", (2,), 1.0, 1.0)}),
    "mpra-random": dict(config={"_class_name": "MPRADragoNN"}, recipe=True, inputs={"x": ("F32", (3, 145, 4), 0.5, 0.5)}),
    "mpra-real": dict(config={"_class_name": "MPRADragoNN"}, recipe=True, weights="mpra_dragonn_conv.safetensors",
                      inputs={"x": ("F32", (2, 145, 4), 0.5, 0.5)}),
    "aesthetic-random": dict(config={"_class_name": "AestheticMLP"}, recipe=True,
                             inputs={"image_embeds": ("F32", (5, 768), 0, 2.0**-4)}),
    "aesthetic-real": dict(config={"_class_name": "AestheticMLP"}, recipe=True, weights="laion_aesthetic_l14_mlp.safetensors",
                           inputs={"image_embeds": ("F32", (2, 768), 0, 2.0**-4)}),
}


def parameters(case):
    config = case["config"]
    tensors = NETWORKS[config["_class_name"]][1](config)
    frozen = {name for name, row in tensors.items() if not row[3]}
    if case.get("weights"):
        return load_file(os.path.join(os.environ["DAV_TEST_DATA"], case["weights"])), frozen
    stored = case.get("stored", ("F32",))
    return {name: draw(name, stored[i % len(stored)], shape, offset, scale)
            for i, (name, (shape, offset, scale, _)) in enumerate(tensors.items())}, frozen


def reference(case, weights, frozen, inputs):
    """Outputs and gradients in f64; the cotangent of output NAME is the input grad.NAME."""
    config = case["config"]
    p = {k: v.detach().double().requires_grad_(k not in frozen) for k, v in weights.items()}
    x = {k: v.double().requires_grad_() if v.is_floating_point() else v for k, v in inputs.items() if not k.startswith("grad.")}
    out = NETWORKS[config["_class_name"]][0](config, p, **x)
    result = {k: v.detach() for k, v in out.items()}
    if case.get("vjp", True):
        sum((v * inputs["grad." + k].double()).sum() for k, v in out.items()).backward()
        result.update({"grad." + k: v.grad for k, v in {**x, **p}.items() if v.requires_grad})
    return result


def build(case):
    weights, frozen = parameters(case)
    rows = dict(case["inputs"])
    inputs = {k: draw(k, *row) for k, row in rows.items()}
    if case.get("vjp", True):
        probe = {**case, "vjp": False}
        for k, v in reference(probe, weights, frozen, inputs).items():
            rows["grad." + k] = ("F32", tuple(v.shape), 0, 1.0)
            inputs["grad." + k] = draw("grad." + k, *rows["grad." + k])
    return weights, frozen, rows, inputs, reference(case, weights, frozen, inputs)


def sampled(expected):
    kept = {}
    for name, v in expected.items():
        flat = v.flatten()
        if flat.numel() <= 2 * SAMPLES:
            kept[name] = v
            continue
        at = torch.from_numpy(sample_indices(name, flat.numel(), SAMPLES))
        checksum = (flat * torch.from_numpy(signs(name, flat.numel()))).sum()
        kept.update({name: flat[at], "at:" + name: at, "norm:" + name: torch.stack([flat.abs().max(), checksum])})
    return kept


def recipe_text(case, rows):
    tensors = NETWORKS[case["config"]["_class_name"]][1](case["config"])
    text = "# file tensor dtype shape offset scale; tests/reference/draw.py says how they are drawn\n"
    if case.get("weights"):
        text += f"weights {case['weights']}\n"
    else:
        text += "".join(f"model {k} F32 {','.join(map(str, s))} {o} {c}\n" for k, (s, o, c, _) in tensors.items())
    return text + "".join(f"in {k} {t} {','.join(map(str, s))} {o} {c}\n" for k, (t, s, o, c) in rows.items())


def save(path, tensors):
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)


def write(folder, case, whole):
    weights, _, rows, inputs, expected = build(case)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(case["config"], f)
        f.write("\n")
    if case.get("recipe"):
        with open(os.path.join(folder, "recipe.txt"), "w") as f:
            f.write(recipe_text(case, rows))
    if whole:
        save(os.path.join(folder, WEIGHTS), weights)
        save(os.path.join(folder, "in.safetensors"), inputs)
    if not whole:
        expected = sampled(expected)
    save(os.path.join(folder, "expected.safetensors"), expected)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--materialise", metavar="DIR", help="write the recipe cases in full under DIR")
    a = ap.parse_args()
    for name, case in CASES.items():
        if case.get("weights") and "DAV_TEST_DATA" not in os.environ:
            print(f"{name}: SKIPPED, needs DAV_TEST_DATA")
        elif not a.materialise or case.get("recipe"):
            write(os.path.join(a.materialise or OUT, name), case, bool(a.materialise or not case.get("recipe")))
            print(name)


if __name__ == "__main__":
    main()
