/* simplify: loops lose what nobody reads. */
#include "passes/simplify.h"

/* The body with the results that are read, simplified. */
static Graph *wanted_body(const Graph *out, const Graph *body, int carry, const bool *picked, int *index)
{
    Graph *wanted = graph_new(out->arena, out->err, body->name), *slim = graph_new(out->arena, out->err, body->name);
    Val *map = arena_array(out->arena, Val, body->n);
    for (Val v = 1; v < body->n; v++)
        map[v] = graph_copy_node(wanted, body, v, map);
    for (int k = 0; k < body->nout; k++)
        if (k < carry || picked[k]) {
            index[k] = wanted->nout;
            graph_output(wanted, body->out[k].name, map[body->out[k].val]);
        }
    simplify_graph(slim, wanted);
    return slim;
}

static bool *values_read(Arena *arena, const Graph *g)
{
    bool *read = arena_array(arena, bool, g->n);
    for (Val v = 1; v < g->n; v++)
        for (int i = 0; i < node_of(g, v)->narg; i++)
            read[node_of(g, v)->arg[i]] = true;
    for (int k = 0; k < g->nout; k++)
        read[g->out[k].val] = true;
    return read;
}

/* A copy without the inputs that `keep` does not name. */
static Graph *without_inputs(Arena *arena, const Graph *body, const bool *keep)
{
    Graph *out = graph_new(arena, body->err, body->name);
    Val *map = arena_array(arena, Val, body->n);
    for (Val v = 1; v < body->n; v++)
        if (node_of(body, v)->op != OP_INPUT || keep[v])
            map[v] = graph_copy_node(out, body, v, map);
    for (int k = 0; k < body->nout; k++)
        graph_output(out, body->out[k].name, map[body->out[k].val]);
    return out;
}

Val simplify_loop(Graph *out, const Graph *in, Val v, const Val *map, const bool *picked, int *index)
{
    const Node *n = node_of(in, v);
    Arena *arena = out->arena;
    int carry = (int)attr_i(n, A_CARRY), scan = (int)attr_i(n, A_SCAN), nin, narg = 0, nscan = 0;
    const Graph *body = wanted_body(out, attr_graph(n, A_GRAPH), carry, picked, index);
    const Val *input = graph_inputs(body, arena, &nin);
    bool *keep = values_read(arena, body);
    Val *arg = arena_array(arena, Val, n->narg + 1);
    for (int i = 0; i < nin; i++) {
        keep[input[i]] |= i < carry;
        if (!keep[input[i]])
            continue;
        nscan += i >= carry && i < carry + scan;
        arg[narg++] = map[n->arg[i]];
    }
    Attr extra[] = {
        {.name = A_TRIP, .i = attr_i(n, A_TRIP)}, {.name = A_CARRY, .i = carry}, {.name = A_SCAN, .i = nscan}};
    graph_at_node(out, in, v);
    return g_region(out, OP_LOOP, without_inputs(arena, body, keep), arg, narg, extra, 3);
}
