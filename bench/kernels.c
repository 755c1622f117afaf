/* Generated kernels against the machine's multiply-add peak: convolutions of the DNA denoiser's shape (channels last).
 *   bench_kernels [rounds]
 * Each row: layer, threads, ms, GFLOP/s of useful products, percent of the peak measured beside it. */
#include "codegen/codegen.h"
#include "ir/dtype.h"
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 64, TAPS = 9 };

typedef struct Shape { int length, channels, dilation; DavDtype type; } Shape;

/* One thread is timed by its own processor time, so that a busy machine disturbs less. */
static double now(int threads)
{
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- peak: twelve chains of the level's widest multiply-add ---- */
static void fma_zmm(int64_t n)
{
#ifdef __x86_64__
    for (int64_t i = 0; i < n; i++)
        __asm__ volatile("vfmadd231ps %%zmm0,%%zmm1,%%zmm4\nvfmadd231ps %%zmm0,%%zmm1,%%zmm5\nvfmadd231ps %%zmm0,%%zmm1,%%zmm6\n"
                         "vfmadd231ps %%zmm0,%%zmm1,%%zmm7\nvfmadd231ps %%zmm0,%%zmm1,%%zmm8\nvfmadd231ps %%zmm0,%%zmm1,%%zmm9\n"
                         "vfmadd231ps %%zmm0,%%zmm1,%%zmm10\nvfmadd231ps %%zmm0,%%zmm1,%%zmm11\nvfmadd231ps %%zmm0,%%zmm1,%%zmm12\n"
                         "vfmadd231ps %%zmm0,%%zmm1,%%zmm13\nvfmadd231ps %%zmm0,%%zmm1,%%zmm14\nvfmadd231ps %%zmm0,%%zmm1,%%zmm15\n" ::
                             : "xmm0", "xmm1", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
                               "xmm14", "xmm15");
#else
    (void)n;
#endif
}

static void fma_ymm(int64_t n)
{
#ifdef __x86_64__
    for (int64_t i = 0; i < n; i++)
        __asm__ volatile("vfmadd231ps %%ymm0,%%ymm1,%%ymm4\nvfmadd231ps %%ymm0,%%ymm1,%%ymm5\nvfmadd231ps %%ymm0,%%ymm1,%%ymm6\n"
                         "vfmadd231ps %%ymm0,%%ymm1,%%ymm7\nvfmadd231ps %%ymm0,%%ymm1,%%ymm8\nvfmadd231ps %%ymm0,%%ymm1,%%ymm9\n"
                         "vfmadd231ps %%ymm0,%%ymm1,%%ymm10\nvfmadd231ps %%ymm0,%%ymm1,%%ymm11\nvfmadd231ps %%ymm0,%%ymm1,%%ymm12\n"
                         "vfmadd231ps %%ymm0,%%ymm1,%%ymm13\nvfmadd231ps %%ymm0,%%ymm1,%%ymm14\nvfmadd231ps %%ymm0,%%ymm1,%%ymm15\n" ::
                             : "xmm0", "xmm1", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
                               "xmm14", "xmm15");
#else
    (void)n;
#endif
}

static double peak_gflops(const CpuTarget *t, int threads)
{
    int lanes = t->vector_bytes / 4;
    if (!t->fma || lanes < 8 || strcmp(t->name, "neon") == 0)
        return NAN;
    const int64_t n = 4000000;
    double start = now(threads);
#pragma omp parallel num_threads(threads)
    lanes == 16 ? fma_zmm(n) : fma_ymm(n);
    return (double)n * 12 * lanes * 2 * threads / (now(threads) - start) * 1e-9;
}

/* ---- kernels ---- */
static Val product(Graph *k, Val a, int64_t b) { return k_op(k, OP_MUL, a, k_int(k, b), 0); }
static Val sum(Graph *k, Val a, Val b) { return k_op(k, OP_ADD, a, b, 0); }

/* One tile of output rows from row0, with bias, ReLU and store. */
static void conv_tile(Graph *k, const CpuTarget *t, Shape s, const Val buf[4], Val seq, Val panel, Val row0, int rows)
{
    int c = s.channels, nr = t->nr;
    Val tile = k_tile(k, rows, nr);
    Val tap = k_for(k, LOOP_SERIAL, 0, TAPS, 1);
    Val b_off = product(k, sum(k, product(k, panel, TAPS), tap), (int64_t)c * nr);
    Val first = sum(k, row0, sum(k, product(k, tap, s.dilation), k_int(k, -(TAPS / 2) * s.dilation)));
    k_tile_contract(k, &(TileContract){.tile = tile, .a = buf[0], .b = buf[1], .a_off = product(k, seq, (int64_t)s.length * c),
                                       .row0 = first, .b_off = b_off, .rows = k_int(k, rows), .k = k_int(k, c),
                                       .a_row_step = 1, .a_div = 1, .a_ext = s.length, .a_row_stride = c, .a_k_stride = 1,
                                       .b_k_stride = nr, .b_col_stride = 1, .b_packed = 1});
    k_end(k, tap);
    Val r = k_for(k, LOOP_ROW, 0, rows, 1), j = k_for(k, LOOP_VECTOR, 0, nr, 1);
    Val col = sum(k, product(k, panel, nr), j);
    Val y = k_op(k, OP_ADD, k_tile_get(k, tile, r, j), k_load(k, buf[2], col, 0), 0);
    y = k_op(k, OP_MAX, y, k_num(k, DAV_F32, 0), 0);
    Val at = sum(k, product(k, sum(k, product(k, seq, s.length), sum(k, row0, r)), c), col);
    k_store(k, buf[3], at, k_cast(k, y, s.type), 0);
    k_end(k, j);
    k_end(k, r);
}

static Graph *conv_kernel(Arena *a, Err *err, const CpuTarget *t, Shape s)
{
    Graph *k = kernel_new(a, err, "conv");
    int64_t c = s.channels, n = (int64_t)BATCH * s.length * c;
    Val buf[4] = {k_buf(k, "p0", BUF_IN, 0, type_make(s.type, 1, &n)),
                  k_buf(k, "p1", BUF_IN, 1, type_make(s.type, 1, (int64_t[]){TAPS * c * c})),
                  k_buf(k, "p2", BUF_IN, 2, type_make(DAV_F32, 1, &c)), k_buf(k, "p3", BUF_OUT, 3, type_make(s.type, 1, &n))};
    int64_t panels = c / t->nr, tiles = (s.length + t->mr - 1) / t->mr, low = s.length / tiles, tall = s.length % tiles;
    Val i = k_for(k, LOOP_PARALLEL, 0, BATCH * panels, 1);
    Val seq = k_op(k, OP_DIV, i, k_int(k, panels), 0), panel = k_op(k, OP_REM, i, k_int(k, panels), 0);
    for (int kind = 0; kind < 2; kind++) { /* rows in equal tiles: of low + 1 rows, then of low */
        int64_t rows = kind ? low : low + 1, count = kind ? tiles - tall : tall;
        if (!count)
            continue;
        Val rt = k_for(k, LOOP_SERIAL, 0, count, 1);
        conv_tile(k, t, s, buf, seq, panel, sum(k, product(k, rt, rows), k_int(k, kind ? tall * (low + 1) : 0)), (int)rows);
        k_end(k, rt);
    }
    k_end(k, i);
    return k;
}

/* Gradient of the weight, one sequence group an iteration: dw[tap][ci][co] = sum over l x[l + d*tap - p][ci] * dy[l][co]. */
static Graph *dw_kernel(Arena *a, Err *err, const CpuTarget *t, Shape s, int groups)
{
    Graph *k = kernel_new(a, err, "dw");
    int64_t c = s.channels, n = (int64_t)BATCH * s.length * c, dw = groups * TAPS * c * c;
    int mr = t->nregs == 32 ? 13 : 6, nr = t->nregs == 32 ? 2 * t->vector_bytes / 4 : t->nr;
    Val x = k_buf(k, "p0", BUF_IN, 0, type_make(s.type, 1, &n)), dy = k_buf(k, "p1", BUF_IN, 1, type_make(s.type, 1, &n));
    Val out = k_buf(k, "p2", BUF_OUT, 2, type_make(DAV_F32, 1, &dw));
    Val i = k_for(k, LOOP_PARALLEL, 0, (int64_t)groups * TAPS, 1);
    Val g = k_op(k, OP_DIV, i, k_int(k, TAPS), 0), tap = k_op(k, OP_REM, i, k_int(k, TAPS), 0);
    Val shift = sum(k, product(k, tap, s.dilation), k_int(k, -(TAPS / 2) * s.dilation));
    Val lo = k_op(k, OP_MAX, k_op(k, OP_NEG, shift, 0, 0), k_int(k, 0), 0);
    Val hi = k_op(k, OP_MIN, k_op(k, OP_SUB, k_int(k, s.length), shift, 0), k_int(k, s.length), 0);
    Val depth = k_op(k, OP_MAX, k_op(k, OP_SUB, hi, lo, 0), k_int(k, 0), 0);
    for (int tail = 0; tail < 2; tail++) {
        int rows = tail ? (int)(c % mr) : mr;
        if (!rows)
            continue;
        Val rt = k_for(k, LOOP_SERIAL, tail ? c / mr : 0, tail ? c / mr + 1 : c / mr, 1);
        Val ct = k_for(k, LOOP_SERIAL, 0, c / nr, 1);
        Val tile = k_tile(k, rows, nr), row0 = product(k, rt, mr), col0 = product(k, ct, nr);
        Val q = k_for(k, LOOP_SERIAL, 0, BATCH / groups, 1);
        Val seq = product(k, sum(k, product(k, g, BATCH / groups), q), s.length * c);
        k_tile_contract(k, &(TileContract){.tile = tile, .a = x, .b = dy,
                                           .a_off = sum(k, seq, product(k, sum(k, lo, shift), c)), .row0 = row0,
                                           .b_off = sum(k, sum(k, seq, product(k, lo, c)), col0), .rows = k_int(k, rows), .k = depth,
                                           .a_row_step = 1, .a_div = 1, .a_ext = 0, .a_row_stride = 1, .a_k_stride = c,
                                           .b_k_stride = c, .b_col_stride = 1});
        k_end(k, q);
        Val r = k_for(k, LOOP_ROW, 0, rows, 1), j = k_for(k, LOOP_VECTOR, 0, nr, 1);
        Val at = product(k, sum(k, product(k, sum(k, product(k, g, TAPS), tap), c), sum(k, row0, r)), c);
        k_store(k, out, sum(k, at, sum(k, col0, j)), k_tile_get(k, tile, r, j), 0);
        k_end(k, j);
        k_end(k, r);
        k_end(k, ct);
        k_end(k, rt);
    }
    k_end(k, i);
    return k;
}

/* ---- measurement ---- */
static double useful_flops(Shape s)
{
    double rows = 0;
    for (int tap = 0; tap < TAPS; tap++) {
        int shift = abs(tap - TAPS / 2) * s.dilation;
        rows += shift < s.length ? s.length - shift : 0;
    }
    return 2.0 * BATCH * rows * s.channels * s.channels;
}

static void run_all(const KernelCode *code, const Graph *k, void *const *bufs, int threads)
{
    int64_t trip = kernel_trip(k);
#pragma omp parallel num_threads(threads)
    {
        int64_t id = omp_get_thread_num(), n = omp_get_num_threads();
        code->fn(bufs, trip * id / n, trip * (id + 1) / n, NULL);
    }
}

static void *random_buffer(DavDtype t, int64_t n)
{
    char *p = mem_alloc_aligned((size_t)n * 4 + 64, 64);
    for (int64_t i = 0; i < n; i++) {
        float v = (float)rand() / (float)RAND_MAX - 0.5f;
        uint16_t h = bf16_from_f32(v);
        t == DAV_BF16 ? memcpy(p + 2 * i, &h, 2) : memcpy(p + 4 * i, &v, 4);
    }
    return p;
}

static void measure(Jit *jit, Err *err, const char *what, const Graph *k, Shape s, void *const *bufs, int rounds)
{
    KernelCode code;
    AsmCount count = {0};
    if (err->kind || !jit_compile(jit, err, &k, 1, 1, &code) || !jit_text(jit_target(jit), err, k, NULL, NULL, &count)) {
        fprintf(stderr, "%s\n", err->text);
        exit(1);
    }
    for (int threads = 1; threads <= 2 && threads <= omp_get_num_procs(); threads++) {
        double best = 1e9, peak = 0;
        for (int r = 0; r < rounds; r++) {
            double p = peak_gflops(jit_target(jit), threads);
            peak = p > peak || isnan(p) ? p : peak;
            double start = now(threads);
            run_all(&code, k, bufs, threads);
            double took = now(threads) - start;
            best = took < best ? took : best;
        }
        double rate = useful_flops(s) / best * 1e-9;
        peak *= s.type == DAV_BF16 && jit_target(jit)->avx512_bf16 ? 2 : 1;
        printf("%-8s L %3d d %2d %-4s %d threads %8.3f ms %7.1f GFLOP/s %5.1f %% of %.1f  spills %d, compiled in %.1f ms\n", what,
               s.length, s.dilation, dav_dtype_name(s.type), threads, best * 1e3, rate, 100 * rate / peak, peak, count.vector_spills,
               code.compile_ms);
    }
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 9;
    Err err = {0};
    CpuTarget t;
    Jit *jit = cpu_target(&err, NULL, &t) ? jit_new(&err, &t, NULL) : NULL;
    if (!jit) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf("level %s, tile %dx%d\n", t.name, t.mr, t.nr);
    const Shape shapes[] = {{200, 128, 1, DAV_F32}, {200, 128, 16, DAV_F32}, {200, 128, 64, DAV_F32}, {80, 128, 1, DAV_F32},
                            {80, 128, 64, DAV_F32}, {200, 128, 1, DAV_BF16}, {200, 128, 64, DAV_BF16}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        Shape s = shapes[i];
        Arena *a = arena_new();
        int64_t n = (int64_t)BATCH * s.length * s.channels;
        void *bufs[4] = {random_buffer(s.type, n), random_buffer(s.type, TAPS * s.channels * s.channels),
                         random_buffer(DAV_F32, s.channels), random_buffer(s.type, n)};
        void *grad[3] = {bufs[0], bufs[3], random_buffer(DAV_F32, (int64_t)8 * TAPS * s.channels * s.channels)};
        measure(jit, &err, "forward", conv_kernel(a, &err, &t, s), s, bufs, rounds);
        measure(jit, &err, "dW", dw_kernel(a, &err, &t, s, 8), s, grad, rounds);
        for (int b = 0; b < 4; b++)
            mem_free(bufs[b]);
        mem_free(grad[2]);
        arena_free(a);
    }
    jit_free(jit);
    return 0;
}
