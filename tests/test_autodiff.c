/* The gradient of every op, to second order (contractions to third), against differences. */
#include "ir/interp.h"
#include "passes/autodiff.h"
#include "passes/pass.h"
#include "support/cuda.h"
#include "support/gradcheck.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LEN(a) ((int)(sizeof(a) / sizeof *(a)))

/* By differences to the case's order; with a device the first order alone, there too. */
static const char *device;
static void check(const GradCase *of)
{
    GradCase c = *of;
    c.device = device;
    c.order = device ? 1 : c.order;
    grad_check(&c);
}

/* ---- elementwise: every op of the table that has a gradient, over shapes with size 1, odd sizes and broadcasting ----
 */
typedef struct Pointwise {
    Op op;
    int repeated;
} Pointwise; /* repeated: which operand has size 1 in axis 1, -1: none */

static Val build_pointwise(Graph *g, const Val *x, const void *with)
{
    const Pointwise *p = with;
    int arity = op_info[p->op].arity;
    Val arg[3] = {x[0], arity > 1 ? x[1] : 0, arity > 2 ? x[2] : 0};
    if (p->op == OP_SELECT) { /* the bool is made of an input */
        arg[0] = g_bin(g, OP_GT, x[0], g_const_like(g, x[0], 0));
        if (p->repeated == 0)
            arg[0] = g_broadcast_like(g, arg[0], arg[1]);
    }
    if (p->repeated >= 0 && !(p->op == OP_SELECT && p->repeated == 0))
        arg[p->repeated] = g_broadcast_like(g, arg[p->repeated], arg[p->repeated ? 0 : 1]);
    return g_ew(g, p->op, arg[0], arg[1], arg[2]);
}

static void test_elementwise(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{1, 1}, {3, 5}, {2, 1}, {1, 7}};
    for (int op = 1; op < OP_COUNT; op++) {
        const OpInfo *info = &op_info[op];
        if (!(info->flags & OPF_ELEMENTWISE) || !op_has_grad((Op)op))
            continue;
        for (int s = device ? 1 : 0; s < (device ? 2 : LEN(shapes)); s++)
            for (int repeated = -1; repeated < (info->arity > 1 ? info->arity : 0); repeated++) {
                Pointwise p = {(Op)op, repeated};
                GradCase c = {.name = info->text,
                              .nin = info->arity,
                              .lo = info->test_lo,
                              .hi = info->test_hi,
                              .build = build_pointwise,
                              .with = &p};
                for (int i = 0; i < info->arity; i++) {
                    c.in[i].rank = 2;
                    memcpy(c.in[i].dim, shapes[s], sizeof shapes[s]);
                    if (i == repeated)
                        c.in[i].dim[1] = 1;
                }
                check(&c);
            }
    }
}

/* ---- one operand, attributes ---- */
static Val square(Graph *g, Val x) /* so that second derivatives of linear ops are not zero */
{
    return g_bin(g, OP_MUL, x, x);
}

static Val reduce_all_ways(Graph *g, const Val *x, const void *with)
{
    const unsigned *mask = with;
    Val sum = g_reduce_mask(g, OP_SUM, square(g, x[0]), *mask), max = g_reduce_mask(g, OP_RMAX, square(g, x[0]), *mask);
    return g_bin(g, OP_ADD, g_bin(g, OP_MUL, sum, max), g_reduce_mask(g, OP_RMIN, x[0], *mask));
}

static Val ties(Graph *g, const Val *x, const void *with)
{
    (void)with; /* the largest is reached twice by construction: moving x moves both, so differences see the sum of the
                   shares */
    Val twice = g_concat(g, (Val[]){x[0], x[0]}, 2, 0);
    return square(g, g_reduce_mask(g, OP_RMAX, twice, 1));
}

