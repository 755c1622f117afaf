/* The second half of fusion: which values a group stores, which its readers compute again, and the regions themselves.
 */
#include "passes/fuse_impl.h"
#include <stdio.h>
#include <string.h>

/* ---- values that are cheaper to compute again than to store and load ---- */
enum { SMALL = 16, MAX_SEEN = 64 };

/* How far a computation may go: where many processors share the memory, four bytes of it take as long as a good many operations. */
typedef struct AgainLimits { int ops, small; bool dear, products; } AgainLimits;
static const AgainLimits of_few = {8, 4, false, false}, of_many = {32, 8, true, true};

typedef struct Again {
    const AgainLimits *most;
    int ops, large, small, group, nseen;
    int64_t size;
    Val leaf, seen[MAX_SEEN]; /* leaf: the last large one */
} Again;

static Again again_of(const Fuser *f, int group, int64_t size)
{
    const CompileOptions *o = f->cx->options;
    return (Again){.most = o && o->processors ? &of_many : &of_few, .group = group, .size = size};
}

static bool cheap(const Again *a, const Node *n)
{
    bool dear = fuse_is_dear((Op)n->op) && (n->op == OP_RANDOM || !a->most->dear);
    return ((op_info[n->op].flags & OPF_ELEMENTWISE) && !dear) || n->op == OP_CAST;
}

static bool seen(Again *a, Val v)
{
    for (int i = 0; i < a->nseen; i++)
        if (a->seen[i] == v)
            return true;
    if (a->nseen < MAX_SEEN)
        a->seen[a->nseen] = v;
    a->nseen++;
    return false;
}

/* What computing v again would read: large values must be in memory anyway, small ones (a number a row) may be stored
 * for it. */
static bool count_again(Fuser *f, const bool *needed, Again *a, Val v, bool top)
{
    const Node *n = node_of(f->in, v);
    if (seen(a, v))
        return true;
    if (a->nseen > MAX_SEEN)
        return false;
    if (n->op == OP_CONST || n->op == OP_IOTA)
        return !f->solid[v];
    if (op_is_view((Op)n->op) && !f->solid[v])
        return count_again(f, needed, a, n->arg[0], false);
    if (node_count(f->in, v) * SMALL <= a->size)
        return ++a->small <= a->most->small;
    if ((!f->group[v] || needed[v]) && !top) {
        a->leaf = v;
        return ++a->large <= 2;
    }
    if (fuse_find(f, f->group[v]) != a->group || !cheap(a, n) || ++a->ops > a->most->ops)
        return false;
    for (int i = 0; i < n->narg; i++)
        if (!count_again(f, needed, a, n->arg[i], false))
            return false;
    return true;
}

/* v's operands: stored, or computed again like v. */
static void repeat_operands(Fuser *f, bool *needed, const Again *a, Val v)
{
    const Node *n = node_of(f->in, v);
    for (int i = 0; i < n->narg; i++) {
        Val x = n->arg[i];
        const Node *m = node_of(f->in, x);
        bool view = (op_is_view((Op)m->op) || m->op == OP_CONST || m->op == OP_IOTA) && !f->solid[x];
        if (!view && (node_count(f->in, x) * SMALL <= a->size || !f->group[x] || needed[x])) {
            needed[x] = true;
            continue;
        }
        f->again[x] |= !view;
        repeat_operands(f, needed, a, x);
    }
}

static double bytes_of(const Fuser *f, Val v)
{
    return (double)node_count(f->in, v) * (double)dav_dtype_size((DavDtype)node_of(f->in, v)->dtype);
}

/* May v, which is read outside of its group, be computed again there? */
static bool is_again(Fuser *f, const bool *needed, Val v, Again *a)
{
    if (!needed[v] || f->solid[v] || !f->group[v])
        return false;
    *a = again_of(f, fuse_find(f, f->group[v]), node_count(f->in, v));
    int kind = f->g[a->group].kind;
    bool product = kind == FUSE_CONTRACT && a->most->products, pays = kind == FUSE_ROWWISE || kind == FUSE_POINTWISE || product;
    if (!pays || !count_again(f, needed, a, v, true))
        return false;
    return !product || (a->large == 1 && bytes_of(f, v) >= bytes_of(f, a->leaf)); /* not more to read */
}

/* Bytes of the values that w's being stored would allow to be computed again. */
static double spared_by(Fuser *f, bool *needed, int group, Val w)
{
    double bytes = 0;
    Again a;
    for (int i = f->start[group]; i < f->start[group + 1]; i++) {
        Val v = f->member[i];
        if (v <= w || !needed[v] || is_again(f, needed, v, &a))
            continue;
        needed[w] = true;
        bytes += is_again(f, needed, v, &a) && a.large == 1 && a.leaf == w ? bytes_of(f, v) : 0;
        needed[w] = false;
    }
    return bytes;
}

