/* Generated code against the interpreter of kernel IR, at every CPU level of this machine. */
#include "codegen/codegen.h"
#include "ir/build.h"
#include "support/kernels.h"
#include <Random123/philox.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct Fix { Arena *arena; Err err; } Fix;

static int setup(void **state)
{
    Fix *f = calloc(1, sizeof *f);
    f->arena = arena_new();
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fix *f = *state;
    arena_free(f->arena);
    free(f);
    return 0;
}

static Type vec(DavDtype t, int64_t n) { return type_make(t, 1, &n); }
static Val add(Graph *k, Val x, Val y) { return k_op(k, OP_ADD, x, y, 0); }
static Val mulc(Graph *k, Val x, int64_t c) { return k_op(k, OP_MUL, x, k_int(k, c), 0); }
static Val addc(Graph *k, Val x, int64_t c) { return k_op(k, OP_ADD, x, k_int(k, c), 0); }

static void check(const Graph *k, double tolerance)
{
    kernel_check(&(KernelCase){.kernel = k, .tolerance = tolerance});
}

/* ---- elementwise ---- */
enum { ROWS = 3, COLS = 53 }; /* 53 leaves a tail at every width */

static Graph *elementwise_kernel(Fix *f, Op op, DavDtype t)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", op_info[op].text, dav_dtype_name(t));
    Graph *k = kernel_new(f->arena, &f->err, name);
    bool compare = op >= OP_EQ && op <= OP_GE;
    Val x[3];
    for (int i = 0; i < op_info[op].arity; i++)
        x[i] = k_buf(k, (const char *[]){"x", "y", "z"}[i], BUF_IN, i, vec(op == OP_SELECT && i == 0 ? DAV_BOOL : t, ROWS * COLS));
    Val out = k_buf(k, "out", BUF_OUT, 3, vec(compare ? DAV_BOOL : t, ROWS * COLS));
    Val p = k_for(k, LOOP_PARALLEL, 0, ROWS, 1), j = k_for(k, LOOP_VECTOR, 0, COLS, 1);
    Val at = add(k, mulc(k, p, COLS), j), v[3] = {0};
    for (int i = 0; i < op_info[op].arity; i++)
        v[i] = k_load(k, x[i], at, 0);
    k_store(k, out, at, k_op(k, op, v[0], v[1], v[2]), 0);
    k_end(k, j);
    k_end(k, p);
    return k;
}

static void test_elementwise(void **state)
{
    for (int op = OP_NEG; op <= OP_FMA; op++)
        for (int t = 0; t < DAV_DTYPE_COUNT; t++) {
            if (!(op_info[op].flags & OPF_ELEMENTWISE) || !ew_defined((Op)op, (DavDtype)t))
                continue;
            /* the interpreter computes in f64 and rounds once, so the last bit may differ */
            check(elementwise_kernel(*state, (Op)op, (DavDtype)t), 0);
        }
}

static void test_casts(void **state)
{
    Fix *f = *state;
    for (int from = 0; from < DAV_DTYPE_COUNT; from++)
        for (int to = 0; to < DAV_DTYPE_COUNT; to++)
            for (int bits = 0; bits < 2; bits++) {
                if (bits && (dav_dtype_size((DavDtype)from) != dav_dtype_size((DavDtype)to) || from == DAV_BOOL || to == DAV_BOOL))
                    continue;
                char name[64];
                snprintf(name, sizeof name, "%s %s to %s", bits ? "bitcast" : "cast", dav_dtype_name((DavDtype)from),
                         dav_dtype_name((DavDtype)to));
                Graph *k = kernel_new(f->arena, &f->err, name);
                Val x = k_buf(k, "x", BUF_IN, 0, vec((DavDtype)from, COLS)), out = k_buf(k, "out", BUF_OUT, 1, vec((DavDtype)to, COLS));
                Val p = k_for(k, LOOP_PARALLEL, 0, 1, 1), j = k_for(k, LOOP_VECTOR, 0, COLS, 1), v = k_load(k, x, j, 0);
                k_store(k, out, j, bits ? k_bitcast(k, v, (DavDtype)to) : k_cast(k, v, (DavDtype)to), 0);
                k_end(k, j);
                k_end(k, p);
                check(k, 0);
            }
}

