"""PyTorch on the DNA denoiser, a contestant (contestant.py): dna_torch.py WORK --dtype f32|bf16|bf16-module
[--layout released|channels-last] [--compile].  bf16 is autocast with f32 weights, bf16-module has everything in bf16."""
import argparse
import contextlib
import math
import os

import torch
import torch.nn as nn
import torch.nn.functional as F

from contestant import DILATIONS, EPS, HIDDEN, MASK, SYMBOLS, WIDTH, parse_work, serve


class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(30 * torch.randn(HIDDEN // 2), requires_grad=False)

    def forward(self, t):
        angle = t[:, None] * self.W * (2 * math.pi)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Denoiser(nn.Module):
    """The released network: Conv1d over [B,C,L] with permutes around each layer norm; or the same function with channels last
    (Conv2d of height 1 in channels_last memory), where the permutes cost nothing."""

    def __init__(self, channels_last):
        super().__init__()
        self.channels_last = channels_last
        self.linear = self.conv(SYMBOLS, HIDDEN, WIDTH)
        self.time_embedder = nn.Sequential(Fourier(), nn.Linear(HIDDEN, HIDDEN))
        self.convs = nn.ModuleList(self.conv(HIDDEN, HIDDEN, WIDTH, d) for d in DILATIONS)
        self.time_layers = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in DILATIONS)
        self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN) for _ in DILATIONS)
        self.final_conv = nn.Sequential(self.conv(HIDDEN, HIDDEN, 1), nn.ReLU(), self.conv(HIDDEN, SYMBOLS, 1))

    def conv(self, cin, cout, width, dilation=1):
        pad = dilation * (width // 2)
        if not self.channels_last:
            return nn.Conv1d(cin, cout, width, dilation=dilation, padding=pad)
        conv = nn.Conv2d(cin, cout, (1, width), dilation=(1, dilation), padding=(0, pad))
        return conv.to(memory_format=torch.channels_last)

    def forward(self, seq, t):
        weight = self.linear.weight
        x = F.one_hot(seq, SYMBOLS).to(weight.dtype)
        time = F.relu(self.time_embedder(t.to(weight.dtype)))
        return self.rows(x, time) if self.channels_last else self.released(x, time)

    def released(self, x, time):
        feat = F.relu(self.linear(x.permute(0, 2, 1)))
        for conv, dense, norm in zip(self.convs, self.time_layers, self.norms):
            h = feat.clone() + dense(time)[:, :, None]
            feat = F.relu(conv(norm(h.permute(0, 2, 1)).permute(0, 2, 1))) + feat
        return self.final_conv(feat).permute(0, 2, 1)

    def rows(self, x, time):
        feat = F.relu(self.linear(x[:, None].permute(0, 3, 1, 2)))
        for conv, dense, norm in zip(self.convs, self.time_layers, self.norms):
            h = norm(feat.permute(0, 2, 3, 1) + dense(time)[:, None, None])
            feat = F.relu(conv(h.permute(0, 3, 1, 2))) + feat
        return self.final_conv(feat).permute(0, 2, 3, 1)[:, 0]


def loss_of(model, x0, t, u):
    """Continuous-time loss of masked diffusion: SUBS parameterisation, log-linear noise; u chooses the masked positions."""
    sigma = -torch.log1p(-(1 - EPS) * t)
    dsigma = (1 - EPS) / (1 - (1 - EPS) * t)
    masked = u < (1 - torch.exp(-sigma))[:, None]
    xt = torch.where(masked, MASK, x0)
    logits = model(xt, torch.zeros_like(t)).float()
    forbid = torch.zeros(SYMBOLS)
    forbid[MASK] = -1e6
    logp = torch.log_softmax(logits + forbid, -1).gather(-1, x0[..., None])[..., 0]
    return (torch.where(masked, -logp, 0) * (dsigma / torch.expm1(sigma))[:, None]).mean()


def contest(a):
    kind, batch, length = parse_work(a.work)
    model = Denoiser(a.layout == "channels-last")
    if a.dtype == "bf16-module":
        model = model.to(torch.bfloat16)
    def cast():
        return torch.autocast("cpu", dtype=torch.bfloat16) if a.dtype == "bf16" else contextlib.nullcontext()
    maybe_compile = torch.compile if a.compile else lambda f: f
    if kind == "fwd":
        seq, t = torch.randint(0, SYMBOLS, (batch, length)), torch.zeros(batch)
        forward = maybe_compile(model.eval())
        def once():
            with torch.no_grad(), cast():
                return forward(seq, t)
        return once, (batch, length, SYMBOLS), model
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.0, fused=True)
    x0, u = torch.randint(0, 4, (batch, length)), torch.rand(batch, length)
    t = torch.arange(batch) / batch * (1 - EPS) + EPS
    loss_fn = maybe_compile(lambda *data: loss_of(model, *data))
    def once():
        optimiser.zero_grad(set_to_none=True)
        with cast():
            loss = loss_fn(x0, t, u)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        return loss.detach()
    return once, (), model


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("work")
    ap.add_argument("--dtype", default="f32", choices=["f32", "bf16", "bf16-module"])
    ap.add_argument("--layout", default="released", choices=["released", "channels-last"])
    ap.add_argument("--compile", action="store_true")
    a = ap.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    once, shape, model = contest(a)
    before = model.convs[0].weight.detach().clone()
    def check(result):
        result = result.float()
        assert tuple(result.shape) == shape and torch.isfinite(result).all() and result.abs().max() > 0
        assert shape or not torch.equal(before, model.convs[0].weight), "the step moved no weight"
    serve(once, check, {"torch": torch.__version__})


if __name__ == "__main__":
    main()
