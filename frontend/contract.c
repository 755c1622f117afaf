/* Matrix products and convolutions as contractions: index expressions over the loops of the output and the summed ones.
 */
#include "frontend/net.h"
#include <inttypes.h>
#include <string.h>

static void put_axis(ContractSpec *s, int operand, DimExpr e)
{
    s->dim[operand][s->rank[operand]++] = e;
}

static DavVal contract(DavNet *n, DavVal a, DavVal b, const ContractSpec *s)
{
    return net_val(n, g_contract(n->g, a.id, b.id, s, dav_dtype(a)));
}

static bool same_floats(DavPlace at, DavNet *n, const char *what, DavVal a, DavVal b)
{
    char x[160], y[160];
    if (dav_dtype(a) == dav_dtype(b) && dav_dtype_is_float(dav_dtype(a)))
        return true;
    net_bad(at, n, "%s(%s, %s): expected floats of one dtype; cast one of them", what, net_type_text(a, x),
            net_type_text(b, y));
    return false;
}

/* ---- matmul ---- */
/* Drops the leading axes of size 1 among the first `batch` that the result repeats (or does not have); lists in loop[]
 * the batch loop that each kept axis follows. */
static DavVal drop_repeated(DavNet *n, DavVal x, int batch, const int64_t *out_batch, int *loop, int *kept)
{
    const Node *a = net_node(x);
    int own = a->rank - 2, rank = 0;
    int64_t dim[IR_MAX_RANK];
    *kept = 0;
    for (int i = 0; i < own; i++) {
        int l = batch - own + i;
        if (a->dim[i] == 1 && out_batch[l] != 1)
            continue;
        loop[(*kept)++] = l;
        dim[rank++] = a->dim[i];
    }
    dim[rank++] = a->dim[own];
    dim[rank++] = a->dim[own + 1];
    return net_val(n, g_reshape(n->g, x.id, rank, dim));
}

static bool matmul_batch(DavPlace at, DavNet *n, DavVal a, DavVal b, int *batch, int64_t *size)
{
    const Node *op[2] = {net_node(a), net_node(b)};
    *batch = (op[0]->rank > op[1]->rank ? op[0]->rank : op[1]->rank) - 2;
    for (int l = 0; l < *batch; l++) {
        size[l] = 1;
        for (int o = 0; o < 2; o++) {
            int i = l - (*batch - (op[o]->rank - 2));
            int64_t d = i < 0 ? 1 : op[o]->dim[i];
            if (d != 1 && size[l] != 1 && d != size[l]) {
                char x[160], y[160];
                net_bad(at, n,
                        "matmul(%s, %s): batch axes of sizes %" PRId64 " and %" PRId64
                        "; expected equal ones, or 1 in one of "
                        "them",
                        net_type_text(a, x), net_type_text(b, y), size[l], d);
                return false;
            }
            size[l] = d != 1 ? d : size[l];
        }
    }
    return true;
}

/* out[batch.., i, j] = sum_k a[batch.., i, k] b[batch.., k, j] */
static DavVal matmul_matrices(DavPlace at, DavNet *n, DavVal a, DavVal b)
{
    char x[160], y[160];
    int batch, loop[2][IR_MAX_RANK], kept[2];
    ContractSpec s = {0};
    const Node *na = net_node(a), *nb = net_node(b);
    if (na->dim[na->rank - 1] != nb->dim[nb->rank - 2])
        return net_bad(at, n,
                       "matmul(%s, %s): the last axis of the first, %" PRId64
                       ", must equal the last but one of the second, %" PRId64,
                       net_type_text(a, x), net_type_text(b, y), na->dim[na->rank - 1], nb->dim[nb->rank - 2]);
    if (!matmul_batch(at, n, a, b, &batch, s.extent))
        return net_val(n, 0);
    s.nout = batch + 2;
    s.nloop = s.nout + 1;
    s.extent[batch] = na->dim[na->rank - 2];
    s.extent[batch + 1] = nb->dim[nb->rank - 1];
    s.extent[batch + 2] = na->dim[na->rank - 1];
    DavVal op[2] = {drop_repeated(n, a, batch, s.extent, loop[0], &kept[0]),
                    drop_repeated(n, b, batch, s.extent, loop[1], &kept[1])};
    for (int o = 0; o < 2; o++) {
        for (int i = 0; i < kept[o]; i++)
            put_axis(&s, o, spec_loop(loop[o][i]));
        put_axis(&s, o, spec_loop(o ? batch + 2 : batch));
        put_axis(&s, o, spec_loop(o ? batch + 1 : batch + 2));
    }
    return contract(n, op[0], op[1], &s);
}

