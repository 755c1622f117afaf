/* graph_node, the only maker of nodes, and its short forms. */
#include "ir/build.h"
#include <string.h>

static const ShapeFn shape_fn[OP_COUNT] = {
#define EW(NAME, text, arity, dom, shape, ...) [OP_##NAME] = shape_##shape,
#define OP(NAME, text, arity, level, shape, ...) [OP_##NAME] = shape_##shape,
#include "ir/ops.def"
};

bool infer_type(const Graph *g, const Node *n, const Type *given, Type *out, Err *err)
{
    ShapeCx cx = {.g = g, .n = n, .given = given, .out = out, .err = err};
    return shape_fn[n->op](&cx);
}

/* ---- attributes: copied into the arena in the order of their names ---- */
static Attr copy_attr(Graph *g, const Attr *a)
{
    Attr c = *a;
    switch (attr_info[a->name].kind) {
    case ATTR_STR:
        c.s = arena_str(g->arena, a->s);
        break;
    case ATTR_INTS:
        c.ints = arena_copy(g->arena, a->ints, (size_t)a->n * sizeof *a->ints);
        break;
    case ATTR_FLOATS:
        c.floats = arena_copy(g->arena, a->floats, (size_t)a->n * sizeof *a->floats);
        break;
    case ATTR_SPEC:
        c.spec = arena_copy(g->arena, a->spec, sizeof *a->spec);
        break;
    case ATTR_INT:
    case ATTR_FLOAT:
    case ATTR_GRAPH:
        break;
    }
    return c;
}

static bool check_attrs(Graph *g, const Node *n)
{
    for (int i = 0; i < n->nattr; i++)
        if (!op_allows_attr((Op)n->op, n->attr[i].name, NULL))
            return err_user_at(g->err, g->file, g->line, "%s takes no attribute '%s' (it takes: %s)", op_info[n->op].text,
                               attr_info[n->attr[i].name].text, op_info[n->op].attrs);
    for (int a = 0; a < ATTR_COUNT; a++) {
        bool required = false;
        if (op_allows_attr((Op)n->op, (AttrName)a, &required) && required && !node_attr(n, (AttrName)a))
            return err_user_at(g->err, g->file, g->line, "%s needs the attribute '%s'", op_info[n->op].text, attr_info[a].text);
    }
    return true;
}

/* ---- hash-consing ---- */
static bool attr_same(const Attr *a, const Attr *b)
{
    if (a->name != b->name || a->n != b->n)
        return false;
    switch (attr_info[a->name].kind) {
    case ATTR_INT:
        return a->i == b->i;
    case ATTR_FLOAT:
        return memcmp(&a->f, &b->f, sizeof a->f) == 0; /* -0 is not 0, a NaN is itself */
    case ATTR_STR:
        return strcmp(a->s, b->s) == 0;
    case ATTR_INTS:
        return a->n == 0 || memcmp(a->ints, b->ints, (size_t)a->n * sizeof *a->ints) == 0;
    case ATTR_FLOATS:
        return a->n == 0 || memcmp(a->floats, b->floats, (size_t)a->n * sizeof *a->floats) == 0;
    case ATTR_GRAPH:
        return a->graph == b->graph;
    case ATTR_SPEC:
        return spec_equal(a->spec, b->spec);
    }
    return false;
}

static bool node_same(const Node *a, const Node *b)
{
    if (a->op != b->op || a->dtype != b->dtype || a->rank != b->rank || a->narg != b->narg || a->nattr != b->nattr ||
        memcmp(a->dim, b->dim, a->rank * sizeof *a->dim) != 0 ||
        (a->narg && memcmp(a->arg, b->arg, (size_t)a->narg * sizeof *a->arg) != 0))
        return false;
    for (int i = 0; i < a->nattr; i++)
        if (!attr_same(&a->attr[i], &b->attr[i]))
            return false;
    return true;
}

static int *cons_slot(Graph *g, const Node *n)
{
    size_t mask = (size_t)g->tablecap - 1, i = (size_t)node_hash_(n) & mask;
    while (g->table[i] && !node_same(&g->node[g->table[i]], n))
        i = (i + 1) & mask;
    return &g->table[i];
}

static void cons_widen(Graph *g)
{
    g->tablecap = g->tablecap ? 2 * g->tablecap : 256;
    g->table = arena_array(g->arena, int, g->tablecap);
    for (Val v = 1; v < g->n; v++)
        if (op_info[g->node[v].op].flags & OPF_PURE)
            *cons_slot(g, &g->node[v]) = v;
}

static Val append(Graph *g, const Node *n)
{
    if (g->n == g->cap) {
        Node *wide = arena_array(g->arena, Node, 2 * (size_t)g->cap);
        memcpy(wide, g->node, (size_t)g->n * sizeof *wide);
        g->node = wide;
        g->cap *= 2;
    }
    g->node[g->n] = *n;
    return g->n++;
}