static void fill_special(void *const *bufs)
{
    static const float special[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 1e-40f, -1e-45f, 3e38f, -3e38f, 65504, 65519.99f, 65520, 6e-8f,
                                    2e-8f, 3e-5f, 2147483648.f, -2147483904.f, 4294967296.f, 9.3e18f, 1.00390625f, 1.01171875f};
    for (int i = 0; i < COLS; i++)
        ((float *)bufs[0])[i] = special[i % (int)(sizeof special / sizeof *special)];
}

/* Special values through every cast of f32, exactly. */
static void test_special_casts(void **state)
{
    Fix *f = *state;
    for (int to = 0; to < DAV_DTYPE_COUNT; to++) {
        Graph *k = kernel_new(f->arena, &f->err, "special cast");
        Val x = k_buf(k, "x", BUF_IN, 0, vec(DAV_F32, COLS)), out = k_buf(k, "out", BUF_OUT, 1, vec((DavDtype)to, COLS));
        Val p = k_for(k, LOOP_PARALLEL, 0, 1, 1), j = k_for(k, LOOP_VECTOR, 0, COLS, 1);
        k_store(k, out, j, k_cast(k, k_load(k, x, j, 0), (DavDtype)to), 0);
        k_end(k, j);
        k_end(k, p);
        kernel_check(&(KernelCase){.kernel = k, .tolerance = 1e-300, .fill = fill_special});
    }
}

/* max and min of special values: NaN from either side, ties, signed zeros. */
static void test_special_extremes(void **state)
{
    Fix *f = *state;
    for (int op = OP_MAX; op <= OP_MIN; op++)
        for (int shift = 1; shift < 20; shift += 3) {
            Graph *k = kernel_new(f->arena, &f->err, op_info[op].text);
            Val x = k_buf(k, "x", BUF_IN, 0, vec(DAV_F32, COLS)), out = k_buf(k, "out", BUF_OUT, 1, vec(DAV_F32, COLS));
            Val top = k_buf(k, "top", BUF_OUT, 2, vec(DAV_F32, 1)), lane = k_buf(k, "relu", BUF_OUT, 3, vec(DAV_F32, COLS));
            Val p = k_for(k, LOOP_PARALLEL, 0, 1, 1);
            Val acc = k_acc(k, DAV_F32, op == OP_MAX ? ACC_MAX : ACC_MIN, op == OP_MAX ? -INFINITY : INFINITY);
            Val j = k_for(k, LOOP_VECTOR, 0, COLS - shift, 1);
            Val a = k_load(k, x, j, 0), b = k_load(k, x, addc(k, j, shift), 0);
            k_store(k, out, j, k_op(k, (Op)op, a, b, 0), 0);
            k_store(k, lane, j, k_op(k, (Op)op, a, k_num(k, DAV_F32, 0), 0), 0);
            k_acc_update(k, acc, k_op(k, OP_SELECT, k_op(k, OP_EQ, a, a, 0), a, k_num(k, DAV_F32, 1)));
            k_end(k, j);
            k_store(k, top, k_int(k, 0), k_acc_get(k, acc), 0);
            k_end(k, p);
            kernel_check(&(KernelCase){.kernel = k, .tolerance = 1e-300, .fill = fill_special});
        }
}

/* ---- reductions ---- */
static const struct { DavDtype t; AccKind kind; } reductions[] = {
    {DAV_F32, ACC_ADD}, {DAV_F32, ACC_MAX}, {DAV_F32, ACC_MIN}, {DAV_F64, ACC_ADD}, {DAV_F64, ACC_MIN}, {DAV_I32, ACC_ADD},
    {DAV_I32, ACC_MAX}, {DAV_I64, ACC_ADD}, {DAV_I64, ACC_MIN}, {DAV_U32, ACC_MAX}, {DAV_U32, ACC_MIN}, {DAV_BOOL, ACC_MAX},
    {DAV_BOOL, ACC_MIN}, {DAV_BF16, ACC_MAX},
};

