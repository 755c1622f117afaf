/* dav doctor: what this machine can do. */
#include "cli/cli.h"
#include "codegen/codegen.h"
#include "codegen/cuda/cuda.h"
#include "runtime/cuda/blaslt.h"
#include "runtime/cuda/driver.h"
#include "runtime/program.h"
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(const char *what, const char *text)
{
    printf("%-12s %s\n", what, text);
}

static bool doctor_cpu(Err *err)
{
    CpuTarget t;
    const char *forced = getenv("DAV_CPU");
    if (!cpu_target(err, forced, &t))
        return false;
    char text[400];
    snprintf(text, sizeof text, "%s (%s): %d-byte vectors, tiles of %d x %d%s%s%s", t.name,
             forced && *forced ? "asked for by DAV_CPU" : "the highest level that this processor has", t.vector_bytes, t.mr, t.nr,
             t.fma ? ", FMA" : "", t.avx512_bf16 ? ", AVX512-BF16" : "", t.amx ? ", AMX" : "");
    say("cpu", text);
    for (int i = 0; i < cpu_target_count(); i++) {
        const char *lacks = cpu_target_lacks(cpu_target_name(i));
        if (lacks)
            printf("%-12s level %s needs %s\n", "", cpu_target_name(i), lacks);
    }
    snprintf(text, sizeof text, "%d (OpenMP)", omp_get_max_threads());
    say("threads", text);
    say("llvm", jit_llvm_version());
    return true;
}

static void doctor_cache(void)
{
    Buf dir = {0};
    if (!jit_cache_dir(&dir))
        say("cache", "none: DAV_CACHE_DIR, XDG_CACHE_HOME and HOME are not set; kernels are compiled in every process");
    else
        printf("%-12s %s%s\n", "cache", dir.at,
               !file_exists(dir.at)            ? " (made when the first kernel is compiled)"
               : access(dir.at, W_OK) == 0     ? ""
                                               : " (cannot be written: kernels are compiled in every process)");
    buf_free(&dir);
}

static void say_why(const char *what, const Err *err)
{
    say(what, err->text + (strncmp(err->text, "CUDA: ", 6) == 0 ? 6 : 0));
}

/* Found, or exactly why not; that CUDA is missing is no failure.  True: there is a device and what it needs. */
static bool doctor_cuda(void)
{
    Err err = {0};
    CudaDevice d = {0};
    bool found = cuda_device_open(&d, &err, 0);
    if (found)
        printf("%-12s %s, sm_%d, %zu MB\n", "cuda", d.name, d.sm, d.memory >> 20);
    else
        say_why("cuda", &err);
    cuda_device_close(&d);
    err_clear(&err);
    char version[64];
    if (nvrtc_version(&err, version))
        printf("%-12s NVRTC %s\n", "", version);
    else
        say_why("", &err);
    found &= err.kind == ERR_NONE;
    err_clear(&err);
    if (blaslt_version(&err, version))
        printf("%-12s cuBLASLt %s\n", "", version);
    else
        say_why("", &err);
    err_clear(&err);
    return found;
}

typedef struct SelfTest { Err *err; const char *device; } SelfTest;

/* softmax-like arithmetic compiled and run, against libm */
static bool self_test(void *arg)
{
    const SelfTest *test = arg;
    Err *err = test->err;
    enum { N = 37 };
    Arena *a = arena_new();
    Graph *g = graph_new(a, err, "selftest");
    Type t = type_make(DAV_F32, 2, (int64_t[]){3, N});
    Val x = g_input(g, "x", ROLE_DATA, t), e = g_un(g, OP_EXP, x);
    graph_output(g, "y", g_bin(g, OP_DIV, e, g_broadcast_like(g, g_reduce_mask(g, OP_SUM, e, 2), e)));
    Program *p = program_compile(err, g, &(ProgramOptions){.compile = {.precision = DAV_F32}, .device = test->device});
    arena_free(a);
    if (!p)
        return false;
    float in[3 * N], out[3 * N];
    double worst = 0;
    for (int i = 0; i < 3 * N; i++)
        in[i] = 0.1f * (float)(i % 23) - 1;
    bool ok = program_run(p, err, (void *[]){in}, (void *[]){out}, 1, 0);
    for (int r = 0; ok && r < 3; r++) {
        double sum = 0;
        for (int i = 0; i < N; i++)
            sum += exp(in[r * N + i]);
        for (int i = 0; i < N; i++)
            worst = fmax(worst, fabs(out[r * N + i] - exp(in[r * N + i]) / sum));
    }
    program_free(p);
    if (ok)
        printf("%-12s %s: softmax on %s differs from libm by %.1e\n", "self-test", worst < 1e-7 ? "passed" : "FAILED",
               strcmp(test->device, "cpu") == 0 ? "the CPU" : test->device, worst);
    return ok && (worst < 1e-7 || err_env(err, "self-test: compiled code gives wrong results on this machine"));
}

int cmd_doctor(int argc, char **argv)
{
    Err err = {0};
    int n;
    const CliUse use = {.synopsis = "doctor", .doc = "Tells what this machine can do: processor level, LLVM, CUDA, cache, a self-test."};
    if (cli_parse(&err, &use, argc, argv, NULL, &n) && doctor_cpu(&err)) {
        doctor_cache();
        bool cuda = doctor_cuda();
        if (mem_protect(&err, self_test, &(SelfTest){&err, "cpu"}) && cuda)
            mem_protect(&err, self_test, &(SelfTest){&err, "cuda"});
    }
    return cli_end(&err);
}