static bool valid_operands(Graph *g, const Node *n)
{
    for (int i = 0; i < n->narg; i++) {
        if (n->arg[i] < 0 || n->arg[i] >= g->n)
            return err_user_at(g->err, g->file, g->line, "%s: operand %d is not a value of this graph", op_info[n->op].text, i);
        if (n->arg[i] == 0)
            return false; /* reported where it was made */
        bool tuple = op_info[g->node[n->arg[i]].op].flags & OPF_TUPLE;
        if (tuple && n->op != OP_PICK)
            return err_user_at(g->err, g->file, g->line, "%s: operand %d is a tuple; pick one of its results first",
                               op_info[n->op].text, i);
    }
    int arity = op_info[n->op].arity;
    if (arity >= 0 && n->narg != arity)
        return err_user_at(g->err, g->file, g->line, "%s takes %d operands, found %d", op_info[n->op].text, arity, n->narg);
    return true;
}

Val graph_node(Graph *g, Op op, const Val *arg, int narg, const Attr *attr, int nattr, const Type *given)
{
    must(op > OP_INVALID && op < OP_COUNT);
    Attr sorted[ATTR_COUNT];
    must(nattr <= ATTR_COUNT);
    for (int i = 0; i < nattr; i++) { /* insertion sort by name */
        int j = i;
        for (; j > 0 && sorted[j - 1].name > attr[i].name; j--)
            sorted[j] = sorted[j - 1];
        sorted[j] = attr[i];
    }
    Node n = {.op = (uint8_t)op, .narg = narg, .arg = arg, .nattr = (uint8_t)nattr, .attr = sorted};
    if (!valid_operands(g, &n) || !check_attrs(g, &n))
        return 0;
    Type t = {0};
    Err why = {0};
    if (!infer_type(g, &n, given, &t, &why)) {
        err_user_at(g->err, g->file, g->line, "%s", why.text);
        return 0;
    }
    n.dtype = (uint8_t)t.dtype;
    n.rank = (uint8_t)t.rank;
    memcpy(n.dim, t.dim, sizeof n.dim);
    n.file = g->file;
    n.line = g->line;
    bool pure = (op_info[op].flags & OPF_PURE) && !g->no_fold;
    if (pure) {
        Val folded = fold_node(g, &n);
        if (folded)
            return folded;
        if (2 * (g->n + 1) > g->tablecap)
            cons_widen(g);
        int *slot = cons_slot(g, &n);
        if (*slot)
            return *slot;
    }
    n.arg = arena_copy(g->arena, arg, (size_t)narg * sizeof *arg);
    Attr *own = arena_array(g->arena, Attr, nattr);
    for (int i = 0; i < nattr; i++)
        own[i] = copy_attr(g, &sorted[i]);
    n.attr = own;
    Val v = append(g, &n);
    if (pure)
        *cons_slot(g, &g->node[v]) = v;
    return v;
}

/* ---- short forms ---- */
Val g_input(Graph *g, const char *name, InputRole role, Type t)
{
    if (graph_find_input(g, name)) {
        err_user_at(g->err, g->file, g->line, "input '%s' is declared twice", name);
        return 0;
    }
    return graph_node(g, OP_INPUT, NULL, 0, (Attr[]){{.name = A_NAME, .s = name}, {.name = A_ROLE, .i = role}}, 2, &t);
}

Val g_const(Graph *g, Type t, double value)
{
    return graph_node(g, OP_CONST, NULL, 0, (Attr[]){{.name = A_VALUE, .f = value}}, 1, &t);
}

Val g_const_like(Graph *g, Val v, double value)
{
    return v ? g_const(g, type_of(g, v), value) : 0;
}

Val g_iota(Graph *g, Type t, int axis)
{
    return graph_node(g, OP_IOTA, NULL, 0, (Attr[]){{.name = A_AXIS, .i = axis}}, 1, &t);
}

Val g_ew(Graph *g, Op op, Val x, Val y, Val z)
{
    return graph_node(g, op, (Val[]){x, y, z}, op_info[op].arity, NULL, 0, NULL);
}

Val g_un(Graph *g, Op op, Val x)
{
    return g_ew(g, op, x, 0, 0);
}

Val g_bin(Graph *g, Op op, Val x, Val y)
{
    return g_ew(g, op, x, y, 0);
}

Val g_cast(Graph *g, Val x, DavDtype to)
{
    return graph_node(g, OP_CAST, &x, 1, (Attr[]){{.name = A_TO, .i = to}}, 1, NULL);
}

Val g_reduce(Graph *g, Op op, Val x, const int64_t *axes, int n)
{
    return graph_node(g, op, &x, 1, (Attr[]){{.name = A_AXES, .n = n, .ints = axes}}, 1, NULL);
}

static int axes_of(unsigned mask, int64_t axes[IR_MAX_RANK])
{
    int n = 0;
    for (int i = 0; i < IR_MAX_RANK; i++)
        if (mask >> i & 1)
            axes[n++] = i;
    return n;
}

