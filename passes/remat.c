/* remat: values of the forward part are computed again in the backward part when keeping them all would exceed the
 * budget.
 *
 * The graph is cut in two where most bytes are live.  The forward part, what is before that place, is cut into 64, 32,
 * .. 2 stretches of equal work, each at the place near there where least is live.  What is live at a cut is kept; what
 * else the backward part reads is computed again from kept values, right before it is first read.  Each plan is lowered
 * and planned like the real program, so that the bytes compared with the budget are those of the arena that will be
 * allocated; the first plan that fits is taken.  (Cheap elementwise work is computed again anyway: fusion sees to it.)
 *
 * What is computed again must not be merged with its first computation, nor be done early: its sources pass through a
 * slice of their full size whose start depends on what the backward part has just computed (and is clamped to 0
 * whatever that is).
 *
 *     %2 = exp %1 : f32[8]
 *     %3 = ... the backward part ...
 *     %4 = mul %3, %2 : f32[8]
 *  ->
 *     %2 = exp %1 : f32[8]
 *     %3 = ... the backward part ...
 *     %6 = ... i32[] made from %3 ...
 *     %7 = dyn_slice %1, %6 {axis=0 size=8} : f32[8]
 *     %8 = exp %7 : f32[8]
 *     %9 = mul %3, %8 : f32[8]
 */
#include "passes/pass.h"
#include "passes/plan.h"
#include "passes/region.h"
#include <inttypes.h>
#include <string.h>

bool pass_remat(PassCx *cx, const Graph *in, Graph *out);

enum { MOST_STRETCHES = 64 };

/* What is known of the graph, by value. */
typedef struct Forward {
    const Graph *g;
    Arena *arena;
    Val end;          /* last value of the forward part */
    bool *data;       /* depends on more than parameters and constants */
    int64_t *bytes;   /* 0: a view, a constant, an input: takes no memory of the program */
    double *work;     /* bytes read and written, or multiply-adds */
    Val *last;        /* last reader */
    Val *last_before; /* last reader in the forward part */
} Forward;

static bool takes_memory(Op op)
{
    return op != OP_BROADCAST && op != OP_RESHAPE && op != OP_TRANSPOSE && op != OP_SLICE && op != OP_REVERSE &&
           !(op_info[op].flags & (OPF_LEAF | OPF_TUPLE));
}

/* Can it be computed a second time? */
static bool can_repeat(const Node *n)
{
    return (op_info[n->op].flags & OPF_PURE) && !(op_info[n->op].flags & OPF_TUPLE) && n->op != OP_PICK;
}

static double work_of(const Graph *g, Val v)
{
    const Node *n = node_of(g, v);
    if (n->op != OP_CONTRACT)
        return (double)node_count(g, v);
    double useful, all;
    Type a = type_of(g, n->arg[0]), b = type_of(g, n->arg[1]);
    spec_work(attr_spec(n), &a, &b, &useful, &all);
    return useful;
}

/* A view keeps what it looks at alive. */
static void read_by(const Forward *f, Val *last, Val v, Val reader)
{
    for (;;) {
        const Node *n = node_of(f->g, v);
        if (reader > last[v])
            last[v] = reader;
        if (f->bytes[v] || n->narg != 1 || (op_info[n->op].flags & OPF_TUPLE))
            return;
        v = n->arg[0];
    }
}

static Val most_live(const Forward *f)
{
    int64_t live = 0, most = -1;
    Val at = 0;
    int64_t *ends = arena_array(f->arena, int64_t, f->g->n + 1);
    for (Val v = 1; v < f->g->n; v++) {
        live += f->bytes[v];
        ends[f->last[v]] += f->bytes[v];
        if (live > most) {
            most = live;
            at = v;
        }
        live -= ends[v];
    }
    return at;
}

static Forward survey(Arena *arena, const Graph *g)
{
    Forward f = {.g = g, .arena = arena};
    f.data = arena_array(arena, bool, g->n);
    f.bytes = arena_array(arena, int64_t, g->n);
    f.work = arena_array(arena, double, g->n);
    f.last = arena_array(arena, Val, g->n);
    f.last_before = arena_array(arena, Val, g->n);
    for (Val v = 1; v < g->n; v++) {
        const Node *n = node_of(g, v);
        f.data[v] = n->op == OP_INPUT ? attr_i(n, A_ROLE) != ROLE_PARAM && attr_i(n, A_ROLE) != ROLE_FROZEN
                                      : (op_info[n->op].flags & OPF_EFFECT) != 0;
        for (int i = 0; i < n->narg; i++)
            f.data[v] |= f.data[n->arg[i]];
        if (f.data[v] && takes_memory((Op)n->op))
            f.bytes[v] = node_count(g, v) * (int64_t)dav_dtype_size((DavDtype)n->dtype);
        f.work[v] = f.data[v] ? work_of(g, v) : 0;
        for (int i = 0; i < n->narg; i++)
            read_by(&f, f.last, n->arg[i], v);
    }
    for (int i = 0; i < g->nout; i++)
        read_by(&f, f.last, g->out[i].val, g->n);
    f.end = most_live(&f);
    for (Val v = 1; v <= f.end; v++)
        for (int i = 0; i < node_of(g, v)->narg; i++)
            read_by(&f, f.last_before, node_of(g, v)->arg[i], v);
    return f;
}