/* One value stored in the place of several that are computed from it. */
static void store_ancestors(Fuser *f, bool *needed)
{
    for (Val w = 1; w < f->in->n; w++) {
        int group = f->group[w] ? fuse_find(f, f->group[w]) : 0;
        bool many = group && again_of(f, group, 0).most->products, loose = group && f->g[group].kind <= FUSE_CONTRACT && !f->solid[w];
        if (many && loose && !needed[w] && node_of(f->in, w)->rank == f->g[group].rank && spared_by(f, needed, group, w) > bytes_of(f, w))
            needed[w] = true;
    }
}

static void mark_again(Fuser *f, bool *needed)
{
    Again a;
    store_ancestors(f, needed);
    for (Val v = 1; v < f->in->n; v++) {
        if (!is_again(f, needed, v, &a))
            continue;
        f->again[v] = true;
        needed[v] = false;
        repeat_operands(f, needed, &a, v);
    }
}

/* ---- emission ---- */
static bool is_repeated(const Fuser *f, Val v)
{
    Op op = (Op)node_of(f->in, v)->op;
    return !f->solid[v] && (op_is_view(op) || op == OP_CONST || op == OP_IOTA || f->again[v]);
}

/* Values in memory behind operand v of a member of group g. */
static void mark_read(Fuser *f, bool *needed, int g, Val v)
{
    if (f->group[v] && fuse_group_of(f, v) == g)
        return;
    if (!is_repeated(f, v)) {
        needed[v] = true;
        return;
    }
    for (int i = 0; i < node_of(f->in, v)->narg; i++)
        mark_read(f, needed, g, node_of(f->in, v)->arg[i]);
}

typedef struct Region {
    Graph *body;
    Val *map; /* value of the graph -> value of the body */
    Val *arg;
    int narg;
} Region;

static Val region_value(Fuser *f, Region *r, int g, Val v)
{
    if (r->map[v])
        return r->map[v];
    const Node *n = node_of(f->in, v);
    if (is_repeated(f, v) || fuse_group_of(f, v) == g) {
        for (int i = 0; i < n->narg; i++)
            region_value(f, r, g, n->arg[i]);
        return r->map[v] = graph_copy_node(r->body, f->in, v, r->map);
    }
    char name[24];
    snprintf(name, sizeof name, "p%d", r->narg);
    r->arg[r->narg++] = f->map[v];
    must(f->map[v] > 0);
    return r->map[v] = g_input(r->body, name, ROLE_DATA, type_of(f->in, v));
}

static void emit_region(Fuser *f, int g, const bool *needed, Val *scratch_map, Val *scratch_arg)
{
    const Group *grp = &f->g[g];
    Region r = {graph_new(f->cx->arena, f->cx->err, "region"), scratch_map, scratch_arg, 0};
    r.body->no_fold = true;
    Val *outs = arena_array(f->cx->arena, Val, grp->members);
    int nout = 0;
    for (int i = f->start[g]; i < f->start[g + 1]; i++)
        region_value(f, &r, g, f->member[i]);
    for (int i = f->start[g]; i < f->start[g + 1]; i++) {
        Val v = f->member[i];
        if (!needed[v])
            continue;
        char name[24];
        snprintf(name, sizeof name, "r%d", nout);
        graph_output(r.body, name, r.map[v]);
        outs[nout++] = v;
    }
    if (nout == 0) /* all of it is computed again where it is read */
        return;
    graph_at_node(f->out, f->in, f->member[f->start[g]]);
    Attr kind = {.name = A_KIND, .i = grp->kind};
    Val fused = g_region(f->out, OP_FUSE, r.body, r.arg, r.narg, &kind, 1);
    for (int i = 0; i < nout; i++)
        f->map[outs[i]] = g_pick(f->out, fused, i);
}

/* Values of a group that are read outside of it. */
static bool *find_needed(Fuser *f)
{
    bool *needed = arena_array(f->cx->arena, bool, f->in->n);
    for (int i = 0; i < f->in->nout; i++)
        needed[f->in->out[i].val] = true;
    for (Val v = 1; v < f->in->n; v++)
        for (int i = 0; f->live[v] && f->group[v] && i < node_of(f->in, v)->narg; i++)
            mark_read(f, needed, fuse_group_of(f, v), node_of(f->in, v)->arg[i]);
    mark_again(f, needed);
    return needed;
}

typedef struct Emit { Fuser *f; bool *needed; Val *map, *arg; } Emit;

static const Graph *fused_body(Fuser *f, const Graph *body)
{
    Graph *out = graph_new(f->cx->arena, f->cx->err, body->name);
    return pass_fuse(f->cx, body, out) ? out : body;
}

static void emit_loop(Fuser *f, Val v)
{
    const Node *n = node_of(f->in, v);
    Val *arg = arena_array(f->cx->arena, Val, n->narg);
    Attr attr[ATTR_COUNT];
    for (int i = 0; i < n->narg; i++)
        arg[i] = f->map[n->arg[i]];
    for (int i = 0; i < n->nattr; i++) {
        attr[i] = n->attr[i];
        if (attr[i].name == A_GRAPH)
            attr[i].graph = fused_body(f, attr[i].graph);
    }
    graph_at_node(f->out, f->in, v);
    f->map[v] = graph_node(f->out, OP_LOOP, arg, n->narg, attr, n->nattr, NULL);
}

