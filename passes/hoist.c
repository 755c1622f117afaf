/* hoist: what every iteration of a loop would compute alike is computed once, before it.
 *
 * Stands after pack, so that packed and converted weights leave the loops too (and, made of parameters alone, are kept
 * from run to run), and before split and fuse, which see the loops as they will run.  A backward loop recomputes the
 * forward one's iteration: what both compute from the same operands is one value once it stands outside.  Leaves,
 * broadcasts and windows stay: they cost more to keep than to make.
 *
 *     %4 = loop %1, %2, %3 {...} {                       ->      %4 = exp %3 : f32[2]
 *       %1 = input {name="h"}, %2 = input {name="x"}             %5 = loop %1, %2, %4 {...} {
 *       %3 = input {name="w"}                                      %1 = input {name="h"}, %2 = input {name="x"}
 *       %4 = exp %3 : f32[2]                                       %3 = input {name="hoisted0"}
 *       %5 = mul %1, %4 : f32[2]                                   %4 = mul %1, %3 : f32[2]
 */
#include "passes/fuse.h"
#include "passes/region.h"

typedef struct Hoist {
    const Graph *body;
    bool *fixed;   /* the same in every iteration */
    bool *outside; /* to be computed before the loop */
} Hoist;

/* What is cheaper to make again in every iteration than to keep. */
static bool is_made_again(Op op)
{
    return (op_info[op].flags & OPF_LEAF) || op == OP_BROADCAST || op == OP_RESHAPE || op == OP_WINDOW;
}

/* A fixed value that something in the loop reads: it leaves, or the operands that it is made from again do. */
static void leave(Hoist *h, Val v)
{
    const Node *n = node_of(h->body, v);
    if (h->outside[v] || n->op == OP_INPUT)
        return;
    if (!is_made_again((Op)n->op)) {
        h->outside[v] = true;
        return;
    }
    for (int i = 0; i < n->narg; i++)
        leave(h, n->arg[i]);
}

static int find_fixed(Hoist *h, Arena *arena, int varying)
{
    const Graph *body = h->body;
    int nin, count = 0;
    const Val *in = graph_inputs(body, arena, &nin);
    h->fixed = arena_array(arena, bool, body->n);
    h->outside = arena_array(arena, bool, body->n);
    for (int i = varying; i < nin; i++)
        h->fixed[in[i]] = true;
    for (Val v = 1; v < body->n; v++) {
        const Node *n = node_of(body, v);
        if (n->op == OP_INPUT)
            continue;
        bool fixed = !(op_info[n->op].flags & OPF_EFFECT);
        for (int i = 0; i < n->narg; i++)
            fixed &= h->fixed[n->arg[i]];
        h->fixed[v] = fixed;
        for (int i = 0; !fixed && i < n->narg; i++)
            if (h->fixed[n->arg[i]])
                leave(h, n->arg[i]);
    }
    for (int k = 0; k < body->nout; k++)
        if (h->fixed[body->out[k].val])
            leave(h, body->out[k].val);
    for (Val v = 1; v < body->n; v++)
        count += h->outside[v];
    return count;
}

static const char *free_input_name(Graph *g, int *number)
{
    const char *name;
    do
        name = arena_printf(g->arena, "hoisted%d", (*number)++);
    while (graph_find_input(g, name));
    return name;
}

/* The body with an input for each value that is made outside; graph_copy_live leaves what only those needed. */
static Graph *body_without(const Hoist *h, Arena *arena)
{
    const Graph *body = h->body;
    Graph *out = graph_new(arena, body->err, body->name);
    Val *map = arena_array(arena, Val, body->n);
    int number = 0;
    for (Val v = 1; v < body->n; v++)
        if (node_of(body, v)->op == OP_INPUT)
            map[v] = graph_copy_node(out, body, v, map);
    for (Val v = 1; v < body->n; v++)
        if (h->outside[v]) {
            graph_at_node(out, body, v);
            map[v] = g_input(out, free_input_name(out, &number), ROLE_DATA, type_of(body, v));
        }
    graph_copy_live(out, body, map);
    return out;
}

/* Copies what the values that leave are made of to `out`, in place of the loop's invariant operands. */
static void make_outside(const Hoist *h, Graph *out, const Val *operand, Val *arg, int *narg)
{
    const Graph *body = h->body;
    bool *needed = arena_array(out->arena, bool, body->n);
    Val *map = arena_array(out->arena, Val, body->n);
    int nin;
    const Val *in = graph_inputs(body, out->arena, &nin);
    for (int i = 0; i < nin; i++)
        map[in[i]] = operand[i];
    for (Val v = body->n - 1; v > 0; v--) {
        needed[v] |= h->outside[v];
        for (int i = 0; needed[v] && i < node_of(body, v)->narg; i++)
            needed[node_of(body, v)->arg[i]] = true;
    }
    for (Val v = 1; v < body->n; v++) {
        if (needed[v] && !map[v])
            map[v] = graph_copy_node(out, body, v, map);
        if (h->outside[v])
            arg[(*narg)++] = map[v];
    }
}

static Val hoist_loop(PassCx *cx, const Graph *in, Graph *out, Val v, const Val *map)
{
    const Node *n = node_of(in, v);
    Graph *body = graph_new(cx->arena, cx->err, attr_graph(n, A_GRAPH)->name);
    if (!pass_hoist(cx, attr_graph(n, A_GRAPH), body)) /* from the inner loops outwards */
        return 0;
    int carry = (int)attr_i(n, A_CARRY), scan = (int)attr_i(n, A_SCAN), narg = n->narg;
    Hoist h = {.body = body};
    int count = find_fixed(&h, cx->arena, carry + scan);
    graph_at_node(out, in, v);
    if (count == 0)
        return region_copy_node(out, in, v, map, body);
    Val *arg = arena_array(cx->arena, Val, n->narg + count + 1);
    for (int i = 0; i < n->narg; i++)
        arg[i] = map[n->arg[i]];
    make_outside(&h, out, arg, arg, &narg);
    graph_at_node(out, in, v);
    Attr extra[] = {
        {.name = A_TRIP, .i = attr_i(n, A_TRIP)}, {.name = A_CARRY, .i = carry}, {.name = A_SCAN, .i = scan}};
    return g_region(out, OP_LOOP, body_without(&h, cx->arena), arg, narg, extra, 3);
}

bool pass_hoist(PassCx *cx, const Graph *in, Graph *out)
{
    Val *map = arena_array(cx->arena, Val, in->n);
    for (Val v = 1; v < in->n && cx->err->kind == ERR_NONE; v++)
        map[v] = node_of(in, v)->op == OP_LOOP ? hoist_loop(cx, in, out, v, map) : graph_copy_node(out, in, v, map);
    for (int i = 0; i < in->nout; i++)
        graph_output(out, in->out[i].name, map[in->out[i].val]);
    return cx->err->kind == ERR_NONE;
}
