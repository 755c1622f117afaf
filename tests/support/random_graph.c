#include "support/random_graph.h"
#include <stdio.h>
#include <string.h>

enum { MAX_VALUES = 256, MAX_COUNT = 4000, INDEX_RANGE = 6 };

typedef struct Maker {
    Graph *g;
    Rng *r;
    Val value[MAX_VALUES]; /* f32 */
    int n;
    Val index[MAX_VALUES]; /* i32, exact */
    int nindex;
} Maker;

uint64_t rng_next(Rng *r) /* splitmix64 */
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int64_t rng_below(Rng *r, int64_t n)
{
    return (int64_t)(rng_next(r) % (uint64_t)n);
}

double rng_unit(Rng *r)
{
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

void random_fill(Rng *r, const Type *t, void *data)
{
    for (int64_t i = 0; i < type_count(t); i++)
        if (t->dtype == DAV_F32)
            ((float *)data)[i] = (float)(2 * rng_unit(r) - 1);
        else if (t->dtype == DAV_U32)
            ((uint32_t *)data)[i] = (uint32_t)rng_next(r);
        else
            ((int32_t *)data)[i] = (int32_t)rng_below(r, INDEX_RANGE);
}

static int64_t below(Maker *m, int64_t n)
{
    return rng_below(m->r, n);
}

static Type random_type(Maker *m, DavDtype t)
{
    static const int64_t sizes[] = {1, 2, 3, 5, 6, 7, 9, 16, 19, 33};
    Type type = {.dtype = t, .rank = 1 + (int)below(m, 4)};
    for (int d = 0; d < type.rank; d++)
        do
            type.dim[d] = sizes[below(m, 10)];
        while (type_count(&(Type){.rank = d + 1, .dim = {type.dim[0], type.dim[1], type.dim[2], type.dim[3]}}) >
               MAX_COUNT);
    return type;
}

static Val pick(Maker *m)
{
    int64_t recent = below(m, 3) ? (m->n < 8 ? m->n : 8) : m->n;
    return m->value[m->n - 1 - below(m, recent)];
}

static void keep(Maker *m, Val v)
{
    if (!v || node_count(m->g, v) > MAX_COUNT || node_count(m->g, v) == 0 || m->n == MAX_VALUES)
        return;
    if (node_of(m->g, v)->dtype == DAV_F32)
        m->value[m->n++] = v;
    else if (node_of(m->g, v)->dtype == DAV_I32 && m->nindex < MAX_VALUES)
        m->index[m->nindex++] = v;
}

/* x with the shape of v, by reshaping to units and broadcasting one element or a kept axis. */
static Val like(Maker *m, Val x, Val v)
{
    Graph *g = m->g;
    const Node *n = node_of(g, v);
    Type tx = type_of(g, x), tv = type_of(g, v);
    if (type_same_shape(&tx, &tv))
        return x;
    int64_t shape[IR_MAX_RANK];
    Val r = g_reduce_mask(g, OP_RMAX, v, (unsigned)(1 + below(m, (1 << n->rank) - 1)));
    memcpy(shape, n->dim, sizeof shape);
    return n->rank ? g_broadcast(g, r, shape) : v;
}

static Val bounded(Maker *m, Val x)
{
    return g_un(m->g, below(m, 2) ? OP_TANH : OP_SIN, x);
}

static Val unary(Maker *m, Val x)
{
    static const Op ops[] = {OP_NEG, OP_ABS, OP_TANH, OP_SIN, OP_COS, OP_STOP, OP_ERF};
    Graph *g = m->g;
    switch (below(m, 9)) {
    case 0:
        return g_un(g, OP_EXP, bounded(m, x));
    case 1:
        return g_un(g, OP_SQRT, g_bin(g, OP_ADD, g_un(g, OP_ABS, x), g_const_like(g, x, 1)));
    default:
        return g_un(g, ops[below(m, 7)], x);
    }
}

static Val binary(Maker *m, Val x)
{
    static const Op ops[] = {OP_ADD, OP_SUB, OP_MAX, OP_MIN};
    Graph *g = m->g;
    Val y = like(m, pick(m), x);
    switch (below(m, 7)) {
    case 0:
        return g_bin(g, OP_DIV, x, g_bin(g, OP_ADD, g_un(g, OP_ABS, y), g_const_like(g, y, 1)));
    case 1:
        return g_bin(g, OP_MUL, bounded(m, x), y);
    case 2: {
        Type t = type_of(g, x);
        t.dtype = DAV_I32;
        Val i = g_iota(g, t, (int)below(m, t.rank ? t.rank : 1));
        return g_ew(g, OP_SELECT, g_bin(g, OP_LT, i, g_const_like(g, i, 3)), x, y);
    }
    default:
        return g_bin(g, ops[below(m, 4)], x, y);
    }
}

static Val reduce(Maker *m, Val x)
{
    Graph *g = m->g;
    int rank = node_of(g, x)->rank;
    static const Op ops[] = {OP_SUM, OP_SUM, OP_RMAX, OP_RMIN};
    Op op = ops[below(m, 4)];
    Val r = g_reduce_mask(g, op, x, (unsigned)(1 + below(m, (1 << rank) - 1)));
    if (op == OP_SUM)
        r = g_bin(g, OP_MUL, r, g_const_like(g, r, 0.2));
    if (below(m, 3) == 0)
        return r;
    return g_bin(g, below(m, 2) ? OP_SUB : OP_ADD, x, g_broadcast_like(g, r, x));
}

static Val reshape(Maker *m, Val x)
{
    const Node *n = node_of(m->g, x);
    int64_t dim[IR_MAX_RANK];
    int rank = 0, at = (int)below(m, n->rank);
    for (int d = 0; d < n->rank; d++) {
        if (d == at && below(m, 2) && rank < IR_MAX_RANK)
            dim[rank++] = 1;
        if (d == at && d > 0 && below(m, 2))
            dim[rank - 1] *= n->dim[d];
        else if (d == at && n->dim[d] % 3 == 0 && rank + 2 < IR_MAX_RANK) {
            dim[rank++] = 3;
            dim[rank++] = n->dim[d] / 3;
        } else
            dim[rank++] = n->dim[d];
        if (rank >= IR_MAX_RANK - 1 && d + 1 < n->rank)
            return x;
    }
    return rank > 5 ? x : g_reshape(m->g, x, rank, dim);
}

static Val move(Maker *m, Val x)
{
    Graph *g = m->g;
    const Node *n = node_of(g, x);
    int rank = n->rank, axis = (int)below(m, rank);
    int64_t a[IR_MAX_RANK] = {0}, b[IR_MAX_RANK] = {0}, c[IR_MAX_RANK];
    for (int d = 0; d < rank; d++) {
        b[d] = n->dim[d];
        c[d] = 1;
    }
    switch (below(m, 7)) {
    case 0:
        for (int d = 0; d < rank; d++)
            a[d] = (d + axis) % rank;
        return g_transpose(g, x, a);
    case 1:
        a[axis] = below(m, n->dim[axis]);
        c[axis] = 1 + below(m, 2);
        return g_slice(g, x, a, b, c);
    case 2:
        memset(b, 0, sizeof b);
        a[axis] = below(m, 3);
        b[axis] = below(m, 3);
        return g_pad(g, x, a, b, 0.5);
    case 3:
        return g_concat(g, (Val[]){x, unary(m, x), x}, 2 + (int)below(m, 2), axis);
    case 4: {
        int64_t ax = axis;
        return graph_node(g, OP_REVERSE, &x, 1, (Attr[]){{.name = A_AXES, .n = 1, .ints = &ax}}, 1, NULL);
    }
    case 5: {
        if (rank >= 5)
            return x;
        int64_t size = 1 + below(m, 3), step = 1 + below(m, 2), count = 1 + below(m, n->dim[axis]);
        Attr w[] = {{.name = A_AXIS, .i = axis},       {.name = A_SIZE, .i = size},
                    {.name = A_STEP, .i = step},       {.name = A_DILATION, .i = 1 + below(m, 2)},
                    {.name = A_PAD, .i = below(m, 3)}, {.name = A_COUNT, .i = count},
                    {.name = A_FILL, .f = -0.25}};
        return graph_node(g, OP_WINDOW, &x, 1, w, 7, NULL);
    }
    default: {
        if (rank < 2 || axis == rank - 1 || n->dim[rank - 1] > 7)
            return x;
        Attr f[] = {{.name = A_AXIS, .i = axis},
                    {.name = A_STEP, .i = 1 + below(m, 2)},
                    {.name = A_DILATION, .i = 1 + below(m, 2)},
                    {.name = A_PAD, .i = below(m, 3)},
                    {.name = A_COUNT, .i = 1 + below(m, 2 * n->dim[axis])}};
        Val folded = graph_node(g, OP_FOLD, &x, 1, f, 5, NULL);
        return g_bin(g, OP_MUL, folded, g_const_like(g, folded, 0.3));
    }
    }
}

static Val index_op(Maker *m, Val x)
{
    Graph *g = m->g;
    const Node *n = node_of(g, x);
    int axis = (int)below(m, n->rank);
    Val i = m->index[below(m, m->nindex)];
    switch (below(m, 7)) {
    case 0:
        return node_of(g, i)->rank + n->rank - 1 > 5 ? x : g_gather(g, x, i, 0);
    case 1: {
        int64_t many = 1 + below(m, 9), shape[IR_MAX_RANK];
        Type t = type_make(DAV_I32, 1, &many);
        memcpy(shape, n->dim, sizeof shape);
        shape[0] = many;
        Val idx =
            g_bin(g, OP_REM, g_bin(g, OP_MUL, g_iota(g, t, 0), g_const(g, t, 5)), g_const(g, t, (double)n->dim[0] + 1));
        return g_scatter_add(g, x, idx, g_const(g, type_make(DAV_F32, n->rank, shape), 0.3), 0);
    }
    case 2: {
        Attr a[] = {{.name = A_AXIS, .i = axis},
                    {.name = A_EXCLUSIVE, .i = below(m, 2)},
                    {.name = A_REVERSE, .i = below(m, 2)}};
        Val s = graph_node(g, OP_CUMSUM, &x, 1, a, 3, NULL);
        return g_bin(g, OP_MUL, s, g_const_like(g, s, 0.2));
    }
    case 3: {
        int ia = (int)below(m, node_of(g, i)->rank ? node_of(g, i)->rank : 1);
        if (!node_of(g, i)->rank)
            return x;
        Attr a[] = {{.name = A_AXIS, .i = ia}, {.name = A_DESCENDING, .i = below(m, 2)}};
        keep(m, graph_node(g, OP_ARGSORT, &i, 1, a, 2, NULL));
        return g_cast(g, graph_node(g, OP_ARGMAX, &i, 1, a, 1, NULL), DAV_F32);
    }
    case 4: {
        Val start = g_const(g, (Type){.dtype = DAV_I32}, (double)below(m, 12) - 2);
        Attr a[] = {{.name = A_AXIS, .i = axis}, {.name = A_SIZE, .i = 1 + below(m, n->dim[axis])}};
        Val s = graph_node(g, OP_DYN_SLICE, (Val[]){x, start}, 2, a, 2, NULL);
        return graph_node(g, OP_DYN_UPDATE, (Val[]){x, unary(m, s), start}, 3, a, 1, NULL);
    }
    case 5:
        return g_cast(g, i, DAV_F32);
    default: {
        Type t = type_of(g, x);
        t.dtype = DAV_BF16;
        return g_cast(g, g_iota(g, t, axis), DAV_F32);
    }
    }
}

static Val contract(Maker *m, Val x)
{
    Graph *g = m->g;
    const Node *n = node_of(g, x);
    static const char *const text[4][3] = {
        {"b, b a -> a | b=%d", "a, b -> a b", "a, a -> | a=%d"},
        {"a c, c b -> a b | c=%d", "c a, b c -> a b | c=%d", "a c, a c b -> a b | c=%d"},
        {"a b d, d c -> a b c | d=%d", "a c+d-1 b, d b -> a b c | d=3", "a b+d-2 e, d e c -> a b c | d=3 e=%d"},
        {"a b c e, d e -> a b c d | e=%d", "a c b e, d e -> a b c d | e=%d", "a e b c, d e -> a b c d | e=%d"}};
    if (n->rank > 4)
        return x;
    int which = (int)below(m, 3);
    char buf[80];
    int64_t sum_axis[4][3] = {{0, 0, 0}, {1, 0, 1}, {2, 2, 2}, {3, 3, 1}};
    snprintf(buf, sizeof buf, text[n->rank - 1][which], (int)n->dim[sum_axis[n->rank - 1][which]]);
    ContractSpec s;
    if (!spec_parse(g->err, buf, &s))
        return 0;
    int64_t width = 1 + below(m, 40), dim[IR_MAX_RANK];
    for (int i = 0; i < s.nout; i++) { /* plain loops of x have its sizes, others are ours */
        s.extent[i] = width;
        for (int d = 0; d < s.rank[0]; d++)
            if (s.dim[0][d].loop[0] == i)
                s.extent[i] = n->dim[d];
    }
    for (int d = 0; d < s.rank[1]; d++)
        dim[d] = s.extent[s.dim[1][d].loop[0]];
    Type t = type_make(DAV_F32, s.rank[1], dim);
    if (type_count(&t) > MAX_COUNT)
        return x;
    Val y = g_un(g, OP_SIN, g_iota(g, t, (int)below(m, t.rank))), r = g_contract(g, bounded(m, x), y, &s, DAV_F32);
    return r ? g_bin(g, OP_MUL, r, g_const_like(g, r, 0.2)) : 0;
}

Graph *random_graph(Arena *arena, Err *err, Rng *r, int ops)
{
    Maker m = {.g = graph_new(arena, err, "random"), .r = r};
    char name[16];
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "x%d", i);
        keep(&m, g_input(m.g, name, i == 2 ? ROLE_PARAM : ROLE_DATA, random_type(&m, DAV_F32)));
    }
    keep(&m, g_input(m.g, "i0", ROLE_DATA, random_type(&m, DAV_I32)));
    for (int i = 0; i < ops; i++) {
        Val x = pick(&m);
        if (node_of(m.g, x)->rank == 0)
            x = m.value[0];
        static Val (*const make[])(Maker *, Val) = {unary,  unary,   binary, binary, binary,   reduce,
                                                    reduce, reshape, move,   move,   index_op, contract};
        keep(&m, make[below(&m, 12)](&m, x));
    }
    int outs = 1 + (int)below(&m, 4);
    for (int i = 0; i < outs; i++) {
        snprintf(name, sizeof name, "y%d", i);
        graph_output(m.g, name, i == 0 ? m.value[m.n - 1] : pick(&m));
    }
    return m.g;
}