static Val cumsums(Graph *g, const Val *x, const void *with)
{
    (void)with;
    Val y = square(g, x[0]), sum = 0;
    for (int k = 0; k < 8; k++) {
        Attr a[] = {
            {.name = A_AXIS, .i = k >> 2}, {.name = A_EXCLUSIVE, .i = k & 1}, {.name = A_REVERSE, .i = k >> 1 & 1}};
        Val c = square(g, graph_node(g, OP_CUMSUM, &y, 1, a, 3, NULL));
        sum = sum ? g_bin(g, OP_ADD, sum, g_bin(g, OP_MUL, c, g_const_like(g, c, k + 1))) : c;
    }
    return sum;
}

static Val shapes(Graph *g, const Val *x, const void *with)
{
    (void)with; /* x: [3, 5] */
    Val t = g_transpose(g, square(g, x[0]), (int64_t[]){1, 0});
    Val r = g_reshape(g, t, 3, (int64_t[]){1, 3, 5});
    Attr axes = {.name = A_AXES, .n = 2, .ints = (int64_t[]){1, 2}};
    Val f = graph_node(g, OP_REVERSE, &r, 1, &axes, 1, NULL);
    Val p = g_pad(g, f, (int64_t[]){0, 2, 1}, (int64_t[]){1, 0, 3}, 0.5);
    return square(g, g_slice(g, p, (int64_t[]){0, 1, 0}, (int64_t[]){2, 5, 8}, (int64_t[]){1, 3, 2}));
}

static Val strided(Graph *g, const Val *x, const void *with)
{
    (void)with; /* x: [7, 6] */
    Val a = g_slice(g, square(g, x[0]), (int64_t[]){1, 0}, (int64_t[]){7, 6}, (int64_t[]){4, 5});
    Val b = g_slice(g, square(g, x[0]), (int64_t[]){0, 3}, (int64_t[]){5, 4}, (int64_t[]){4, 1});
    return g_concat(g, (Val[]){square(g, a), b, a}, 3, 1);
}

static Val repeats(Graph *g, const Val *x, const void *with)
{
    (void)with; /* x: [3, 1], [1, 1] */
    Val a = g_broadcast(g, square(g, x[0]), (int64_t[]){3, 4}), b = g_broadcast(g, x[1], (int64_t[]){3, 4});
    return g_bin(g, OP_MUL, a, square(g, b));
}

static Attr num(AttrName name, int64_t i)
{
    return (Attr){.name = name, .i = i};
}

static Val windows(Graph *g, const Val *x, const void *with)
{
    (void)with; /* x: [2, 9, 1] */
    Val y = square(g, x[0]);
    Attr w[] = {num(A_AXIS, 1),
                num(A_SIZE, 3),
                num(A_STEP, 2),
                num(A_DILATION, 2),
                num(A_PAD, 1),
                num(A_COUNT, 4),
                {.name = A_FILL, .f = 0.5}};
    Val win = square(g, graph_node(g, OP_WINDOW, &y, 1, w, 7, NULL));
    Attr f[] = {num(A_AXIS, 1), num(A_STEP, 3), num(A_DILATION, 1), num(A_PAD, 1), num(A_COUNT, 10)};
    return square(g, graph_node(g, OP_FOLD, &win, 1, f, 5, NULL));
}

static Val literal(Graph *g, DavDtype t, int rank, const int64_t *dim, const double *v)
{
    Type type = type_make(t, rank, dim);
    Attr data = {.name = A_DATA, .n = (int)type_count(&type), .floats = v};
    return graph_node(g, OP_LITERAL, NULL, 0, &data, 1, &type);
}

static Val dynamic(Graph *g, const Val *x, const void *with)
{
    (void)with; /* x: [5, 2], [2, 2]; the second index is clamped */
    Val i = literal(g, DAV_I32, 0, NULL, (double[]){2}), far = literal(g, DAV_I32, 0, NULL, (double[]){9});
    Val put = graph_node(g, OP_DYN_UPDATE, (Val[]){square(g, x[0]), square(g, x[1]), i}, 3, (Attr[]){num(A_AXIS, 0)}, 1,
                         NULL);
    Val cut = graph_node(g, OP_DYN_SLICE, (Val[]){put, far}, 2, (Attr[]){num(A_AXIS, 0), num(A_SIZE, 3)}, 2, NULL);
    return square(g, cut);
}