/* ---- which values are kept ---- */
/* Of the places in (from, to), the one where the forward part has least live. */
static Val best_cut(const int64_t *live, Val from, Val to)
{
    Val best = from;
    for (Val v = from; v < to; v++)
        if (live[v] < live[best])
            best = v;
    return best;
}

static bool *keep_cuts(const Forward *f, int stretches)
{
    bool *keep = arena_array(f->arena, bool, f->g->n);
    int64_t *live = arena_array(f->arena, int64_t, f->g->n + 1), *ends = arena_array(f->arena, int64_t, f->g->n + 1),
            now = 0;
    double total = 0, done = 0;
    for (Val v = 1; v <= f->end; v++) {
        now += f->bytes[v];
        ends[f->last_before[v] ? f->last_before[v] : v] += f->bytes[v];
        live[v] = now -= ends[v];
        total += f->work[v];
    }
    Val from = 1, last_cut = 0;
    int stretch = 1;
    for (Val v = 1; v <= f->end && stretch < stretches; v++) {
        done += f->work[v];
        if (done < total * stretch / stretches)
            continue;
        Val cut = best_cut(live, from, v + 1);
        for (Val k = 1; k <= cut; k++)
            keep[k] |= f->bytes[k] && f->last_before[k] > cut;
        last_cut = cut;
        from = v;
        while (stretch < stretches && done >= total * stretch / stretches)
            stretch++;
    }
    for (Val k = last_cut + 1; k <= f->end; k++) /* the backward part begins with the last stretch */
        keep[k] = true;
    return keep;
}

/* ---- building ---- */
typedef struct Remat {
    const Forward *f;
    Graph *out;
    const bool *keep;
    bool *there, *wanted;
    Val *map, *again, *held; /* first computation, second one, source of second ones */
    Val newest;              /* what the backward part has just computed */
    int repeated;
} Remat;

/* i32[] that depends on v. */
static Val index_from(Graph *g, Val v)
{
    int64_t zero[IR_MAX_RANK] = {0}, one[IR_MAX_RANK] = {1, 1, 1, 1, 1, 1, 1, 1};
    return g_cast(g, g_reshape(g, g_slice(g, v, zero, one, NULL), 0, NULL), DAV_I32);
}

static Val hold(Remat *r, Val v)
{
    Val x = r->map[v];
    const Node *n = node_of(r->out, x);
    if (r->held[v] || !r->newest || n->rank == 0)
        return r->held[v] ? r->held[v] : x;
    Val index = index_from(r->out, r->newest);
    Attr a[] = {{.name = A_AXIS, .i = 0}, {.name = A_SIZE, .i = n->dim[0]}};
    return r->held[v] = graph_node(r->out, OP_DYN_SLICE, (Val[]){x, index}, 2, a, 2, NULL);
}

/* Values that stay, and views of those: there is nothing to do again for them. */
static void mark_there(Remat *r)
{
    const Graph *g = r->f->g;
    for (Val v = 1; v <= r->f->end; v++) {
        const Node *n = node_of(g, v);
        r->there[v] =
            r->keep[v] || !r->f->data[v] || !can_repeat(n) || (!r->f->bytes[v] && n->narg == 1 && r->there[n->arg[0]]);
    }
}

static void repeat_node(Remat *r, Val v)
{
    const Node *n = node_of(r->f->g, v);
    Val *arg = arena_array(r->f->arena, Val, n->narg + 1);
    for (int i = 0; i < n->narg; i++) {
        Val x = n->arg[i];
        const Node *m = node_of(r->f->g, x);
        bool source = !r->f->data[x] || r->keep[x] || !can_repeat(m);
        arg[i] = !source ? r->again[x] : r->f->data[x] ? hold(r, x) : r->map[x];
    }
    Type t = type_of(r->f->g, v);
    graph_at_node(r->out, r->f->g, v);
    r->again[v] = graph_node(r->out, (Op)n->op, arg, n->narg, n->attr, n->nattr, &t);
    r->repeated += r->f->bytes[v] > 0;
}

/* Computes v again, with what it needs and has not been computed again yet. */
static Val repeat(Remat *r, Val v)
{
    int waiting = !r->again[v];
    r->wanted[v] = waiting;
    Val first = v;
    for (; waiting > 0; first--) {
        if (!r->wanted[first])
            continue;
        waiting--;
        const Node *n = node_of(r->f->g, first);
        for (int i = 0; i < n->narg; i++) {
            Val x = n->arg[i];
            if (r->wanted[x] || r->again[x] || r->keep[x] || !r->f->data[x] || !can_repeat(node_of(r->f->g, x)))
                continue;
            r->wanted[x] = true;
            waiting++;
        }
    }
    for (Val w = first + 1; w <= v; w++) {
        if (r->wanted[w])
            repeat_node(r, w);
        r->wanted[w] = false;
    }
    return r->again[v];
}

