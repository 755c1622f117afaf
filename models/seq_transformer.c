/* SeqTransformer: a bidirectional transformer that fills masked symbols, of any length.
 *
 * Symbols and time -> width; then for each layer: attention with rotary positions, feed-forward with GELU, both
 * behind a layer norm and with a residual; at the end a norm and a linear head.  Positions: Su et al., "RoFormer",
 * 2021 (halves of a head's channels are the pairs).  Time: sinusoids of geometrically spaced frequencies, as in Ho et
 * al., "DDPM", 2020. */
#include "builtin.h"
#include <math.h>

static const DavKey keys[] = {
    {"alphabet_size", DAV_KEY_INT, "5", 2, 65536, NULL, "symbols, the last one being the mask"},
    {"length", DAV_KEY_INT, "80", 1, 65536, NULL, "positions of a sequence"},
    {"width", DAV_KEY_INT, "64", 2, 16384, NULL, "channels; even"},
    {"layers", DAV_KEY_INT, "4", 1, 256, NULL, "attention and feed-forward pairs"},
    {"heads", DAV_KEY_INT, "4", 1, 256, NULL, "attention heads; width / heads is even"},
    {"expansion", DAV_KEY_INT, "4", 1, 64, NULL, "width of the feed-forward part over that of the network"},
};

/* phase [..] -> [.., 2 count]: its product with `count` frequencies from 1 down to 1/10000; cosines, then sines */
static void wave(DavVal phase, int64_t count, DavVal *cosine, DavVal *sine)
{
    DavVal frequency = dav_exp(dav_mul(dav_iota(phase.net, DAV_F32, 0, count), -log(10000) / (double)count));
    DavVal angle = dav_mul(dav_unsqueeze(phase, -1), frequency);
    *cosine = dav_cos(angle);
    *sine = dav_sin(angle);
}

static DavVal time_features(DavNet *n, DavVal t, int64_t width)
{
    DavVal cosine, sine;
    wave(dav_mul(t, 10), width / 2, &cosine, &sine);
    DavVal h = dav_silu(dav_linear(n, "time.0", dav_concat(1, cosine, sine), width));
    return dav_linear(n, "time.2", h, width);
}

/* The first half of the channels turned against the second: x [B,heads,L,D], angles [L,D/2] */
static DavVal rotate(DavVal x, DavVal cosine, DavVal sine)
{
    int64_t half = dav_dim(x, -1) / 2;
    DavVal a = dav_slice(x, -1, 0, half), b = dav_slice(x, -1, half, 2 * half);
    return dav_concat(-1, dav_sub(dav_mul(a, cosine), dav_mul(b, sine)), dav_add(dav_mul(b, cosine), dav_mul(a, sine)));
}

static DavVal attention(DavNet *n, DavVal x, int64_t heads, DavVal cosine, DavVal sine)
{
    int64_t batch = dav_dim(x, 0), length = dav_dim(x, 1), width = dav_dim(x, 2);
    DavVal part[3];
    for (int i = 0; i < 3; i++) {
        DavVal y = dav_linear(n, i == 0 ? "query" : i == 1 ? "key" : "value", x, width);
        part[i] = dav_transpose(dav_reshape(y, batch, length, heads, width / heads), 0, 2, 1, 3);
    }
    DavVal y = dav_attention(rotate(part[0], cosine, sine), rotate(part[1], cosine, sine), part[2]);
    return dav_linear(n, "out", dav_reshape(dav_transpose(y, 0, 2, 1, 3), batch, length, width), width);
}

static void forward(DavNet *n, const DavConfig *c, const DavVal *in, DavVal *out)
{
    int64_t symbols = dav_config_int(c, "alphabet_size"), width = dav_config_int(c, "width");
    int64_t heads = dav_config_int(c, "heads"), expansion = dav_config_int(c, "expansion");
    if (width % (2 * heads)) {
        dav_mistake(n, "SeqTransformer: width is %d, expected a multiple of twice the %d heads (nearest above: %d)",
                    (int)width, (int)heads, (int)((width / (2 * heads) + 1) * (2 * heads)));
        return;
    }
    DavVal onehot = dav_rank(in[0]) == 3 ? in[0] : dav_one_hot(in[0], symbols, DAV_F32);
    DavVal t = in[1].net ? in[1] : dav_const(n, DAV_F32, 0, 1), cosine, sine;
    wave(dav_iota(n, DAV_F32, 0, dav_dim(in[0], 1)), width / heads / 2, &cosine, &sine);
    DavVal x = dav_add(dav_linear(n, "embed", onehot, width), dav_unsqueeze(time_features(n, t, width), 1));
    for (int i = 0; i < dav_config_int(c, "layers"); i++) {
        dav_enter(n, "layers.%d", i);
        x = dav_add(x, attention(n, dav_layer_norm(n, "norm1", x), heads, cosine, sine));
        DavVal h = dav_gelu(dav_linear(n, "up", dav_layer_norm(n, "norm2", x), expansion * width));
        x = dav_add(x, dav_linear(n, "down", h, width));
        dav_leave(n);
    }
    out[0] = dav_linear(n, "head", dav_layer_norm(n, "norm", x), symbols);
}

const DavModel model_seq_transformer =
    DAV_MODEL(.kind = DAV_DENOISER, .name = "SeqTransformer",
              .doc = "masked sequence denoiser: bidirectional transformer with rotary positions", DAV_KEYS(keys),
              .input = {{"seq", "i64[B,L] | f32[B,L,alphabet_size]", "alphabet_size", false,
                         "symbols, or a relaxed one-hot"},
                        {"t", "f32[B]", NULL, false, "sigma, for the time features"}},
              .output = {{"logits", "f32[B,L,alphabet_size]", NULL, false, "of the clean symbol at each position"}},
              .forward = forward);
