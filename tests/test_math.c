/* Emitted elementary functions against f64 libm: every 97th f32, and f64 samples, at every CPU level that runs here.
 * DAV_TEST_EXHAUSTIVE takes every f32 of the function that it names (exp, sin, ...), or of all of them when it is 1. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "codegen/codegen.h"
#include "ir/dtype.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4096 };

typedef struct Case { Op op; double lo, hi, max_ulp, max_ulp64; double (*ref)(double); } Case;

static double rsqrt_(double x) { return 1 / sqrt(x); }
static double roundeven_(double x) { return nearbyint(x); }

static const Case cases[] = {
    {OP_EXP, -INFINITY, INFINITY, 2, 2, exp},       {OP_EXPM1, -INFINITY, INFINITY, 2, 3, expm1},
    {OP_LOG, -INFINITY, INFINITY, 2, 2, log},       {OP_LOG1P, -INFINITY, INFINITY, 2, 3, log1p},
    {OP_SIN, -1e5, 1e5, 2, 3, sin},                 {OP_COS, -1e5, 1e5, 2, 3, cos},
    {OP_ATAN, -INFINITY, INFINITY, 2, 3, atan},
    {OP_TANH, -INFINITY, INFINITY, 2, 4, tanh},     {OP_ERF, -INFINITY, INFINITY, 2, 4, erf},
    {OP_SQRT, -INFINITY, INFINITY, 0.5, 0.5, sqrt}, {OP_RSQRT, -INFINITY, INFINITY, 2, 2, rsqrt_},
    {OP_FLOOR, -INFINITY, INFINITY, 0, 0, floor},   {OP_CEIL, -INFINITY, INFINITY, 0, 0, ceil},
    {OP_ROUND, -INFINITY, INFINITY, 0, 0, roundeven_},
};
enum { CASES = sizeof cases / sizeof *cases };

/* y[i] = op(x[i]) for BLOCK elements. */
static Graph *unary_kernel(Arena *a, Err *err, Op op, DavDtype t)
{
    Graph *k = kernel_new(a, err, op_info[op].text);
    int64_t n = BLOCK;
    Val x = k_buf(k, "x", BUF_IN, 0, type_make(t, 1, &n)), y = k_buf(k, "y", BUF_OUT, 1, type_make(t, 1, &n));
    Val p = k_for(k, LOOP_PARALLEL, 0, 1, 1), j = k_for(k, LOOP_VECTOR, 0, n, 1);
    k_store(k, y, j, k_op(k, op, k_load(k, x, j, 0), 0, 0), 0);
    k_end(k, j);
    k_end(k, p);
    return k;
}

/* Distance in units in the last place of the f32 (f64) nearest to want; NaN and infinities must be met exactly. */
static double ulp_off(double got, double want, DavDtype t)
{
    double nearest = t == DAV_F32 ? (double)(float)want : want;
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got) ? 0 : INFINITY;
    if (isinf(nearest) || isinf(got))
        return got == nearest ? 0 : isinf(nearest) && !isinf(want) && t == DAV_F32 && fabs(got) > 3.40282e38 ? 1 : INFINITY;
    double unit;
    if (t == DAV_F32) {
        uint32_t e = f32_bits((float)nearest) >> 23 & 255;
        uint64_t bits = (uint64_t)((e ? e : 1) + 1023 - 127 - 23) << 52;
        memcpy(&unit, &bits, 8);
    } else {
        unit = fmax(nextafter(fabs(nearest), INFINITY) - fabs(nearest), 0x1p-1074);
    }
    return fabs(got - want) / unit;
}

/* Every CPU level that runs here, side by side: the reference is computed once for all of them. */
enum { MAX_LEVELS = 8 };
typedef struct Level { const char *name; Jit *jit; KernelCode code[CASES]; double ulp, at; } Level;
typedef struct Levels { Level level[MAX_LEVELS]; int n; Arena *arena; DavDtype type; } Levels;

static void open_levels(Levels *l, DavDtype t)
{
    Err err = {0};
    *l = (Levels){.arena = arena_new(), .type = t};
    const Graph *kernels[CASES];
    for (int i = 0; i < CASES; i++)
        kernels[i] = unary_kernel(l->arena, &err, cases[i].op, t);
    for (int i = 0; i < cpu_target_count() && l->n < MAX_LEVELS; i++) {
        if (cpu_target_lacks(cpu_target_name(i)))
            continue;
        Level *v = &l->level[l->n++];
        CpuTarget target;
        v->name = cpu_target_name(i);
        if (!cpu_target(&err, v->name, &target) || !(v->jit = jit_new(&err, &target, NULL)) ||
            !jit_compile(v->jit, &err, kernels, CASES, 0, v->code))
            fail_msg("%s", err.text);
    }
    assert_int_not_equal(l->n, 0);
}