static Val indexed(Graph *g, const Val *x, const void *with)
{
    (void)with; /* x: [2, 4, 3], [2, 3, 3]; indices repeat and leave the range */
    Val idx = literal(g, DAV_I32, 2, (int64_t[]){2, 3}, (double[]){1, 3, 1, 0, 7, -1});
    Val got = square(g, g_gather(g, square(g, x[0]), idx, 1));
    return square(g, g_scatter_add(g, square(g, x[0]), idx, g_bin(g, OP_MUL, got, x[1]), 1));
}

static Val rows(Graph *g, const Val *x, const void *with)
{
    (void)with; /* an embedding: x [4, 3], indices [2, 2] */
    Val idx = literal(g, DAV_I64, 2, (int64_t[]){2, 2}, (double[]){3, 0, 0, 2});
    return square(g, g_gather(g, square(g, x[0]), idx, 0));
}

static Val casts(Graph *g, const Val *x, const void *with)
{
    (void)with; /* through an integer nothing flows; stop stops */
    Val whole = g_cast(g, g_cast(g, x[0], DAV_I32), DAV_F64),
        far = g_cast(g, g_cast(g, square(g, x[0]), DAV_F32), DAV_F64);
    return g_bin(g, OP_MUL, g_bin(g, OP_ADD, whole, far), g_un(g, OP_STOP, g_const_like(g, x[0], 2)));
}

/* softmax and a layer norm over the last axis, then cross-entropy-like sums */
static Val composed(Graph *g, const Val *x, const void *with)
{
    (void)with; /* x: [3, 5], [1, 5] */
    Val mean =
        g_bin(g, OP_MUL, g_reduce_mask(g, OP_SUM, x[0], 2), g_const(g, type_make(DAV_F64, 2, (int64_t[]){3, 1}), 0.2));
    Val d = g_bin(g, OP_SUB, x[0], g_broadcast_like(g, mean, x[0]));
    Val var = g_bin(g, OP_MUL, g_reduce_mask(g, OP_SUM, square(g, d), 2), g_const_like(g, mean, 0.2));
    Val r = g_un(g, OP_RSQRT, g_bin(g, OP_ADD, var, g_const_like(g, var, 1e-2)));
    Val n = g_bin(g, OP_MUL, g_bin(g, OP_MUL, d, g_broadcast_like(g, r, d)), g_broadcast_like(g, x[1], d));
    Val top = g_un(g, OP_STOP, g_reduce_mask(g, OP_RMAX, n, 2));
    Val e = g_un(g, OP_EXP, g_bin(g, OP_SUB, n, g_broadcast_like(g, top, n)));
    Val z = g_reduce_mask(g, OP_SUM, e, 2);
    Val logp = g_bin(g, OP_SUB, n, g_broadcast_like(g, g_bin(g, OP_ADD, g_un(g, OP_LOG, z), top), n));
    return g_bin(g, OP_MUL, logp, g_bin(g, OP_DIV, e, g_broadcast_like(g, z, e)));
}

static const unsigned reduce_masks[] = {1, 2, 5, 7};

