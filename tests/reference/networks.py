"""The networks of `dav run` written from their definitions, in PyTorch and as functions of a dictionary of tensors whose keys
are those of the weights' file.  Everything in the dtype of the tensors given (the dumps use f64)."""
import math
import torch
import torch.nn.functional as F

DNA_DEFAULTS = dict(_class_name="DNAConv", alphabet_size=5, hidden_dim=128, num_cnn_stacks=4, length=200, dropout=0.0,
                    clean_data=False, cls_free_guidance=False)


def dna_dilations(config):
    return [d for d in config.get("dilations", [1, 1, 4, 16, 64]) for _ in range(config["num_cnn_stacks"])]


def dna_conv(config, p, seq, t):
    """Masked DNA denoiser: seq [B,L] ids or [B,L,5] relaxed one-hot, t [B] -> logits [B,L,5]."""
    k = config.get("kernel_size", 9)
    x = F.one_hot(seq, config["alphabet_size"]).to(t.dtype) if seq.ndim == 2 else seq
    angle = t[:, None] * p["time_embedder.0.W"] * (2 * math.pi)
    time = torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)
    time = F.relu(F.linear(time, p["time_embedder.1.weight"], p["time_embedder.1.bias"]))
    feat = F.relu(F.conv1d(x.transpose(1, 2), p["linear.weight"], p["linear.bias"], padding=k // 2))
    for i, d in enumerate(dna_dilations(config)):
        h = feat + F.linear(time, p[f"time_layers.{i}.dense.weight"], p[f"time_layers.{i}.dense.bias"])[:, :, None]
        h = F.layer_norm(h.transpose(1, 2), (h.shape[1],), p[f"norms.{i}.weight"], p[f"norms.{i}.bias"]).transpose(1, 2)
        feat = feat + F.relu(F.conv1d(h, p[f"convs.{i}.weight"], p[f"convs.{i}.bias"], padding=d * (k // 2), dilation=d))
    h = F.relu(F.conv1d(feat, p["final_conv.0.weight"], p["final_conv.0.bias"]))
    return {"logits": F.conv1d(h, p["final_conv.2.weight"], p["final_conv.2.bias"]).transpose(1, 2)}


def dna_tensors(config):
    """name -> shape, offset, scale, trainable; scales are powers of two near 1 / sqrt(fan in)."""
    h, v, k = config["hidden_dim"], config["alphabet_size"], config.get("kernel_size", 9)
    def near(fan):
        return 2.0 ** round(-0.5 * math.log2(fan))
    out = {"linear.weight": ((h, v, k), 0, near(v * k), True), "linear.bias": ((h,), 0, near(v * k), True),
           "time_embedder.0.W": ((h // 2,), 0, config.get("fourier_scale", 30), False),
           "time_embedder.1.weight": ((h, h), 0, near(h), True), "time_embedder.1.bias": ((h,), 0, near(h), True)}
    for i, _ in enumerate(dna_dilations(config)):
        out[f"convs.{i}.weight"] = ((h, h, k), 0, near(h * k), True)
        out[f"convs.{i}.bias"] = ((h,), 0, near(h * k), True)
        out[f"time_layers.{i}.dense.weight"] = ((h, h), 0, near(h), True)
        out[f"time_layers.{i}.dense.bias"] = ((h,), 0, near(h), True)
        out[f"norms.{i}.weight"] = ((h,), 1, 0.25, True)
        out[f"norms.{i}.bias"] = ((h,), 0, 0.25, True)
    out["final_conv.0.weight"] = ((h, h, 1), 0, near(h), True)
    out["final_conv.0.bias"] = ((h,), 0, near(h), True)
    out["final_conv.2.weight"] = ((v, h, 1), 0, near(h), True)
    out["final_conv.2.bias"] = ((v,), 0, near(h), True)
    return out


def mpra_dragonn(config, p, x):
    """x [B,145,4] -> y [B,12]: 3 x (convolution of width 5 without padding, ReLU, batch norm with stored moments), dense."""
    h = x
    for i in (1, 2, 3):
        kernel = p[f"conv1d_{i}/kernel"]  # width, in, out
        h = F.relu(F.conv1d(h.transpose(1, 2), kernel.permute(2, 1, 0), p[f"conv1d_{i}/bias"])).transpose(1, 2)
        n = f"batch_normalization_{i}/"
        h = (h - p[n + "moving_mean"]) / torch.sqrt(p[n + "moving_variance"] + 1e-3) * p[n + "gamma"] + p[n + "beta"]
    return {"y": h.flatten(1) @ p["dense_1/kernel"] + p["dense_1/bias"]}


def mpra_tensors(config):
    out = {}
    for i, cin, scale in ((1, 4, 0.25), (2, 120, 0.0625), (3, 120, 0.0625)):
        out[f"conv1d_{i}/kernel"] = ((5, cin, 120), 0, scale, True)
        out[f"conv1d_{i}/bias"] = ((120,), 0, 0.0625, True)
        n = f"batch_normalization_{i}/"
        out[n + "gamma"] = ((120,), 1, 0.25, True)
        out[n + "beta"] = ((120,), 0, 0.25, True)
        out[n + "moving_mean"] = ((120,), 0.25, 0.25, False)
        out[n + "moving_variance"] = ((120,), 1, 0.5, False)
    out["dense_1/kernel"] = ((15960, 12), 0, 2.0**-7, True)
    out["dense_1/bias"] = ((12,), 0, 0.25, True)
    return out


AESTHETIC_LAYERS = ((0, 768, 1024), (2, 1024, 128), (4, 128, 64), (6, 64, 16), (7, 16, 1))


def aesthetic_mlp(config, p, image_embeds):
    """image_embeds [B,768] -> score [B,1]: five linear layers, nothing between them."""
    h = image_embeds
    for i, _, _ in AESTHETIC_LAYERS:
        h = F.linear(h, p[f"layers.{i}.weight"], p[f"layers.{i}.bias"])
    return {"score": h}


def aesthetic_tensors(config):
    out = {}
    for i, cin, cout in AESTHETIC_LAYERS:
        scale = 2.0 ** round(-0.5 * math.log2(cin))
        out[f"layers.{i}.weight"] = ((cout, cin), 0, scale, True)
        out[f"layers.{i}.bias"] = ((cout,), 0, scale, True)
    return out


def waves(phase, count):
    """cos and sin of phase times `count` frequencies from 1 down to 1/10000."""
    angle = phase[..., None] * torch.exp(torch.arange(count, dtype=phase.dtype) * (-math.log(10000) / count))
    return torch.cos(angle), torch.sin(angle)


def seq_transformer(config, p, seq, t):
    """Masked sequence denoiser: seq [B,L] ids or [B,L,V] relaxed one-hot, t [B] -> logits [B,L,V]."""
    width, heads = config["width"], config["heads"]
    linear = lambda name, x: F.linear(x, p[name + ".weight"], p[name + ".bias"])
    norm = lambda name, x: F.layer_norm(x, (width,), p[name + ".weight"], p[name + ".bias"])
    onehot = F.one_hot(seq, config["alphabet_size"]).to(t.dtype) if seq.ndim == 2 else seq
    time = linear("time.2", F.silu(linear("time.0", torch.cat(waves(10 * t, width // 2), dim=-1))))
    x = linear("embed", onehot) + time[:, None]
    place = waves(torch.arange(x.shape[1], dtype=t.dtype), width // heads // 2)
    turn = torch.complex(*place)  # [L, D/2]: a pair of channels is a complex number that its position turns

    def rotate(z):
        z = torch.complex(*z.chunk(2, dim=-1)) * turn
        return torch.cat([z.real, z.imag], dim=-1)

    for i in range(config["layers"]):
        h = norm(f"layers.{i}.norm1", x)
        q, k, v = (linear(f"layers.{i}.{part}", h).unflatten(-1, (heads, -1)).transpose(1, 2) for part in ("query", "key", "value"))
        y = F.scaled_dot_product_attention(rotate(q), rotate(k), v).transpose(1, 2).flatten(2)
        x = x + linear(f"layers.{i}.out", y)
        x = x + linear(f"layers.{i}.down", F.gelu(linear(f"layers.{i}.up", norm(f"layers.{i}.norm2", x))))
    return {"logits": linear("head", norm("norm", x))}


def transformer_tensors(config):
    w, v, wide = config["width"], config["alphabet_size"], config["width"] * config.get("expansion", 4)
    out = {}

    def linear(name, rows, columns):
        scale = 2.0 ** round(-0.5 * math.log2(columns))
        out[name + ".weight"], out[name + ".bias"] = ((rows, columns), 0, scale, True), ((rows,), 0, scale, True)

    def norm(name):
        out[name + ".weight"], out[name + ".bias"] = ((w,), 1, 0.25, True), ((w,), 0, 0.25, True)

    linear("time.0", w, w)
    linear("time.2", w, w)
    linear("embed", w, v)
    for i in range(config["layers"]):
        norm(f"layers.{i}.norm1")
        for part in ("query", "key", "value", "out"):
            linear(f"layers.{i}.{part}", w, w)
        norm(f"layers.{i}.norm2")
        linear(f"layers.{i}.up", wide, w)
        linear(f"layers.{i}.down", w, wide)
    norm("norm")
    linear("head", v, w)
    return out


# class name -> forward, tensors, tensors that have no gradient
NETWORKS = {"DNAConv": (dna_conv, dna_tensors), "MPRADragoNN": (mpra_dragonn, mpra_tensors),
            "AestheticMLP": (aesthetic_mlp, aesthetic_tensors), "SeqTransformer": (seq_transformer, transformer_tensors)}