DavVal dav_matmul_(DavPlace at, DavVal a, DavVal b)
{
    DavNet *n;
    char x[160], y[160];
    if (!net_operands(at, "matmul", (DavVal[]){a, b}, 2, &n))
        return net_val(n, 0);
    bool row = net_node(a)->rank == 1, column = net_node(b)->rank == 1;
    if (!net_node(a)->rank || !net_node(b)->rank)
        return net_bad(at, n, "matmul(%s, %s): expected vectors or matrices; dav_mul multiplies by a scalar",
                       net_type_text(a, x), net_type_text(b, y));
    if (!same_floats(at, n, "matmul", a, b))
        return net_val(n, 0);
    DavVal m = matmul_matrices(at, n, row ? dav_unsqueeze_(at, a, 0) : a, column ? dav_unsqueeze_(at, b, 1) : b);
    m = column ? dav_squeeze_(at, m, -1) : m;
    return row ? dav_squeeze_(at, m, column ? -1 : -2) : m;
}

/* ---- convolution ---- */
typedef struct Conv {
    int rank;                                                      /* of space */
    int64_t batch, in, out, groups, extent[3], kernel[3], size[3]; /* in, out: channels in all; size: of the result */
} Conv;

static bool conv_numbers(DavPlace at, DavNet *n, const char *what, int rank, DavConvShape *o)
{
    o->groups = o->groups ? o->groups : 1;
    for (int i = 0; i < 3; i++) {
        bool unused = i >= rank && (o->stride[i] || o->dilation[i] || o->pad[i] || o->more[i]);
        if (unused) {
            net_bad(at, n, "%s: options are given for %d spatial axes, the operand has %d", what, i + 1, rank);
            return false;
        }
        o->stride[i] = o->stride[i] ? o->stride[i] : 1;
        o->dilation[i] = o->dilation[i] ? o->dilation[i] : 1;
        const struct {
            const char *name;
            int64_t v, lo;
        } check[] = {{"stride", o->stride[i], 1},
                     {"dilation", o->dilation[i], 1},
                     {"pad", o->pad[i], 0},
                     {"more", o->more[i], 0}};
        for (int k = 0; k < 4; k++)
            if (check[k].v < check[k].lo || check[k].v > INT32_MAX) {
                net_bad(at, n, "%s: %s %" PRId64 " along spatial axis %d, expected %" PRId64 " to %d", what,
                        check[k].name, check[k].v, i, check[k].lo, INT32_MAX);
                return false;
            }
    }
    return true;
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    return b ? common_divisor(b, a % b) : a;
}

/* Checks shapes; transposed: w is [in, out/groups, kernel..], else [out, in/groups, kernel..]. */
static bool conv_shape(DavPlace at, DavNet *n, const char *what, DavVal x, DavVal w, DavConvShape *o, bool transposed,
                       Conv *c)
{
    const Node *nx = net_node(x), *nw = net_node(w);
    char a[160], b[160];
    net_type_text(x, a);
    net_type_text(w, b);
    *c = (Conv){.rank = nx->rank - 2};
    if (c->rank < 1 || c->rank > 3 || nw->rank != nx->rank) {
        net_bad(at, n,
                "%s(%s, %s): expected an operand [batch, channels, 1 to 3 spatial axes] and a weight of equal rank",
                what, a, b);
        return false;
    }
    if (!conv_numbers(at, n, what, c->rank, o) || !same_floats(at, n, what, x, w))
        return false;
    c->groups = o->groups;
    c->batch = nx->dim[0];
    c->in = nx->dim[1];
    if (o->groups < 1 || c->in % o->groups || nw->dim[0] % o->groups) {
        net_bad(at, n, "%s(%s, %s): %" PRId64 " groups do not divide the channels; nearest: %" PRId64, what, a, b,
                o->groups, common_divisor(c->in, nw->dim[0]));
        return false;
    }
    int64_t want = transposed ? c->in : c->in / o->groups, have = nw->dim[transposed ? 0 : 1];
    if (want != have) {
        net_bad(at, n, "%s(%s, %s): the weight is for %" PRId64 " input channels%s, expected %" PRId64, what, a, b,
                have, transposed ? "" : " a group", want);
        return false;
    }
    if (transposed && __builtin_mul_overflow(nw->dim[1], o->groups, &c->out)) {
        net_bad(at, n, "%s(%s, %s): too many channels", what, a, b);
        return false;
    }
    c->out = transposed ? c->out : nw->dim[0];
    for (int i = 0; i < c->rank; i++) {
        c->extent[i] = nx->dim[i + 2];
        c->kernel[i] = nw->dim[i + 2];
        if (c->kernel[i] < 1 || c->kernel[i] > INT32_MAX || c->extent[i] > INT32_MAX) {
            net_bad(at, n, "%s(%s, %s): spatial sizes must be 1 to %d", what, a, b, INT32_MAX);
            return false;
        }
        int64_t span = o->dilation[i] * (c->kernel[i] - 1) + 1;
        c->size[i] = transposed ? (c->extent[i] - 1) * o->stride[i] - 2 * o->pad[i] + span + o->more[i]
                                : c->extent[i] + 2 * o->pad[i] - span;
        if (c->size[i] < (transposed ? 1 : 0)) {
            net_bad(at, n,
                    "%s(%s, %s): a kernel of %" PRId64 " dilated by %" PRId64
                    " does not fit spatial axis %d padded by %" PRId64,
                    what, a, b, c->kernel[i], o->dilation[i], i, o->pad[i]);
            return false;
        }
        if (!transposed)
            c->size[i] = c->size[i] / o->stride[i] + 1;
    }
    return true;
}