static void test_ops(void **state)
{
    (void)state;
    static const GradCase cases[] = {
        {.name = "reduce axis 0", .nin = 1, .in = {{3, {3, 1, 5}}}, .build = reduce_all_ways, .with = &reduce_masks[0]},
        {.name = "reduce axis 1", .nin = 1, .in = {{3, {3, 4, 1}}}, .build = reduce_all_ways, .with = &reduce_masks[1]},
        {.name = "reduce axes 0 2",
         .nin = 1,
         .in = {{3, {2, 3, 3}}},
         .build = reduce_all_ways,
         .with = &reduce_masks[2]},
        {.name = "reduce all", .nin = 1, .in = {{3, {2, 1, 3}}}, .build = reduce_all_ways, .with = &reduce_masks[3]},
        {.name = "ties", .nin = 1, .in = {{2, {3, 2}}}, .build = ties},
        {.name = "cumsum", .nin = 1, .in = {{2, {3, 4}}}, .build = cumsums},
        {.name = "shapes", .nin = 1, .in = {{2, {3, 5}}}, .build = shapes},
        {.name = "strided slices", .nin = 1, .in = {{2, {7, 6}}}, .build = strided},
        {.name = "broadcast", .nin = 2, .in = {{2, {3, 1}}, {2, {1, 1}}}, .build = repeats},
        {.name = "window and fold", .nin = 1, .in = {{3, {2, 9, 1}}}, .build = windows},
        {.name = "dynamic slice and update", .nin = 2, .in = {{2, {5, 2}}, {2, {2, 2}}}, .build = dynamic},
        {.name = "gather and scatter", .nin = 2, .in = {{3, {2, 4, 3}}, {3, {2, 3, 3}}}, .build = indexed},
        {.name = "rows", .nin = 1, .in = {{2, {4, 3}}}, .build = rows},
        {.name = "casts", .nin = 1, .in = {{2, {3, 2}}}, .lo = 0.1, .hi = 0.9, .build = casts},
        {.name = "norm, softmax, log", .nin = 2, .in = {{2, {3, 5}}, {2, {1, 5}}}, .build = composed},
    };
    for (int i = 0; i < LEN(cases); i++)
        check(&cases[i]);
}

/* ---- contractions ---- */
typedef struct ContractCase {
    const char *spec;
    int64_t out[IR_MAX_RANK];
} ContractCase;

static Val build_contract(Graph *g, const Val *x, const void *with)
{
    const ContractCase *c = with;
    ContractSpec spec;
    assert_true(spec_parse(g->err, c->spec, &spec));
    memcpy(spec.extent, c->out, (size_t)spec.nout * sizeof *c->out);
    return g_contract(g, x[0], x[1], &spec, DAV_F64);
}

