/* Compositions without parameters: activations, softmax and relatives, pooling, attention. */
#include "frontend/net.h"
#include <inttypes.h>
#include <math.h>
#undef DAV_HERE
#define DAV_HERE at

DavVal dav_relu_(DavPlace at, DavVal x)
{
    return dav_max(x, 0);
}

/* By e^-|x|: neither it nor its gradient overflows, and small values keep their digits. */
DavVal dav_sigmoid_(DavPlace at, DavVal x)
{
    DavVal e = dav_exp(dav_neg(dav_abs(x)));
    return dav_div(dav_where(dav_ge(x, 0), 1, e), dav_add(e, 1));
}

DavVal dav_silu_(DavPlace at, DavVal x)
{
    return dav_mul(x, dav_sigmoid(x));
}

DavVal dav_gelu_(DavPlace at, DavVal x)
{
    return dav_mul(dav_mul(x, 0.5), dav_add(dav_erf(dav_mul(x, M_SQRT1_2)), 1));
}

DavVal dav_gelu_tanh_(DavPlace at, DavVal x)
{
    DavVal cubic =
        dav_mul(dav_add(x, dav_mul(dav_mul(x, dav_square(x)), 0.044715)), 0.7978845608028654); /* sqrt(2/pi) */
    return dav_mul(dav_mul(x, 0.5), dav_add(dav_tanh(cubic), 1));
}

DavVal dav_softplus_(DavPlace at, DavVal x)
{
    return dav_add(dav_max(x, 0), dav_log1p(dav_exp(dav_neg(dav_abs(x)))));
}

/* x minus its largest along the axis, which has no part in the gradient. */
static DavVal from_peak(DavPlace at, DavVal x, int axis, DavVal *peak)
{
    *peak = dav_stop_gradient(dav_reduce_max_keep(x, axis));
    return dav_sub(x, *peak);
}

DavVal dav_softmax_(DavPlace at, DavVal x, int axis)
{
    DavVal peak, e = dav_exp(from_peak(at, x, axis, &peak));
    return dav_div(e, dav_sum_keep(e, axis));
}

DavVal dav_log_softmax_(DavPlace at, DavVal x, int axis)
{
    DavVal peak, low = from_peak(at, x, axis, &peak);
    return dav_sub(low, dav_log(dav_sum_keep(dav_exp(low), axis)));
}

DavVal dav_logsumexp_(DavPlace at, DavVal x, int axis)
{
    DavVal peak, low = from_peak(at, x, axis, &peak);
    return dav_squeeze(dav_add(peak, dav_log(dav_sum_keep(dav_exp(low), axis))), axis);
}

DavVal dav_cross_entropy_(DavPlace at, DavVal logits, DavVal target)
{
    return dav_neg(dav_pick_last(dav_log_softmax(logits, -1), target));
}

DavVal dav_pool_(DavPlace at, DavVal x, bool max, DavPool o)
{
    DavNet *n;
    const char *what = max ? "max_pool" : "avg_pool";
    char t[160];
    if (!net_operands(at, what, &x, 1, &n))
        return net_val(n, 0);
    int space = net_node(x)->rank - 2;
    if (space < 1 || space > 3)
        return net_bad(at, n, "%s(%s): expected [batch, channels, 1 to 3 spatial axes]", what, net_type_text(x, t));
    for (int i = 0; i < space; i++) {
        int64_t size = o.size[i] ? o.size[i] : 1;
        if (o.pad[i] < 0 || o.pad[i] > size / 2)
            return net_bad(at, n, "%s: pad %" PRId64 " of a window of %" PRId64 ", expected 0 to %" PRId64, what,
                           o.pad[i], size, size / 2);
        if (size == 1 && o.stride[i] <= 1)
            continue;
        DavVal w = dav_window(x, i + 2, size, .step = o.stride[i], .pad = o.pad[i], .fill = max ? -INFINITY : 0);
        x = max ? dav_reduce_max(w, -1) : dav_mean(w, -1);
    }
    return x;
}

DavVal dav_attention_(DavPlace at, DavVal q, DavVal k, DavVal v, DavAttention o)
{
    DavNet *n;
    if (!net_operands(at, "attention", (DavVal[]){q, k, v}, 3, &n))
        return net_val(n, 0);
    if (net_node(q)->rank < 2 || net_node(k)->rank < 2)
        return net_bad(at, n, "attention: expected operands [.., length, width]");
    int64_t l = dav_dim(q, -2), s = dav_dim(k, -2);
    double scale = o.scale != 0 ? o.scale : 1 / sqrt((double)dav_dim(q, -1));
    DavVal score = dav_mul(dav_matmul(q, dav_swap(k, -1, -2)), scale);
    if (o.causal) {
        DavVal past = dav_ge(dav_iota(n, DAV_I32, 0, l, s), dav_iota(n, DAV_I32, 1, l, s));
        score = dav_where(past, score, -1e9);
    }
    return dav_matmul(dav_softmax(score, -1), v);
}
