#include "passes/plan.h"
#include "passes/plan_group.h"
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

typedef struct Planner {
    Arena *arena;
    const Graph *g;
    Plan *p, *root;
    int *at;    /* value -> buffer, -1: none; tuples: buffer of result 0, the others follow */
    bool *once; /* value depends on parameters alone */
    const int *inplace;
    const PlanGrouping *grouping;
    bool nested;
} Planner;

static int64_t bytes_of(const Type *t)
{
    return type_count(t) * (int64_t)dav_dtype_size(t->dtype);
}

static int64_t aligned(int64_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static int add_buf(Planner *pl, Place place, int index, const Type *t, Val val)
{
    PlanBuf b = {
        .place = place, .index = index, .bytes = bytes_of(t), .first = -1, .last = -1, .shares = -1, .val = val};
    pl->p->buf[pl->p->nbuf] = b;
    return pl->p->nbuf++;
}

static PlanStep *add_step(Planner *pl, StepKind kind, Val node, int nbuf)
{
    PlanStep s = {.kind = kind, .node = node, .nbuf = nbuf, .work = -1, .group = pl->p->nstep};
    s.buf = arena_array(pl->arena, int, nbuf);
    s.once = node && pl->once[node];
    pl->p->step[pl->p->nstep] = s;
    return &pl->p->step[pl->p->nstep++];
}

static Plan *plan_region(Planner *pl);

/* ---- steps ---- */
static int result_count(const Graph *g, Val v)
{
    return (op_info[node_of(g, v)->op].flags & OPF_TUPLE) ? tuple_count(g, v) : 1;
}

static Type result_type(const Graph *g, Val v, int k)
{
    Type t = type_of(g, v);
    if (op_info[node_of(g, v)->op].flags & OPF_TUPLE)
        tuple_type(g, v, k, &t);
    return t;
}

static void plan_loop(Planner *pl, PlanStep *s)
{
    const Node *n = node_of(pl->g, s->node);
    int carry = (int)attr_i(n, A_CARRY);
    Planner inner = {.arena = pl->arena, .g = attr_graph(n, A_GRAPH), .root = pl->root, .grouping = pl->grouping, .nested = true};
    Plan *body = plan_region(&inner);
    s->body = body;
    s->carry_at = arena_array(pl->arena, int64_t, 2 * carry);
    int64_t bytes = 0;
    for (int i = 0; i < 2 * carry; i++) {
        Type t = type_of(pl->g, n->arg[i / 2]);
        s->carry_at[i] = bytes;
        bytes += aligned(bytes_of(&t));
    }
    s->body_at = bytes;
    bytes += body->arena_bytes;
    Type work = type_make(DAV_BOOL, 1, &bytes);
    s->work = add_buf(pl, AT_ARENA, 0, &work, 0);
}

static void plan_node(Planner *pl, Val v)
{
    const Graph *g = pl->g;
    const Node *n = node_of(g, v);
    int results = result_count(g, v);
    StepKind kind = n->op == OP_KERNEL ? STEP_KERNEL : n->op == OP_LOOP ? STEP_LOOP : STEP_HOST;
    PlanStep *s = add_step(pl, kind, v, n->narg + results);
    for (int i = 0; i < n->narg; i++)
        s->buf[i] = pl->at[n->arg[i]];
    for (int i = 0; i < results; i++) {
        Type t = result_type(g, v, i);
        int b = add_buf(pl, pl->once[v] ? AT_KEPT : AT_ARENA, 0, &t, v);
        s->buf[n->narg + i] = b;
        if (i == 0)
            pl->at[v] = b;
    }
    if (kind == STEP_KERNEL) {
        s->kernel = pl->root->nkernel;
        pl->root->kernel[pl->root->nkernel++] = attr_graph(n, A_GRAPH);
    } else if (kind == STEP_LOOP) {
        plan_loop(pl, s);
    }
}

static bool from_params(const Planner *pl, const Node *n)
{
    if (pl->nested || n->op == OP_HOST)
        return false;
    if (n->op == OP_INPUT)
        return attr_i(n, A_ROLE) == ROLE_PARAM || attr_i(n, A_ROLE) == ROLE_FROZEN;
    for (int i = 0; i < n->narg; i++)
        if (!pl->once[n->arg[i]])
            return false;
    return true;
}

static void make_steps(Planner *pl)
{
    const Graph *g = pl->g;
    for (Val v = 1; v < g->n; v++) {
        const Node *n = node_of(g, v);
        Type t = type_of(g, v);
        pl->once[v] = from_params(pl, n);
        pl->at[v] = -1;
        switch ((Op)n->op) {
        case OP_INPUT:
            pl->at[v] = add_buf(pl, AT_INPUT, pl->p->ninput++, &t, v);
            break;
        case OP_LITERAL:
            pl->at[v] = add_buf(pl, AT_LITERAL, pl->root->nliteral, &t, v);
            pl->root->literal[pl->root->nliteral++] = n;
            break;
        case OP_RESHAPE:
            pl->at[v] = pl->at[n->arg[0]];
            break;
        case OP_PICK:
            pl->at[v] = pl->at[n->arg[0]] + (int)attr_i(n, A_INDEX);
            break;
        default:
            plan_node(pl, v);
        }
    }
}

/* The once part first; order within a part stays. */
static void sort_steps(Plan *p, Arena *arena)
{
    int k = 0;
    PlanStep *sorted = arena_array(arena, PlanStep, p->nstep + p->g->nout + 1);
    for (int part = 0; part < 2; part++)
        for (int i = 0; i < p->nstep; i++)
            if (p->step[i].once == (part == 0))
                sorted[k++] = p->step[i];
    p->step = sorted;
}

static void add_use(PlanBuf *b, int step)
{
    if (b->first < 0)
        b->first = step;
    b->last = step > b->last ? step : b->last;
}

static void find_lifetimes(Plan *p)
{
    for (int i = 0; i < p->nbuf; i++)
        p->buf[i].first = p->buf[i].last = -1;
    for (int i = 0; i < p->nstep; i++) {
        const PlanStep *s = &p->step[i];
        for (int j = 0; j < s->nbuf; j++)
            add_use(&p->buf[s->buf[j]], i);
        if (s->work >= 0)
            add_use(&p->buf[s->work], i);
    }
}

/* Steps of a group run at the same time: what one of them needs lives as long as all of them. */
static void widen_lifetimes(Plan *p)
{
    for (int i = 0; i < p->nbuf; i++) {
        PlanBuf *b = &p->buf[i];
        if (b->first < 0)
            continue;
        b->first = p->step[b->first].group;
        while (b->last + 1 < p->nstep && p->step[b->last + 1].group == p->step[b->last].group)
            b->last++;
    }
}

/* ---- sharing in place ---- */
static bool same_value(const Graph *k, Val a, Val b, int depth)
{
    if (a == b)
        return true;
    const Node *x = node_of(k, a), *y = node_of(k, b);
    if (depth == 0 || x->op != y->op || x->dtype != y->dtype || x->narg != y->narg ||
        (op_info[x->op].flags & OPF_EFFECT))
        return false;
    if (x->op == OP_CONST)
        return attr_f(x, A_VALUE) == attr_f(y, A_VALUE);
    if (!(op_info[x->op].flags & OPF_ELEMENTWISE))
        return false;
    for (int i = 0; i < x->narg; i++)
        if (!same_value(k, x->arg[i], y->arg[i], depth - 1))
            return false;
    return true;
}

static Val kernel_buf(const Graph *k, int index)
{
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == OP_BUF && attr_i(node_of(k, v), A_INDEX) == index)
            return v;
    return 0;
}

