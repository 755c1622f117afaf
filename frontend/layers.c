/* Layers with parameters; names, shapes and initial values as in PyTorch's modules. */
#include "frontend/net.h"
#include <inttypes.h>
#include <math.h>
#undef DAV_HERE
#define DAV_HERE at

static const DavInit ones = {DAV_INIT_ONES, 0}, zeros = {DAV_INIT_ZEROS, 0};

static bool layer(DavPlace at, DavNet *n, const char *what, const char *name, DavVal x)
{
    DavNet *net;
    if (!n || !net_operands(at, what, &x, 1, &net))
        return false;
    if (net != n)
        net_bad(at, n, "%s '%s': the operand belongs to another graph", what, name ? name : "");
    return net == n;
}

/* torch.nn.Linear and Conv: weights and biases uniform in +- 1/sqrt(fan in). */
static DavInit fan_in(DavInit asked, int64_t fan)
{
    double bound = fan > 0 ? 1 / sqrt((double)fan) : 0;
    return asked.kind == DAV_INIT_DEFAULT ? (DavInit){DAV_INIT_UNIFORM, bound} : asked;
}

static bool count_ok(DavPlace at, DavNet *n, const char *what, const char *name, const char *of, int64_t v)
{
    if (v >= 1 && v <= INT32_MAX)
        return true;
    net_bad(at, n, "%s '%s': %" PRId64 " %s, expected 1 to %d", what, name ? name : "", v, of, INT32_MAX);
    return false;
}

DavVal dav_linear_(DavPlace at, DavNet *n, const char *name, DavVal x, int64_t out, DavLinear o)
{
    char t[160];
    if (!layer(at, n, "linear", name, x) || !count_ok(at, n, "linear", name, "outputs", out))
        return (DavVal){n, 0};
    if (!net_node(x)->rank)
        return net_bad(at, n, "linear '%s' of %s: expected at least one axis", name ? name : "", net_type_text(x, t));
    int64_t in = dav_dim(x, -1);
    dav_enter(n, "%s", name ? name : "");
    DavVal w = dav_param(n, "weight", fan_in(o.weight, in), out, in);
    DavVal y = dav_matmul(x, dav_swap(w, 0, 1));
    if (!o.no_bias)
        y = dav_add(y, dav_param(n, "bias", fan_in((DavInit){0}, in), out));
    dav_leave(n);
    return y;
}

/* Bias of one value a channel, [C] beside [B, C, spatial..]. */
static DavVal per_channel(DavPlace at, DavVal v, int axis, int rank)
{
    int64_t dim[DAV_MAX_RANK] = {1, 1, 1, 1, 1, 1, 1, 1};
    if (!dav_valid(v) || rank < 1 || axis < 0 || axis >= rank)
        return (DavVal){v.net, 0};
    dim[axis] = dav_dim(v, 0);
    return dav_reshape_(at, v, rank, dim);
}

static DavVal conv(DavPlace at, DavNet *n, const char *name, DavVal x, int64_t out, const DavConv *o, bool transposed)
{
    const char *what = transposed ? "conv_transposed" : "conv";
    char t[160];
    if (!layer(at, n, what, name, x) || !count_ok(at, n, what, name, "outputs", out))
        return (DavVal){n, 0};
    int space = net_node(x)->rank - 2;
    if (space < 1 || space > 3)
        return net_bad(at, n, "%s '%s' of %s: expected [batch, channels, 1 to 3 spatial axes]", what, name ? name : "",
                       net_type_text(x, t));
    int64_t groups = o->groups ? o->groups : 1, in = dav_dim(x, 1);
    if (groups < 1 || in % groups || out % groups)
        return net_bad(at, n,
                       "%s '%s': %" PRId64 " groups do not divide %" PRId64 " input and %" PRId64 " output channels",
                       what, name ? name : "", groups, in, out);
    int64_t dim[DAV_MAX_RANK] = {transposed ? in : out, (transposed ? out : in) / groups}, fan = dim[1];
    for (int i = 0; i < space; i++) {
        dim[i + 2] = o->kernel[i] ? o->kernel[i] : 1;
        if (!count_ok(at, n, what, name, "taps", dim[i + 2]))
            return (DavVal){n, 0};
        fan = fan > INT32_MAX ? fan : fan * dim[i + 2];
    }
    dav_enter(n, "%s", name ? name : "");
    DavVal w = dav_param_(at, n, "weight", fan_in(o->weight, fan), false, space + 2, dim);
    DavConvShape shape = {.groups = groups};
    for (int i = 0; i < 3; i++) {
        shape.stride[i] = o->stride[i];
        shape.dilation[i] = o->dilation[i];
        shape.pad[i] = o->pad[i];
        shape.more[i] = o->more[i];
    }
    DavVal y = transposed ? dav_convolve_transposed_(at, x, w, shape) : dav_convolve_(at, x, w, shape);
    if (!o->no_bias)
        y = dav_add(y, per_channel(at, dav_param(n, "bias", fan_in((DavInit){0}, fan), out), 1, space + 2));
    dav_leave(n);
    return y;
}

DavVal dav_conv_(DavPlace at, DavNet *n, const char *name, DavVal x, int64_t out, DavConv o)
{
    return conv(at, n, name, x, out, &o, false);
}

DavVal dav_conv_transposed_(DavPlace at, DavNet *n, const char *name, DavVal x, int64_t out, DavConv o)
{
    return conv(at, n, name, x, out, &o, true);
}