static void test_contract(void **state)
{
    (void)state;
    static const struct {
        ContractCase c;
        struct {
            int rank;
            int64_t dim[IR_MAX_RANK];
        } in[2];
    } cases[] = {
        {{"a c, c b -> a b | c=3", {2, 4}}, {{2, {2, 3}}, {2, {3, 4}}}},
        {{"a b d, a d c -> a b c | d=2", {2, 3, 1}}, {{3, {2, 3, 2}}, {3, {2, 2, 1}}}},
        {{"c b, a c -> a b | c=3", {2, 4}}, {{2, {3, 4}}, {2, {2, 3}}}},
        {{"a b, c -> a b c", {2, 3, 2}}, {{2, {2, 3}}, {1, {2}}}}, /* outer product */
        {{"a, a -> | a=5", {0}}, {{1, {5}}, {1, {5}}}},
        {{"a b+d-1 e, d e c -> a b c | d=3 e=2", {2, 5, 2}}, {{3, {2, 5, 2}}, {3, {3, 2, 2}}}}, /* same padding */
        {{"a 2*b+3*d-2 e, d e c -> a b c | d=3 e=2", {1, 4, 2}},
         {{3, {1, 9, 2}}, {3, {3, 2, 2}}}}, /* stride, dilation */
        {{"a 2*b+e-1 c f, e c f d -> a b c d | e=4 f=2", {1, 3, 2, 1}},
         {{4, {1, 6, 2, 2}}, {4, {4, 2, 2, 1}}}},                                                     /* groups */
        {{"a b+d c, d c -> a b c | d=2", {2, 4, 3}}, {{3, {2, 5, 3}}, {2, {2, 3}}}},                  /* depthwise */
        {{"a (b-2*d+1)/3 e, d e c -> a b c | d=2 e=2", {1, 8, 1}}, {{3, {1, 3, 2}}, {3, {2, 2, 1}}}}, /* transposed */
        {{"a b+d-1 2*c+e f, d e f -> a b c | d=3 e=2 f=2", {1, 3, 2}}, {{4, {1, 3, 4, 2}}, {3, {3, 2, 2}}}}, /* 2-d */
        {{"a b g 2*d+h-1 e+2*i f+j, b c g h i j -> a b c d e f | g=2 h=2 i=2 j=1", {1, 2, 1, 2, 1, 2}},
         {{6, {1, 2, 2, 3, 3, 2}}, {6, {2, 1, 2, 2, 2, 1}}}}, /* 3-d, groups, stride, dilation */
        {{"a b g (d-h+1)/2 (e-i)/2 (f-j)/3, b g c h i j -> a b c d e f | g=1 h=2 i=2 j=3", {1, 2, 2, 3, 2, 3}},
         {{6, {1, 2, 1, 2, 1, 1}}, {6, {2, 1, 2, 2, 2, 3}}}}, /* transposed */
        {{"a b g 2*d+2*h 2*e+2*i 2*f+2*j, b c g h i j -> a b c d e f | g=2 h=2 i=2 j=2", {1, 2, 1, 2, 1, 1}},
         {{6, {1, 2, 2, 5, 3, 3}}, {6, {2, 1, 2, 2, 2, 2}}}}, /* stride and dilation everywhere */
        {{"a+2 3, a -> a", {3}}, {{2, {4, 5}}, {1, {3}}}},          /* constant index */
        {{"b b, b a -> a | b=3", {2}}, {{2, {3, 3}}, {2, {3, 2}}}}, /* diagonal */
        {{"a+b, a b -> | a=2 b=3", {0}}, {{1, {4}}, {2, {2, 3}}}},
    };
    for (int i = 0; i < LEN(cases); i++) {
        GradCase c = {.name = cases[i].c.spec, .nin = 2, .build = build_contract, .with = &cases[i].c, .order = 3};
        memcpy(c.in, cases[i].in, sizeof cases[i].in);
        check(&c);
    }
}

/* ---- regions ---- */
/* body: (h [2], x [2], w [2]) -> (tanh(h * w + x), h * x); one invariant integer-free loop of 4 steps */
static const Graph *scan_body(Graph *g)
{
    Graph *b = graph_new(g->arena, g->err, "step");
    Type t = type_make(DAV_F64, 1, (int64_t[]){2});
    Val count = g_input(b, "count", ROLE_DATA, type_make(DAV_I32, 0, NULL));
    Val h = g_input(b, "h", ROLE_DATA, t), x = g_input(b, "x", ROLE_DATA, t), w = g_input(b, "w", ROLE_DATA, t);
    Val scale = g_cast(b, count, DAV_F64);
    Val s = g_broadcast(b, g_reshape(b, scale, 1, (int64_t[]){1}), (int64_t[]){2});
    graph_output(b, "count", g_bin(b, OP_ADD, count, g_const(b, type_make(DAV_I32, 0, NULL), 1)));
    graph_output(b, "h", g_un(b, OP_TANH, g_bin(b, OP_ADD, g_bin(b, OP_MUL, g_bin(b, OP_MUL, h, w), s), x)));
    graph_output(b, "y", g_bin(b, OP_MUL, h, x));
    return b;
}

static Val scan_loop(Graph *g, const Val *x, const void *with)
{
    (void)with; /* x: h [2], xs [4, 2], w [2] */
    Val arg[] = {g_const(g, type_make(DAV_I32, 0, NULL), 1), square(g, x[0]), x[1], x[2]};
    Attr extra[] = {num(A_TRIP, 4), num(A_CARRY, 2), num(A_SCAN, 1)};
    Val loop = g_region(g, OP_LOOP, scan_body(g), arg, 4, extra, 3);
    Val last = g_reshape(g, g_pick(g, loop, 1), 2, (int64_t[]){1, 2});
    return g_bin(g, OP_MUL, g_pick(g, loop, 2), g_broadcast(g, last, (int64_t[]){4, 2}));
}

