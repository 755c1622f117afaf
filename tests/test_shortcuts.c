/* What generated code does in another way than its kernel says: powers of 2 of two precisions, columns that become rows
 * without gathers, tiles that go from the tile registers to their place.  Against exp2 in double, and the interpreter
 * of kernel IR. */
#include "codegen/codegen.h"
#include "support/kernels.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct Fix {
    Arena *arena;
    Err err;
} Fix;

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

static Type vec(DavDtype t, int64_t n)
{
    return type_make(t, 1, &n);
}
static Val add(Graph *k, Val x, Val y)
{
    return k_op(k, OP_ADD, x, y, 0);
}
static Val mulc(Graph *k, Val x, int64_t c)
{
    return k_op(k, OP_MUL, x, k_int(k, c), 0);
}

/* ---- powers of 2 ---- */
enum { POINTS = 1 << 15 };

static void powers(void **state, DavDtype precision)
{
    static const float special[] = {0,          -0.0f,       INFINITY, -INFINITY, NAN,  128,   127.9999f,
                                    -99.99999f, -100.00001f, -126,     -149,      -150, 1e30f, -1e30f};
    Fix *f = *state;
    Graph *k = kernel_new(f->arena, &f->err, "exp2");
    Val in = k_buf(k, "in", BUF_IN, 0, vec(DAV_F32, POINTS)), out = k_buf(k, "out", BUF_OUT, 1, vec(DAV_F32, POINTS));
    Val p = k_for(k, LOOP_PARALLEL, 0, 1, 1), j = k_for(k, LOOP_VECTOR, 0, POINTS, 1);
    k_store(k, out, j, k_exp2(k, k_load(k, in, j, 0), precision), 0);
    k_end(k, j);
    k_end(k, p);
    static _Alignas(64) float x[POINTS], y[POINTS];
    for (int i = 0; i < POINTS; i++)
        x[i] = i < (int)(sizeof special / sizeof *special) ? special[i] : -151 + 280 * (float)i / (float)POINTS;
    for (int l = 0; l < cpu_target_count(); l++) {
        CpuTarget t;
        KernelCode code;
        if (cpu_target_lacks(cpu_target_name(l)))
            continue;
        assert_true(cpu_target(&f->err, cpu_target_name(l), &t));
        Jit *jit = jit_new(&f->err, &t, NULL);
        assert_true(jit_compile(jit, &f->err, (const Graph *const[]){k}, 1, 0, &code));
        code.fn((void *const[]){x, y}, 0, 1, NULL);
        for (int i = 0; i < POINTS; i++) {
            double want = exp2(x[i]), off = fabs(y[i] - want),
                   limit = precision == DAV_BF16 ? 0x1p-12 * want : 2 * 0x1p-23 * exp2(floor(x[i]));
            bool right = isnan(x[i])       ? isnan(y[i])
                         : want >= 0x1p128 ? isinf(y[i]) && y[i] > 0
                         : x[i] < -100     ? y[i] >= 0 && off <= 0x1p-100
                                           : off <= limit;
            if (!right || (x[i] == 0 && y[i] != 1))
                fail_msg("%s: 2^%.9g is %.9g instead of %.9g", cpu_target_name(l), (double)x[i], (double)y[i], want);
        }
        jit_free(jit);
    }
}

static void test_powers_f32(void **state)
{
    powers(state, DAV_F32);
}
static void test_powers_bf16(void **state)
{
    powers(state, DAV_BF16);
}

/* ---- columns that become rows ---- */
typedef struct CopyCase {
    int64_t turns, lanes, columns, stride;
    bool scaled;
    DavDtype type;
} CopyCase;

