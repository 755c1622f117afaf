/* precision: bf16 storage and products, f32 sums, when the user asks for bf16.
 *
 * The operands of every f32 contraction become bf16; it accumulates in f32 and gives f32.  Everything else (sums,
 * norms, softmax, losses, the residual stream, gradients of parameters, the optimiser) stays f32.  The cast of an
 * activation becomes the last step of the kernel that makes it, so that what only contractions read is stored in bf16,
 * once for the forward product and for the gradient of the weight; the cast of a parameter depends on parameters alone
 * and is made once per update. Casts move in front of views, where they are shared and small.  Stands after autodiff,
 * so that derivatives are taken of the model as it was written and both directions are rounded alike.
 *
 *   %3 = contract %1, %2 {spec="a c, c b -> a b | c=64"} : f32[8,32]
 * ->
 *   %3 = cast %1 {to=bf16} : bf16[8,64]
 *   %4 = cast %2 {to=bf16} : bf16[64,32]
 *   %5 = contract %3, %4 {spec="a c, c b -> a b | c=64"} : f32[8,32]
 */
#include "passes/pass.h"
#include "passes/region.h"

bool pass_precision(PassCx *cx, const Graph *in, Graph *out);

enum { MOST_VIEWS = 16 }; /* that a cast moves in front of */

/* x in bf16.  Nodes never move in memory that is given back, so n stays valid while g grows. */
static Val rounded(Graph *g, Val x, int views)
{
    const Node *n = node_of(g, x);
    if (views == 0)
        return g_cast(g, x, DAV_BF16);
    switch (n->op) {
    case OP_RESHAPE:
        return g_reshape(g, rounded(g, n->arg[0], views - 1), n->rank, n->dim);
    case OP_BROADCAST:
        return g_broadcast(g, rounded(g, n->arg[0], views - 1), n->dim);
    case OP_TRANSPOSE:
        return g_transpose(g, rounded(g, n->arg[0], views - 1), attr_ints(n, A_PERM, NULL));
    case OP_CAST: /* what was bf16 already */
        if (node_of(g, n->arg[0])->dtype == DAV_BF16)
            return n->arg[0];
        return g_cast(g, x, DAV_BF16);
    default:
        return g_cast(g, x, DAV_BF16);
    }
}

static Val rounded_contract(Graph *out, const Graph *in, Val v, const Val *map)
{
    const Node *n = node_of(in, v);
    graph_at_node(out, in, v);
    Val a = rounded(out, map[n->arg[0]], MOST_VIEWS), b = rounded(out, map[n->arg[1]], MOST_VIEWS);
    return g_contract(out, a, b, attr_spec(n), DAV_F32);
}

/* Queries, keys, values and the cotangent; scores, sums and what they are weighed with stay f32. */
static Val rounded_attention(Graph *out, const Graph *in, Val v, const Val *map)
{
    const Node *n = node_of(in, v);
    Val *arg = arena_array(out->arena, Val, n->narg);
    graph_at_node(out, in, v);
    for (int i = 0; i < n->narg; i++)
        arg[i] = i < 3 || (n->op == OP_ATTENTION_GRAD && i == 5) ? rounded(out, map[n->arg[i]], MOST_VIEWS) : map[n->arg[i]];
    return graph_node(out, (Op)n->op, arg, n->narg, n->attr, n->nattr, NULL);
}

static void lower_precision(Graph *out, const Graph *in)
{
    Val *map = arena_array(out->arena, Val, in->n);
    for (Val v = 1; v < in->n; v++) {
        const Node *n = node_of(in, v);
        if (n->op == OP_LOOP) {
            Graph *body = graph_new(out->arena, out->err, attr_graph(n, A_GRAPH)->name);
            lower_precision(body, attr_graph(n, A_GRAPH));
            map[v] = region_copy_node(out, in, v, map, body);
        } else if (n->op == OP_CONTRACT && node_of(in, n->arg[0])->dtype == DAV_F32) {
            map[v] = rounded_contract(out, in, v, map);
        } else if (op_is_attention((Op)n->op) && node_of(in, n->arg[0])->dtype == DAV_F32) {
            map[v] = rounded_attention(out, in, v, map);
        } else {
            map[v] = graph_copy_node(out, in, v, map);
        }
    }
    for (int i = 0; i < in->nout; i++)
        graph_output(out, in->out[i].name, map[in->out[i].val]);
}

bool pass_precision(PassCx *cx, const Graph *in, Graph *out)
{
    if (cx->options && cx->options->precision == DAV_BF16)
        lower_precision(out, in);
    else
        graph_copy_live(out, in, NULL);
    return cx->err->kind == ERR_NONE;
}
