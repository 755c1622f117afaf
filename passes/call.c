/* inline: call regions put in the place of their calls, at any depth (inside of loops too).
 *
 * Stands first: a derivative, a fusion or a transpose that crosses the edge of a repeated block is found without
 * special cases.  What `call` promises, one compilation a block, is kept further down, where equal kernels are compiled
 * once.
 *
 *     %2 = call %1 {graph=@1} : (f32[3])
 *       @1 "block" {
 *         %1 = input {name="h" role=data} : f32[3]
 *         %2 = tanh %1 : f32[3]
 *         return out=%2
 *       }
 *     %3 = pick %2 {index=0} : f32[3]
 *     return y=%3
 *  ->
 *     %2 = tanh %1 : f32[3]
 *     return y=%2
 */
#include "passes/pass.h"
#include "passes/region.h"

bool pass_inline(PassCx *cx, const Graph *in, Graph *out);

static void inline_into(Graph *out, const Graph *in);

static const Graph *flat_region(Graph *out, const Graph *body)
{
    Graph *flat = graph_new(out->arena, out->err, body->name);
    inline_into(flat, body);
    return flat;
}

/* Results of the call, as values of out. */
static Val *inline_call(Graph *out, const Node *call, const Val *map)
{
    const Graph *body = attr_graph(call, A_GRAPH);
    Val *arg = arena_array(out->arena, Val, call->narg + 1);
    for (int i = 0; i < call->narg; i++)
        arg[i] = map[call->arg[i]];
    Val *result = arena_array(out->arena, Val, body->nout + 1);
    graph_inline(out, flat_region(out, body), arg, result);
    return result;
}

static void inline_into(Graph *out, const Graph *in)
{
    Val *map = arena_array(out->arena, Val, in->n);
    Val **result = arena_array(out->arena, Val *, in->n); /* of calls */
    for (Val v = 1; v < in->n; v++) {
        const Node *n = node_of(in, v);
        graph_at_node(out, in, v);
        if (n->op == OP_CALL)
            result[v] = inline_call(out, n, map);
        else if (n->op == OP_PICK && result[n->arg[0]])
            map[v] = result[n->arg[0]][attr_i(n, A_INDEX)];
        else if (n->op == OP_LOOP)
            map[v] = region_copy_node(out, in, v, map, flat_region(out, attr_graph(n, A_GRAPH)));
        else
            map[v] = graph_copy_node(out, in, v, map);
    }
    for (int i = 0; i < in->nout; i++)
        graph_output(out, in->out[i].name, map[in->out[i].val]);
}

bool pass_inline(PassCx *cx, const Graph *in, Graph *out)
{
    (void)cx;
    inline_into(out, in);
    return true;
}
