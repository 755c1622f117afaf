/* TinyDenoiser: a masked denoiser for problems small enough to enumerate (length 3 to 5, two to four letters): the
 * one-hot state, flattened, through one hidden layer; logits for every position. */
#include "builtin.h"

static const DavKey keys[] = {
    {"alphabet_size", DAV_KEY_INT, "4", 2, 64, NULL, "symbols, the last one being the mask"},
    {"length", DAV_KEY_INT, "4", 1, 64, NULL, "positions of a sequence"},
    {"hidden_dim", DAV_KEY_INT, "16", 1, 1024, NULL, "hidden units"},
};

static void forward(DavNet *n, const DavConfig *c, const DavVal *in, DavVal *out)
{
    int64_t symbols = dav_config_int(c, "alphabet_size"), length = dav_config_int(c, "length");
    DavVal onehot = dav_rank(in[0]) == 3 ? in[0] : dav_one_hot(in[0], symbols, DAV_F32);
    int64_t batch = dav_dim(onehot, 0);
    DavVal h = dav_linear(n, "first", dav_reshape(onehot, batch, -1), dav_config_int(c, "hidden_dim"));
    if (in[1].net)
        h = dav_add(h, dav_linear(n, "time", dav_unsqueeze(in[1], 1), dav_config_int(c, "hidden_dim")));
    out[0] = dav_reshape(dav_linear(n, "second", dav_tanh(h), length * symbols), batch, length, symbols);
}

const DavModel model_tiny_denoiser =
    DAV_MODEL(.kind = DAV_DENOISER, .name = "TinyDenoiser",
              .doc = "one hidden layer over the whole sequence, for enumerable problems", DAV_KEYS(keys),
              .input = {{"seq", "i64[B,length] | f32[B,length,alphabet_size]", "alphabet_size", false,
                         "symbols, or a relaxed one-hot"},
                        {"t", "f32[B]", NULL, false, "time"}},
              .output = {{"logits", "f32[B,length,alphabet_size]", NULL, false,
                          "of the clean symbol at each position"}},
              .forward = forward);
