/* What vector loops in lines (codegen/cuda/lines.c) compute.  The device is the stand-in, which stops at a misaligned access, and at
 * races. */
#include "ir/graph.h"
#include "runtime/program.h"
#include "support/cuda.h"
#include "support/line_graphs.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 3 };

/* Lengths at which lines begin, change, and do not divide; several lines a thread. */
static const int64_t lengths[] = {32, 33, 62, 64, 66, 68, 130, 256, 260, 1028, 2056, 5000};
enum { LENGTHS = sizeof lengths / sizeof *lengths, LONGEST = 5008 };

static void run(Graph *g, const char *inplace, void **in, void **out)
{
    Err err = {0};
    Program *p = program_compile(&err, g, &(ProgramOptions){.device = "cuda", .inplace = inplace});
    if (!p || !program_run(p, &err, in, out, 1, 1))
        fail_msg("%s", err.text);
    program_free(p);
}

static uint16_t bf16_of(float f) /* of few bits: exact */
{
    uint32_t w;
    memcpy(&w, &f, sizeof w);
    return (uint16_t)(w >> 16);
}

static float of_bf16(uint16_t h)
{
    uint32_t w = (uint32_t)h << 16;
    float f;
    memcpy(&f, &w, sizeof f);
    return f;
}

static void every_width_keeps_its_lane(void **state)
{
    (void)state;
    static uint8_t mask[ROWS * LONGEST], m[ROWS * LONGEST];
    static uint16_t half[ROWS * LONGEST], z[ROWS * LONGEST];
    static float single[ROWS * LONGEST], y[ROWS * LONGEST], one[ROWS];
    static int64_t index[ROWS * LONGEST], n[ROWS * LONGEST];
    for (int l = 0; l < LENGTHS; l++) {
        Err err = {0};
        Arena *a = arena_new();
        Graph *g = mixed_graph(a, &err, ROWS, lengths[l]);
        const char *const inputs[] = {"mask", "half", "single", "one", "index"};
        void *all[] = {mask, half, single, one, index}, *in[5];
        int count;
        Val *input = graph_inputs(g, a, &count);
        assert_int_equal(count, 5);
        for (int i = 0; i < count; i++)
            for (int j = 0; j < 5; j++)
                if (strcmp(attr_s(node_of(g, input[i]), A_NAME), inputs[j]) == 0)
                    in[i] = all[j];
        for (int64_t i = 0; i < ROWS * lengths[l]; i++) {
            mask[i] = i % 3 == 0 || i % 7 == 2;
            half[i] = bf16_of((float)(i % 16));
            single[i] = (float)(16 * (i % 8));
            index[i] = INT64_C(5000000000) * (i % 2) + i;
            one[i / lengths[l]] = (float)(-1 - i / lengths[l]);
        }
        run(g, NULL, in, (void *[]){y, z, n, m});
        for (int64_t i = 0; i < ROWS * lengths[l]; i++) {
            float expected = mask[i] ? (float)(-1 - i / lengths[l]) : (float)(i % 16 + 16 * (i % 8));
            if (y[i] != expected || of_bf16(z[i]) != expected || m[i] != !mask[i] || n[i] != index[i] + !mask[i])
                fail_msg("length %lld, element %lld: %g %g %d %lld", (long long)lengths[l], (long long)i, (double)y[i],
                         (double)of_bf16(z[i]), m[i], (long long)n[i]);
        }
        arena_free(a);
    }
}

/* x of row r: whole numbers of which no two neighbours are alike, a softmax's among the lowest for most lanes. */
static double x_at(int64_t row, int64_t column)
{
    return (double)((column * 5 + row * 3) % 11) - 4;
}

static void fill(DavDtype t, int64_t first, int64_t rows, int64_t length, void *x)
{
    for (int64_t i = 0; i < rows * length; i++) {
        float f = (float)x_at(first + i / length, i % length);
        if (t == DAV_BF16)
            ((uint16_t *)x)[i] = bf16_of(f);
        else
            ((float *)x)[i] = f;
    }
}

static double read_at(DavDtype t, const void *y, int64_t i)
{
    return t == DAV_BF16 ? (double)of_bf16(((const uint16_t *)y)[i]) : (double)((const float *)y)[i];
}

typedef double (*Expected)(int64_t row, int64_t column, int64_t length);

static double softmax_of(int64_t row, int64_t column, int64_t length)
{
    double sum = 0;
    for (int64_t i = 0; i < length; i++)
        sum += exp(x_at(row, i));
    return exp(x_at(row, column)) / sum;
}

static double scale_at(int64_t column)
{
    return 1 + (double)(column % 5);
}

static double norm_of(int64_t row, int64_t column, int64_t length)
{
    double mean = 0, square = 0;
    for (int64_t i = 0; i < length; i++)
        mean += x_at(row, i) / (double)length;
    for (int64_t i = 0; i < length; i++)
        square += (x_at(row, i) - mean) * (x_at(row, i) - mean) / (double)length;
    return (x_at(row, column) - mean) / sqrt(square + 1e-5) * scale_at(column);
}

static float x[ROWS * LONGEST], y[ROWS * LONGEST], z[ROWS * LONGEST], w[LONGEST];

static void check_rows(Graph *(*make)(Arena *, Err *, DavDtype, int64_t, int64_t), Expected expected, double slack,
                       DavDtype t, int64_t length)
{
    Err err = {0};
    Arena *a = arena_new();
    fill(t, 0, ROWS, length, x);
    run(make(a, &err, t, ROWS, length), "x=y", (void *[]){x, w}, (void *[]){y});
    for (int64_t row = 0; row < ROWS; row++)
        for (int64_t at = 0; at < length; at += 1 + length / 13) {
            double want = expected(row, at, length), got = read_at(t, y, row * length + at);
            if (fabs(got - want) > (t == DAV_BF16 ? 4e-3 : 3e-6) * fabs(want) + slack)
                fail_msg("length %lld, row %lld, lane %lld: %g, expected %g", (long long)length, (long long)row, (long long)at, got, want);
        }
    arena_free(a);
}