Val g_reduce_mask(Graph *g, Op op, Val x, unsigned axis_mask)
{
    int64_t axes[IR_MAX_RANK];
    int n = axes_of(axis_mask, axes);
    return n ? g_reduce(g, op, x, axes, n) : x;
}

Val g_sum_parts(Graph *g, Val x, unsigned axis_mask, int64_t parts)
{
    int64_t axes[IR_MAX_RANK];
    Attr attr[] = {{.name = A_AXES, .n = axes_of(axis_mask, axes), .ints = axes}, {.name = A_PARTS, .i = parts}};
    return graph_node(g, OP_SUM, &x, 1, attr, 2, NULL);
}

Val g_broadcast(Graph *g, Val x, const int64_t *shape)
{
    if (!x)
        return 0;
    int rank = g->node[x].rank;
    return graph_node(g, OP_BROADCAST, &x, 1, (Attr[]){{.name = A_SHAPE, .n = rank, .ints = shape}}, 1, NULL);
}

Val g_broadcast_like(Graph *g, Val x, Val like)
{
    int64_t shape[IR_MAX_RANK];
    memcpy(shape, g->node[like].dim, sizeof shape);
    return g_broadcast(g, x, shape);
}

Val g_reshape(Graph *g, Val x, int rank, const int64_t *shape)
{
    return graph_node(g, OP_RESHAPE, &x, 1, (Attr[]){{.name = A_SHAPE, .n = rank, .ints = shape}}, 1, NULL);
}

Val g_transpose(Graph *g, Val x, const int64_t *perm)
{
    return graph_node(g, OP_TRANSPOSE, &x, 1, (Attr[]){{.name = A_PERM, .n = g->node[x].rank, .ints = perm}}, 1, NULL);
}

Val g_slice(Graph *g, Val x, const int64_t *start, const int64_t *limit, const int64_t *stride)
{
    int rank = g->node[x].rank;
    int64_t ones[IR_MAX_RANK] = {1, 1, 1, 1, 1, 1, 1, 1};
    Attr a[] = {{.name = A_START, .n = rank, .ints = start},
                {.name = A_LIMIT, .n = rank, .ints = limit},
                {.name = A_STRIDE, .n = rank, .ints = stride ? stride : ones}};
    return graph_node(g, OP_SLICE, &x, 1, a, 3, NULL);
}

Val g_pad(Graph *g, Val x, const int64_t *lo, const int64_t *hi, double fill)
{
    int rank = g->node[x].rank;
    Attr a[] = {{.name = A_LO, .n = rank, .ints = lo}, {.name = A_HI, .n = rank, .ints = hi}, {.name = A_FILL, .f = fill}};
    return graph_node(g, OP_PADDING, &x, 1, a, 3, NULL);
}

Val g_concat(Graph *g, const Val *x, int n, int axis)
{
    return graph_node(g, OP_CONCAT, x, n, (Attr[]){{.name = A_AXIS, .i = axis}}, 1, NULL);
}

Val g_contract(Graph *g, Val a, Val b, const ContractSpec *spec, DavDtype out)
{
    int64_t dim[IR_MAX_RANK] = {0};
    for (int i = 0; i < spec->nout && i < IR_MAX_RANK; i++)
        dim[i] = spec->extent[i];
    Type t = type_make(out, spec->nout <= IR_MAX_RANK ? spec->nout : 0, dim);
    return graph_node(g, OP_CONTRACT, (Val[]){a, b}, 2, (Attr[]){{.name = A_SPEC, .spec = spec}}, 1, &t);
}

Val g_gather(Graph *g, Val x, Val idx, int batch)
{
    return graph_node(g, OP_GATHER, (Val[]){x, idx}, 2, (Attr[]){{.name = A_BATCH, .i = batch}}, 1, NULL);
}

Val g_scatter_add(Graph *g, Val base, Val idx, Val upd, int batch)
{
    return graph_node(g, OP_SCATTER_ADD, (Val[]){base, idx, upd}, 3, (Attr[]){{.name = A_BATCH, .i = batch}}, 1, NULL);
}

Val g_attention(Graph *g, Val q, Val k, Val v, Val bias, double scale, bool causal, bool rows)
{
    Attr attr[] = {{.name = A_SCALE, .f = scale}, {.name = A_CAUSAL, .i = causal}, {.name = A_ROWS, .i = rows}};
    return graph_node(g, OP_ATTENTION, (Val[]){q, k, v, bias}, bias ? 4 : 3, attr, rows ? 3 : 2, NULL);
}

Val g_pick(Graph *g, Val tuple, int index)
{
    return graph_node(g, OP_PICK, &tuple, 1, (Attr[]){{.name = A_INDEX, .i = index}}, 1, NULL);
}

Val g_region(Graph *g, Op op, const Graph *body, const Val *arg, int narg, const Attr *extra, int nextra)
{
    Attr a[8] = {{.name = A_GRAPH, .graph = body}};
    must(nextra < 8);
    for (int i = 0; i < nextra; i++)
        a[i + 1] = extra[i];
    return graph_node(g, op, arg, narg, a, nextra + 1, NULL);
}