static Val block_twice(Graph *g, const Val *x, const void *with)
{
    (void)with;
    Graph *b = graph_new(g->arena, g->err, "block");
    Type t = type_make(DAV_F64, 1, (int64_t[]){3});
    Val h = g_input(b, "h", ROLE_DATA, t), w = g_input(b, "w", ROLE_DATA, t);
    graph_output(b, "out", g_un(b, OP_SIN, g_bin(b, OP_MUL, h, w)));
    graph_output(b, "side", g_bin(b, OP_ADD, h, w));
    Val first = g_region(g, OP_CALL, b, (Val[]){x[0], x[1]}, 2, NULL, 0);
    Val second = g_region(g, OP_CALL, b, (Val[]){g_pick(g, first, 0), g_pick(g, first, 1)}, 2, NULL, 0);
    return g_bin(g, OP_MUL, g_pick(g, second, 0), g_pick(g, second, 1));
}

/* A loop whose body holds a gradient and a loop. */
static Val nested(Graph *g, const Val *x, const void *with)
{
    (void)with; /* x: h [2], w [2] */
    Graph *inner = graph_new(g->arena, g->err, "inner");
    Type t = type_make(DAV_F64, 1, (int64_t[]){2});
    Val ih = g_input(inner, "h", ROLE_DATA, t), iw = g_input(inner, "w", ROLE_DATA, t);
    graph_output(inner, "h", g_un(inner, OP_SIN, g_bin(inner, OP_ADD, g_bin(inner, OP_MUL, ih, iw), ih)));
    Graph *outer = graph_new(g->arena, g->err, "outer");
    Val h = g_input(outer, "h", ROLE_DATA, t), w = g_input(outer, "w", ROLE_DATA, t);
    Attr twice[] = {num(A_TRIP, 2), num(A_CARRY, 1), num(A_SCAN, 0)};
    Val run = g_pick(outer, g_region(outer, OP_LOOP, inner, (Val[]){h, w}, 2, twice, 3), 0);
    Val energy = g_reshape(outer, g_reduce_mask(outer, OP_SUM, square(outer, run), 1), 0, NULL);
    Val grad = g_pick(outer, graph_node(outer, OP_GRAD, (Val[]){energy, h}, 2, NULL, 0, NULL), 0);
    graph_output(outer, "h", g_bin(outer, OP_SUB, h, g_bin(outer, OP_MUL, grad, g_const_like(outer, h, 0.3))));
    return g_pick(g, g_region(g, OP_LOOP, outer, x, 2, twice, 3), 0);
}

static void test_regions(void **state)
{
    (void)state;
    static const GradCase cases[] = {
        {.name = "loop", .nin = 3, .in = {{1, {2}}, {2, {4, 2}}, {1, {2}}}, .build = scan_loop, .order = 3},
        {.name = "call", .nin = 2, .in = {{1, {3}}, {1, {3}}}, .build = block_twice},
        {.name = "gradient inside of a loop", .nin = 2, .in = {{1, {2}}, {1, {2}}}, .build = nested},
    };
    for (int i = 0; i < LEN(cases); i++)
        check(&cases[i]);
}

