/* One attention, forward or forward and backward: milliseconds of each of RUNS runs, one a line.
 * usage: attention BATCH HEADS QUERIES KEYS WIDTH f32|bf16 forward|backward RUNS [THREADS] */
#include "frontend/net.h"
#include "runtime/program.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void *numbers(const Type *t, unsigned *seed)
{
    int64_t n = type_count(t);
    float *x = aligned_alloc(64, ((size_t)n * sizeof *x + 63) / 64 * 64);
    for (int64_t i = 0; x && i < n; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        x[i] = (float)(*seed >> 8) / (float)(1 << 23) - 1;
        if (t->dtype == DAV_BF16) /* the upper half is the number in bf16 */
            memcpy((char *)x + 2 * i, (char *)&x[i] + 2, 2);
    }
    return x;
}

int main(int argc, char **argv)
{
    if (argc < 9) {
        fprintf(stderr, "usage: %s BATCH HEADS QUERIES KEYS WIDTH f32|bf16 forward|backward RUNS [THREADS]\n", argv[0]);
        return 2;
    }
    int64_t b = atoi(argv[1]), h = atoi(argv[2]), l = atoi(argv[3]), s = atoi(argv[4]), d = atoi(argv[5]);
    bool backward = strcmp(argv[7], "backward") == 0;
    int runs = atoi(argv[8]), threads = argc > 9 ? atoi(argv[9]) : 0;
    Arena *arena = arena_new();
    Err err = {0};
    DavNet *n = net_new(arena, &err, "attention");
    DavDtype t = strcmp(argv[6], "bf16") == 0 ? DAV_BF16 : DAV_F32; /* of the inputs, as PyTorch has them */
    DavVal x[] = {dav_input(n, "q", t, b, h, l, d), dav_input(n, "k", t, b, h, s, d), dav_input(n, "v", t, b, h, s, d)}, grad[3];
    for (int i = 0; i < 3; i++)
        x[i] = dav_cast(x[i], DAV_F32);
    DavVal out = dav_attention(x[0], x[1], x[2]);
    dav_output(n, "out", out);
    if (backward) {
        DavVal w = dav_cast(dav_input(n, "w", t, b, h, l, d), DAV_F32);
        dav_grads(dav_sum(dav_mul(out, w), 0, 1, 2, 3), x, 3, grad);
        dav_output(n, "dq", grad[0]);
        dav_output(n, "dk", grad[1]);
        dav_output(n, "dv", grad[2]);
    }
    ProgramOptions o = {.device = "cpu", .compile.precision = t};
    Program *p = program_compile(&err, n->g, &o);
    if (!p) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    void *in[4], *to[4];
    unsigned seed = 1;
    for (int i = 0; i < program_input_count(p); i++) {
        Type t = program_input_type(p, i);
        in[i] = numbers(&t, &seed);
    }
    for (int i = 0; i < program_output_count(p); i++) {
        Type t = program_output_type(p, i);
        to[i] = numbers(&t, &seed);
    }
    for (int i = 0; i <= runs; i++) {
        double start = now_ms();
        if (!program_run(p, &err, in, to, 1, threads)) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        if (i)
            printf("%.4f\n", now_ms() - start);
    }
    for (int i = 0; i < program_input_count(p); i++)
        free(in[i]);
    for (int i = 0; i < program_output_count(p); i++)
        free(to[i]);
    program_free(p);
    net_free(n);
    arena_free(arena);
    return 0;
}
