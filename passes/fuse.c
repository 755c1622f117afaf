/* Fusion: every value that takes work becomes the result of a `fuse` region, which lower turns into one kernel.
 *
 * Values are visited in topological order.  Each starts a group of its own and is then merged with the groups of its
 * operands where that is allowed (why_not).  Views (broadcast, transpose, slice, ...) belong to no group: each consumer
 * repeats them. Groups that read the same large value are merged last.  Group dependences are kept as bit sets, so that
 * no merge closes a cycle.
 *
 *     %2 = exp %1 : f32[4,8]                     %2 = fuse %1 {graph=@0, kind=rowwise}
 *     %3 = sum %2 {axes=[1]} : f32[4,1]          %3 = pick %2 {index=0} : f32[4,8]
 *     %4 = broadcast %3 {shape=[4,8]}      ->
 *     %5 = div %2, %4 : f32[4,8]                 where @0 holds exp, sum, broadcast and div
 */
#include "passes/fuse_impl.h"
#include <string.h>

enum { MAX_MEMBERS = 256 };

bool op_is_view(Op op)
{
    return op == OP_BROADCAST || op == OP_TRANSPOSE || op == OP_SLICE || op == OP_REVERSE || op == OP_RESHAPE;
}

bool reshape_is_unit(const Graph *g, Val v)
{
    const Node *n = node_of(g, v), *x = node_of(g, n->arg[0]);
    int i = 0, j = 0;
    for (;;) {
        while (i < n->rank && n->dim[i] == 1)
            i++;
        while (j < x->rank && x->dim[j] == 1)
            j++;
        if (i == n->rank || j == x->rank)
            return i == n->rank && j == x->rank;
        if (n->dim[i++] != x->dim[j++])
            return false;
    }
}

unsigned reduced_axes(const Graph *g, Val v)
{
    const Node *n = node_of(g, v);
    unsigned mask = 0;
    if (n->op != OP_SUM && n->op != OP_RMAX && n->op != OP_RMIN)
        return 0;
    int count;
    const int64_t *axes = attr_ints(n, A_AXES, &count);
    for (int i = 0; i < count; i++)
        if (node_of(g, n->arg[0])->dim[axes[i]] != 1)
            mask |= 1u << axes[i];
    return mask;
}

bool sums_parts(const Graph *g, Val v)
{
    return node_of(g, v)->op == OP_SUM && node_attr(node_of(g, v), A_PARTS);
}

/* ---- which values are computed, which need memory ---- */
static void mark_values(Fuser *f)
{
    const Graph *g = f->in;
    for (int i = 0; i < g->nout; i++)
        f->live[g->out[i].val] = f->solid[g->out[i].val] = true;
    for (Val v = g->n - 1; v > 0; v--) {
        const Node *n = node_of(g, v);
        f->live[v] |= (op_info[n->op].flags & OPF_EFFECT) != 0;
        if (!f->live[v])
            continue;
        if (n->op == OP_RESHAPE && !reshape_is_unit(g, v))
            f->solid[v] = true;
        if (reduced_axes(g, v)) {
            Val x = n->arg[0];
            while (op_is_view((Op)node_of(g, x)->op))
                x = node_of(g, x)->arg[0];
            f->summed[x] = true;
        }
        bool reads_memory =
            n->op == OP_CONTRACT || n->op == OP_HOST || n->op == OP_LOOP || op_is_attention((Op)n->op) || (n->op == OP_RESHAPE && f->solid[v]);
        for (int i = 0; i < n->narg; i++) {
            f->live[n->arg[i]] = true;
            f->uses[n->arg[i]]++;
            f->solid[n->arg[i]] |= reads_memory;
        }
    }
}

static bool in_group(const Fuser *f, Val v)
{
    Op op = (Op)node_of(f->in, v)->op;
    if (!f->live[v] || op == OP_INPUT || op == OP_LITERAL || op == OP_PICK)
        return false;
    return f->solid[v] || !(op_is_view(op) || op == OP_CONST || op == OP_IOTA);
}

/* The value whose memory or computation stands behind operand v; *direct: read at the reader's own index. */
static Val root_of(const Fuser *f, Val v, bool *direct)
{
    *direct = true;
    while (op_is_view((Op)node_of(f->in, v)->op) && !f->solid[v]) {
        *direct &= node_of(f->in, v)->op == OP_BROADCAST;
        v = node_of(f->in, v)->arg[0];
    }
    return v;
}

