/* lower: every fused region becomes a kernel in kernel IR. */
#include "passes/lower.h"
#include "passes/plain_product.h"
#include "passes/region.h"
#include <stdio.h>

static Val contraction_of(const Graph *body)
{
    for (Val v = 1; v < body->n; v++)
        if (body->node[v].op == OP_CONTRACT)
            return v;
    return 0;
}

/* Buffers p0.. for the operands, r0.. for the results, with the region's own types. */
static void make_buffers(Lower *l, const Graph *region)
{
    char name[24];
    Val from = 0;
    for (Val v = 1; v < region->n; v++) {
        if (node_of(region, v)->op != OP_INPUT)
            continue;
        do /* collapse_axes keeps the inputs in order */
            from++;
        while (node_of(l->body, from)->op != OP_INPUT);
        snprintf(name, sizeof name, "p%d", l->nbuf);
        l->buf[from] = k_buf(l->k, name, BUF_IN, l->nbuf, type_of(region, v));
        l->nbuf++;
    }
    for (int i = 0; i < region->nout; i++) {
        snprintf(name, sizeof name, "r%d", i);
        l->out[i] = k_buf(l->k, name, BUF_OUT, l->nbuf++, type_of(region, region->out[i].val));
    }
}

/* Without the numbers that index arithmetic folded away. */
static const Graph *drop_dead(PassCx *cx, const Graph *k)
{
    bool *live = arena_array(cx->arena, bool, k->n);
    Val *map = arena_array(cx->arena, Val, k->n);
    Graph *out = kernel_new(cx->arena, cx->err, k->name);
    for (Val v = k->n - 1; v > 0; v--) {
        const Node *n = node_of(k, v);
        live[v] |= (op_info[n->op].flags & OPF_EFFECT) || n->op == OP_BUF;
        for (int i = 0; live[v] && i < n->narg; i++)
            live[n->arg[i]] = true;
    }
    for (Val v = 1; v < k->n; v++)
        if (live[v])
            map[v] = graph_copy_node(out, k, v, map);
    return out;
}

static const Graph *lower_region(PassCx *cx, const Graph *region, FuseKind kind)
{
    Lower l = {.cx = cx, .body = region, .k = kernel_new(cx->arena, cx->err, "kernel")};
    if (kind == FUSE_POINTWISE || kind == FUSE_ROWWISE)
        l.body = collapse_axes(cx, region);
    l.buf = arena_array(cx->arena, Val, l.body->n);
    l.out = arena_array(cx->arena, Val, l.body->nout);
    l.newest = arena_array(cx->arena, int, l.body->n);
    make_buffers(&l, region);
    l.zero = k_int(l.k, 0);
    Val contract = contraction_of(l.body);
    if (kind == FUSE_ROWWISE)
        lower_rowwise(&l);
    else if (kind == FUSE_OTHER)
        lower_other(&l);
    else if (contract)
        lower_contract(&l, contract);
    else
        lower_pointwise(&l);
    return drop_dead(cx, l.k);
}

static Val lower_fuse(PassCx *cx, const Graph *in, Graph *out, Val v, const Val *map)
{
    const Node *n = node_of(in, v);
    Val *arg = arena_array(cx->arena, Val, n->narg);
    for (int i = 0; i < n->narg; i++)
        arg[i] = map[n->arg[i]];
    graph_at_node(out, in, v);
    const Graph *kernel = lower_region(cx, attr_graph(n, A_GRAPH), (FuseKind)attr_i(n, A_KIND));
    PlainProduct product;
    bool plain = plain_product(attr_graph(n, A_GRAPH), &product);
    const Attr attr[] = {{.name = A_GRAPH, .graph = kernel}, {.name = A_PRODUCT, .n = PLAIN_NUMBERS, .ints = (const int64_t *)&product}};
    return graph_node(out, OP_KERNEL, arg, n->narg, attr, plain ? 2 : 1, NULL);
}

bool pass_lower(PassCx *cx, const Graph *in, Graph *out)
{
    Val *map = arena_array(cx->arena, Val, in->n);
    for (Val v = 1; v < in->n; v++) {
        const Node *n = node_of(in, v);
        if (n->op == OP_FUSE) {
            map[v] = lower_fuse(cx, in, out, v, map);
        } else if (n->op == OP_LOOP) {
            Graph *body = graph_new(cx->arena, cx->err, attr_graph(n, A_GRAPH)->name);
            if (!pass_lower(cx, attr_graph(n, A_GRAPH), body))
                return false;
            map[v] = region_copy_node(out, in, v, map, body);
        } else {
            map[v] = graph_copy_node(out, in, v, map);
        }
    }
    for (int i = 0; i < in->nout; i++)
        graph_output(out, in->out[i].name, map[in->out[i].val]);
    return cx->err->kind == ERR_NONE;
}