static Graph *reduction_kernel(Fix *f, DavDtype t, AccKind kind, int64_t n, bool dynamic)
{
    char name[64];
    snprintf(name, sizeof name, "reduce kind %d %s n %d%s", kind, dav_dtype_name(t), (int)n, dynamic ? " dynamic" : "");
    Graph *k = kernel_new(f->arena, &f->err, name);
    Val x = k_buf(k, "x", BUF_IN, 0, vec(t, ROWS * n + 1)), out = k_buf(k, "out", BUF_OUT, 1, vec(t, ROWS));
    Val size = k_buf(k, "size", BUF_IN, 2, vec(DAV_I64, 1));
    Val p = k_for(k, LOOP_PARALLEL, 0, ROWS, 1);
    Val acc = k_acc(k, t, kind, kind == ACC_ADD ? 0 : kind == ACC_MAX ? -INFINITY : INFINITY);
    Val j = dynamic ? k_for_dyn(k, LOOP_VECTOR, k_int(k, 0), k_load(k, size, k_int(k, 0), 0), 1) : k_for(k, LOOP_VECTOR, 0, n, 1);
    k_acc_update(k, acc, k_load(k, x, add(k, mulc(k, p, n), j), 0));
    k_end(k, j);
    k_store(k, out, p, k_acc_get(k, acc), 0);
    k_end(k, p);
    return k;
}

static int64_t dynamic_size;
static void fill_size(void *const *bufs)
{
    memcpy(bufs[2], &dynamic_size, sizeof dynamic_size);
}

static void test_reductions(void **state)
{
    for (size_t i = 0; i < sizeof reductions / sizeof *reductions; i++)
        for (int64_t n = 0; n <= 150; n += n < 4 || (i == 0 && n < 70) ? 1 : 19)
            for (int dynamic = 0; dynamic < 2; dynamic++) {
                dynamic_size = n;
                kernel_check(&(KernelCase){.kernel = reduction_kernel(*state, reductions[i].t, reductions[i].kind, n, dynamic),
                                           .tolerance = reductions[i].t == DAV_F32 ? 2e-5 : 0, .fill = fill_size});
            }
}

/* Lanes with accumulators of their own: column sums, running sums, a variable; scratch; a loop that is unrolled; an if. */
static void test_lane_accumulators(void **state)
{
    Fix *f = *state;
    Graph *k = kernel_new(f->arena, &f->err, "columns");
    const int64_t depth = 7;
    Val x = k_buf(k, "x", BUF_IN, 0, vec(DAV_F32, ROWS * depth * COLS)), sum = k_buf(k, "sum", BUF_OUT, 1, vec(DAV_F32, ROWS * COLS));
    Val run = k_buf(k, "run", BUF_OUT, 2, vec(DAV_F32, ROWS * depth * COLS)), last = k_buf(k, "last", BUF_OUT, 3, vec(DAV_I64, ROWS * COLS));
    Val tmp = k_buf(k, "tmp", BUF_SCRATCH, 4, vec(DAV_F32, COLS)), weights = k_buf(k, "w", BUF_IN, 5, vec(DAV_F32, 4));
    Val p = k_for(k, LOOP_PARALLEL, 0, ROWS, 1), j = k_for(k, LOOP_VECTOR, 0, COLS, 1);
    Val acc = k_acc(k, DAV_F32, ACC_ADD, 0.5), best = k_acc(k, DAV_F32, ACC_MAX, -INFINITY), where = k_acc(k, DAV_I64, ACC_SET, -1);
    Val d = k_for(k, LOOP_SERIAL, 0, depth, 1), at = add(k, mulc(k, add(k, mulc(k, p, depth), d), COLS), j);
    Val v = k_load(k, x, at, 0), better = k_op(k, OP_GT, v, k_acc_get(k, best), 0);
    k_acc_update(k, acc, v);
    k_acc_update(k, where, k_op(k, OP_SELECT, better, d, k_acc_get(k, where)));
    k_acc_update(k, best, v);
    k_store(k, run, at, k_acc_get(k, acc), 0);
    k_end(k, d);
    k_store(k, tmp, j, k_acc_get(k, acc), 0);
    k_store(k, last, add(k, mulc(k, p, COLS), j), k_acc_get(k, where), 0);
    k_end(k, j);
    Val j2 = k_for(k, LOOP_VECTOR, 0, COLS, 1);
    Val total = k_acc(k, DAV_F32, ACC_ADD, 0), u = k_for(k, LOOP_UNROLL, 0, 4, 1);
    k_acc_update(k, total, k_op(k, OP_MUL, k_load(k, weights, u, 0), k_load(k, tmp, j2, 0), 0));
    k_end(k, u);
    k_store(k, sum, add(k, mulc(k, p, COLS), j2), k_acc_get(k, total), 0);
    k_end(k, j2);
    Val odd = k_if(k, k_op(k, OP_EQ, k_op(k, OP_REM, p, k_int(k, 2), 0), k_int(k, 1), 0));
    k_store(k, sum, mulc(k, p, COLS), k_num(k, DAV_F32, 7), 0);
    k_end(k, odd);
    k_end(k, p);
    check(k, 2e-5);
}