/* x as [batch, (groups,) channels/groups, spatial..]; w split likewise along its axis 0. */
static void split_groups(DavNet *n, const Conv *c, DavVal *x, DavVal *w)
{
    if (c->groups == 1)
        return;
    int64_t dx[IR_MAX_RANK] = {c->batch, c->groups, c->in / c->groups}, dw[IR_MAX_RANK];
    const Node *nw = net_node(*w);
    dw[0] = c->groups;
    dw[1] = nw->dim[0] / c->groups;
    dw[2] = nw->dim[1];
    for (int i = 0; i < c->rank; i++) {
        dx[i + 3] = c->extent[i];
        dw[i + 3] = c->kernel[i];
    }
    *x = net_val(n, g_reshape(n->g, x->id, c->rank + 3, dx));
    *w = net_val(n, g_reshape(n->g, w->id, c->rank + 3, dw));
}

static DavVal convolve(DavPlace at, const char *what, DavVal x, DavVal w, DavConvShape o, bool transposed)
{
    DavNet *n;
    Conv c;
    if (!net_operands(at, what, (DavVal[]){x, w}, 2, &n) || !conv_shape(at, n, what, x, w, &o, transposed, &c))
        return net_val(n, 0);
    split_groups(n, &c, &x, &w);
    /* loops: batch, (group,) out channel, space.. | in channel, kernel.. */
    int g = c.groups > 1, co = g + 1, space = g + 2, ci = space + c.rank, taps = ci + 1;
    ContractSpec s = {.nout = ci, .nloop = taps + c.rank};
    s.extent[0] = c.batch;
    if (g)
        s.extent[1] = c.groups;
    s.extent[co] = c.out / c.groups;
    s.extent[ci] = c.in / c.groups;
    put_axis(&s, 0, spec_loop(0));
    for (int operand = 0; g && operand < 2; operand++)
        put_axis(&s, operand, spec_loop(1));
    put_axis(&s, 0, spec_loop(ci));
    put_axis(&s, 1, spec_loop(transposed ? ci : co));
    put_axis(&s, 1, spec_loop(transposed ? co : ci));
    for (int i = 0; i < c.rank; i++) {
        s.extent[space + i] = c.size[i];
        s.extent[taps + i] = c.kernel[i];
        /* x index: place * stride + tap * dilation - pad; transposed: (place - tap * dilation + pad) / stride */
        put_axis(&s, 0,
                 (DimExpr){.nterm = 2,
                           .loop = {space + i, taps + i},
                           .coef = {transposed ? 1 : o.stride[i], transposed ? -o.dilation[i] : o.dilation[i]},
                           .offset = transposed ? o.pad[i] : -o.pad[i],
                           .div = transposed ? o.stride[i] : 1});
        put_axis(&s, 1, spec_loop(taps + i));
    }
    DavVal y = contract(n, x, w, &s);
    if (!g || !y.id)
        return y;
    int64_t dim[IR_MAX_RANK] = {c.batch, c.out};
    memcpy(dim + 2, c.size, sizeof c.size);
    return net_val(n, g_reshape(n->g, y.id, c.rank + 2, dim));
}

DavVal dav_convolve_(DavPlace at, DavVal x, DavVal w, DavConvShape o)
{
    return convolve(at, "convolve", x, w, o, false);
}

DavVal dav_convolve_transposed_(DavPlace at, DavVal x, DavVal w, DavConvShape o)
{
    return convolve(at, "convolve_transposed", x, w, o, true);
}
