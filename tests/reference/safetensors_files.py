"""Writes safetensors_small.safetensors with the reference implementation: the values that tests/test_safetensors.c expects."""
import os
import torch
from safetensors.torch import save_file

x = (torch.arange(6, dtype=torch.float64).reshape(2, 3) - 3) / 2
save_file(
    {
        "f64": x, "f32": x.float(), "bf16": x.bfloat16(), "f16": x.half(),
        "i64": torch.tensor([7, -5000000000]), "bool": torch.tensor([True, False, True]),
        "u8": torch.tensor([1, 2, 255], dtype=torch.uint8),
        "scalar": torch.tensor(1.0), "empty": torch.zeros(0, 4),
    },
    os.path.join(os.path.dirname(__file__), "safetensors_small.safetensors"),
    metadata={"format": "pt"},
)