/* ---- memory ---- */
static void fill_indices(void *const *bufs)
{
    for (int i = 0; i < COLS; i++)
        ((int32_t *)bufs[1])[i] = (i * 29 + 11) % COLS;
}

/* Gather and scatter, strides -1 and 3, division of the lane's number, masks for a shifted read, one element for all lanes. */
static void test_addressing(void **state)
{
    Fix *f = *state;
    for (int t = 0; t < DAV_DTYPE_COUNT; t++) {
        Graph *k = kernel_new(f->arena, &f->err, "addressing");
        DavDtype type = (DavDtype)t;
        Val x = k_buf(k, "x", BUF_IN, 0, vec(type, 3 * COLS)), index = k_buf(k, "index", BUF_IN, 1, vec(DAV_I32, COLS));
        Val out[6];
        for (int i = 0; i < 6; i++)
            out[i] = k_buf(k, "out", BUF_OUT, 2 + i, vec(type, 3 * COLS));
        Val p = k_for(k, LOOP_PARALLEL, 0, 1, 1), shift = k_op(k, OP_SUB, p, k_int(k, 5), 0);
        Val j = k_for(k, LOOP_VECTOR, 0, COLS, 1), i = k_cast(k, k_load(k, index, j, 0), DAV_I64);
        k_store(k, out[0], j, k_load(k, x, i, 0), 0);
        k_store(k, out[1], i, k_load(k, x, k_op(k, OP_SUB, k_int(k, COLS - 1), j, 0), 0), 0);
        k_store(k, out[2], mulc(k, j, 3), k_load(k, x, mulc(k, j, 3), 0), 0);
        Val half = k_op(k, OP_DIV, j, k_int(k, 2), 0), rem = k_op(k, OP_REM, j, k_int(k, 7), 0);
        k_store(k, out[3], j, k_load(k, x, add(k, half, rem), 0), 0);
        Val at = add(k, j, shift), inside = k_op(k, OP_AND, k_op(k, OP_GE, at, k_int(k, 0), 0), k_op(k, OP_LT, at, k_int(k, 31), 0), 0);
        k_store(k, out[4], j, k_load(k, x, at, inside), k_op(k, OP_NE, rem, k_int(k, 3), 0));
        Val uniform = k_op(k, OP_LT, p, k_int(k, 0), 0);
        Val one = k_load(k, x, k_int(k, 4), 0), none = k_load(k, x, k_int(k, 1 << 30), uniform);
        k_store(k, out[5], j, k_op(k, OP_SELECT, inside, one, none), 0);
        k_end(k, j);
        k_end(k, p);
        kernel_check(&(KernelCase){.kernel = k, .fill = fill_indices});
    }
}

/* ---- tiles ---- */
typedef struct TileCase {
    int mr, nr, k, columns, rows; /* rows, columns: valid ones; given as constants or (dynamic) loaded */
    bool packed, dynamic;
    int row_step, div, ext, taps, dilation, a_k_stride; /* ext 0: not checked */
    DavDtype type;
} TileCase;

static TileCase tile_now;
static void fill_sizes(void *const *bufs)
{
    int64_t sizes[3] = {tile_now.rows, tile_now.columns, tile_now.k};
    memcpy(bufs[4], sizes, sizeof sizes);
}

