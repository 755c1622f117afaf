#include "passes/plain_product.h"
#include "passes/fuse.h"
#include <math.h>
#include <string.h>

/* ---- the contraction: strides of its loops ---- */
enum { A, B, D };
typedef struct Loop {
    int64_t extent, at[3];
    bool summed;
} Loop; /* at: elements between neighbours in a, b and d */
typedef struct Loops {
    Loop loop[SPEC_MAX_LOOPS];
    int n;
    int64_t offset[2];
} Loops;

/* False: an index is divided, or leaves the operand. */
static bool operand_strides(const ContractSpec *s, const Node *x, int o, Loops *l)
{
    int64_t stride = 1;
    for (int d = s->rank[o] - 1; d >= 0; d--) {
        const DimExpr *e = &s->dim[o][d];
        int64_t least = e->offset, most = e->offset;
        if (e->div != 1)
            return false;
        for (int i = 0; i < e->nterm; i++) {
            int64_t reach = e->coef[i] * (s->extent[e->loop[i]] - 1);
            *(reach < 0 ? &least : &most) += reach;
            l->loop[e->loop[i]].at[o] += e->coef[i] * stride;
        }
        if (least < 0 || most >= x->dim[d])
            return false;
        l->offset[o] += e->offset * stride;
        stride *= x->dim[d];
    }
    return true;
}

static bool join(Loops *l, int outer, int inner)
{
    Loop *x = &l->loop[outer];
    const Loop *y = &l->loop[inner];
    if (x->summed != y->summed)
        return false;
    for (int i = 0; i < 3; i++)
        if (x->at[i] != y->at[i] * y->extent)
            return false;
    memcpy(x->at, y->at, sizeof x->at);
    x->extent *= y->extent;
    l->loop[inner] = l->loop[--l->n];
    return true;
}

/* Without loops of one step; pairs that walk through memory as one loop would are one. */
static void shorten(Loops *l)
{
    for (int i = l->n - 1; i >= 0; i--)
        if (l->loop[i].extent == 1)
            l->loop[i] = l->loop[--l->n];
    for (bool joined = true; joined;) {
        joined = false;
        for (int i = 0; i < l->n && !joined; i++)
            for (int j = 0; j < l->n && !joined; j++)
                joined = i != j && join(l, i, j);
    }
}

static bool find_loops(const Graph *g, Val contract, Loops *l)
{
    const Node *n = node_of(g, contract);
    const ContractSpec *s = attr_spec(n);
    int64_t stride = 1;
    memset(l, 0, sizeof *l);
    l->n = s->nloop;
    for (int i = s->nloop - 1; i >= 0; i--) {
        l->loop[i].extent = s->extent[i];
        l->loop[i].summed = i >= s->nout;
        if (i >= s->nout)
            continue;
        l->loop[i].at[D] = stride;
        stride *= s->extent[i];
    }
    if (node_count(g, contract) == 0 || !operand_strides(s, node_of(g, n->arg[0]), 0, l) ||
        !operand_strides(s, node_of(g, n->arg[1]), 1, l))
        return false;
    shorten(l);
    return true;
}

/* One loop of each kind at most: in both operands, in one, summed. */
static bool name_loops(const Loops *l, Loop *batch, Loop *only_a, Loop *only_b, Loop *sum)
{
    const Loop none = {.extent = 1};
    *batch = *only_a = *only_b = *sum = none;
    for (int i = 0; i < l->n; i++) {
        const Loop *x = &l->loop[i];
        bool in_a = x->at[A] != 0, in_b = x->at[B] != 0;
        Loop *to = x->summed      ? (in_a && in_b ? sum : NULL)
                   : in_a && in_b ? batch
                   : in_a         ? only_a
                   : in_b         ? only_b
                                  : NULL;
        if (!to || to->extent != 1 || x->extent < 1)
            return false;
        *to = *x;
    }
    return true;
}

static bool find_matrices(const Graph *g, Val contract, PlainProduct *p)
{
    Loops l;
    Loop batch, row, col, sum;
    if (!find_loops(g, contract, &l) || !name_loops(&l, &batch, &row, &col, &sum))
        return false;
    int a = A, b = B;
    if (col.extent == 1 ? row.at[D] == 1
                        : col.at[D] != 1) { /* the columns are those of the contraction's first operand */
        Loop t = row;
        row = col;
        col = t;
        a = B;
        b = A;
    }
    *p = (PlainProduct){
        .batch = batch.extent, .m = row.extent, .n = col.extent, .k = sum.extent, .bias = -1, .c.buf = -1};
    p->a =
        (PlainMatrix){a, l.offset[a], batch.at[a], row.at[a], sum.at[a]}; /* buf: an operand of the contraction until plain_product names the kernel's */
    p->b = (PlainMatrix){b, l.offset[b], batch.at[b], sum.at[b], col.at[b]};
    p->d = (PlainMatrix){0, 0, batch.at[D], row.at[D], 1};
    return col.extent == 1 || col.at[D] == 1;
}