int fuse_find(Fuser *f, int a)
{
    while (f->g[a].parent != a)
        a = f->g[a].parent = f->g[f->g[a].parent].parent;
    return a;
}

int fuse_group_of(Fuser *f, Val v)
{
    if (node_of(f->in, v)->op == OP_PICK)
        v = node_of(f->in, v)->arg[0];
    return f->group[v] ? fuse_find(f, f->group[v]) : 0;
}

static bool has(const uint64_t *set, int i)
{
    return set[i / 64] >> (i % 64) & 1;
}

static void put(uint64_t *set, int i)
{
    set[i / 64] |= UINT64_C(1) << (i % 64);
}

static uint64_t *reach_of(Fuser *f, int a)
{
    return f->reach + (size_t)a * f->words;
}

static uint64_t *indirect_of(Fuser *f, int a)
{
    return f->indirect + (size_t)a * f->words;
}

/* ---- merging ---- */
static bool same_dims(const Group *a, const Group *b)
{
    return a->rank == b->rank && memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim) == 0;
}

/* Is b's domain one element a row of a's? */
static bool row_of(const Group *a, const Group *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (b->dim[i] != (a->reduced >> i & 1 ? 1 : a->dim[i]))
            return false;
    return true;
}

/* Rows that lie together, and sums over some of the other axes: the sums of all columns are kept while rows pass. */
enum { MAX_ACROSS = 4096 };

static bool passes_rows(const Group *x, unsigned reduced, unsigned across)
{
    int64_t columns = 1;
    int last = 0;
    for (int i = 0; i < x->rank; i++) {
        columns *= reduced >> i & 1 ? x->dim[i] : 1;
        last = x->dim[i] == 1 ? last : i;
    }
    return !(reduced & across) && reduced >> last & 1 && columns <= MAX_ACROSS;
}

static bool is_row_of(const Group *a, const Group *b)
{
    return a->reduced && !b->reduced && !b->across && row_of(a, b);
}

static bool path_between(Fuser *f, int a, int b)
{
    const uint64_t *from_b = reach_of(f, b);
    for (size_t w = 0; w < f->words; w++)
        for (uint64_t bits = from_b[w]; bits; bits &= bits - 1) {
            int x = (int)(w * 64) + __builtin_ctzll(bits);
            if (x != a && x != b && f->g[x].parent == x && has(reach_of(f, x), a))
                return true;
        }
    return false;
}

/* Why groups a and b cannot be one; NULL when they can. */
static const char *why_not(Fuser *f, int a, int b)
{
    const Group *x = &f->g[a], *y = &f->g[b];
    if (!x->open || !y->open)
        return "one of them has a loop structure of its own";
    if (has(indirect_of(f, a), b) || has(indirect_of(f, b), a))
        return "read at other indices than its own";
    if ((x->fixed_dear && y->data) || (y->fixed_dear && x->data))
        return "depends on parameters alone and is computed once";
    bool contract = x->kind == FUSE_CONTRACT || y->kind == FUSE_CONTRACT;
    if (x->kind == FUSE_CONTRACT && y->kind == FUSE_CONTRACT)
        return "two contractions";
    if (contract && (x->kind == FUSE_ROWWISE || y->kind == FUSE_ROWWISE))
        return "a reduction of a contraction's result";
    if (contract && (x->fold || y->fold))
        return "an inner loop after a contraction";
    if (x->reduced && y->reduced && x->reduced != y->reduced)
        return "reductions over different axes";
    if (x->across && y->across && (x->across != y->across || x->parts != y->parts))
        return "sums in different parts";
    if (!same_dims(x, y) && !is_row_of(x, y) && !is_row_of(y, x))
        return "different domains";
    unsigned reduced = x->reduced | y->reduced, across = x->across | y->across;
    if (reduced && across && !passes_rows(x->reduced || x->across ? x : y, reduced, across))
        return "sums over rows that do not lie together";
    if (x->members + y->members > MAX_MEMBERS)
        return "the kernel would be too large";
    if (path_between(f, a, b) || path_between(f, b, a))
        return "a value between them is computed elsewhere";
    return NULL;
}