/* Is every element of buffer `from` read only where the same element of `to` is then written?  Each element of a result
 * is written once, so a read that has a write at its own offset in its own loop body meets no other write. */
static bool overwritable(const Graph *k, int from, int to)
{
    Val in = kernel_buf(k, from), out = kernel_buf(k, to);
    if (!in || !out || node_of(k, in)->dtype != node_of(k, out)->dtype)
        return false;
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        if (n->op == OP_BUF && v != in && attr_i(n, A_INDEX) == from)
            return false; /* read as two types */
        for (int i = 0; i < n->narg; i++)
            if (n->arg[i] == in && n->op != OP_LOAD)
                return false;
        if (n->op != OP_LOAD || n->arg[0] != in)
            continue;
        bool matched = false;
        for (Val w = v + 1; w < k->n && !matched; w++) {
            const Node *s = node_of(k, w);
            if (s->op == OP_FOR || s->op == OP_END)
                break;
            matched = s->op == OP_STORE && s->arg[0] == out && same_value(k, s->arg[1], n->arg[1], 8);
        }
        if (!matched)
            return false;
    }
    return true;
}

static int memory_of(const Plan *p, int b)
{
    while (p->buf[b].shares >= 0)
        b = p->buf[b].shares;
    return b;
}

/* Does another step of i's group touch the memory? */
static bool group_touches(const Plan *p, int i, int memory)
{
    int group = p->step[i].group;
    for (int other = group; other < p->nstep && p->step[other].group == group; other++)
        for (int x = 0; other != i && x < p->step[other].nbuf; x++)
            if (memory_of(p, p->step[other].buf[x]) == memory)
                return true;
    return false;
}