/* ---- what is done to the result ---- */
static int buffer_of(const Graph *g, Val input)
{
    int buf = 0;
    for (Val v = 1; v < input; v++)
        buf += node_of(g, v)->op == OP_INPUT;
    return buf;
}

static Val through(const Graph *g, Val v, Op view)
{
    while (node_of(g, v)->op == view && (view != OP_RESHAPE || reshape_is_unit(g, v)))
        v = node_of(g, v)->arg[0];
    return v;
}

/* Does a value of the output's rank hold one number a column: the last axes, n numbers, and nothing before them? */
static bool one_a_column(const Node *v, const Node *result, int64_t n)
{
    int64_t columns = 1;
    if (v->rank != result->rank)
        return false;
    for (int i = v->rank - 1; i >= 0; i--) {
        if (v->dim[i] != (columns < n ? result->dim[i] : 1))
            return false;
        columns *= v->dim[i];
    }
    return columns == n;
}

/* An operand that is added: a bias over the columns, or a matrix like the result. */
static bool take_addend(const Graph *g, Val v, const Node *result, PlainProduct *p)
{
    Val small = through(g, v, OP_BROADCAST), input = through(g, small, OP_RESHAPE);
    if (node_of(g, input)->op != OP_INPUT)
        return false;
    bool whole =
        node_count(g, input) == p->batch * p->m * p->n; /* also of one row: it may share memory with the result */
    if (whole && p->c.buf < 0) {
        p->c = p->d;
        p->c.buf = buffer_of(g, input);
        return true;
    }
    if (whole || p->bias >= 0 || !one_a_column(node_of(g, small), result, p->n))
        return false;
    p->bias = buffer_of(g, input);
    return true;
}

static bool is_number(const Graph *g, Val v, double value)
{
    const Node *n = node_of(g, through(g, v, OP_BROADCAST));
    return n->op == OP_CONST && fabs(attr_f(n, A_VALUE) - value) <= 1e-6 * fabs(value);
}

/* A product's factors: numbers multiplied together, the rest by themselves. */
enum { MOST_FACTORS = 8, MOST_DEPTH = 8 };
typedef struct Factors {
    double number;
    Val other[MOST_FACTORS];
    int n;
} Factors;

static void factors(const Graph *g, Val v, Factors *f, int depth)
{
    const Node *n = node_of(g, v), *source = node_of(g, through(g, v, OP_BROADCAST));
    if (source->op == OP_CONST) {
        f->number *= attr_f(source, A_VALUE);
    } else if (n->op == OP_MUL && depth > 0) {
        factors(g, n->arg[0], f, depth - 1);
        factors(g, n->arg[1], f, depth - 1);
    } else {
        f->other[f->n < MOST_FACTORS ? f->n : MOST_FACTORS - 1] = v;
        f->n++;
    }
}

static bool near(double x, double y)
{
    return fabs(x - y) <= 1e-6 * fabs(y);
}

/* v = x + y in either order, y satisfying the test. */
static Val other_summand(const Graph *g, Val v, bool (*fits)(const Graph *, Val y, Val x), Val x)
{
    const Node *n = node_of(g, v);
    for (int i = 0; n->op == OP_ADD && i < 2; i++)
        if ((!x || n->arg[1 - i] == x) && fits(g, n->arg[i], n->arg[1 - i]))
            return n->arg[1 - i];
    return 0;
}

static bool is_one(const Graph *g, Val y, Val x)
{
    (void)x;
    return is_number(g, y, 1);
}

static bool is_cubic_term(const Graph *g, Val y, Val x)
{
    Factors f = {.number = 1};
    factors(g, y, &f, MOST_DEPTH);
    return f.n == 3 && f.other[0] == x && f.other[1] == x && f.other[2] == x && near(f.number, 0.044715);
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): x, or 0. */
static Val gelu_of(const Graph *g, Val v)
{
    Factors f = {.number = 1};
    factors(g, v, &f, MOST_DEPTH);
    if (f.n != 2 || !near(f.number, 0.5))
        return 0;
    for (int i = 0; i < 2; i++) {
        Val x = f.other[i], t = other_summand(g, f.other[1 - i], is_one, 0);
        Factors inner = {.number = 1};
        if (!t || node_of(g, t)->op != OP_TANH)
            continue;
        factors(g, node_of(g, t)->arg[0], &inner, MOST_DEPTH);
        if (inner.n == 1 && near(inner.number, 0.7978845608028654) &&
            other_summand(g, inner.other[0], is_cubic_term, x))
            return x;
    }
    return 0;
}