/* ---- norms ---- */
static double eps_of(DavNorm o)
{
    return o.eps > 0 ? o.eps : 1e-5;
}

/* y * weight + bias, one of each a channel; channels are numbered by `axes` axes from `axis` on. */
static DavVal affine(DavPlace at, DavNet *n, const char *name, DavVal y, int axis, int axes, bool bias)
{
    int64_t dim[DAV_MAX_RANK] = {1, 1, 1, 1, 1, 1, 1, 1}, channels = 1;
    int rank = dav_rank(y);
    for (int i = axis; i < axis + axes; i++)
        channels *= dim[i] = dav_dim(y, i);
    dav_enter(n, "%s", name ? name : "");
    y = dav_mul(y, dav_reshape_(at, dav_param(n, "weight", ones, channels), rank, dim));
    if (bias)
        y = dav_add(y, dav_reshape_(at, dav_param(n, "bias", zeros, channels), rank, dim));
    dav_leave(n);
    return y;
}

static bool norm_axis(DavPlace at, DavNet *n, const char *what, const char *name, DavVal x, DavNorm o, int *axis)
{
    return layer(at, n, what, name, x) && net_axis(at, what, x, o.axis ? o.axis : -1, axis);
}

DavVal dav_layer_norm_(DavPlace at, DavNet *n, const char *name, DavVal x, DavNorm o)
{
    int axis;
    if (!norm_axis(at, n, "layer_norm", name, x, o, &axis))
        return (DavVal){n, 0};
    DavVal mid = dav_sub(x, dav_mean_keep(x, axis));
    DavVal y = dav_mul(mid, dav_rsqrt(dav_add(dav_mean_keep(dav_square(mid), axis), eps_of(o))));
    return o.no_affine ? y : affine(at, n, name, y, axis, 1, true);
}

DavVal dav_rms_norm_(DavPlace at, DavNet *n, const char *name, DavVal x, DavNorm o)
{
    int axis;
    if (!norm_axis(at, n, "rms_norm", name, x, o, &axis))
        return (DavVal){n, 0};
    DavVal y = dav_mul(x, dav_rsqrt(dav_add(dav_mean_keep(dav_square(x), axis), eps_of(o))));
    return o.no_affine ? y : affine(at, n, name, y, axis, 1, false);
}

DavVal dav_group_norm_(DavPlace at, DavNet *n, const char *name, DavVal x, int64_t groups, DavNorm o)
{
    char t[160];
    if (!layer(at, n, "group_norm", name, x))
        return (DavVal){n, 0};
    const Node *a = net_node(x);
    if (a->rank < 2 || groups < 1 || a->dim[1] % groups)
        return net_bad(at, n,
                       "group_norm '%s' of %s: expected [batch, channels, ..] with channels divisible by %" PRId64,
                       name ? name : "", net_type_text(x, t), groups);
    int rank = a->rank;
    if (rank == DAV_MAX_RANK)
        return net_bad(at, n, "group_norm '%s' of %s: too many axes", name ? name : "", net_type_text(x, t));
    int64_t shape[DAV_MAX_RANK], grouped[DAV_MAX_RANK] = {a->dim[0], groups, a->dim[1] / groups}, axes[DAV_MAX_RANK] = {2};
    for (int i = 0; i < rank; i++)
        shape[i] = a->dim[i];
    for (int i = 2; i < rank; i++) {
        grouped[i + 1] = shape[i];
        axes[i - 1] = i + 1;
    }
    DavVal apart = dav_reshape_(at, x, rank + 1, grouped); /* no axes joined: channels may lie last in memory */
    DavVal mid = dav_sub(apart, dav_mean_(at, apart, true, rank - 1, axes));
    DavVal y = dav_mul(mid, dav_rsqrt(dav_add(dav_mean_(at, dav_square(mid), true, rank - 1, axes), eps_of(o))));
    return dav_reshape_(at, o.no_affine ? y : affine(at, n, name, y, 1, 2, true), rank, shape);
}

DavVal dav_batch_norm_(DavPlace at, DavNet *n, const char *name, DavVal x, DavNorm o)
{
    char t[160];
    if (!layer(at, n, "batch_norm", name, x))
        return (DavVal){n, 0};
    if (net_node(x)->rank < 2)
        return net_bad(at, n, "batch_norm '%s' of %s: expected [batch, channels, ..]", name ? name : "",
                       net_type_text(x, t));
    int rank = dav_rank(x);
    int64_t c = dav_dim(x, 1);
    dav_enter(n, "%s", name ? name : "");
    DavVal mean = per_channel(at, dav_frozen(n, "running_mean", zeros, c), 1, rank);
    DavVal var = per_channel(at, dav_frozen(n, "running_var", ones, c), 1, rank);
    dav_leave(n);
    DavVal y = dav_mul(dav_sub(x, mean), dav_rsqrt(dav_add(var, eps_of(o))));
    return o.no_affine ? y : affine(at, n, name, y, 1, 1, true);
}

DavVal dav_embedding_(DavPlace at, DavNet *n, const char *name, DavVal index, int64_t count, int64_t width)
{
    if (!layer(at, n, "embedding", name, index) || !count_ok(at, n, "embedding", name, "entries", count) ||
        !count_ok(at, n, "embedding", name, "columns", width))
        return (DavVal){n, 0};
    dav_enter(n, "%s", name ? name : "");
    DavVal w = dav_param(n, "weight", ((DavInit){DAV_INIT_NORMAL, 1}), count, width);
    dav_leave(n);
    return dav_gather(w, index, 0);
}