static void share_in_place(Plan *p)
{
    for (int i = 0; i < p->nstep; i++) {
        const PlanStep *s = &p->step[i];
        if (s->kind != STEP_KERNEL)
            continue;
        const Graph *k = attr_graph(node_of(p->g, s->node), A_GRAPH);
        int nin = node_of(p->g, s->node)->narg;
        for (int o = nin; o < s->nbuf; o++)
            for (int j = 0; j < nin; j++) {
                PlanBuf *out = &p->buf[s->buf[o]];
                int m = memory_of(p, s->buf[j]), times = 0;
                PlanBuf *in = &p->buf[m];
                for (int x = 0; x < s->nbuf; x++)
                    times += memory_of(p, s->buf[x]) == m;
                if (out->place != AT_ARENA || in->place != AT_ARENA || out->shares >= 0 || times != 1 ||
                    in->last != i || in->bytes != out->bytes || out->first != i || group_touches(p, i, m) || !overwritable(k, j, o))
                    continue;
                out->shares = m;
                in->last = out->last;
                break;
            }
    }
}

/* ---- where results go ---- */
/* May output o be written to the memory of input i: is that input read by no step after the one that writes? */
static bool input_is_done(const Planner *pl, int b, int input)
{
    const Plan *p = pl->p;
    int writer = p->buf[b].first;
    for (int i = p->step[writer].group; i < p->nstep; i++) {
        const PlanStep *s = &p->step[i];
        for (int j = 0; j < s->nbuf; j++) {
            const PlanBuf *x = &p->buf[s->buf[j]];
            if (x->place != AT_INPUT || x->index != input)
                continue;
            if (i != writer || s->kind != STEP_KERNEL)
                return false;
            for (int o = 0; o < s->nbuf; o++)
                if (s->buf[o] == b && !overwritable(attr_graph(node_of(p->g, s->node), A_GRAPH), j, o))
                    return false;
        }
    }
    for (int o = 0; o < p->g->nout; o++) /* copied out at the end */
        if (p->buf[pl->at[p->g->out[o].val]].place == AT_INPUT && p->buf[pl->at[p->g->out[o].val]].index == input)
            return false;
    return true;
}

static void place_outputs(Planner *pl)
{
    Plan *p = pl->p;
    int n = p->g->nout;
    bool *copy = arena_array(pl->arena, bool, n + 1);
    for (int o = 0; o < n; o++) {
        PlanBuf *b = &p->buf[pl->at[p->g->out[o].val]];
        int input = pl->inplace ? pl->inplace[o] : -1;
        copy[o] = b->place != AT_ARENA || (input >= 0 && !input_is_done(pl, pl->at[p->g->out[o].val], input));
        if (!copy[o]) {
            b->place = AT_OUTPUT;
            b->index = o;
        }
    }
    for (int late = 0; late < 2; late++) /* copies over inputs come after those from inputs */
        for (int o = 0; o < n; o++)
            if (copy[o] && (pl->inplace && pl->inplace[o] >= 0) == late) {
                Type t = type_of(p->g, p->g->out[o].val);
                PlanStep *s = add_step(pl, STEP_COPY, 0, 2);
                s->buf[0] = add_buf(pl, AT_OUTPUT, o, &t, p->g->out[o].val);
                s->buf[1] = pl->at[p->g->out[o].val];
            }
}

/* ---- offsets: the largest first, each as low as those alive with it allow ---- */
typedef struct Slot { int64_t at, bytes; } Slot; /* at: an offset, or the number of a buffer */

