/* pack: contractions brought into the form that tiles want: the last output axis is a plain column index, and the
 * operand that it comes from has it as last axis.
 *
 * Stands after layout and before fusion: a transposed copy of a weight becomes a kernel of its own, and one that
 * depends on parameters alone is made once per update of the parameters.  The output's axes are moved when that gives
 * columns, and moved back by a view that its readers absorb.
 *
 *     %3 = contract %1, %2 {spec="a c, b c -> a b | c=64"} : f32[8,32]
 *  ->
 *     %3 = transpose %2 {perm=[1,0]} : f32[64,32]
 *     %4 = contract %1, %3 {spec="a c, c b -> a b | c=64"} : f32[8,32]
 */
#include "passes/contract_plan.h"
#include "passes/fuse.h"
#include "passes/region.h"
#include <string.h>

enum { ENOUGH_COLUMNS = 4, MANY_COLUMNS = 64 };


/* The operand that output loop i is a plain column index of, -1: none. */
static int column_operand(const Graph *g, const Node *n, const ContractSpec *s, int i)
{
    for (int o = 0; o < 2; o++)
        if (!spec_uses(s, 1 - o, i) && spec_plain_dim(s, o, i, node_of(g, n->arg[o])->dim) >= 0)
            return o;
    return -1;
}

/* 0: no column.  Which loop it is does not change a bit of the result: each element is summed in the same order. */
static int64_t column_score(const Graph *g, const Node *n, const ContractSpec *s, int i)
{
    int o = column_operand(g, n, s, i);
    if (o < 0)
        return 0;
    int64_t width = s->extent[i] < MANY_COLUMNS ? s->extent[i] : MANY_COLUMNS;
    bool contiguous = spec_plain_dim(s, o, i, node_of(g, n->arg[o])->dim) == s->rank[o] - 1;
    return 4 * width + (contiguous ? 2 : 0) + (i == s->nout - 1);
}

static int choose_column(const Graph *g, const Node *n, const ContractSpec *s)
{
    int best = s->nout - 1;
    if (best < 0 || (column_score(g, n, s, best) && s->extent[best] >= ENOUGH_COLUMNS))
        return best;
    for (int i = 0; i < s->nout; i++)
        if (column_score(g, n, s, i) > column_score(g, n, s, best))
            best = i;
    return best;
}

/* Loop `col` becomes the last output loop; the ones after it move up. */
static ContractSpec move_last(const ContractSpec *s, int col)
{
    ContractSpec t = *s;
    int to[SPEC_MAX_LOOPS];
    for (int i = 0; i < s->nloop; i++) {
        to[i] = i == col ? s->nout - 1 : i > col && i < s->nout ? i - 1 : i;
        t.extent[to[i]] = s->extent[i];
    }
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < s->rank[o]; d++) {
            DimExpr *e = &t.dim[o][d];
            for (int i = 0; i < e->nterm; i++)
                e->loop[i] = to[e->loop[i]];
            for (int i = 1; i < e->nterm; i++) /* loops ascend */
                for (int j = i; j > 0 && e->loop[j - 1] > e->loop[j]; j--) {
                    int loop = e->loop[j];
                    int64_t coef = e->coef[j];
                    e->loop[j] = e->loop[j - 1];
                    e->coef[j] = e->coef[j - 1];
                    e->loop[j - 1] = loop;
                    e->coef[j - 1] = coef;
                }
        }
    return t;
}

/* How far apart operand `o` reads for neighbouring values of the loop; huge when it does not use it. */
static int64_t reach_in(const Graph *g, const Node *n, const ContractSpec *s, int o, const DimExpr *of)
{
    int64_t stride = 1, reach = INT64_MAX;
    for (int d = s->rank[o] - 1; d >= 0; d--) {
        for (int i = 0; i < s->dim[o][d].nterm; i++)
            for (int j = 0; j < of->nterm; j++)
                if (s->dim[o][d].loop[i] == of->loop[j]) {
                    int64_t c = s->dim[o][d].coef[i] < 0 ? -s->dim[o][d].coef[i] : s->dim[o][d].coef[i];
                    reach = c * stride < reach ? c * stride : reach;
                }
        stride *= node_of(g, n->arg[o])->dim[d];
    }
    return reach;
}

/* The operand's axes in the order of use: outer loops first, then what the other operand reads in large steps, ..., the
 * column. */
static void order_axes(const Graph *g, const Node *n, const ContractSpec *s, int o, int col_dim, int64_t *perm)
{
    int64_t key[IR_MAX_RANK];
    for (int d = 0; d < s->rank[o]; d++) {
        int64_t k = d == col_dim ? -1 : reach_in(g, n, s, 1 - o, &s->dim[o][d]);
        int at = d;
        for (; at > 0 && key[at - 1] < k; at--) {
            key[at] = key[at - 1];
            perm[at] = perm[at - 1];
        }
        key[at] = k;
        perm[at] = d;
    }
}

static Val pack_contract(const Graph *in, Graph *out, Val v, const Val *map)
{
    const Node *n = node_of(in, v);
    const ContractSpec *given = attr_spec(n);
    int col = choose_column(in, n, given);
    if (col < 0 || !column_score(in, n, given, col))
        return graph_copy_node(out, in, v, map);
    ContractSpec s = *given;
    int from_axis = col, o = column_operand(in, n, given, col);
    bool moved = col != s.nout - 1;
    if (moved) {
        s = move_last(given, col);
        col = s.nout - 1;
    }
    Val arg[2] = {map[n->arg[0]], map[n->arg[1]]};
    int col_dim = spec_plain_dim(&s, o, col, node_of(in, n->arg[o])->dim);
    bool contiguous = true;
    for (int d = col_dim + 1; d < s.rank[o]; d++)
        contiguous &= node_of(in, n->arg[o])->dim[d] == 1;
    if (!contiguous) {
        int64_t perm[IR_MAX_RANK];
        DimExpr was[IR_MAX_RANK];
        order_axes(in, n, &s, o, col_dim, perm);
        memcpy(was, s.dim[o], sizeof was);
        for (int d = 0; d < s.rank[o]; d++)
            s.dim[o][d] = was[perm[d]];
        arg[o] = g_transpose(out, arg[o], perm);
    }
    Val r = g_contract(out, arg[0], arg[1], &s, (DavDtype)n->dtype);
    if (!moved)
        return r;
    int64_t back[IR_MAX_RANK];
    for (int i = 0; i < s.nout; i++)
        back[i] = i == from_axis ? s.nout - 1 : i > from_axis ? i - 1 : i;
    return g_transpose(out, r, back);
}

bool pass_pack(PassCx *cx, const Graph *in, Graph *out)
{
    Val *map = arena_array(cx->arena, Val, in->n);
    for (Val v = 1; v < in->n; v++) {
        const Node *n = node_of(in, v);
        graph_at_node(out, in, v);
        if (n->op == OP_LOOP) {
            Graph *body = graph_new(cx->arena, cx->err, attr_graph(n, A_GRAPH)->name);
            if (!pass_pack(cx, attr_graph(n, A_GRAPH), body))
                return false;
            map[v] = region_copy_node(out, in, v, map, body);
        } else {
            map[v] = n->op == OP_CONTRACT ? pack_contract(in, out, v, map) : graph_copy_node(out, in, v, map);
        }
    }
    for (int i = 0; i < in->nout; i++)
        graph_output(out, in->out[i].name, map[in->out[i].val]);
    return cx->err->kind == ERR_NONE;
}
