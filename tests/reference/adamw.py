"""The numbers of tests/test_optim.c: PyTorch's AdamW after clip_grad_norm_, and an average of the parameters."""
import math
import torch

theta = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64, requires_grad=True)
ema = theta.detach().clone()
adamw = torch.optim.AdamW([theta], lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)
for k in range(1, 6):
    theta.grad = torch.tensor([math.sin(k + i) * 2.0**i for i in range(4)], dtype=torch.float64)
    norm = torch.nn.utils.clip_grad_norm_([theta], 1.5)
    adamw.step()
    ema = 0.9 * ema + 0.1 * theta.detach()
    print("norm %.9f" % norm, "theta", ["%.9f" % v for v in theta.tolist()], "ema", ["%.9f" % v for v in ema.tolist()])
