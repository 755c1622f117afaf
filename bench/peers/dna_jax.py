"""JAX (jit) on the DNA denoiser, a contestant (contestant.py): dna_jax.py WORK --dtype f32|bf16.  bf16 computes in bf16 from
f32 parameters."""
import argparse
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from contestant import DILATIONS, EPS, HIDDEN, MASK, SYMBOLS, WIDTH, parse_work, serve


def parameters(rng):
    def affine(*shape):
        bound = 1 / math.sqrt(math.prod(shape[:-1]))
        return {"w": rng.uniform(-bound, bound, shape).astype(np.float32),
                "b": rng.uniform(-bound, bound, shape[-1]).astype(np.float32)}
    def norm():
        return {"w": np.ones(HIDDEN, np.float32), "b": np.zeros(HIDDEN, np.float32)}
    layers = [{"conv": affine(WIDTH, HIDDEN, HIDDEN), "dense": affine(HIDDEN, HIDDEN), "norm": norm()} for _ in DILATIONS]
    tree = {"linear": affine(WIDTH, SYMBOLS, HIDDEN), "time": affine(HIDDEN, HIDDEN), "layers": layers,
            "final": [affine(HIDDEN, HIDDEN), affine(HIDDEN, SYMBOLS)]}
    return jax.tree.map(jnp.asarray, tree)


def network(dtype, fourier):
    def dense(p, x):
        return x @ p["w"].astype(dtype) + p["b"].astype(dtype)

    def conv(p, x, d=1):
        pad = d * (WIDTH // 2)
        y = lax.conv_general_dilated(x, p["w"].astype(dtype), (1,), [(pad, pad)], rhs_dilation=(d,),
                                     dimension_numbers=("NWC", "WIO", "NWC"))
        return y + p["b"].astype(dtype)

    def layer_norm(p, x):
        x = x.astype(jnp.float32)
        mean = x.mean(-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(-1, keepdims=True)
        return ((x - mean) * lax.rsqrt(variance + 1e-5) * p["w"] + p["b"]).astype(dtype)

    def apply(p, seq, t):
        angle = t[:, None] * fourier * (2 * math.pi)
        time = jax.nn.relu(dense(p["time"], jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1).astype(dtype)))
        feat = jax.nn.relu(conv(p["linear"], jax.nn.one_hot(seq, SYMBOLS, dtype=dtype)))
        for layer, d in zip(p["layers"], DILATIONS):
            h = layer_norm(layer["norm"], feat + dense(layer["dense"], time)[:, None])
            feat = feat + jax.nn.relu(conv(layer["conv"], h, d))
        return dense(p["final"][1], jax.nn.relu(dense(p["final"][0], feat))).astype(jnp.float32)
    return apply


def training_step(apply):
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(2e-4, weight_decay=0.0))

    def loss_of(p, x0, t, u):
        sigma = -jnp.log1p(-(1 - EPS) * t)
        dsigma = (1 - EPS) / (1 - (1 - EPS) * t)
        masked = u < (1 - jnp.exp(-sigma))[:, None]
        logits = apply(p, jnp.where(masked, MASK, x0), jnp.zeros_like(t)).at[..., MASK].add(-1e6)
        logp = jnp.take_along_axis(jax.nn.log_softmax(logits, -1), x0[..., None], -1)[..., 0]
        return (jnp.where(masked, -logp, 0) * (dsigma / jnp.expm1(sigma))[:, None]).mean()

    def step(p, state, x0, t, u):
        loss, gradient = jax.value_and_grad(loss_of)(p, x0, t, u)
        change, state = optimiser.update(gradient, state, p)
        return optax.apply_updates(p, change), state, loss
    return optimiser, jax.jit(step, donate_argnums=(0, 1))


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("work")
    ap.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    a = ap.parse_args()
    kind, batch, length = parse_work(a.work)
    rng = np.random.default_rng(0)
    apply = network(jnp.float32 if a.dtype == "f32" else jnp.bfloat16, jnp.asarray(30 * rng.standard_normal(HIDDEN // 2), jnp.float32))
    p = parameters(rng)
    if kind == "fwd":
        seq, t = jnp.asarray(rng.integers(0, SYMBOLS, (batch, length))), jnp.zeros(batch)
        forward = jax.jit(apply)
        shape = (batch, length, SYMBOLS)
        def once():
            return forward(p, seq, t).block_until_ready()
    else:
        x0, u = jnp.asarray(rng.integers(0, 4, (batch, length))), jnp.asarray(rng.random((batch, length), np.float32))
        t = jnp.arange(batch) / batch * (1 - EPS) + EPS
        optimiser, step = training_step(apply)
        now = [p, optimiser.init(p)]
        before = np.asarray(p["layers"][0]["conv"]["w"])
        shape = ()
        def once():
            now[0], now[1], loss = step(*now, x0, t, u)
            jax.block_until_ready(now[0])
            return loss

    def check(result):
        result = np.asarray(result)
        assert result.shape == shape and np.isfinite(result).all() and abs(result).max() > 0
        assert shape or not np.array_equal(before, np.asarray(now[0]["layers"][0]["conv"]["w"])), "the step moved no weight"
    serve(once, check, {"jax": jax.__version__})


if __name__ == "__main__":
    main()
