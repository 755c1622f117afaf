/* Parameters, layers and compositions.  Layouts are PyTorch's: images and sequences are [B, C, spatial..], weights of
 * linear layers [out, in], of convolutions [out, in/groups, kernel..]; parameters are named as in PyTorch's modules. */
#pragma once
#include "dav/graph.h"
#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- parameters and their names ----
 * A parameter's full name is the open scopes and its own name, joined by dots: "convs.3.weight". */
typedef enum {
    DAV_INIT_DEFAULT, /* what PyTorch's layer of the kind does; of dav_param: zeros */
    DAV_INIT_ZEROS,
    DAV_INIT_ONES,
    DAV_INIT_UNIFORM, /* in -scale .. scale */
    DAV_INIT_NORMAL,  /* mean 0, standard deviation scale */
} DavInitKind;
typedef struct DavInit { DavInitKind kind; double scale; } DavInit;

#define dav_enter(n, ...) dav_enter_(DAV_HERE, n, __VA_ARGS__) /* printf-like */
#define dav_leave(n) dav_leave_(DAV_HERE, n)
void dav_enter_(DavPlace at, DavNet *n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void dav_leave_(DavPlace at, DavNet *n);
/* A name made printf-like, kept as long as the net: dav_linear(n, dav_name(n, "layers.%d", i), ...). */
const char *dav_name(DavNet *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* An f32 parameter; initial values depend on the seed and its full name alone.  Frozen ones have no gradient. */
#define dav_param(n, name, init, ...) dav_param_(DAV_HERE, n, name, init, false, DAV_INTS_(__VA_ARGS__))
#define dav_frozen(n, name, init, ...) dav_param_(DAV_HERE, n, name, init, true, DAV_INTS_(__VA_ARGS__))
DavVal dav_param_(DavPlace at, DavNet *n, const char *name, DavInit init, bool frozen, int rank, const int64_t *dim);

/* ---- layers with parameters; options by name: dav_conv(n, "conv", x, 64, .kernel = {3, 3}, .pad = {1, 1}) ---- */
typedef struct DavLinear { bool no_bias; DavInit weight; } DavLinear;
typedef struct DavConv {
    int64_t kernel[3], stride[3], dilation[3], pad[3], more[3], groups; /* 0: kernel, stride, dilation, groups 1 */
    bool no_bias;
    DavInit weight;
} DavConv;
typedef struct DavNorm {
    int axis; /* of layer_norm and rms_norm: the one that is normalised; 0 stands for the last */
    double eps; /* 0: 1e-5 */
    bool no_affine;
} DavNorm;
#define dav_linear(n, name, x, out, ...) dav_linear_(DAV_HERE, n, name, x, out, (DavLinear){__VA_ARGS__})
#define dav_conv(n, name, x, out, ...) dav_conv_(DAV_HERE, n, name, x, out, (DavConv){__VA_ARGS__})
#define dav_conv_transposed(n, name, x, out, ...) \
    dav_conv_transposed_(DAV_HERE, n, name, x, out, (DavConv){__VA_ARGS__})
#define dav_layer_norm(n, name, x, ...) dav_layer_norm_(DAV_HERE, n, name, x, (DavNorm){__VA_ARGS__})
#define dav_rms_norm(n, name, x, ...) dav_rms_norm_(DAV_HERE, n, name, x, (DavNorm){__VA_ARGS__})
#define dav_group_norm(n, name, x, groups, ...) dav_group_norm_(DAV_HERE, n, name, x, groups, (DavNorm){__VA_ARGS__})
/* By stored moments. */
#define dav_batch_norm(n, name, x, ...) dav_batch_norm_(DAV_HERE, n, name, x, (DavNorm){__VA_ARGS__})
#define dav_embedding(n, name, index, count, width) dav_embedding_(DAV_HERE, n, name, index, count, width)
DavVal dav_linear_(DavPlace at, DavNet *n, const char *name, DavVal x, int64_t out, DavLinear o);
DavVal dav_conv_(DavPlace at, DavNet *n, const char *name, DavVal x, int64_t out, DavConv o);
DavVal dav_conv_transposed_(DavPlace at, DavNet *n, const char *name, DavVal x, int64_t out, DavConv o);
DavVal dav_layer_norm_(DavPlace at, DavNet *n, const char *name, DavVal x, DavNorm o);
DavVal dav_rms_norm_(DavPlace at, DavNet *n, const char *name, DavVal x, DavNorm o);
DavVal dav_group_norm_(DavPlace at, DavNet *n, const char *name, DavVal x, int64_t groups, DavNorm o);
DavVal dav_batch_norm_(DavPlace at, DavNet *n, const char *name, DavVal x, DavNorm o);
DavVal dav_embedding_(DavPlace at, DavNet *n, const char *name, DavVal index, int64_t count, int64_t width);

/* ---- compositions without parameters ---- */
#define dav_relu(x) dav_relu_(DAV_HERE, x)
#define dav_sigmoid(x) dav_sigmoid_(DAV_HERE, x)
#define dav_silu(x) dav_silu_(DAV_HERE, x)
#define dav_gelu(x) dav_gelu_(DAV_HERE, x)           /* by erf */
#define dav_gelu_tanh(x) dav_gelu_tanh_(DAV_HERE, x) /* the tanh form */
#define dav_softplus(x) dav_softplus_(DAV_HERE, x)
#define dav_softmax(x, axis) dav_softmax_(DAV_HERE, x, axis)
#define dav_log_softmax(x, axis) dav_log_softmax_(DAV_HERE, x, axis)
#define dav_logsumexp(x, axis) dav_logsumexp_(DAV_HERE, x, axis) /* the axis goes */
/* -log softmax(logits)[target] over the last axis; target, result: shaped as logits without it. */
#define dav_cross_entropy(logits, target) dav_cross_entropy_(DAV_HERE, logits, target)
/* Pools over the spatial axes of [B, C, spatial..]; stride 0: the size.  Averages count the padding, as in PyTorch. */
typedef struct DavPool { int64_t size[3], stride[3], pad[3]; } DavPool;
#define dav_max_pool(x, ...) dav_pool_(DAV_HERE, x, true, (DavPool){__VA_ARGS__})
#define dav_avg_pool(x, ...) dav_pool_(DAV_HERE, x, false, (DavPool){__VA_ARGS__})
/* softmax(scale q k^T) v; q [.., L, D], k [.., S, D], v [.., S, E].  scale 0: 1/sqrt(D). */
typedef struct DavAttention { double scale; bool causal; } DavAttention;
#define dav_attention(q, k, v, ...) dav_attention_(DAV_HERE, q, k, v, (DavAttention){__VA_ARGS__})
DavVal dav_relu_(DavPlace at, DavVal x), dav_sigmoid_(DavPlace at, DavVal x), dav_silu_(DavPlace at, DavVal x);
DavVal dav_gelu_(DavPlace at, DavVal x), dav_gelu_tanh_(DavPlace at, DavVal x), dav_softplus_(DavPlace at, DavVal x);
DavVal dav_softmax_(DavPlace at, DavVal x, int axis);
DavVal dav_log_softmax_(DavPlace at, DavVal x, int axis);
DavVal dav_logsumexp_(DavPlace at, DavVal x, int axis);
DavVal dav_cross_entropy_(DavPlace at, DavVal logits, DavVal target);
DavVal dav_pool_(DavPlace at, DavVal x, bool max, DavPool o);
DavVal dav_attention_(DavPlace at, DavVal q, DavVal k, DavVal v, DavAttention o);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