/* One tile an iteration: taps of a (strided, divided, dilated) convolution, then bias, a row sum and a masked store. */
static Graph *tile_kernel(Fix *f, TileCase c)
{
    char name[160];
    snprintf(name, sizeof name, "tile %dx%d %s k %d cols %d rows %d%s%s step %d div %d ext %d taps %d dil %d kstride %d", c.mr, c.nr,
             dav_dtype_name(c.type), c.k, c.columns, c.rows, c.packed ? " packed" : "", c.dynamic ? " dynamic" : "", c.row_step, c.div,
             c.ext, c.taps, c.dilation, c.a_k_stride);
    Graph *k = kernel_new(f->arena, &f->err, name);
    int64_t reach = (int64_t)(c.row_step * (c.mr - 1) + ROWS * 2 + c.dilation * c.taps) / c.div + 1;
    int64_t ext = c.ext ? c.ext : reach + 1, a_row = c.a_k_stride == 1 ? c.k : 1, a_len = a_row == 1 ? c.a_k_stride * c.k : ext * a_row;
    if (a_row == 1 && ext > c.a_k_stride)
        a_len += ext;
    int64_t b_panel = c.packed ? (c.k + 1) / 2 * 2 * c.nr : (int64_t)c.k * c.columns;
    Val a = k_buf(k, "a", BUF_IN, 0, vec(c.type, a_len)), b = k_buf(k, "b", BUF_IN, 1, vec(c.type, b_panel * c.taps));
    Val out = k_buf(k, "out", BUF_OUT, 2, vec(DAV_F32, (int64_t)ROWS * c.mr * c.nr)), sums = k_buf(k, "sums", BUF_OUT, 3, vec(DAV_F32, ROWS * c.mr));
    Val size = k_buf(k, "size", BUF_IN, 4, vec(DAV_I64, 3)), bias = k_buf(k, "bias", BUF_IN, 5, vec(DAV_F32, c.nr));
    Val p = k_for(k, LOOP_PARALLEL, 0, ROWS, 1);
    Val rows = c.dynamic ? k_load(k, size, k_int(k, 0), 0) : k_int(k, c.rows);
    Val cols = c.dynamic ? k_load(k, size, k_int(k, 1), 0) : k_int(k, c.columns), depth = c.dynamic ? k_load(k, size, k_int(k, 2), 0) : k_int(k, c.k);
    Val tile = k_tile(k, c.mr, c.nr), tap = k_for(k, LOOP_SERIAL, 0, c.taps, 1);
    Val row0 = add(k, mulc(k, p, c.ext ? 2 : 1), mulc(k, tap, c.dilation));
    if (c.ext)
        row0 = addc(k, row0, -c.taps / 2 * c.dilation);
    k_tile_contract(k, &(TileContract){.tile = tile, .a = a, .b = b, .a_off = k_int(k, 0), .row0 = row0, .b_off = mulc(k, tap, b_panel),
                                       .rows = rows, .k = depth, .cols = c.packed ? 0 : cols, .a_row_step = c.row_step, .a_div = c.div,
                                       .a_ext = c.ext, .a_row_stride = a_row, .a_k_stride = c.a_k_stride, .b_k_stride = c.columns,
                                       .b_col_stride = 1, .b_packed = c.packed});
    k_end(k, tap);
    Val r = c.dynamic ? k_for_dyn(k, LOOP_ROW, k_int(k, 0), rows, 1) : k_for(k, LOOP_ROW, 0, c.rows, 1);
    Val total = k_acc(k, DAV_F32, ACC_ADD, 0);
    Val j = c.dynamic ? k_for_dyn(k, LOOP_VECTOR, k_int(k, 0), cols, 1) : k_for(k, LOOP_VECTOR, 0, c.columns, 1);
    Val v = k_op(k, OP_ADD, k_tile_get(k, tile, r, j), k_load(k, bias, j, 0), 0);
    k_acc_update(k, total, v);
    k_store(k, out, add(k, mulc(k, add(k, mulc(k, p, c.mr), r), c.nr), j), v, 0);
    k_end(k, j);
    k_store(k, sums, add(k, mulc(k, p, c.mr), r), k_acc_get(k, total), 0);
    k_end(k, r);
    k_end(k, p);
    return k;
}

static void check_tile(Fix *f, TileCase c)
{
    tile_now = c;
    kernel_check(&(KernelCase){.kernel = tile_kernel(f, c), .tolerance = c.type == DAV_BF16 ? 2e-4 : 2e-5 * sqrt(c.k * c.taps), .fill = fill_sizes});
}