/* panel[turn][lane] = in[lane * stride + turn], of `columns` lanes; then as it is to the output. */
static Graph *copy_kernel(Fix *f, CopyCase c)
{
    char name[120];
    snprintf(name, sizeof name, "%lld turns, %lld of %lld lanes %lld apart%s", (long long)c.turns, (long long)c.columns,
             (long long)c.lanes, (long long)c.stride, c.scaled ? ", scaled" : "");
    Graph *k = kernel_new(f->arena, &f->err, name);
    int64_t parts = 2, reach = (c.columns - 1) * c.stride + c.turns;
    Val in = k_buf(k, "in", BUF_IN, 0, vec(c.type, reach + parts - 1)),
        out = k_buf(k, "out", BUF_OUT, 1, vec(c.type, parts * c.turns * c.lanes));
    Val panel = k_buf(k, "panel", BUF_SCRATCH, 2, vec(c.type, c.turns * c.lanes));
    Val p = k_for(k, LOOP_PARALLEL, 0, parts, 1), r = k_for(k, LOOP_SERIAL, 0, c.turns, 1),
        j = k_for(k, LOOP_VECTOR, 0, c.lanes, 1);
    Val mask = c.columns < c.lanes ? k_op(k, OP_LT, j, k_int(k, c.columns), 0) : 0,
        x = k_load(k, in, add(k, p, add(k, mulc(k, j, c.stride), r)), mask);
    if (c.scaled)
        x = k_op(k, OP_MUL, x, k_num(k, DAV_F32, 0.37), 0);
    k_store(k, panel, add(k, mulc(k, r, c.lanes), j), x, 0);
    k_end(k, j);
    k_end(k, r);
    j = k_for(k, LOOP_VECTOR, 0, c.turns * c.lanes, 1);
    k_store(k, out, add(k, mulc(k, p, c.turns * c.lanes), j), k_load(k, panel, j, 0), 0);
    k_end(k, j);
    k_end(k, p);
    return k;
}

static void test_columns_become_rows(void **state)
{
    static const CopyCase cases[] = {{16, 16, 16, 16, false, DAV_U32},   {40, 64, 64, 40, true, DAV_F32},
                                     {20, 80, 77, 20, false, DAV_U32},   {33, 48, 1, 33, true, DAV_F32},
                                     {80, 128, 120, 96, false, DAV_F32}, {15, 32, 32, 15, false, DAV_U32}};
    Fix *f = *state;
    CpuTarget wide;
    assert_true(cpu_target_named(&f->err, "skylake-avx512", &wide));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const Graph *k = copy_kernel(f, cases[i]);
        Buf assembly = {0};
        kernel_check(&(KernelCase){.kernel = k});
        assert_true(jit_text(&wide, &f->err, k, NULL, &assembly, NULL));
        assert_int_equal(strstr(assembly.at, "gather") != NULL, cases[i].turns < 16);
        buf_free(&assembly);
    }
}

/* ---- tiles that are stored as they are ---- */
typedef struct StoreCase {
    int nr, depth, gap;
    bool words, causal;
} StoreCase;

