/* The gradient of a loop is a loop that runs backwards.
 *
 * The forward loop stacks every carried value as it came into each iteration.  The reverse loop reads those stacks, the
 * scanned operands and the cotangents of the stacked results from the end to the start; its body recomputes one
 * iteration and sweeps back through it.  It carries the cotangents of the carried values and the sums for the invariant
 * operands; it stacks the cotangents of the scanned operands.  It is made like every loop of this pass, so it can be
 * differentiated again. */
#include "passes/autodiff.h"
#include <string.h>

static bool is_float(const Graph *g, Val v)
{
    return dav_dtype_is_float((DavDtype)node_of(g, v)->dtype);
}

/* ---- stacks of carried values ---- */
/* Which result of the body is the input `in`, from result `first` on; -1: none. */
static int result_that_is(const Graph *body, int first, Val in)
{
    for (int k = first; k < body->nout; k++)
        if (body->out[k].val == in)
            return k;
    return -1;
}

static const char *free_output_name(const Graph *g, const char *base)
{
    const char *name = arena_printf(g->arena, "in.%s", base);
    for (int i = 0; i < g->nout; i++)
        if (strcmp(g->out[i].name, name) == 0)
            return free_output_name(g, name);
    return name;
}

Val loop_stacking(Graph *g, const Graph *body, const Val *arg, int narg, int64_t trip, int carry, int scan)
{
    Graph *stacking = graph_new(g->arena, g->err, body->name);
    graph_copy_live(stacking, body, NULL);
    int nin;
    const Val *in = graph_inputs(stacking, g->arena, &nin);
    for (int i = 0; i < carry; i++)
        if (result_that_is(stacking, carry, in[i]) < 0)
            graph_output(stacking, free_output_name(stacking, attr_s(node_of(stacking, in[i]), A_NAME)), in[i]);
    Attr extra[] = {{.name = A_TRIP, .i = trip}, {.name = A_CARRY, .i = carry}, {.name = A_SCAN, .i = scan}};
    return g_region(g, OP_LOOP, stacking, arg, narg, extra, 3);
}

/* ---- the reverse loop ---- */
typedef struct Reverse {
    Sweep *s;
    const Graph *body; /* of the forward loop */
    Val loop;
    const Node *n;
    int64_t trip;
    int carry, scan; /* of the forward loop */
    Graph *back;     /* body of the reverse loop */
    Val *arg;        /* operands of the reverse loop, in the order of back's inputs */
    int narg;
    Val *forward_in; /* in back: what the forward body is given */
    Val *ct_out;     /* in back: cotangent of each result of the forward body, 0: none */
} Reverse;

static Val outer_ct(const Reverse *r, int result)
{
    return r->s->result_ct[r->loop] ? r->s->result_ct[r->loop][result] : 0;
}

/* An operand of the reverse loop and the input of its body that it arrives at. */
static Val add_operand(Reverse *r, const char *kind, int i, Val operand, bool sliced)
{
    Type t = type_of(r->s->g, operand);
    if (sliced)
        t = type_make(t.dtype, t.rank - 1, t.dim + 1);
    r->arg[r->narg++] = operand;
    return g_input(r->back, arena_printf(r->back->arena, "%s%d", kind, i), ROLE_DATA, t);
}

static Val flipped(Graph *g, Val x)
{
    return graph_node(g, OP_REVERSE, &x, 1, (Attr[]){{.name = A_AXES, .n = 1, .ints = (int64_t[]){0}}}, 1, NULL);
}

/* The cotangents that are carried: of carried floats, then of invariant ones.  Their values at the start. */
static int add_carried(Reverse *r, Val *sum_in)
{
    Graph *g = r->s->g;
    for (int i = 0; i < r->carry; i++)
        if (is_float(g, r->n->arg[i])) {
            Val ct = outer_ct(r, i);
            r->ct_out[i] = add_operand(r, "ct", i, ct ? ct : g_const_like(g, r->n->arg[i], 0), false);
        }
    for (int i = r->carry + r->scan; i < r->n->narg; i++)
        if (sweep_wants(r->s, r->n->arg[i]))
            sum_in[i] = add_operand(r, "sum", i, g_const_like(g, r->n->arg[i], 0), false);
    return r->narg;
}