static void close_levels(Levels *l)
{
    for (int i = 0; i < l->n; i++)
        jit_free(l->level[i].jit);
    arena_free(l->arena);
}

static double element(DavDtype t, const void *p, int i)
{
    return t == DAV_F32 ? (double)((const float *)p)[i] : ((const double *)p)[i];
}

typedef struct Worst { double ulp, at; } Worst;

static Worst worst_of(const Case *c, DavDtype t, const void *x, const void *y, const double *want)
{
    Worst w = {0, 0};
    for (int i = 0; i < BLOCK; i++) {
        double in = element(t, x, i);
        if (!(in >= c->lo && in <= c->hi) && !isnan(in))
            continue;
        double off = ulp_off(element(t, y, i), want[i], t);
        if (off > w.ulp)
            w = (Worst){off, in};
    }
    return w;
}

static void check_block(Levels *l, int which, const void *x)
{
    static _Alignas(64) double y[2][BLOCK], want[BLOCK];
    const Case *c = &cases[which];
    for (int i = 0; i < BLOCK; i++)
        want[i] = c->ref(element(l->type, x, i));
    Worst w = {0, 0};
    for (int v = 0; v < l->n; v++) {
        void *out = y[v % 2], *before = y[(v + 1) % 2];
        l->level[v].code[which].fn((void *const[]){(void *)(uintptr_t)x, out}, 0, 1, NULL);
        if (v == 0 || memcmp(out, before, BLOCK * dav_dtype_size(l->type)) != 0)
            w = worst_of(c, l->type, x, out, want);
        if (w.ulp > l->level[v].ulp)
            l->level[v].ulp = w.ulp, l->level[v].at = w.at;
    }
}

static void sweep_f32(Levels *l, int which)
{
    static const float special[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 1, -1, 0x1p-149f, -0x1p-149f, 0x1p-126f, 88.72283f, 88.72284f,
                                    -103.97f, -103.98f, -87.34f, 3.4028235e38f, -3.4028235e38f, 0.5f, 1.5f, 2.5f, -0.5f, 8388607.5f};
    static _Alignas(64) float x[BLOCK];
    const char *all = getenv("DAV_TEST_EXHAUSTIVE");
    const uint64_t stride = all && (strcmp(all, "1") == 0 || strcmp(all, op_info[cases[which].op].text) == 0) ? 1 : 97;
    for (uint64_t u = 0; u < (UINT64_C(1) << 32);) {
        for (int i = 0; i < BLOCK; i++, u += stride)
            x[i] = f32_from_bits((uint32_t)u);
        check_block(l, which, x);
    }
    for (int i = 0; i < BLOCK; i++)
        x[i] = special[i % (int)(sizeof special / sizeof *special)];
    check_block(l, which, x);
}

/* f64 arguments: random bits of every exponent, and dense between -20 and 20. */
static void sweep_f64(Levels *l, int which)
{
    static _Alignas(64) double x[BLOCK];
    uint64_t s = 0x9e3779b97f4a7c15u;
    for (int b = 0; b < 100; b++) {
        for (int i = 0; i < BLOCK; i++) {
            s ^= s << 13, s ^= s >> 7, s ^= s << 17;
            if (b % 2)
                x[i] = ((double)(s >> 11) * 0x1p-53 - 0.5) * 40;
            else
                memcpy(&x[i], &s, 8);
        }
        check_block(l, which, x);
    }
}

static void check_all(DavDtype t)
{
    static Levels l;
    open_levels(&l, t);
    int bad = 0;
    for (int i = 0; i < CASES; i++) {
        for (int v = 0; v < l.n; v++)
            l.level[v].ulp = l.level[v].at = 0;
        t == DAV_F32 ? sweep_f32(&l, i) : sweep_f64(&l, i);
        for (int v = 0; v < l.n; v++) {
            print_message("%s %-6s %-15s %.3f ulp at %.9g\n", dav_dtype_name(t), op_info[cases[i].op].text, l.level[v].name,
                          l.level[v].ulp, l.level[v].at);
            bad += l.level[v].ulp > (t == DAV_F32 ? cases[i].max_ulp : cases[i].max_ulp64);
        }
    }
    close_levels(&l);
    assert_int_equal(bad, 0);
}

static void test_f32(void **state)
{
    (void)state;
    check_all(DAV_F32);
}

static void test_f64(void **state)
{
    (void)state;
    check_all(DAV_F64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_f32), cmocka_unit_test(test_f64)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
