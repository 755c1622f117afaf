/* SeqCNN: a sequence-to-number network, for oracles.
 *
 * Relaxed one-hot [B,L,letters] -> blocks of conv, ReLU, max pool -> mean or flatten -> dense, ReLU -> outputs.
 * An assay's scale ends; with output_max the network does not promise more than it, however far a sequence is from the data. */
#include "builtin.h"

static const DavKey keys[] = {
    {"letters", DAV_KEY_INT, "4", 1, 64, NULL, "symbols of the alphabet, without a mask"},
    {"length", DAV_KEY_INT, "80", 1, 65536, NULL, "positions of a sequence"},
    {"channels", DAV_KEY_INTS, "[128, 128, 64]", 1, 4096, NULL, "channels of each convolution"},
    {"kernels", DAV_KEY_INTS, "[11, 7, 5]", 1, 129, NULL, "taps of each convolution"},
    {"pool", DAV_KEY_INTS, "[2, 2, 2]", 1, 64, NULL, "max pooling after each convolution"},
    {"dense", DAV_KEY_INT, "64", 1, 65536, NULL, "hidden units of the head"},
    {"outputs", DAV_KEY_INT, "1", 1, 1024, NULL, "numbers predicted"},
    {"output_max", DAV_KEY_FLOAT, "0", 0, 1e6, NULL, "outputs between 0 and this, by a sigmoid; 0: unbounded"},
    {"activation", DAV_KEY_STRING, "relu", 0, 0, "relu|silu|gelu", "between the layers"},
};

static DavVal activate(const DavConfig *c, DavVal x)
{
    char first = dav_config_string(c, "activation")[0];
    return first == 'r' ? dav_relu(x) : first == 's' ? dav_silu(x) : dav_gelu(x);
}

static void forward(DavNet *n, const DavConfig *c, const DavVal *in, DavVal *out)
{
    int blocks, nk, np;
    const int64_t *channels = dav_config_ints(c, "channels", &blocks), *kernel = dav_config_ints(c, "kernels", &nk);
    const int64_t *pool = dav_config_ints(c, "pool", &np);
    if (nk != blocks || np != blocks || blocks < 1) {
        dav_mistake(n, "SeqCNN: %d channels, %d kernels, %d pools; expected one of each for each block", blocks, nk,
                    np);
        return;
    }
    DavVal h = dav_swap(in[0], 1, 2);
    for (int i = 0; i < blocks; i++) {
        h = activate(
            c, dav_conv(n, dav_name(n, "convs.%d", i), h, channels[i], .kernel = {kernel[i]}, .pad = {kernel[i] / 2}));
        h = dav_max_pool(h, .size = {pool[i]});
    }
    h = dav_reshape(h, dav_dim(h, 0), -1);
    h = activate(c, dav_linear(n, "dense", h, dav_config_int(c, "dense")));
    DavVal y = dav_linear(n, "head", h, dav_config_int(c, "outputs"));
    double max = dav_config_float(c, "output_max");
    out[0] = max > 0 ? dav_mul(dav_sigmoid(y), max) : y;
}

const DavModel model_seq_cnn =
    DAV_MODEL(.kind = DAV_REWARD, .name = "SeqCNN",
              .doc = "sequence-to-number CNN: convolutions with pooling, a dense head", DAV_KEYS(keys),
              .input = {{"x", "f32[B,length,letters]", NULL, false, "relaxed one-hot"}},
              .output = {{"y", "f32[B,outputs]", NULL, false, "predicted numbers"}}, .forward = forward);