static void merge(Fuser *f, int a, int b)
{
    Group *x = &f->g[a], *y = &f->g[b];
    if (y->reduced && !x->reduced) { /* the domain is that of the reductions */
        memcpy(x->dim, y->dim, sizeof x->dim);
        x->reduced = y->reduced;
    }
    x->across |= y->across;
    x->parts = x->parts ? x->parts : y->parts;
    x->kind = x->reduced || x->across                                ? FUSE_ROWWISE
              : x->kind == FUSE_CONTRACT || y->kind == FUSE_CONTRACT ? FUSE_CONTRACT
                                                                     : FUSE_POINTWISE;
    x->members += y->members;
    x->fold |= y->fold;
    x->data |= y->data;
    x->fixed_dear |= y->fixed_dear;
    x->last = x->last > y->last ? x->last : y->last;
    y->parent = a;
    uint64_t *ra = reach_of(f, a), *ia = indirect_of(f, a);
    for (size_t w = 0; w < f->words; w++) {
        ra[w] |= reach_of(f, b)[w];
        ia[w] |= indirect_of(f, b)[w];
    }
    ra[a / 64] &= ~(UINT64_C(1) << (a % 64));
    ra[b / 64] &= ~(UINT64_C(1) << (b % 64));
    for (int i = 1; i <= f->ngroup; i++) { /* whoever depended on one depends on both */
        if (i == a || f->g[i].parent != i)
            continue;
        if (has(indirect_of(f, i), b))
            put(indirect_of(f, i), a);
        uint64_t *ri = reach_of(f, i);
        if (!has(ri, a) && !has(ri, b))
            continue;
        put(ri, a);
        for (size_t w = 0; w < f->words; w++)
            ri[w] |= ra[w];
    }
}

/* ---- making groups ---- */
bool fuse_is_dear(Op op)
{
    return (op >= OP_SQRT && op <= OP_ERF) || op == OP_DIV || op == OP_RANDOM;
}

static void find_data(Fuser *f)
{
    for (Val v = 1; v < f->in->n; v++) {
        const Node *n = node_of(f->in, v);
        bool param = n->op == OP_INPUT && (attr_i(n, A_ROLE) == ROLE_PARAM || attr_i(n, A_ROLE) == ROLE_FROZEN);
        f->data[v] = (n->op == OP_INPUT && !param) || n->op == OP_HOST;
        for (int i = 0; i < n->narg; i++)
            f->data[v] |= f->data[n->arg[i]];
    }
}

static int new_group(Fuser *f, Val v)
{
    const Node *n = node_of(f->in, v);
    Op op = (Op)n->op;
    Group *g = &f->g[++f->ngroup];
    *g = (Group){.kind = FUSE_POINTWISE, .open = true, .members = 1, .parent = f->ngroup, .last = v, .rank = n->rank};
    memcpy(g->dim, n->dim, sizeof g->dim);
    if (op == OP_RESHAPE) {
        g->kind = ALIAS;
    } else if (op == OP_HOST || op == OP_LOOP) {
        g->kind = FIXED;
    } else if (op == OP_CUMSUM || op == OP_ARGSORT || op == OP_SCATTER_ADD || op == OP_ARGMAX || op_is_attention(op)) {
        g->kind = FUSE_OTHER;
    } else if (op == OP_CONTRACT) {
        g->kind = FUSE_CONTRACT;
    } else if (reduced_axes(f->in, v)) {
        g->kind = FUSE_ROWWISE;
        *(sums_parts(f->in, v) ? &g->across : &g->reduced) = reduced_axes(f->in, v);
        g->parts = sums_parts(f->in, v) ? attr_parts(n) : 0;
        memcpy(g->dim, node_of(f->in, n->arg[0])->dim, sizeof g->dim);
    }
    g->open = g->kind <= FUSE_CONTRACT && !op_is_view(op) && op != OP_CONST && op != OP_IOTA;
    g->fold = op == OP_FOLD;
    g->data = f->data[v];
    g->fixed_dear = !g->data && (g->kind != FUSE_POINTWISE || fuse_is_dear(op));
    return f->ngroup;
}

/* Does node v read operand i at its own index (when the operand is a member of the same domain)? */
static bool reads_direct(const Node *n)
{
    return (op_info[n->op].flags & OPF_ELEMENTWISE) || n->op == OP_CAST || n->op == OP_BITCAST || n->op == OP_SUM ||
           n->op == OP_RMAX || n->op == OP_RMIN;
}

static void note(Fuser *f, Val from, Val to, const char *reason)
{
    const Node *n = node_of(f->in, to);
    FusionNote e = {
        op_info[node_of(f->in, from)->op].text, op_info[n->op].text, reason ? reason : "", !reason, n->file, n->line};
    vec_push(f->cx->notes, e);
}