static Val take_activation(const Graph *g, Val v, PlainProduct *p)
{
    const Node *n = node_of(g, v);
    Val x = gelu_of(g, v);
    if (x)
        p->activation = PLAIN_GELU_TANH;
    for (int i = 0; n->op == OP_MAX && i < 2 && !x; i++)
        if (is_number(g, n->arg[i], 0)) {
            x = n->arg[1 - i];
            p->activation = PLAIN_RELU;
        }
    return x ? x : v;
}

/* From the region's result back to the contraction. */
static bool take_epilogue(const Graph *g, Val contract, Val v, PlainProduct *p)
{
    if (v == contract)
        return true;
    if (node_of(g, contract)->dtype != DAV_F32)
        return false;
    if (node_of(g, v)->op == OP_CAST)
        v = node_of(g, v)->arg[0];
    v = through(g, take_activation(g, through(g, v, OP_RESHAPE), p), OP_RESHAPE);
    while (node_of(g, v)->op == OP_ADD) {
        const Node *n = node_of(g, v);
        int i = take_addend(g, n->arg[0], n, p) ? 1 : take_addend(g, n->arg[1], n, p) ? 0 : -1;
        if (i < 0)
            return false;
        v = through(g, n->arg[i], OP_RESHAPE);
    }
    return v == contract;
}

bool plain_product(const Graph *g, PlainProduct *p)
{
    Val contract = 0;
    int inputs = 0;
    for (Val v = 1; v < g->n; v++) {
        inputs += node_of(g, v)->op == OP_INPUT;
        if (node_of(g, v)->op == OP_CONTRACT)
            contract = v;
    }
    if (!contract || g->nout != 1 || !find_matrices(g, contract, p))
        return false;
    const Node *n = node_of(g, contract), *a = node_of(g, n->arg[p->a.buf]), *b = node_of(g, n->arg[p->b.buf]);
    p->in = a->dtype;
    p->out = node_of(g, g->out[0].val)->dtype;
    if (a->op != OP_INPUT || b->op != OP_INPUT || a->dtype != b->dtype || (p->in != DAV_F32 && p->in != DAV_BF16) ||
        (p->out != DAV_F32 && p->out != DAV_BF16))
        return false;
    p->a.buf = buffer_of(g, n->arg[p->a.buf]);
    p->b.buf = buffer_of(g, n->arg[p->b.buf]);
    p->d.buf = inputs;
    return take_epilogue(g, contract, g->out[0].val, p);
}

/* ---- on a kernel node ---- */
static Type buffer_type(const Graph *g, Val v, int64_t buf)
{
    const Node *n = node_of(g, v);
    Type t = {.dtype = DAV_BOOL};
    if (buf >= 0 && buf < n->narg)
        t = type_of(g, n->arg[buf]);
    else if (buf >= n->narg && buf - n->narg < tuple_count(g, v))
        tuple_type(g, v, (int)buf - n->narg, &t);
    return t;
}

/* Every index of the matrix lies in its buffer; graphs come from files, too. */
static bool lies_inside(const Type *t, const PlainMatrix *x, int64_t batch, int64_t rows, int64_t cols)
{
    const int64_t extent[3] = {batch, rows, cols}, stride[3] = {x->batch, x->row, x->col};
    int64_t least = x->offset, most = x->offset, reach;
    for (int i = 0; i < 3; i++)
        if (extent[i] < 1 || __builtin_mul_overflow(extent[i] - 1, stride[i], &reach) ||
            __builtin_add_overflow(reach < 0 ? least : most, reach, reach < 0 ? &least : &most))
            return false;
    return least >= 0 && most < type_count(t);
}

bool plain_product_of(const Graph *g, Val v, PlainProduct *p)
{
    const Node *n = node_of(g, v);
    int count = 0;
    if (n->op != OP_KERNEL || !node_attr(n, A_PRODUCT))
        return false;
    const int64_t *number = attr_ints(n, A_PRODUCT, &count);
    if (count != PLAIN_NUMBERS)
        return false;
    memcpy(p, number, sizeof *p);
    Type a = buffer_type(g, v, p->a.buf), b = buffer_type(g, v, p->b.buf), c = buffer_type(g, v, p->c.buf),
         d = buffer_type(g, v, p->d.buf), bias = buffer_type(g, v, p->bias);
    return (int64_t)a.dtype == p->in && (int64_t)b.dtype == p->in && (int64_t)d.dtype == p->out &&
           p->d.buf >= n->narg && lies_inside(&a, &p->a, p->batch, p->m, p->k) &&
           lies_inside(&b, &p->b, p->batch, p->k, p->n) && lies_inside(&d, &p->d, p->batch, p->m, p->n) &&
           (p->c.buf < 0 || lies_inside(&c, &p->c, p->batch, p->m, p->n)) && (p->bias < 0 || type_count(&bias) == p->n);
}