static void build(Remat *r)
{
    const Graph *g = r->f->g;
    for (Val v = 1; v < g->n; v++) {
        if (v <= r->f->end) {
            r->map[v] = graph_copy_node(r->out, g, v, r->map);
            continue;
        }
        const Node *n = node_of(g, v);
        Val *arg = arena_array(r->f->arena, Val, n->narg + 1);
        for (int i = 0; i < n->narg; i++) {
            Val x = n->arg[i];
            arg[i] = x > r->f->end || r->there[x] ? r->map[x] : repeat(r, x);
        }
        Type t = type_of(g, v);
        graph_at_node(r->out, g, v);
        r->map[v] = graph_node(r->out, (Op)n->op, arg, n->narg, n->attr, n->nattr, &t);
        if (r->f->bytes[v] > 0 && dav_dtype_is_float(t.dtype) && type_count(&t) > 0)
            r->newest = r->map[v];
    }
    for (int i = 0; i < g->nout; i++)
        graph_output(r->out, g->out[i].name, r->map[g->out[i].val]);
}

static const Graph *with_kept(PassCx *cx, const Forward *f, const bool *keep, int *repeated)
{
    Remat r = {.f = f, .out = graph_new(cx->arena, cx->err, f->g->name), .keep = keep};
    r.map = arena_array(cx->arena, Val, f->g->n);
    r.again = arena_array(cx->arena, Val, f->g->n);
    r.held = arena_array(cx->arena, Val, f->g->n);
    r.there = arena_array(cx->arena, bool, f->g->n);
    r.wanted = arena_array(cx->arena, bool, f->g->n);
    mark_there(&r);
    build(&r);
    *repeated = r.repeated;
    return r.out;
}

/* ---- the plan that a graph will get ---- */
static const Plan *plan_of(PassCx *cx, const Graph *g)
{
    PassCx trial = {.arena = cx->arena, .err = cx->err, .options = cx->options, .state = cx->state | HAS_LAYOUT};
    bool later = false, ok = true;
    for (int i = 0; i < pass_count && ok; i++) {
        Graph *next = later ? graph_new(cx->arena, cx->err, g->name) : NULL;
        ok = !later || pass_info[i].run(&trial, g, next);
        g = next ? next : g;
        later |= pass_info[i].run == pass_remat;
    }
    vec_free(trial.notes);
    return ok && cx->err->kind == ERR_NONE ? plan_make(cx->arena, g, NULL) : NULL;
}

static bool report_failure(PassCx *cx, const Plan *best, int64_t budget)
{
    Buf text = {0};
    int64_t below = INT64_MAX;
    int seen = -1;
    for (int k = 0; k < 3; k++) { /* the three largest buffers */
        int top = -1;
        for (int i = 0; i < best->nbuf; i++) {
            const PlanBuf *b = &best->buf[i];
            bool next = b->bytes < below || (b->bytes == below && i > seen);
            if (b->place == AT_ARENA && b->val && next && (top < 0 || b->bytes > best->buf[top].bytes))
                top = i;
        }
        if (top < 0)
            break;
        const Node *n = node_of(best->g, best->buf[top].val);
        buf_printf(&text, "%s%" PRId64 " bytes made at %s:%d", k ? ", " : "", best->buf[top].bytes,
                   n->file ? n->file : "?", n->line);
        below = best->buf[top].bytes;
        seen = top;
    }
    err_user(cx->err,
             "graph '%s': a memory budget of %" PRId64
             " bytes cannot be met: with everything computed again that can be, "
             "the peak is %" PRId64 " bytes; largest values: %s",
             best->g->name, budget, best->arena_bytes, text.at ? text.at : "none");
    buf_free(&text);
    return false;
}

static bool search(PassCx *cx, const Graph *in, Graph *out, int64_t budget)
{
    const Plan *plan = plan_of(cx, in), *best = plan;
    if (!plan)
        return false;
    Forward f = survey(cx->arena, in);
    const Graph *chosen = plan->arena_bytes <= budget ? in : NULL;
    int repeated = 0;
    for (int stretches = MOST_STRETCHES; !chosen && stretches > 1; stretches /= 2) {
        const Graph *trial = with_kept(cx, &f, keep_cuts(&f, stretches), &repeated);
        const Plan *p = plan_of(cx, trial);
        if (!p)
            return false;
        best = p->arena_bytes < best->arena_bytes ? p : best;
        chosen = p->arena_bytes <= budget ? trial : NULL;
    }
    if (!chosen)
        return report_failure(cx, best, budget);
    if (chosen != in)
        cx->memory_note = arena_printf(cx->arena,
                                       "planned %" PRId64 " -> %" PRId64 " bytes under a budget of %" PRId64
                                       ", %d values computed again",
                                       plan->arena_bytes, best->arena_bytes, budget, repeated);
    graph_copy_live(out, chosen, NULL);
    return cx->err->kind == ERR_NONE;
}

bool pass_remat(PassCx *cx, const Graph *in, Graph *out)
{
    int64_t budget = cx->options ? cx->options->memory_budget : 0;
    if (budget > 0)
        return search(cx, in, out, budget);
    graph_copy_live(out, in, NULL);
    return cx->err->kind == ERR_NONE;
}