static void place(Fuser *f, Val v)
{
    const Node *n = node_of(f->in, v);
    int g = f->group[v] = new_group(f, v);
    for (int i = 0; i < n->narg; i++) {
        bool direct;
        Val root = root_of(f, n->arg[i], &direct);
        int from = fuse_group_of(f, root);
        if (!from)
            continue;
        put(reach_of(f, g), from);
        for (size_t w = 0; w < f->words; w++)
            reach_of(f, g)[w] |= reach_of(f, from)[w];
        if (!direct || !reads_direct(n) || sums_parts(f->in, root)) /* a part is known when its last row has passed */
            put(indirect_of(f, g), from);
    }
    for (int i = 0; i < n->narg; i++) {
        bool direct;
        Val root = root_of(f, n->arg[i], &direct);
        int from = fuse_group_of(f, root), to = fuse_find(f, g);
        if (!from || from == to)
            continue;
        const char *reason = n->op == OP_CONTRACT ? "operand of a contraction" : why_not(f, from, to);
        if (!reason && f->g[from].kind == FUSE_CONTRACT && f->summed[v] && f->uses[root] > 1) /* or both would be stored */
            reason = "its result goes into a reduction, which is a kernel of its own";
        if (!reason && f->g[from].kind == FUSE_CONTRACT && (f->summed[root] || f->solid[root]))
            reason = "its operand is stored in any case";
        note(f, root, v, reason);
        if (!reason)
            merge(f, from, to);
    }
}

/* Groups that read one large value and do not depend on each other become one kernel. */
enum { MAX_READERS = 6 };

static bool siblings(Fuser *f, int a, int b)
{
    const Group *x = &f->g[a], *y = &f->g[b];
    return a != b && x->kind != FUSE_CONTRACT && y->kind != FUSE_CONTRACT && same_dims(x, y) &&
           (x->reduced == y->reduced || (x->across && !x->reduced) || (y->across && !y->reduced)) && !has(reach_of(f, a), b) &&
           !has(reach_of(f, b), a) && !why_not(f, a, b);
}

static void merge_siblings(Fuser *f)
{
    const Graph *g = f->in;
    int(*reader)[MAX_READERS] =
        arena_alloc(f->cx->arena, mem_mul((size_t)g->n, sizeof *reader)); /* groups that read a root */
    for (Val v = 1; v < g->n; v++) {
        const Node *n = node_of(g, v);
        for (int i = 0; f->live[v] && f->group[v] && reads_direct(n) && i < n->narg; i++) {
            bool direct;
            Val root = root_of(f, n->arg[i], &direct);
            int mine = fuse_find(f, f->group[v]), k = 0;
            int64_t bytes = node_count(g, root) * (int64_t)dav_dtype_size((DavDtype)node_of(g, root)->dtype);
            if (!direct || bytes < SIBLING_BYTES || fuse_group_of(f, root) == mine)
                continue;
            for (; k < MAX_READERS && reader[root][k]; k++) {
                int other = fuse_find(f, reader[root][k]);
                if (other == mine || siblings(f, other, mine)) {
                    if (other != mine)
                        merge(f, other, mine);
                    break;
                }
            }
            if (k < MAX_READERS && !reader[root][k])
                reader[root][k] = mine;
        }
    }
}

bool pass_fuse(PassCx *cx, const Graph *in, Graph *out)
{
    Fuser f = {.cx = cx, .in = in, .out = out};
    f.live = arena_array(cx->arena, bool, in->n);
    f.solid = arena_array(cx->arena, bool, in->n);
    f.summed = arena_array(cx->arena, bool, in->n);
    f.uses = arena_array(cx->arena, int, in->n);
    f.again = arena_array(cx->arena, bool, in->n);
    f.data = arena_array(cx->arena, bool, in->n);
    f.group = arena_array(cx->arena, int, in->n);
    f.map = arena_array(cx->arena, Val, in->n);
    mark_values(&f);
    find_data(&f);
    int count = 1;
    for (Val v = 1; v < in->n; v++)
        count += in_group(&f, v);
    f.g = arena_array(cx->arena, Group, count + 1);
    f.words = (size_t)(count + 64) / 64;
    f.reach = arena_array(cx->arena, uint64_t, mem_mul((size_t)count + 1, f.words));
    f.indirect = arena_array(cx->arena, uint64_t, mem_mul((size_t)count + 1, f.words));
    for (Val v = 1; v < in->n; v++)
        if (in_group(&f, v))
            place(&f, v);
    merge_siblings(&f);
    fuse_emit(&f);
    return cx->err->kind == ERR_NONE;
}
