/* Every op against NumPy and PyTorch (tests/reference/op_values.py): the graphs of tests/data/op_values.ir on every device.  Floats may differ by
 * rounding, everything else must be equal. */
#include "ir/parse.h"
#include "runtime/program.h"
#include "runtime/safetensors.h"
#include "support/cuda.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static SafeTensors *values;
static char *text;
static Buf report;
static int compared;

static const SafeTensor *value_of(const char *graph, const char *name)
{
    char key[200];
    snprintf(key, sizeof key, "%s/%s", graph, name);
    const SafeTensor *t = safetensors_find(values, key);
    if (!t)
        fail_msg("no tensor %s", key);
    return t;
}

static double float_at(DavDtype dtype, const void *data, int64_t i)
{
    return dtype == DAV_F64 ? ((const double *)data)[i] : ((const float *)data)[i];
}

/* What the program may be off by: a few roundings of the result, or of the terms of a sum. */
static double allowed(const char *graph, double want, double largest, bool f64)
{
    static const char *const sums[] = {"sum", "conv", "matmul", "dot", "outer", "scatter", "fold", "loop"};
    double unit = f64 ? 2.2e-16 : 1.2e-7, terms = 0;
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        if (strstr(graph, sums[i]))
            terms = strstr(graph, "long") ? 32 : 8;
    return unit * (3 * fabs(want) + terms * largest) + 1e-37;
}

/* Largest and smallest numbers are those of f32 even where f64 was expected. */
static bool is_near(double got, double want, double off)
{
    if (isnan(want))
        return isnan(got);
    if (fabs(want) > 3.4028235e38 || isinf(got))
        return (float)got == (float)want;
    return fabs(got - want) <= off;
}

static void compare(const char *device, const char *graph, const char *output, const Type *type, const void *got)
{
    const SafeTensor *want = value_of(graph, output);
    int64_t n = type_count(type);
    if (n != safetensor_count(want))
        fail_msg("%s %s/%s: %lld elements, expected %lld", device, graph, output, (long long)n, (long long)safetensor_count(want));
    compared++;
    if (!dav_dtype_is_float(type->dtype)) {
        if (type->dtype != want->dtype || memcmp(got, want->data, want->bytes) != 0)
            buf_printf(&report, "%s %s/%s: not equal\n", device, graph, output);
        return;
    }
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(((const double *)want->data)[i]))
            largest = fmax(largest, fabs(((const double *)want->data)[i]));
    for (int64_t i = 0; i < n; i++) {
        double a = float_at(type->dtype, got, i), b = ((const double *)want->data)[i];
        if (!is_near(a, b, allowed(graph, b, largest, type->dtype == DAV_F64))) {
            buf_printf(&report, "%s %s/%s[%lld]: %.9g, expected %.9g\n", device, graph, output, (long long)i, a, b);
            return;
        }
    }
}

/* The tensor in the dtype that the program wants: floats are widened for interp64. */
static void *input_data(Arena *arena, const SafeTensor *t, Type want)
{
    char *data = arena_alloc(arena, (size_t)type_count(&want) * dav_dtype_size(want.dtype) + 64);
    data += -(uintptr_t)data & 63;
    if (t->dtype == want.dtype)
        memcpy(data, t->data, t->bytes);
    else if (t->dtype == DAV_F32 && want.dtype == DAV_F64)
        for (int64_t i = 0; i < safetensor_count(t); i++)
            ((double *)(void *)data)[i] = ((const float *)t->data)[i];
    else
        fail_msg("%s: %s where the graph wants %s", t->name, t->file_dtype, dav_dtype_name(want.dtype));
    return data;
}

static void run_graph(const char *device, const Graph *g, Arena *arena)
{
    Err err = {0};
    ProgramOptions options = {.device = device};
    Program *p = program_compile(&err, g, &options);
    if (!p) {
        buf_printf(&report, "%s %s: %s\n", device, g->name, err.text);
        return;
    }
    int nin = program_input_count(p), nout = program_output_count(p);
    void **in = arena_array(arena, void *, nin + 1), **out = arena_array(arena, void *, nout + 1);
    for (int i = 0; i < nin; i++)
        in[i] = input_data(arena, value_of(g->name, program_input_name(p, i)), program_input_type(p, i));
    for (int i = 0; i < nout; i++) {
        Type t = program_output_type(p, i);
        out[i] = arena_alloc(arena, (size_t)type_count(&t) * dav_dtype_size(t.dtype) + 64);
        out[i] = (char *)out[i] + (-(uintptr_t)out[i] & 63);
    }
    if (!program_run(p, &err, in, out, 1, 0))
        buf_printf(&report, "%s %s: %s\n", device, g->name, err.text);
    else
        for (int i = 0; i < nout; i++) {
            Type t = program_output_type(p, i);
            compare(device, g->name, program_output_name(p, i), &t, out[i]);
        }
    program_free(p);
}

/* In f64 nothing is rounded to the narrower float that a cast asks for, so what it does cannot be seen. */
static bool applies(const char *device, const char *graph)
{
    return strcmp(device, "interp64") != 0 || strncmp(graph, "cast_", 5) != 0;
}

static void agrees(void **state)
{
    const char *device = *state;
    if (strcmp(device, "cuda") == 0)
        cuda_or_skip();
    compared = 0;
    report.len = 0;
    for (char *at = text, *end; at && *at; at = end) {
        end = strstr(at, "\n}\n");
        assert_non_null(end);
        end += 3;
        Arena *arena = arena_new();
        Err err = {0};
        Graph *g = graph_parse(arena, &err, "op_values.ir", at, (size_t)(end - at));
        if (!g)
            fail_msg("%s\n%.*s", err.text, (int)(end - at), at);
        if (applies(device, g->name))
            run_graph(device, g, arena);
        arena_free(arena);
        end += strspn(end, "\n");
    }
    if (report.len)
        print_error("%s", report.at);
    assert_true(compared > 170);
    assert_int_equal(report.len, 0);
}

static bool op_is_internal(Op op) /* made by passes, or with a test of its own */
{
    return !(op_info[op].flags & OPF_TENSOR) || op == OP_INVALID || op == OP_FUSE || op == OP_KERNEL || op == OP_HOST || op_is_attention(op);
}

static void every_op_has_a_case(void **state)
{
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        char word[64];
        snprintf(word, sizeof word, " = %s ", op_info[op].text);
        if (!op_is_internal((Op)op) && !strstr(text, word))
            fail_msg("op_values.ir has no case of %s", op_info[op].text);
    }
}

static int load(void **state)
{
    (void)state;
    Err err = {0};
    size_t len;
    values = safetensors_open(&err, DAV_SOURCE_DIR "/tests/data/op_values.safetensors");
    return values && file_read(&err, DAV_SOURCE_DIR "/tests/data/op_values.ir", 1 << 24, &text, &len) ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    safetensors_close(values);
    mem_free(text);
    buf_free(&report);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_has_a_case),
        {"interp64", agrees, NULL, NULL, "interp64"},
        {"interp", agrees, NULL, NULL, "interp"},
        {"kernels", agrees, NULL, NULL, "kernels"},
        {"cpu", agrees, NULL, NULL, "cpu"},
        {"cuda", agrees, NULL, NULL, "cuda"},
    };
    cuda_choose();
    return cmocka_run_group_tests(tests, load, unload);
}