/* ---- host functions ---- */
/* "product": x^2 y;  "product.vjp" (x, y, ct): the gradients of x and y, one after the other */
static bool product(void *ctx, Err *err, const char *name, int nin, const Type *in_type, const void *const *in,
                    int nout, const Type *out_type, void *const *out)
{
    (void)ctx, (void)err, (void)nin, (void)nout, (void)out_type;
    int64_t n = type_count(&in_type[0]);
    const double *x = in[0], *y = in[1];
    double *o = out[0];
    for (int64_t i = 0; i < n; i++)
        if (strcmp(name, "product") == 0) {
            o[i] = x[i] * x[i] * y[i];
        } else {
            o[i] = 2 * x[i] * y[i] * ((const double *)in[2])[i];
            o[n + i] = x[i] * x[i] * ((const double *)in[2])[i];
        }
    return true;
}

static Val host_product(Graph *g, const Val *x, const void *with)
{
    const char *vjp = with;
    Attr a[] = {{.name = A_NAME, .s = "product"}, {.name = A_VJP, .s = vjp}};
    Type t = type_of(g, x[0]);
    Val arg[2] = {square(g, x[0]), x[1]};
    return square(g, graph_node(g, OP_HOST, arg, 2, a, vjp ? 2 : 1, &t));
}

static void test_host(void **state)
{
    (void)state;
    static const InterpHost host = {product, NULL};
    static const GradCase c = {.name = "host",
                               .nin = 2,
                               .in = {{2, {2, 3}}, {2, {2, 3}}},
                               .build = host_product,
                               .with = "product.vjp",
                               .order = 1,
                               .host = &host};
    check(&c);
    Arena *arena = arena_new(); /* without one it is a mistake, said at the call's place */
    Err err = {0};
    Graph *g = graph_new(arena, &err, "host");
    graph_at(g, "net.c", 12);
    Type t = type_make(DAV_F64, 1, (int64_t[]){1});
    Val x = g_input(g, "x", ROLE_DATA, t), y = host_product(g, (Val[]){x, x}, NULL);
    graph_output(g, "dx", g_pick(g, graph_node(g, OP_GRAD, (Val[]){y, x}, 2, NULL, 0, NULL), 0));
    PassCx cx = {.arena = arena, .err = &err};
    assert_null(passes_run(&cx, g, "autodiff"));
    assert_int_equal(err.kind, ERR_USER);
    assert_non_null(strstr(err.text, "net.c:12"));
    assert_non_null(strstr(err.text, "product"));
    vec_free(cx.times);
    arena_free(arena);
}

/* ---- what is shared, what is zero ---- */
static void test_sharing(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    Graph *g = graph_new(arena, &err, "share");
    Type t = type_make(DAV_F32, 0, NULL);
    Val x = g_input(g, "x", ROLE_DATA, t), z = g_input(g, "z", ROLE_DATA, t);
    Val e = g_un(g, OP_EXP, x), y = g_un(g, OP_TANH, g_bin(g, OP_MUL, e, e));
    Val tuple = graph_node(g, OP_GRAD, (Val[]){y, x, e, z}, 4, NULL, 0, NULL);
    graph_output(g, "y", y);
    for (int i = 0; i < 3; i++)
        graph_output(g, (const char *[]){"dx", "de", "dz"}[i], g_pick(g, tuple, i));
    PassCx cx = {.arena = arena, .err = &err};
    const Graph *d = passes_run(&cx, g, "simplify");
    assert_non_null(d);
    int exps = 0, tanhs = 0;
    for (Val v = 1; v < d->n; v++) {
        exps += node_of(d, v)->op == OP_EXP;
        tanhs += node_of(d, v)->op == OP_TANH;
    }
    assert_int_equal(exps, 1); /* forward values are used, not computed again */
    assert_int_equal(tanhs, 1);
    assert_int_equal(node_of(d, graph_find_output(d, "dz"))->op, OP_CONST); /* nothing depends on z */
    float in[2] = {0.3f, 5}, out[4];
    assert_true(graph_interpret(&err, d, false, (const void *[]){&in[0], &in[1]},
                                (void *[]){&out[0], &out[1], &out[2], &out[3]}, NULL));
    double ex = exp(0.3), de = (1 - pow(tanh(ex * ex), 2)) * 2 * ex; /* with respect to an intermediate value */
    assert_true(fabs(out[2] - de) < 1e-6 && fabs(out[1] - de * ex) < 1e-6 && out[3] == 0);
    vec_free(cx.times);
    arena_free(arena);
}

