/* MPRADragoNN: MPRA-DragoNN's ConvModel (github kundajelab/mpra_minimal) with the names of its Keras file.
 *
 * x [B,145,4] -> three times (convolution of width 5 without padding, ReLU, batch norm with stored moments) -> flatten
 * with channels last -> dense 12.  Kernels are [width, in, out], the dense kernel [in, out], as Keras keeps them. */
#include "builtin.h"

static const char *const ignored[] = {"dropout"};

static DavVal along_channels(DavVal v)
{
    return dav_unsqueeze(dav_unsqueeze(v, 0), 2);
}

static DavVal batch_norm(DavNet *n, int i, DavVal h, int64_t c)
{
    const DavInit ones = {DAV_INIT_ONES, 0}, zeros = {DAV_INIT_ZEROS, 0};
    DavVal gamma = dav_param(n, dav_name(n, "batch_normalization_%d/gamma", i), ones, c);
    DavVal beta = dav_param(n, dav_name(n, "batch_normalization_%d/beta", i), zeros, c);
    DavVal mean = dav_frozen(n, dav_name(n, "batch_normalization_%d/moving_mean", i), zeros, c);
    DavVal var = dav_frozen(n, dav_name(n, "batch_normalization_%d/moving_variance", i), ones, c);
    DavVal scale = dav_mul(dav_rsqrt(dav_add(var, 1e-3)), gamma);
    return dav_add(dav_mul(dav_sub(h, along_channels(mean)), along_channels(scale)), along_channels(beta));
}

static void forward(DavNet *n, const DavConfig *config, const DavVal *in, DavVal *out)
{
    enum { WIDTH = 5, CHANNELS = 120, TASKS = 12 };
    (void)config;
    DavVal h = dav_swap(in[0], 1, 2);
    for (int i = 1; i <= 3; i++) {
        int64_t from = dav_dim(h, 1);
        DavInit spread = {DAV_INIT_NORMAL, 0.05};
        DavVal kernel = dav_param(n, dav_name(n, "conv1d_%d/kernel", i), spread, WIDTH, from, CHANNELS);
        DavVal bias = dav_param(n, dav_name(n, "conv1d_%d/bias", i), (DavInit){0}, CHANNELS);
        h = dav_add(dav_convolve(h, dav_transpose(kernel, 2, 1, 0)), along_channels(bias));
        h = batch_norm(n, i, dav_relu(h), CHANNELS);
    }
    h = dav_swap(h, 1, 2);
    h = dav_reshape(h, dav_dim(h, 0), -1);
    DavVal kernel = dav_param(n, "dense_1/kernel", ((DavInit){DAV_INIT_NORMAL, 0.01}), dav_dim(h, 1), TASKS);
    out[0] = dav_add(dav_matmul(h, kernel), dav_param(n, "dense_1/bias", (DavInit){0}, TASKS));
}

const DavModel model_mpra_dragonn =
    DAV_MODEL(.kind = DAV_REWARD, .name = "MPRADragoNN", .doc = "MPRA-DragoNN: 145 bp of DNA to twelve reporter assays",
              DAV_IGNORED(ignored), .input = {{"x", "f32[B,145,4]", NULL, false, "one-hot A C G T"}},
              .output = {{"y", "f32[B,12]", NULL, false,
                          "k562 minp rep1 rep2 avg, k562 sv40 .., hepg2 minp .., hepg2 sv40 .."}},
              .forward = forward);
