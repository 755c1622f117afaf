/* A small bidirectional transformer that fills masked letters: the tutorial's network, a plugin. */
#include <dav/dav.h>

static const DavKey keys[] = {
    {"alphabet_size", DAV_KEY_INT, "5", 2, 64, NULL, "symbols, the last one being the mask"},
    {"length", DAV_KEY_INT, "80", 1, 4096, NULL, "positions of a sequence"},
    {"width", DAV_KEY_INT, "32", 1, 4096, NULL, "channels"},
    {"layers", DAV_KEY_INT, "2", 1, 64, NULL, "attention and feed-forward pairs"},
    {"heads", DAV_KEY_INT, "4", 1, 64, NULL, "attention heads; they divide the width"},
};

/* [B,L,W] -> [B,heads,L,W/heads] */
static DavVal split(DavVal x, int64_t heads)
{
    return dav_transpose(dav_reshape(x, dav_dim(x, 0), dav_dim(x, 1), heads, -1), 0, 2, 1, 3);
}

static DavVal attend(DavNet *n, DavVal x, int64_t heads)
{
    int64_t width = dav_dim(x, -1);
    DavVal q = split(dav_linear(n, "query", x, width), heads);
    DavVal k = split(dav_linear(n, "key", x, width), heads);
    DavVal v = split(dav_linear(n, "value", x, width), heads);
    DavVal y = dav_transpose(dav_attention(q, k, v), 0, 2, 1, 3);
    return dav_linear(n, "out", dav_reshape(y, dav_dim(x, 0), dav_dim(x, 1), width), width);
}

static DavVal layer(DavNet *n, DavVal x, int64_t heads)
{
    int64_t width = dav_dim(x, -1);
    x = dav_add(x, attend(n, dav_layer_norm(n, "norm1", x), heads));
    DavVal h = dav_gelu(dav_linear(n, "up", dav_layer_norm(n, "norm2", x), 4 * width));
    return dav_add(x, dav_linear(n, "down", h, width));
}

static void forward(DavNet *n, const DavConfig *c, const DavVal *in, DavVal *out)
{
    int64_t symbols = dav_config_int(c, "alphabet_size"), length = dav_config_int(c, "length");
    int64_t width = dav_config_int(c, "width"), heads = dav_config_int(c, "heads");
    if (width % heads)
        dav_mistake(n, "Transformer: %d heads do not divide the width %d", (int)heads, (int)width);
    DavVal onehot = dav_rank(in[0]) == 3 ? in[0] : dav_one_hot(in[0], symbols, DAV_F32);
    DavVal x = dav_conv(n, "embed", dav_swap(onehot, 1, 2), width, .kernel = {7}, .pad = {3});
    DavVal place = dav_param(n, "place", ((DavInit){DAV_INIT_NORMAL, 0.02}), length, width);
    x = dav_add(dav_swap(x, 1, 2), place);
    for (int i = 0; i < dav_config_int(c, "layers"); i++) {
        dav_enter(n, "layers.%d", i);
        x = layer(n, x, heads);
        dav_leave(n);
    }
    out[0] = dav_linear(n, "head", dav_layer_norm(n, "norm", x), symbols);
}

static const DavModel transformer = DAV_MODEL(
    .kind = DAV_DENOISER, .name = "Transformer", .doc = "small bidirectional transformer over letters", DAV_KEYS(keys),
    .input = {{"seq", "i64[B,length] | f32[B,length,alphabet_size]", "alphabet_size", false, "symbols, or a relaxed one-hot"},
              {"t", "f32[B]", NULL, true, "time, which this network does not look at"}},
    .output = {{"logits", "f32[B,length,alphabet_size]", NULL, false, "of the clean symbol at each position"}},
    .forward = forward);

static const DavModel *const models[] = {&transformer};
DAV_PLUGIN(.models = models, .n_models = 1);
