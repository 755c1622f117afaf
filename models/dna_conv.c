/* DNAConv: the masked DNA denoiser of the DAV paper's reference code.
 *
 * One-hot [B,V,L] -> conv -> ReLU; then for each layer: feat + dense(time), layer norm over channels, dilated conv,
 * ReLU, residual; at the end two 1x1 convolutions.  The copies of one dilation follow each other. */
#include "builtin.h"
#include <math.h>

static const DavKey keys[] = {
    {"alphabet_size", DAV_KEY_INT, "5", 2, 64, NULL, "symbols, the last one being the mask"},
    {"hidden_dim", DAV_KEY_INT, "128", 2, 4096, NULL, "channels; even"},
    {"num_cnn_stacks", DAV_KEY_INT, "4", 1, 64, NULL, "layers for each dilation"},
    {"length", DAV_KEY_INT, "200", 1, 65536, NULL, "positions of a sequence"},
    {"kernel_size", DAV_KEY_INT, "9", 1, 129, NULL, "taps of a convolution; odd"},
    {"dilations", DAV_KEY_INTS, "[1, 1, 4, 16, 64]", 1, 4096, NULL, "dilation of each group of layers"},
    {"fourier_scale", DAV_KEY_FLOAT, "30", 0, 1e6, NULL, "standard deviation of the time features' frequencies"},
    {"clean_data", DAV_KEY_BOOL, "false", 0, 0, NULL, "the reference's classifier mode; only false"},
    {"cls_free_guidance", DAV_KEY_BOOL, "false", 0, 0, NULL, "class conditioning; only false"},
};
static const char *const ignored[] = {"dropout"};

/* sin and cos of 2 pi t W, a linear layer, ReLU: [B] -> [B,H] */
static DavVal time_features(DavNet *n, DavVal t, int64_t hidden, double scale)
{
    DavVal w = dav_frozen(n, "time_embedder.0.W", ((DavInit){DAV_INIT_NORMAL, scale}), hidden / 2);
    DavVal angle = dav_mul(dav_mul(dav_unsqueeze(t, 1), w), 2 * M_PI);
    DavVal wave = dav_concat(1, dav_sin(angle), dav_cos(angle));
    return dav_relu(dav_linear(n, "time_embedder.1", wave, hidden));
}

static DavVal layer(DavNet *n, int i, DavVal feat, DavVal time, int64_t kernel, int64_t dilation)
{
    int64_t c = dav_dim(feat, 1);
    DavVal shift = dav_linear(n, dav_name(n, "time_layers.%d.dense", i), time, c);
    DavVal h = dav_add(feat, dav_unsqueeze(shift, 2));
    h = dav_layer_norm(n, dav_name(n, "norms.%d", i), h, .axis = 1);
    h = dav_conv(n, dav_name(n, "convs.%d", i), h, c, .kernel = {kernel}, .dilation = {dilation},
                 .pad = {dilation * (kernel / 2)});
    return dav_add(feat, dav_relu(h));
}

static void forward(DavNet *n, const DavConfig *c, const DavVal *in, DavVal *out)
{
    int64_t symbols = dav_config_int(c, "alphabet_size"), hidden = dav_config_int(c, "hidden_dim");
    int64_t kernel = dav_config_int(c, "kernel_size"), stacks = dav_config_int(c, "num_cnn_stacks");
    if (kernel % 2 == 0)
        dav_mistake(n, "DNAConv: kernel_size is %d, expected an odd number (nearest: %d)", (int)kernel,
                    (int)kernel + 1);
    if (hidden % 2)
        dav_mistake(n, "DNAConv: hidden_dim is %d, expected an even number (nearest: %d)", (int)hidden,
                    (int)hidden + 1);
    if (dav_config_bool(c, "clean_data") || dav_config_bool(c, "cls_free_guidance"))
        dav_mistake(n, "DNAConv: clean_data and cls_free_guidance are known only as false");
    DavVal onehot = dav_rank(in[0]) == 3 ? in[0] : dav_one_hot(in[0], symbols, DAV_F32);
    DavVal t = in[1].net ? in[1] : dav_const(n, DAV_F32, 0, 1);
    DavVal time = time_features(n, t, hidden, dav_config_float(c, "fourier_scale"));
    DavVal feat =
        dav_relu(dav_conv(n, "linear", dav_swap(onehot, 1, 2), hidden, .kernel = {kernel}, .pad = {kernel / 2}));
    int groups, i = 0;
    const int64_t *dilation = dav_config_ints(c, "dilations", &groups);
    if (groups * stacks > 1024)
        dav_mistake(n, "DNAConv: %d dilations of %d layers each, expected at most 1024 layers", groups, (int)stacks);
    for (int g = 0; g < groups && groups * stacks <= 1024; g++)
        for (int64_t k = 0; k < stacks; k++)
            feat = layer(n, i++, feat, time, kernel, dilation[g]);
    DavVal h = dav_relu(dav_conv(n, "final_conv.0", feat, hidden, .kernel = {1}));
    out[0] = dav_swap(dav_conv(n, "final_conv.2", h, symbols, .kernel = {1}), 1, 2);
}

const DavModel model_dna_conv =
    DAV_MODEL(.kind = DAV_DENOISER, .name = "DNAConv",
              .doc = "masked DNA denoiser: dilated convolutions with layer norm and time features", DAV_KEYS(keys),
              DAV_IGNORED(ignored),
              .input = {{"seq", "i64[B,L] | f32[B,L,alphabet_size]", "alphabet_size", false,
                         "symbols, or a relaxed one-hot"},
                        {"t", "f32[B]", NULL, false, "sigma for the time features"}},
              .output = {{"logits", "f32[B,L,alphabet_size]", NULL, false, "of the clean symbol at each position"}},
              .forward = forward);