static Graph *store_kernel(Fix *f, StoreCase c)
{
    enum { ROWS = 16, TILES = 3 };
    char name[120];
    snprintf(name, sizeof name, "16x%d, depth %d, rows %d more apart%s%s", c.nr, c.depth, c.gap,
             c.words ? ", bits" : "", c.causal ? ", chosen" : "");
    Graph *k = kernel_new(f->arena, &f->err, name);
    int64_t stride = c.nr + c.gap;
    DavDtype to = c.words ? DAV_U32 : DAV_F32;
    Val a = k_buf(k, "a", BUF_IN, 0, vec(DAV_BF16, TILES * ROWS * c.depth)),
        b = k_buf(k, "b", BUF_IN, 1, vec(DAV_BF16, (int64_t)c.depth * c.nr));
    Val place = k_buf(k, "place", BUF_SCRATCH, 2, vec(to, 2 * ROWS * stride)),
        out = k_buf(k, "out", BUF_OUT, 3, vec(DAV_F32, TILES * ROWS * c.nr));
    Val p = k_for(k, LOOP_PARALLEL, 0, TILES, 1), tile = k_tile(k, ROWS, c.nr), zero = k_int(k, 0);
    k_tile_contract(k, &(TileContract){.tile = tile,
                                       .a = a,
                                       .b = b,
                                       .a_off = mulc(k, p, (int64_t)ROWS * c.depth),
                                       .row0 = zero,
                                       .b_off = zero,
                                       .rows = k_int(k, ROWS),
                                       .k = k_int(k, c.depth),
                                       .a_row_step = 1,
                                       .a_div = 1,
                                       .a_row_stride = c.depth,
                                       .a_k_stride = 1,
                                       .b_col_stride = 1,
                                       .b_packed = 1});
    Val start = k_op(k, OP_REM, p, k_int(k, 2), 0), r = k_for(k, LOOP_ROW, 0, ROWS, 1),
        j = k_for(k, LOOP_VECTOR, 0, c.nr, 1);
    Val x = k_tile_get(k, tile, r, j);
    if (c.causal)
        x = k_op(k, OP_SELECT, k_op(k, OP_GE, r, j, 0), x, k_num(k, DAV_F32, -1));
    k_store(k, place, add(k, mulc(k, add(k, mulc(k, start, ROWS), r), stride), j),
            c.words ? k_bitcast(k, x, DAV_U32) : x, 0);
    k_end(k, j);
    k_end(k, r);
    r = k_for(k, LOOP_SERIAL, 0, ROWS, 1);
    j = k_for(k, LOOP_VECTOR, 0, c.nr, 1);
    Val y = k_load(k, place, add(k, mulc(k, add(k, mulc(k, start, ROWS), r), stride), j), 0);
    k_store(k, out, add(k, mulc(k, add(k, mulc(k, p, ROWS), r), c.nr), j), c.words ? k_bitcast(k, y, DAV_F32) : y, 0);
    k_end(k, j);
    k_end(k, r);
    k_end(k, p);
    return k;
}

static int count_of(const char *text, const char *word)
{
    int n = 0;
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
        n++;
    return n;
}

static void test_stored_tiles(void **state)
{
    static const StoreCase cases[] = {{64, 64, 0, false, false},  {128, 96, 16, true, false}, {16, 32, 3, false, false},
                                      {48, 160, 16, true, false}, {240, 256, 0, true, false}, {32, 64, 0, false, true}};
    Fix *f = *state;
    CpuTarget emulated, real;
    assert_true(cpu_target_named(&f->err, "cooperlake", &emulated));
    emulated.name = "AMX emulated";
    emulated.amx = emulated.amx_emulated = true;
    assert_true(cpu_target_named(&f->err, "sapphirerapids", &real));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const Graph *k = store_kernel(f, cases[i]);
        KernelCase check = {.kernel = k, .tolerance = 1e-3};
        Buf assembly = {0};
        if (!cpu_target_lacks("cooperlake"))
            kernel_check_on(&check, &emulated);
        if (!cpu_target_lacks("sapphirerapids"))
            kernel_check_on(&check, &real);
        assert_true(jit_text(&real, &f->err, k, NULL, &assembly, NULL));
        assert_int_equal(count_of(assembly.at, "tdpbf16ps"),
                         cases[i].causal ? cases[i].nr / 16 : cases[i].nr / 16 * cases[i].depth / 32);
        assert_int_equal(count_of(assembly.at, "tilestored"), cases[i].nr / 16);
        assert_int_equal(strstr(assembly.at, "(%rsp") != NULL,
                         cases[i].causal); /* a tile in memory of its own is on the stack */
        buf_free(&assembly);
    }
    if (cpu_target_lacks("cooperlake"))
        print_message("SKIPPED: the emulation needs AVX512-BF16\n");
    if (cpu_target_lacks("sapphirerapids"))
        print_message("SKIPPED: AMX itself, this machine lacks %s\n", cpu_target_lacks("sapphirerapids"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_powers_f32, setup, teardown),
        cmocka_unit_test_setup_teardown(test_powers_bf16, setup, teardown),
        cmocka_unit_test_setup_teardown(test_columns_become_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stored_tiles, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