static int by_offset(const void *a, const void *b)
{
    const Slot *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

static int by_size(const void *a, const void *b)
{
    const Slot *x = a, *y = b;
    return x->bytes != y->bytes ? (x->bytes < y->bytes) - (x->bytes > y->bytes) : by_offset(a, b);
}

static int64_t lowest_gap(Slot *busy, int n, int64_t bytes)
{
    qsort(busy, (size_t)n, sizeof *busy, by_offset);
    int64_t at = 0;
    for (int i = 0; i < n && busy[i].at - at < bytes; i++)
        at = busy[i].at + busy[i].bytes > at ? busy[i].at + busy[i].bytes : at;
    return at;
}

static void place_arena(Planner *pl)
{
    Plan *p = pl->p;
    int n = p->nbuf, count = 0;
    Slot *order = arena_array(pl->arena, Slot, n + 1), *busy = arena_array(pl->arena, Slot, n + 1);
    for (int i = 0; i < n; i++) {
        PlanBuf *b = &p->buf[i];
        if (b->place == AT_KEPT) {
            b->offset = p->kept_bytes;
            p->kept_bytes += aligned(b->bytes);
        }
        if (b->place == AT_ARENA || b->place == AT_OUTPUT) {
            p->unplanned_bytes += aligned(b->bytes);
            p->unplanned_bufs++;
        }
        if (b->place == AT_ARENA && b->shares < 0 && b->first >= 0)
            order[count++] = (Slot){i, b->bytes};
    }
    qsort(order, (size_t)count, sizeof *order, by_size);
    for (int i = 0; i < count; i++) {
        PlanBuf *b = &p->buf[order[i].at];
        int nbusy = 0;
        for (int j = 0; j < i; j++) {
            const PlanBuf *other = &p->buf[order[j].at];
            if (other->first <= b->last && b->first <= other->last)
                busy[nbusy++] = (Slot){other->offset, aligned(other->bytes)};
        }
        b->offset = lowest_gap(busy, nbusy, aligned(b->bytes));
        p->arena_bytes =
            b->offset + aligned(b->bytes) > p->arena_bytes ? b->offset + aligned(b->bytes) : p->arena_bytes;
    }
    p->planned_bufs = count;
    for (int i = 0; i < n; i++)
        if (p->buf[i].shares >= 0)
            p->buf[i].offset = p->buf[memory_of(p, i)].offset;
}

/* Nodes of one kind, those in loops too. */
static int count_deep(const Graph *g, Op op)
{
    int n = 0;
    for (Val v = 1; v < g->n; v++) {
        n += node_of(g, v)->op == op;
        if (node_of(g, v)->op == OP_LOOP)
            n += count_deep(attr_graph(node_of(g, v), A_GRAPH), op);
    }
    return n;
}

static void make_tables(Planner *pl)
{
    const Graph *g = pl->g;
    int bufs = g->nout + 1;
    for (Val v = 1; v < g->n; v++)
        bufs += 2 + result_count(g, v);
    pl->p = arena_alloc(pl->arena, sizeof *pl->p);
    pl->p->g = g;
    pl->p->buf = arena_array(pl->arena, PlanBuf, bufs);
    pl->p->step = arena_array(pl->arena, PlanStep, g->n + g->nout + 1);
    pl->at = arena_array(pl->arena, int, g->n);
    pl->once = arena_array(pl->arena, bool, g->n);
    if (pl->root)
        return;
    pl->root = pl->p;
    pl->p->kernel = arena_array(pl->arena, const Graph *, count_deep(g, OP_KERNEL) + 1);
    pl->p->literal = arena_array(pl->arena, const Node *, count_deep(g, OP_LITERAL) + 1);
}

static Plan *plan_region(Planner *pl)
{
    make_tables(pl);
    make_steps(pl);
    sort_steps(pl->p, pl->arena);
    plan_group(pl->p, pl->arena, pl->grouping);
    find_lifetimes(pl->p);
    place_outputs(pl);
    find_lifetimes(pl->p);
    share_in_place(pl->p);
    widen_lifetimes(pl->p);
    place_arena(pl);
    return pl->p;
}

Plan *plan_make_grouped(Arena *arena, const Graph *g, const int *inplace, const PlanGrouping *grouping)
{
    Planner pl = {.arena = arena, .g = g, .inplace = inplace, .grouping = grouping};
    return plan_region(&pl);
}

Plan *plan_make(Arena *arena, const Graph *g, const int *inplace)
{
    return plan_make_grouped(arena, g, inplace, NULL);
}
