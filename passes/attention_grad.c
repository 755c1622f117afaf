/* Gradients of attention.  The first one is an op (attention_grad); its own gradient is that of the same formula written as
 * products, which holds the matrix of scores. */
#include "passes/autodiff.h"
#include <inttypes.h>
#include <stdio.h>

/* A product of the batch's matrices; d is the summed loop. */
static Val product(Graph *g, Val a, Val b, const char *text, int64_t extent)
{
    char full[96];
    ContractSpec spec;
    snprintf(full, sizeof full, "%s -> a b c | d=%" PRId64, text, extent);
    if (!spec_parse(g->err, full, &spec))
        return 0;
    for (int o = 0; o < 2; o++) /* the text leaves the output's extents open */
        for (int d = 0; d < spec.rank[o]; d++)
            spec.extent[spec.dim[o][d].loop[0]] = node_of(g, o ? b : a)->dim[d];
    return g_contract(g, a, b, &spec, (DavDtype)node_of(g, a)->dtype);
}

static Val factor(Graph *g, Val x, double by)
{
    return g_bin(g, OP_MUL, x, g_const_like(g, x, by));
}

static Val column(Graph *g, Val x, Val like) /* [b,l] over the keys of [b,l,s] */
{
    const Node *n = node_of(g, x);
    return g_broadcast_like(g, g_reshape(g, x, 3, (int64_t[]){n->dim[0], n->dim[1], 1}), like);
}

/* p and p * (dout v - delta), both [b,l,s]; bias 0: none */
typedef struct Weights { Val p, d; } Weights;

static Weights weights(Graph *g, const Node *n, Val q, Val k, Val v, Val bias, Val lse, Val delta, Val dout)
{
    int64_t width = node_of(g, q)->dim[2], value = node_of(g, v)->dim[2];
    Val x = factor(g, product(g, q, k, "a b d, a c d", width), attr_f(n, A_SCALE));
    if (bias)
        x = g_bin(g, OP_ADD, x, g_broadcast_like(g, bias, x));
    if (attr_i(n, A_CAUSAL)) {
        Type t = type_of(g, x);
        t.dtype = DAV_I32;
        Val seen = g_bin(g, OP_GE, g_iota(g, t, 1), g_iota(g, t, 2));
        x = g_ew(g, OP_SELECT, seen, x, g_const_like(g, x, -1e9));
    }
    Weights w = {.p = g_un(g, OP_EXP, g_bin(g, OP_SUB, x, column(g, lse, x)))};
    Val d = product(g, dout, v, "a b d, a c d", value);
    w.d = g_bin(g, OP_MUL, w.p, g_bin(g, OP_SUB, d, column(g, delta, d)));
    return w;
}

static Val swapped(Graph *g, Val x)
{
    return g_transpose(g, x, (int64_t[]){0, 2, 1});
}

static void give_bias(Sweep *s, Val bias, Val d)
{
    sweep_give(s, bias, node_of(s->g, bias)->dim[0] == 1 ? g_reduce_mask(s->g, OP_SUM, d, 1u) : d);
}

void attention_vjp(Sweep *s, Val v)
{
    Graph *g = s->g;
    const Node n = *node_of(g, v);
    const Val *ct = s->result_ct[v];
    Type out, rows;
    tuple_type(g, v, 0, &out);
    tuple_type(g, v, 1, &rows);
    bool by_row = node_attr(&n, A_ROWS) != NULL;
    Val dout = ct[0] ? ct[0] : g_const(g, out, 0); /* [b,e,l], by row [b,l,e] */
    Val delta = g_reshape(g, g_reduce_mask(g, OP_SUM, g_bin(g, OP_MUL, g_pick(g, v, 0), dout), by_row ? 4u : 2u), 2, rows.dim);
    if (ct[1]) /* the sum of d lse / d score over the keys is 1 */
        delta = g_bin(g, OP_SUB, delta, ct[1]);
    Val q = n.arg[0], k = n.arg[1], x = n.arg[2], bias = n.narg > 3 ? n.arg[3] : 0, lse = g_pick(g, v, 1);
    dout = by_row ? dout : swapped(g, dout);
    Val arg[] = {q, k, x, lse, delta, dout, bias};
    Val grad = graph_node(g, OP_ATTENTION_GRAD, arg, bias ? 7 : 6, n.attr, 2 /* scale, causal */, NULL);
    sweep_give(s, q, g_pick(g, grad, 0));
    sweep_give(s, k, swapped(g, g_pick(g, grad, 1)));
    sweep_give(s, x, swapped(g, g_pick(g, grad, 2)));
    if (bias && sweep_wants(s, bias))
        give_bias(s, bias, weights(g, &n, q, k, x, bias, lse, delta, dout).d);
}

void attention_grad_vjp(Sweep *s, Val v)
{
    Graph *g = s->g;
    const Node n = *node_of(g, v);
    Val x[7], grad[7], y[3], seed[3];
    int ny = 0;
    for (int i = 0; i < n.narg; i++) /* the gradient ends here: operands may depend on each other */
        x[i] = g_un(g, OP_STOP, n.arg[i]);
    int64_t keys = node_of(g, x[1])->dim[1], queries = node_of(g, x[0])->dim[1];
    Weights w = weights(g, &n, x[0], x[1], x[2], n.narg > 6 ? x[6] : 0, x[3], x[4], x[5]);
    Val ds = factor(g, w.d, attr_f(&n, A_SCALE)), all[3];
    all[0] = product(g, ds, x[1], "a b d, a d c", keys);
    all[1] = product(g, x[0], ds, "a d b, a d c", queries);
    all[2] = product(g, x[5], w.p, "a d b, a d c", queries);
    for (int i = 0; i < 3; i++)
        if (s->result_ct[v][i]) {
            y[ny] = all[i];
            seed[ny++] = s->result_ct[v][i];
        }
    graph_vjp(g, y, seed, ny, x, n.narg, grad);
    for (int i = 0; i < n.narg; i++)
        sweep_give(s, n.arg[i], grad[i]);
}