/* A value that folding went past is a mistake that is told, not a gradient of zero. */
static void test_folded_past(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    Graph *g = graph_new(arena, &err, "past");
    Val w = g_input(g, "w", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){2, 3}));
    Val x = g_transpose(g, w, (int64_t[]){1, 0}), back = g_transpose(g, x, (int64_t[]){1, 0});
    assert_int_equal(back, w);
    Val y = g_reshape(g, g_reduce_mask(g, OP_SUM, square(g, back), 3), 0, NULL);
    graph_at(g, "net.c", 7);
    graph_output(g, "dx", g_pick(g, graph_node(g, OP_GRAD, (Val[]){y, x}, 2, NULL, 0, NULL), 0));
    PassCx cx = {.arena = arena, .err = &err};
    assert_null(passes_run(&cx, g, "autodiff"));
    assert_int_equal(err.kind, ERR_USER);
    assert_non_null(strstr(err.text, "net.c:7"));
    vec_free(cx.times);
    arena_free(arena);
}

/* What the table says of ties: extremes share, max and min give to the first operand, abs gives nothing at 0. */
static void test_ties(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    Graph *g = graph_new(arena, &err, "ties");
    Type t = type_make(DAV_F32, 1, (int64_t[]){4});
    Val x = g_input(g, "x", ROLE_DATA, t), y = g_input(g, "y", ROLE_DATA, t), f[4];
    f[0] = g_reduce_mask(g, OP_RMAX, x, 1);
    f[1] = g_reduce_mask(g, OP_SUM, g_bin(g, OP_MAX, x, y), 1);
    f[2] = g_reduce_mask(g, OP_SUM, g_bin(g, OP_MIN, x, y), 1);
    f[3] = g_reduce_mask(g, OP_SUM, g_un(g, OP_ABS, x), 1);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2; k++)
            graph_output(g, arena_printf(arena, "d%d%d", i, k),
                         g_pick(g, graph_node(g, OP_GRAD, (Val[]){f[i], x, y}, 3, NULL, 0, NULL), k));
    PassCx cx = {.arena = arena, .err = &err};
    const Graph *d = passes_run(&cx, g, "simplify");
    assert_non_null(d);
    const float xs[4] = {2, 2, -1, 0}, ys[4] = {2, 3, -4, 0};
    static const float want[8][4] = {{.5f, .5f, 0, 0}, {0},          {1, 0, 1, 1},  {0, 1, 0, 0},
                                     {1, 1, 0, 1},     {0, 0, 1, 0}, {1, 1, -1, 0}, {0}};
    float out[8][4];
    void *to[8];
    for (int i = 0; i < 8; i++)
        to[i] = out[i];
    assert_true(graph_interpret(&err, d, false, (const void *[]){xs, ys}, to, NULL));
    for (int i = 0; i < 8; i++)
        for (int e = 0; e < 4; e++)
            assert_true(out[i][e] == want[i][e]);
    vec_free(cx.times);
    arena_free(arena);
}

/* ---- compiled for CUDA ---- */
static void on_cuda(void **state)
{
    cuda_or_skip();
    device = "cuda";
    test_elementwise(state);
    test_ops(state);
    test_contract(state);
    test_regions(state);
    device = NULL;
}

int main(void)
{
    cuda_choose();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_elementwise), cmocka_unit_test(test_ops),
                                       cmocka_unit_test(test_contract),    cmocka_unit_test(test_regions),
                                       cmocka_unit_test(test_host),        cmocka_unit_test(test_sharing),
                                       cmocka_unit_test(test_folded_past), cmocka_unit_test(test_ties),
                                       cmocka_unit_test(on_cuda)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