/* An op with several results is a region of its own; the fuse's results are in the same order. */
static void emit_tuple(Fuser *f, Val v)
{
    const Node *n = node_of(f->in, v);
    Region r = {graph_new(f->cx->arena, f->cx->err, "region"), arena_array(f->cx->arena, Val, f->in->n),
                arena_array(f->cx->arena, Val, n->narg), 0};
    char name[24];
    r.body->no_fold = true;
    for (int i = 0; i < n->narg; i++)
        region_value(f, &r, 0, n->arg[i]);
    Val op = graph_copy_node(r.body, f->in, v, r.map);
    for (int i = 0; i < tuple_count(f->in, v); i++) {
        snprintf(name, sizeof name, "r%d", i);
        graph_output(r.body, name, g_pick(r.body, op, i));
    }
    graph_at_node(f->out, f->in, v);
    f->map[v] = g_region(f->out, OP_FUSE, r.body, r.arg, r.narg, &(Attr){.name = A_KIND, .i = FUSE_OTHER}, 1);
}

static void emit_from(Emit *e, int g);

/* Emits what operand v of a member of group g stands on. */
static void emit_operand(Emit *e, int g, Val v)
{
    Fuser *f = e->f;
    const Node *n = node_of(f->in, v);
    if (is_repeated(f, v)) {
        for (int i = 0; i < n->narg; i++)
            emit_operand(e, g, n->arg[i]);
        return;
    }
    int from = fuse_group_of(f, v);
    if (from && from != g)
        emit_from(e, from);
    if (n->op == OP_PICK && !f->map[v])
        f->map[v] = g_pick(f->out, f->map[n->arg[0]], (int)attr_i(n, A_INDEX));
}

static void emit_from(Emit *e, int g)
{
    Fuser *f = e->f;
    if (f->g[g].emitted)
        return;
    f->g[g].emitted = true;
    for (int i = f->start[g]; i < f->start[g + 1]; i++) {
        const Node *n = node_of(f->in, f->member[i]);
        for (int j = 0; j < n->narg; j++)
            emit_operand(e, g, n->arg[j]);
    }
    Val v = f->member[f->start[g]];
    switch (f->g[g].kind) {
    case ALIAS:
        f->map[v] = graph_copy_node(f->out, f->in, v, f->map);
        break;
    case FIXED:
        if (node_of(f->in, v)->op == OP_LOOP)
            emit_loop(f, v);
        else
            f->map[v] = graph_copy_node(f->out, f->in, v, f->map);
        break;
    default:
        if (op_info[node_of(f->in, v)->op].flags & OPF_TUPLE) {
            emit_tuple(f, v);
            break;
        }
        memset(e->map, 0, (size_t)f->in->n * sizeof *e->map);
        emit_region(f, g, e->needed, e->map, e->arg);
    }
}

static void list_members(Fuser *f)
{
    f->start = arena_array(f->cx->arena, int, f->ngroup + 2);
    for (Val v = 1; v < f->in->n; v++)
        if (f->group[v])
            f->start[fuse_find(f, f->group[v]) + 1]++;
    for (int g = 1; g <= f->ngroup + 1; g++)
        f->start[g] += f->start[g - 1];
    f->member = arena_array(f->cx->arena, int, f->start[f->ngroup + 1]);
    int *fill = arena_array(f->cx->arena, int, f->ngroup + 1);
    for (Val v = 1; v < f->in->n; v++)
        if (f->group[v]) {
            int g = fuse_find(f, f->group[v]);
            f->member[f->start[g] + fill[g]++] = v;
        }
}

void fuse_emit(Fuser *f)
{
    list_members(f);
    Emit e = {f, find_needed(f), arena_array(f->cx->arena, Val, f->in->n), arena_array(f->cx->arena, Val, f->in->n)};
    for (Val v = 1; v < f->in->n; v++) {
        Op op = (Op)node_of(f->in, v)->op;
        if (op == OP_INPUT || (op == OP_LITERAL && f->live[v]))
            f->map[v] = graph_copy_node(f->out, f->in, v, f->map);
    }
    for (Val v = 1; v < f->in->n; v++)
        if (f->group[v] && f->g[fuse_find(f, f->group[v])].last == v)
            emit_from(&e, fuse_find(f, f->group[v]));
    for (Val v = 1; v < f->in->n; v++)
        if (node_of(f->in, v)->op == OP_PICK && f->live[v] && !f->map[v])
            f->map[v] = graph_copy_node(f->out, f->in, v, f->map);
    for (int i = 0; i < f->in->nout; i++)
        graph_output(f->out, f->in->out[i].name, f->map[f->in->out[i].val]);
}