static void rows_in_lines_are_right(void **state)
{
    (void)state;
    for (int64_t i = 0; i < LONGEST; i++)
        w[i] = (float)scale_at(i);
    for (int l = 0; l < LENGTHS; l++)
        for (int half = 0; half < 2; half++) {
            check_rows(softmax_graph, softmax_of, 0, half ? DAV_BF16 : DAV_F32, lengths[l]);
            check_rows(norm_graph, norm_of, 2e-6, half ? DAV_BF16 : DAV_F32, lengths[l]);
        }
}

/* A column that does not begin at a line, of rows that do. */
static void slices_are_right(void **state)
{
    (void)state;
    for (int l = 0; l < LENGTHS; l++) {
        Err err = {0};
        Arena *a = arena_new();
        const int64_t length = lengths[l];
        fill(DAV_F32, 0, ROWS, length + 8, x);
        run(slices_graph(a, &err, false, ROWS, length), NULL, (void *[]){x}, (void *[]){y});
        for (int64_t i = 0; i < ROWS * length; i++)
            assert_true((double)y[i] == x_at(i / length, i % length + 1));
        run(slices_graph(a, &err, true, ROWS, length), NULL, (void *[]){x}, (void *[]){y});
        for (int64_t row = 0; row < ROWS; row++) {
            double sum = 0;
            for (int64_t i = 0; i < length; i++)
                sum += exp(x_at(row, i + 1));
            for (int64_t i = 0; i < length; i++)
                assert_true(fabs((double)y[row * length + i] * sum / exp(x_at(row, i + 1)) - 1) < 3e-6);
        }
        arena_free(a);
    }
}

/* Rows begin at lines, where they end none need. */
static void rows_end_between_lines(void **state)
{
    (void)state;
    static const int64_t length[] = {64, 66, 68, 130, 136, 260, 261, 1026, 2057};
    for (size_t l = 0; l < sizeof length / sizeof *length; l++) {
        Err err = {0};
        Arena *a = arena_new();
        const int64_t width = (length[l] + 3) / 4 * 4; /* as long as x's rows are a multiple of a line's lanes */
        fill(DAV_F32, 0, ROWS, width + 8, x);
        run(sums_graph(a, &err, ROWS, length[l], width + 8), NULL, (void *[]){x}, (void *[]){y});
        for (int64_t row = 0; row < ROWS; row++) {
            double sum = 0;
            for (int64_t i = 0; i < length[l]; i++)
                sum += x_at(row, i);
            assert_true((double)y[row] == sum);
        }
        arena_free(a);
    }
}

/* Arrays of one axis go to several teams: whole parts of 4096 and a rest. */
static void flat_arrays_are_right(void **state)
{
    (void)state;
    static const int64_t size[] = {64, 4096, 4100, 4104, 12289, 14992, 15000};
    static uint16_t half[3][LONGEST * ROWS];
    for (size_t l = 0; l < sizeof size / sizeof *size; l++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            Err err = {0};
            Arena *a = arena_new();
            const DavDtype t = bf16 ? DAV_BF16 : DAV_F32;
            void *second = bf16 ? (void *)half[1] : y, *result = bf16 ? (void *)half[2] : z;
            fill(t, 0, 1, size[l], bf16 ? (void *)half[0] : x);
            fill(t, 1, 1, size[l], second);
            run(flat_graph(a, &err, t, size[l]), NULL, (void *[]){bf16 ? (void *)half[0] : x, second}, (void *[]){result});
            for (int64_t i = 0; i < size[l]; i++)
                if (read_at(t, result, i) != x_at(0, i) + x_at(1, i) * x_at(1, i))
                    fail_msg("%lld of %lld: %g", (long long)i, (long long)size[l], read_at(t, result, i));
            arena_free(a);
        }
}

/* The bits of a row, however many there are. */
static void a_row_is_the_same_in_any_batch(void **state)
{
    (void)state;
    enum { MANY = 70, LENGTH = 510 };
    static float in[MANY * LENGTH], all[MANY * LENGTH], one[MANY * LENGTH];
    static const int length[] = {260, 258, 510}; /* whose rows end at lines of 16 bytes and of 8 */
    Err err = {0};
    Arena *a = arena_new();
    for (int i = 0; i < MANY * LENGTH; i++)
        in[i] = 0.37f * (float)((i * 131) % 97) - 11.3f;
    static const int batch[] = {1, 7, 64};
    for (size_t l = 0; l < sizeof length / sizeof *length; l++) {
        const int n = length[l];
        run(norm_graph(a, &err, DAV_F32, MANY, n), NULL, (void *[]){in, w}, (void *[]){all});
        for (size_t b = 0; b < sizeof batch / sizeof *batch; b++) {
            run(norm_graph(a, &err, DAV_F32, batch[b], n), NULL, (void *[]){in + 3 * n, w}, (void *[]){one});
            assert_memory_equal(one, all + 3 * n, (size_t)(batch[b] * n) * sizeof *one);
        }
    }
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_width_keeps_its_lane),
        cmocka_unit_test(rows_in_lines_are_right),
        cmocka_unit_test(slices_are_right),
        cmocka_unit_test(rows_end_between_lines),
        cmocka_unit_test(flat_arrays_are_right),
        cmocka_unit_test(a_row_is_the_same_in_any_batch),
    };
    setenv("DAV_STANDIN_RACE", "1", 1);
    cuda_choose();
    if (!cuda_is_there())
        return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
