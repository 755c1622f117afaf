/* What this machine can do at most, as one JSON line: f32 multiply-adds, and bf16 dot products where the processor has
 * AVX512_BF16, on 1..N threads (GFLOP/s, a multiply-add counts 2).  Inline assembly on registers alone, so that no compiler can
 * take anything away.  Build: cc -O2 -fopenmp peak.c -o peak;  run: peak [THREADS] [SECONDS] */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

/* Twelve independent accumulators hide the latency of two pipes of up to six cycles. */
#define TWELVE(op, reg) \
    op(reg, "0") op(reg, "1") op(reg, "2") op(reg, "3") op(reg, "4") op(reg, "5") op(reg, "6") op(reg, "7") op(reg, "8") \
        op(reg, "9") op(reg, "10") op(reg, "11")
#define ZERO_ZMM(reg, n) "vpxorq %%zmm" n ", %%zmm" n ", %%zmm" n "\n"
#define ZERO_YMM(reg, n) "vpxor %%ymm" n ", %%ymm" n ", %%ymm" n "\n"
#define FMA(reg, n) "vfmadd231ps %%" reg "14, %%" reg "15, %%" reg n "\n"
#define DOT(reg, n) "vdpbf16ps %%zmm14, %%zmm15, %%zmm" n "\n"
#define USED \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm14", "xmm15"

/* NAME runs n rounds of 12 instructions, each doing FLOP operations. */
#define PROBE(name, needs, zero, op, reg) \
    __attribute__((target(needs))) static void name(long n) \
    { \
        __asm__ volatile(TWELVE(zero, reg) zero(reg, "14") zero(reg, "15")::: USED); \
        for (long i = 0; i < n; i++) \
            __asm__ volatile(TWELVE(op, reg)::: USED); \
    }
PROBE(fma_avx2, "avx2,fma", ZERO_YMM, FMA, "ymm")
PROBE(fma_avx512, "avx512f", ZERO_ZMM, FMA, "zmm")
PROBE(dot_bf16, "avx512f,avx512bf16", ZERO_ZMM, DOT, "zmm")

static double gflops(void (*probe)(long), double flop_per_instruction, int threads, double seconds)
{
    long n = 1 << 20;
    double best = 0, spent = 0;
    while (spent < seconds) {
        double start = omp_get_wtime();
#pragma omp parallel num_threads(threads)
        probe(n);
        double took = omp_get_wtime() - start, rate = threads * (double)n * 12 * flop_per_instruction / took * 1e-9;
        best = rate > best ? rate : best;
        spent += took;
        if (took < 0.01)
            n *= 4;
    }
    return best;
}

int main(int argc, char **argv)
{
    int most = argc > 1 ? atoi(argv[1]) : omp_get_num_procs();
    double seconds = argc > 2 ? atof(argv[2]) : 0.2;
    __builtin_cpu_init();
    void (*f32)(long) = __builtin_cpu_supports("avx512f")                                 ? fma_avx512
                        : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? fma_avx2
                                                                                           : NULL;
    if (!f32 || most < 1) {
        fprintf(stderr, "peak: needs AVX2 with FMA, and a number of threads\n");
        return 1;
    }
    printf("{");
    for (int threads = 1; threads <= most; threads++) {
        printf("%s\"f32_%d\": %.1f", threads > 1 ? ", " : "", threads, gflops(f32, f32 == fma_avx512 ? 32 : 16, threads, seconds));
        if (__builtin_cpu_supports("avx512bf16"))
            printf(", \"bf16_%d\": %.1f", threads, gflops(dot_bf16, 64, threads, seconds));
    }
    printf("}\n");
}