static int add_scanned(Reverse *r)
{
    Graph *g = r->s->g;
    int before = r->narg;
    int nin;
    const Val *in = graph_inputs(r->body, g->arena, &nin);
    for (int i = 0; i < r->carry; i++) {
        int k = result_that_is(r->body, r->carry, in[i]);
        must(k >= 0);
        r->forward_in[i] = add_operand(r, "in", i, flipped(g, g_pick(g, r->loop, k)), true);
    }
    for (int i = r->carry; i < r->carry + r->scan; i++)
        r->forward_in[i] = add_operand(r, "in", i, flipped(g, r->n->arg[i]), true);
    for (int k = r->carry; k < r->body->nout; k++)
        if (outer_ct(r, k))
            r->ct_out[k] = add_operand(r, "ct", k, flipped(g, outer_ct(r, k)), true);
    return r->narg - before;
}

/* Recomputes an iteration in the body of the reverse loop and sweeps back through it: cotangents of the body's inputs.
 */
static Val *sweep_iteration(Reverse *r)
{
    Graph *back = r->back;
    int nout = r->body->nout, nin = r->n->narg, ny = 0, nx = 0;
    Val *out = arena_array(back->arena, Val, nout + 1), *seed = arena_array(back->arena, Val, nout + 1);
    graph_inline(back, r->body, r->forward_in, out);
    for (int k = 0; k < nout; k++)
        if (r->ct_out[k]) {
            out[ny] = out[k];
            seed[ny++] = r->ct_out[k];
        }
    Val *x = arena_array(back->arena, Val, nin + 1), *grad = arena_array(back->arena, Val, nin + 1);
    Val *ct_in = arena_array(back->arena, Val, nin + 1);
    for (int i = 0; i < nin; i++)
        if (is_float(back, r->forward_in[i]))
            x[nx++] = r->forward_in[i];
    graph_vjp(back, out, seed, ny, x, nx, grad);
    for (int i = 0, k = 0; i < nin; i++)
        ct_in[i] = is_float(back, r->forward_in[i]) ? grad[k++] : 0;
    return ct_in;
}

static void name_results(Reverse *r, const Val *ct_in, const Val *sum_in)
{
    Graph *back = r->back;
    for (int i = 0; i < r->carry; i++)
        if (ct_in[i])
            graph_output(back, arena_printf(back->arena, "ct%d", i), ct_in[i]);
    for (int i = r->carry + r->scan; i < r->n->narg; i++)
        if (sum_in[i])
            graph_output(back, arena_printf(back->arena, "sum%d", i), g_bin(back, OP_ADD, sum_in[i], ct_in[i]));
    for (int i = r->carry; i < r->carry + r->scan; i++)
        if (sweep_wants(r->s, r->n->arg[i]))
            graph_output(back, arena_printf(back->arena, "ct%d", i), ct_in[i]);
}

static void give_results(Reverse *r, Val reverse, const Val *ct_in, const Val *sum_in)
{
    Graph *g = r->s->g;
    int k = 0;
    for (int i = 0; i < r->carry; i++)
        if (ct_in[i])
            sweep_give(r->s, r->n->arg[i], g_pick(g, reverse, k++));
    for (int i = r->carry + r->scan; i < r->n->narg; i++)
        if (sum_in[i])
            sweep_give(r->s, r->n->arg[i], g_pick(g, reverse, k++));
    for (int i = r->carry; i < r->carry + r->scan; i++)
        if (sweep_wants(r->s, r->n->arg[i]))
            sweep_give(r->s, r->n->arg[i], flipped(g, g_pick(g, reverse, k++)));
}

void loop_grad(Sweep *s, Val loop)
{
    Graph *g = s->g;
    const Node *n = node_of(g, loop);
    const Graph *body = attr_graph(n, A_GRAPH);
    Reverse r = {.s = s,
                 .body = body,
                 .loop = loop,
                 .n = n,
                 .trip = attr_i(n, A_TRIP),
                 .carry = (int)attr_i(n, A_CARRY),
                 .scan = (int)attr_i(n, A_SCAN),
                 .back = graph_new(g->arena, g->err, arena_printf(g->arena, "%s.back", body->name))};
    r.arg = arena_array(g->arena, Val, 3 * n->narg + body->nout + 1);
    r.forward_in = arena_array(g->arena, Val, n->narg + 1);
    r.ct_out = arena_array(g->arena, Val, body->nout + 1);
    graph_at(r.back, n->file, n->line);
    Val *sum_in = arena_array(g->arena, Val, n->narg + 1);
    int carry = add_carried(&r, sum_in), scan = add_scanned(&r);
    for (int i = r.carry + r.scan; i < n->narg; i++)
        r.forward_in[i] = add_operand(&r, "in", i, n->arg[i], false);
    const Val *ct_in = sweep_iteration(&r);
    name_results(&r, ct_in, sum_in);
    give_results(&r, loop_stacking(g, r.back, r.arg, r.narg, r.trip, carry, scan), ct_in, sum_in);
}