static void test_tiles(void **state)
{
    static const int shapes[][2] = {{6, 64}, {6, 8}, {13, 32}, {9, 12}, {1, 4}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int t = 0; t < 2; t++)
            for (int packed = 0; packed < 2; packed++)
                for (int dynamic = 0; dynamic < 2; dynamic++) {
                    TileCase c = {.mr = shapes[s][0], .nr = shapes[s][1], .k = 12, .packed = packed, .dynamic = dynamic, .row_step = 1,
                                  .div = 1, .taps = 3, .dilation = 2, .a_k_stride = 1, .type = t ? DAV_BF16 : DAV_F32};
                    c.rows = c.mr, c.columns = c.nr;
                    check_tile(*state, c);       /* whole, unchecked */
                    c.ext = 7, c.k = 5;          /* padding on both sides, odd depth */
                    check_tile(*state, c);
                    c.rows = c.mr > 2 ? c.mr - 2 : 1, c.columns = c.nr - 3; /* tails */
                    check_tile(*state, c);
                    c.ext = 0;
                    check_tile(*state, c);
                    c.div = 2, c.row_step = 1, c.ext = 4; /* transposed convolution: every other row */
                    check_tile(*state, c);
                    c.div = 1, c.row_step = 3, c.ext = 16; /* strided convolution */
                    check_tile(*state, c);
                    c.ext = 0, c.row_step = 1, c.a_k_stride = 40; /* gradient of a weight */
                    check_tile(*state, c);
                }
}

/* More valid rows than the reach of a row of zeros. */
static void test_long_reach(void **state)
{
    TileCase c = {.mr = 6, .nr = 16, .k = 20000, .rows = 6, .columns = 16, .row_step = 1, .div = 1, .ext = 3, .taps = 1, .dilation = 1,
                  .a_k_stride = 1, .type = DAV_F32};
    check_tile(*state, c);
}

/* ---- Philox ---- */
static void test_philox(void **state)
{
    Fix *f = *state;
    Graph *k = kernel_new(f->arena, &f->err, "philox");
    Val in = k_buf(k, "in", BUF_IN, 0, vec(DAV_U32, 6 * COLS)), out = k_buf(k, "out", BUF_OUT, 1, vec(DAV_U32, 4 * COLS));
    Val p = k_for(k, LOOP_PARALLEL, 0, 1, 1), j = k_for(k, LOOP_VECTOR, 0, COLS, 1), w[6];
    for (int i = 0; i < 6; i++)
        w[i] = k_load(k, in, addc(k, j, i * COLS), 0);
    for (int i = 0; i < 4; i++)
        k_store(k, out, addc(k, j, i * COLS), k_philox(k, w, w + 2, i), 0);
    k_end(k, j);
    k_end(k, p);
    check(k, 0);
    uint32_t x[6 * COLS], y[4 * COLS]; /* the interpreter against Random123 */
    for (int i = 0; i < 6 * COLS; i++)
        x[i] = (uint32_t)i * 2654435761u ^ 0x5bd1e995u;
    kernel_interpret(k, (void *const[]){x, y});
    for (int i = 0; i < COLS; i++) {
        philox4x32_ctr_t c = {{x[2 * COLS + i], x[3 * COLS + i], x[4 * COLS + i], x[5 * COLS + i]}};
        philox4x32_key_t key = {{x[i], x[COLS + i]}};
        philox4x32_ctr_t r = philox4x32(c, key);
        for (int n = 0; n < 4; n++)
            assert_int_equal(r.v[n], y[n * COLS + i]);
    }
}

/* ---- another architecture ---- */
static void test_neon(void **state)
{
    Fix *f = *state;
    KernelCase c[64];
    int n = 0;
    static const Op ops[] = {OP_EXP, OP_LOG, OP_SIN, OP_TANH, OP_ERF, OP_ROUND, OP_FLOOR, OP_MAX, OP_DIV, OP_SELECT, OP_FMA};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        c[n++] = (KernelCase){.kernel = elementwise_kernel(f, ops[i], DAV_F32)};
    c[n++] = (KernelCase){.kernel = elementwise_kernel(f, OP_ADD, DAV_BF16)};
    c[n++] = (KernelCase){.kernel = elementwise_kernel(f, OP_MUL, DAV_F16)};
    c[n++] = (KernelCase){.kernel = elementwise_kernel(f, OP_DIV, DAV_I64)};
    c[n++] = (KernelCase){.kernel = elementwise_kernel(f, OP_SHR, DAV_U32)};
    c[n++] = (KernelCase){.kernel = reduction_kernel(f, DAV_F32, ACC_ADD, 131, false), .tolerance = 2e-5};
    c[n++] = (KernelCase){.kernel = reduction_kernel(f, DAV_I32, ACC_MAX, 45, false)};
    TileCase t = {.mr = 6, .nr = 16, .k = 13, .rows = 6, .columns = 16, .row_step = 1, .div = 1, .ext = 7, .taps = 3, .dilation = 2, .a_k_stride = 1};
    for (int type = 0; type < 2; type++)
        for (int packed = 0; packed < 2; packed++) {
            t.type = type ? DAV_BF16 : DAV_F32;
            t.packed = packed != 0;
            t.columns = packed ? 16 : 11;
            c[n++] = (KernelCase){.kernel = tile_kernel(f, t), .tolerance = 2e-4};
        }
    kernel_check_aarch64(c, n);
}

