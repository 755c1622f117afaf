/* The graph: tables from ops.def, places, inputs and outputs, attributes, copying and inlining. */
#include "ir/graph.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- tables ---- */
#define LEAF OPF_LEAF
#define PURE OPF_PURE
#define TUPLE OPF_TUPLE
#define EFFECT OPF_EFFECT
#define LEVEL_T OPF_TENSOR
#define LEVEL_K OPF_KERNEL

const OpInfo op_info[OP_COUNT] = {
#define EW(NAME, text, arity, dom, shape, grad, f, i, lo, hi, doc)                                                     \
    [OP_##NAME] = {text, arity, OPF_PURE | OPF_ELEMENTWISE | OPF_TENSOR | OPF_KERNEL, DOM_##dom, "", lo, hi, doc},
#define OP(NAME, text, arity, level, shape, grad, attrs, flags, doc)                                                   \
    [OP_##NAME] = {text, arity, (flags) | LEVEL_##level, DOM_ANY, attrs, -3, 3, doc},
#include "ir/ops.def"
};

const AttrInfo attr_info[ATTR_COUNT] = {
#define ATTR(NAME, text, kind, meaning) [A_##NAME] = {text, ATTR_##kind, meaning},
#include "ir/attrs.def"
#undef ATTR
};

bool op_allows_attr(Op op, AttrName name, bool *required)
{
    const char *want = attr_info[name].text;
    size_t len = strlen(want);
    for (const char *p = op_info[op].attrs; *p;) {
        bool optional = *p == '?';
        p += optional;
        size_t n = strcspn(p, " ");
        if (n == len && memcmp(p, want, n) == 0) {
            if (required)
                *required = !optional;
            return true;
        }
        p += n;
        p += strspn(p, " ");
    }
    return false;
}

int op_from_text(const char *text)
{
    for (int i = 0; i < OP_COUNT; i++)
        if (strcmp(op_info[i].text, text) == 0)
            return i;
    return -1;
}

int attr_from_text(const char *text)
{
    for (int i = 0; i < ATTR_COUNT; i++)
        if (strcmp(attr_info[i].text, text) == 0)
            return i;
    return -1;
}

/* ---- types ---- */
Type type_make(DavDtype dtype, int rank, const int64_t *dim)
{
    must(rank >= 0 && rank <= IR_MAX_RANK);
    Type t = {.dtype = dtype, .rank = rank};
    for (int i = 0; i < rank; i++)
        t.dim[i] = dim[i];
    return t;
}

Type type_of(const Graph *g, Val v)
{
    const Node *n = &g->node[v];
    return type_make((DavDtype)n->dtype, n->rank, n->dim);
}

bool type_same_shape(const Type *a, const Type *b)
{
    return a->rank == b->rank && memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim) == 0;
}

bool type_equal(const Type *a, const Type *b)
{
    return a->dtype == b->dtype && type_same_shape(a, b);
}

int64_t type_count(const Type *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

int64_t node_count(const Graph *g, Val v)
{
    Type t = type_of(g, v);
    return type_count(&t);
}

const char *type_text(const Type *t, char buf[160])
{
    int n = snprintf(buf, 160, "%s[", dav_dtype_name(t->dtype));
    for (int i = 0; i < t->rank && n < 140; i++)
        n += snprintf(buf + n, 160 - (size_t)n, "%s%" PRId64, i ? "," : "", t->dim[i]);
    snprintf(buf + n, 160 - (size_t)n, "]");
    return buf;
}

/* ---- graph ---- */
Graph *graph_new(Arena *arena, Err *err, const char *name)
{
    Graph *g = arena_alloc(arena, sizeof *g);
    g->arena = arena;
    g->err = err;
    g->name = arena_str(arena, name);
    g->cap = 64;
    g->node = arena_array(arena, Node, g->cap);
    g->n = 1;
    return g;
}

void graph_at(Graph *g, const char *file, int line)
{
    if (file != g->file && (!file || !g->file || strcmp(file, g->file) != 0))
        g->file = arena_str(g->arena, file);
    g->line = line;
}

void graph_at_node(Graph *g, const Graph *from, Val v)
{
    const Node *n = &from->node[v];
    if (n->file)
        graph_at(g, n->file, n->line);
}

void graph_output(Graph *g, const char *name, Val v)
{
    for (int i = 0; i < g->nout; i++)
        if (strcmp(g->out[i].name, name) == 0) {
            err_user_at(g->err, g->file, g->line, "output '%s' is given twice", name);
            return;
        }
    if (g->nout == g->outcap) {
        int cap = g->outcap ? 2 * g->outcap : 8;
        Output *out = arena_array(g->arena, Output, cap);
        if (g->nout)
            memcpy(out, g->out, (size_t)g->nout * sizeof *out);
        g->out = out;
        g->outcap = cap;
    }
    g->out[g->nout++] = (Output){arena_str(g->arena, name), v};
}

Val graph_find_input(const Graph *g, const char *name)
{
    for (Val v = 1; v < g->n; v++)
        if (g->node[v].op == OP_INPUT && strcmp(attr_s(&g->node[v], A_NAME), name) == 0)
            return v;
    return 0;
}

Val graph_find_output(const Graph *g, const char *name)
{
    for (int i = 0; i < g->nout; i++)
        if (strcmp(g->out[i].name, name) == 0)
            return g->out[i].val;
    return 0;
}

Val *graph_inputs(const Graph *g, Arena *arena, int *n)
{
    *n = 0;
    for (Val v = 1; v < g->n; v++)
        *n += g->node[v].op == OP_INPUT;
    Val *in = arena_array(arena, Val, *n);
    int k = 0;
    for (Val v = 1; v < g->n; v++)
        if (g->node[v].op == OP_INPUT)
            in[k++] = v;
    return in;
}

/* ---- attributes ---- */
const Attr *node_attr(const Node *n, AttrName name)
{
    for (int i = 0; i < n->nattr; i++)
        if (n->attr[i].name == name)
            return &n->attr[i];
    return NULL;
}

static const Attr *attr_must(const Node *n, AttrName name)
{
    const Attr *a = node_attr(n, name);
    if (!a)
        die("%s has no attribute %s", op_info[n->op].text, attr_info[name].text);
    return a;
}

int64_t attr_parts(const Node *n)
{
    const Attr *parts = node_attr(n, A_PARTS);
    return parts ? parts->i : 1;
}

int64_t attr_i(const Node *n, AttrName name)
{
    return attr_must(n, name)->i;
}

double attr_f(const Node *n, AttrName name)
{
    return attr_must(n, name)->f;
}

const char *attr_s(const Node *n, AttrName name)
{
    return attr_must(n, name)->s;
}

const int64_t *attr_ints(const Node *n, AttrName name, int *count)
{
    const Attr *a = attr_must(n, name);
    if (count)
        *count = a->n;
    return a->ints;
}

const Graph *attr_graph(const Node *n, AttrName name)
{
    return attr_must(n, name)->graph;
}

const ContractSpec *attr_spec(const Node *n)
{
    return attr_must(n, A_SPEC)->spec;
}

/* ---- tuples ---- */
bool op_is_attention(Op op)
{
    return op == OP_ATTENTION || op == OP_ATTENTION_GRAD;
}

static Type attention_type(const Graph *g, const Node *n, int k)
{
    Type q = type_of(g, n->arg[0]), keys = type_of(g, n->arg[1]), v = type_of(g, n->arg[2]);
    DavDtype t = q.dtype == DAV_F64 ? DAV_F64 : DAV_F32;
    if (n->op == OP_ATTENTION && k == 0 && node_attr(n, A_ROWS))
        return type_make(t, 3, (int64_t[]){q.dim[0], q.dim[1], v.dim[2]});
    if (n->op == OP_ATTENTION)
        return k == 0 ? type_make(t, 3, (int64_t[]){q.dim[0], v.dim[2], q.dim[1]}) : type_make(t, 2, q.dim);
    q.dtype = t;
    return k == 0 ? q : type_make(t, 3, (int64_t[]){q.dim[0], k == 1 ? q.dim[2] : v.dim[2], keys.dim[1]});
}

int tuple_count(const Graph *g, Val v)
{
    const Node *n = &g->node[v];
    if (n->op == OP_GRAD)
        return n->narg - 1;
    if (op_is_attention((Op)n->op))
        return n->op == OP_ATTENTION ? 2 : 3;
    if (n->op == OP_KERNEL) { /* its out and inout buffers */
        int count = 0;
        const Graph *body = attr_graph(n, A_GRAPH);
        for (Val b = 1; b < body->n; b++)
            if (body->node[b].op == OP_BUF && (attr_i(&body->node[b], A_ROLE) == 1 || attr_i(&body->node[b], A_ROLE) == 2))
                count++;
        return count;
    }
    return attr_graph(n, A_GRAPH)->nout;
}

bool tuple_type(const Graph *g, Val v, int k, Type *t)
{
    const Node *n = &g->node[v];
    if (!(op_info[n->op].flags & OPF_TUPLE) || k < 0 || k >= tuple_count(g, v))
        return false;
    if (n->op == OP_GRAD) {
        *t = type_of(g, n->arg[k + 1]);
        return true;
    }
    if (op_is_attention((Op)n->op)) {
        *t = attention_type(g, n, k);
        return true;
    }
    const Graph *body = attr_graph(n, A_GRAPH);
    if (n->op == OP_KERNEL) {
        for (Val b = 1; b < body->n; b++)
            if (body->node[b].op == OP_BUF && (attr_i(&body->node[b], A_ROLE) == 1 || attr_i(&body->node[b], A_ROLE) == 2) &&
                k-- == 0)
                *t = type_of(body, b);
        return true;
    }
    *t = type_of(body, body->out[k].val);
    if (n->op == OP_LOOP && k >= attr_i(n, A_CARRY)) {
        if (t->rank == IR_MAX_RANK)
            return false;
        memmove(t->dim + 1, t->dim, (size_t)t->rank * sizeof *t->dim);
        t->dim[0] = attr_i(n, A_TRIP);
        t->rank++;
    }
    return true;
}

/* ---- copying ---- */
Val graph_copy_node(Graph *g, const Graph *from, Val v, const Val *map)
{
    const Node *n = &from->node[v];
    Val small[16], *arg = n->narg <= 16 ? small : arena_array(g->arena, Val, n->narg);
    for (int i = 0; i < n->narg; i++)
        arg[i] = map[n->arg[i]];
    Type t = type_of(from, v);
    graph_at_node(g, from, v);
    return graph_node(g, (Op)n->op, arg, n->narg, n->attr, n->nattr, &t);
}

void graph_copy_live(Graph *g, const Graph *from, Val *map)
{
    bool *live = arena_array(g->arena, bool, from->n);
    if (!map)
        map = arena_array(g->arena, Val, from->n);
    for (int i = 0; i < from->nout; i++)
        live[from->out[i].val] = true;
    for (Val v = from->n - 1; v > 0; v--) {
        const Node *n = &from->node[v];
        /* inputs stay, used or not: they are the signature */
        live[v] |= n->op == OP_INPUT || (op_info[n->op].flags & OPF_EFFECT) != 0;
        if (live[v] && !map[v])
            for (int i = 0; i < n->narg; i++)
                live[n->arg[i]] = true;
    }
    for (Val v = 1; v < from->n; v++)
        if (live[v] && !map[v])
            map[v] = graph_copy_node(g, from, v, map);
    for (int i = 0; i < from->nout; i++)
        graph_output(g, from->out[i].name, map[from->out[i].val]);
}

void graph_inline(Graph *g, const Graph *body, const Val *args, Val *outs)
{
    const char *file = g->file;
    int line = g->line;
    Val *map = arena_array(g->arena, Val, body->n);
    int k = 0;
    for (Val v = 1; v < body->n; v++)
        map[v] = body->node[v].op == OP_INPUT ? args[k++] : graph_copy_node(g, body, v, map);
    for (int i = 0; i < body->nout; i++)
        outs[i] = map[body->out[i].val];
    g->file = file;
    g->line = line;
}

/* ---- hash of meaning ---- */
static uint64_t mix(uint64_t h, uint64_t x)
{
    return hash_bytes(&x, sizeof x, h);
}

static uint64_t mix_expr(uint64_t h, const DimExpr *e)
{
    h = mix(mix(mix(h, (uint64_t)e->nterm), (uint64_t)e->offset), (uint64_t)e->div);
    for (int i = 0; i < e->nterm; i++)
        h = mix(mix(h, (uint64_t)e->loop[i]), (uint64_t)e->coef[i]);
    return h;
}

uint64_t attr_hash_(const Attr *a, uint64_t h)
{
    h = mix(h, (uint64_t)a->name);
    switch (attr_info[a->name].kind) {
    case ATTR_INT:
        return mix(h, (uint64_t)a->i);
    case ATTR_FLOAT:
        return hash_bytes(&a->f, sizeof a->f, h);
    case ATTR_STR:
        return hash_bytes(a->s, strlen(a->s), h);
    case ATTR_INTS:
        return hash_bytes(a->ints, (size_t)a->n * sizeof *a->ints, mix(h, (uint64_t)a->n));
    case ATTR_FLOATS:
        return hash_bytes(a->floats, (size_t)a->n * sizeof *a->floats, mix(h, (uint64_t)a->n));
    case ATTR_GRAPH:
        return mix(h, graph_hash(a->graph));
    case ATTR_SPEC:
        h = mix(mix(h, (uint64_t)a->spec->nloop), (uint64_t)a->spec->nout);
        for (int i = 0; i < a->spec->nloop; i++)
            h = mix(h, (uint64_t)a->spec->extent[i]);
        for (int o = 0; o < 2; o++)
            for (int i = 0; i < a->spec->rank[o]; i++)
                h = mix_expr(h, &a->spec->dim[o][i]);
        return h;
    }
    return h;
}

uint64_t node_hash_(const Node *n)
{
    uint64_t h = mix(mix(mix(17, n->op), n->dtype), n->rank);
    for (int i = 0; i < n->rank; i++)
        h = mix(h, (uint64_t)n->dim[i]);
    for (int i = 0; i < n->narg; i++)
        h = mix(h, (uint64_t)n->arg[i]);
    for (int i = 0; i < n->nattr; i++)
        h = attr_hash_(&n->attr[i], h);
    return h;
}

uint64_t graph_hash(const Graph *g)
{
    uint64_t h = 1;
    for (Val v = 1; v < g->n; v++)
        h = mix(h, node_hash_(&g->node[v]));
    for (int i = 0; i < g->nout; i++)
        h = mix(hash_bytes(g->out[i].name, strlen(g->out[i].name), h), (uint64_t)g->out[i].val);
    return h;
}
