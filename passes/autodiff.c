/* autodiff: every grad node becomes the graph of its gradients, by reverse mode.
 *
 * Nodes are copied in order; where a grad node stands, one sweep walks back over what has been copied so far and
 * appends the cotangents.  An inner gradient thus is plain graph by the time an outer one meets it: gradients of
 * gradients need nothing special.  Forward values are used, never recomputed; what does not depend on the xs is not
 * visited; cotangents that meet are added where they meet.  Stands before every pass that looks at dtypes, layouts or
 * kernels, so those see both directions.
 *
 *     %1 = input {name="x" role=data} : f32[3]
 *     %2 = mul %1, %1 : f32[3]
 *     %3 = sum %2 {axes=[0]} : f32[1]
 *     %4 = reshape %3 {shape=[]} : f32[]
 *     %5 = grad %4, %1 : (f32[3])
 *     %6 = pick %5 {index=0} : f32[3]
 *     return y=%4, dx=%6
 *  ->
 *     ... (%5 to %7: the cotangents 1)
 *     %8 = add %1, %1 : f32[3]
 *     return y=%4, dx=%8
 */
#include "passes/autodiff.h"
#include "passes/pass.h"
#include "passes/region.h"

bool pass_autodiff(PassCx *cx, const Graph *in, Graph *out);

/* ---- the sweep ---- */
static bool is_tuple(const Graph *g, Val v)
{
    return (op_info[node_of(g, v)->op].flags & OPF_TUPLE) != 0;
}

static bool is_float(const Graph *g, Val v)
{
    return dav_dtype_is_float((DavDtype)node_of(g, v)->dtype);
}

bool sweep_wants(const Sweep *s, Val x)
{
    return s->needed[x];
}

void sweep_give(Sweep *s, Val x, Val c)
{
    if (!s->needed[x] || !c)
        return;
    s->ct[x] = s->ct[x] ? g_bin(s->g, OP_ADD, s->ct[x], c) : c;
}

static void mark_needed(Sweep *s, const Val *x, int nx)
{
    Val first = s->n;
    for (int i = 0; i < nx; i++) {
        s->needed[x[i]] = is_float(s->g, x[i]);
        first = x[i] < first ? x[i] : first;
    }
    for (Val v = first; v < s->n; v++) {
        const Node *n = node_of(s->g, v);
        if (!op_has_grad((Op)n->op) || !(is_tuple(s->g, v) || is_float(s->g, v)))
            continue;
        for (int i = 0; i < n->narg; i++)
            s->needed[v] |= s->needed[n->arg[i]];
    }
}

static void sweep_back(Sweep *s)
{
    Graph *g = s->g;
    for (Val v = s->n - 1; v > 0; v--) {
        if (!s->needed[v] || !(s->ct[v] || s->result_ct[v]))
            continue;
        graph_at_node(g, g, v);
        grad_rule[node_of(g, v)->op](s, v, s->ct[v]);
    }
}

void graph_vjp(Graph *g, const Val *y, const Val *seed, int ny, const Val *x, int nx, Val *grad)
{
    Sweep s = {.g = g, .n = g->n};
    s.ct = arena_array(g->arena, Val, s.n);
    s.result_ct = arena_array(g->arena, Val *, s.n);
    s.needed = arena_array(g->arena, bool, s.n);
    mark_needed(&s, x, nx);
    for (int i = 0; i < ny; i++)
        sweep_give(&s, y[i], seed[i]);
    sweep_back(&s);
    for (int i = 0; i < nx; i++)
        grad[i] = s.ct[x[i]] ? s.ct[x[i]] : g_const_like(g, x[i], 0);
}

/* ---- the pass ---- */
static void expand(Graph *out, const Graph *in);

static bool depends_on(Graph *g, Val y, Val x)
{
    Sweep s = {.g = g, .n = g->n};
    s.needed = arena_array(g->arena, bool, s.n);
    mark_needed(&s, &x, 1);
    return s.needed[y];
}

/* Building folds a transpose of a transpose (reshape of a reshape, ...) into one, past the value between them.  When y
 * reads x's operand but not x, that has happened most likely, and the gradient would silently be 0. */
static bool folded_past(Graph *g, Val y, Val x)
{
    const Node *n = node_of(g, x);
    bool folds = n->op == OP_TRANSPOSE || n->op == OP_RESHAPE || n->op == OP_BROADCAST || n->op == OP_NEG;
    if (!folds || depends_on(g, y, x) || !depends_on(g, y, n->arg[0]))
        return false;
    err_user_at(g->err, g->file, g->line,
                "the gradient with respect to this %s is not defined: the result reads its operand without passing "
                "through it; differentiate with respect to the operand",
                op_info[n->op].text);
    return true;
}

static Val *expand_grad(Graph *g, const Node *n, const Val *map)
{
    int nx = n->narg - 1;
    Val *x = arena_array(g->arena, Val, nx + 1), *grad = arena_array(g->arena, Val, nx + 1);
    for (int i = 0; i < nx; i++)
        x[i] = map[n->arg[i + 1]];
    Val y = map[n->arg[0]], seed = g_const_like(g, y, 1);
    for (int i = 0; i < nx; i++)
        if (folded_past(g, y, x[i]))
            return grad;
    graph_vjp(g, &y, &seed, 1, x, nx, grad);
    return grad;
}

/* Loops stack what a later gradient may need from the start; simplify drops the stacks that nobody reads. */
static Val copy_loop(Graph *g, const Node *n, const Val *map)
{
    Graph *body = graph_new(g->arena, g->err, attr_graph(n, A_GRAPH)->name);
    expand(body, attr_graph(n, A_GRAPH));
    Val *arg = arena_array(g->arena, Val, n->narg + 1);
    for (int i = 0; i < n->narg; i++)
        arg[i] = map[n->arg[i]];
    return loop_stacking(g, body, arg, n->narg, attr_i(n, A_TRIP), (int)attr_i(n, A_CARRY), (int)attr_i(n, A_SCAN));
}

static void expand(Graph *out, const Graph *in)
{
    const bool *live = graph_live(out->arena, in);
    Val *map = arena_array(out->arena, Val, in->n);
    Val **gradient = arena_array(out->arena, Val *, in->n); /* of grad nodes */
    for (Val v = 1; v < in->n; v++) {
        const Node *n = node_of(in, v);
        if (!live[v])
            continue;
        graph_at_node(out, in, v);
        if (n->op == OP_GRAD)
            gradient[v] = expand_grad(out, n, map);
        else if (n->op == OP_PICK && gradient[n->arg[0]])
            map[v] = gradient[n->arg[0]][attr_i(n, A_INDEX)];
        else if (n->op == OP_LOOP)
            map[v] = copy_loop(out, n, map);
        else
            map[v] = graph_copy_node(out, in, v, map);
    }
    for (int i = 0; i < in->nout; i++)
        graph_output(out, in->out[i].name, map[in->out[i].val]);
}

bool pass_autodiff(PassCx *cx, const Graph *in, Graph *out)
{
    expand(out, in);
    return cx->err->kind == ERR_NONE;
}