/* ---- AMX ---- */
/* The tile products emulated; all the rest of the kernel is what AMX runs. The real ones run with all levels where they exist. */
/* Tiles of AMX: rows that are a constant apart, that lie along k, that may be outside of A, whose number is loaded; the same with
 * emulated tile registers. */
static void test_amx(void **state)
{
    Fix *f = *state;
    static const int shapes[][3] = {{6, 64, 64}, {16, 32, 70}, {16, 64, 96}, {14, 16, 33}, {1, 48, 32}, {6, 64, 31}};
    CpuTarget emulated, real;
    Buf assembly = {0};
    TileCase c = {.packed = true, .row_step = 1, .div = 1, .taps = 3, .dilation = 2, .type = DAV_BF16};
    bool runs = !cpu_target_lacks("cooperlake"), has = !cpu_target_lacks("sapphirerapids");
    assert_true(cpu_target_named(&f->err, "cooperlake", &emulated));
    emulated.name = "AMX emulated";
    emulated.amx = emulated.amx_emulated = true;
    assert_true(cpu_target_named(&f->err, "sapphirerapids", &real));
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int way = 0; way < 4; way++) {
            c.mr = shapes[i][0], c.nr = shapes[i][1], c.k = shapes[i][2], c.ext = way & 1 ? 7 : 0, c.columns = c.nr;
            c.dynamic = way >= 2, c.rows = c.dynamic && c.mr > 2 ? c.mr - 1 : c.mr;
            for (c.a_k_stride = 1; c.a_k_stride < 80; c.a_k_stride += 70) {
                tile_now = c;
                KernelCase check = {.kernel = tile_kernel(f, c), .tolerance = 1e-3, .fill = fill_sizes};
                if (runs)
                    kernel_check_on(&check, &emulated);
                if (has)
                    kernel_check_on(&check, &real);
            }
        }
    c = (TileCase){.packed = true, .row_step = 1, .div = 1, .taps = 3, .dilation = 2, .a_k_stride = 1, .type = DAV_BF16, .mr = 6, .nr = 64,
                   .k = 64, .rows = 6, .columns = 64};
    assert_true(jit_text(&real, &f->err, tile_kernel(f, c), NULL, &assembly, NULL));
    assert_non_null(strstr(assembly.at, "tdpbf16ps"));
    assert_non_null(strstr(assembly.at, "tileloadd"));
    buf_free(&assembly);
    if (!runs)
        print_message("SKIPPED: the emulation needs AVX512-BF16\n");
    if (!has)
        print_message("SKIPPED: AMX itself, this machine lacks %s\n", cpu_target_lacks("sapphirerapids"));
}

/* ---- levels ---- */
static void test_levels(void **state)
{
    (void)state;
    Err err = {0};
    CpuTarget t;
    assert_false(cpu_target(&err, "hasswell", &t));
    assert_int_equal(err.kind, ERR_USER);
    assert_non_null(strstr(err.text, "did you mean 'haswell'"));
    assert_true(cpu_target_lacks("neon") || cpu_target_lacks("haswell"));
    for (int i = 0; i < cpu_target_count(); i++) {
        Err e = {0};
        bool lacks = cpu_target_lacks(cpu_target_name(i)) != NULL;
        assert_int_equal(cpu_target(&e, cpu_target_name(i), &t), !lacks);
        if (lacks)
            assert_non_null(strstr(e.text, "this machine lacks"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_elementwise, setup, teardown),
        cmocka_unit_test_setup_teardown(test_casts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_special_casts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_special_extremes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reductions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lane_accumulators, setup, teardown),
        cmocka_unit_test_setup_teardown(test_addressing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tiles, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_reach, setup, teardown),
        cmocka_unit_test_setup_teardown(test_philox, setup, teardown),
        cmocka_unit_test_setup_teardown(test_neon, setup, teardown),
        cmocka_unit_test_setup_teardown(test_amx, setup, teardown),
        cmocka_unit_test(test_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
