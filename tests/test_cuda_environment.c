/* What surrounds the CUDA backend: the toolkit's headers, drivers and compilers that are missing, old or broken, a full or lost
 * device; and that the stand-in runs the text that NVRTC compiles. */
#include "codegen/cuda/cuda.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/run.h"
#include "runtime/program.h"
#include "support/command.h"
#include "support/cuda.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

int cuda_headers_compared(void) __attribute__((weak)); /* in the build only where the headers are */

static void declarations_are_the_headers(void **state)
{
    (void)state;
    if (!cuda_headers_compared) {
        print_message("SKIPPED: no CUDA toolkit here, its headers were not compared\n");
        skip();
    }
    print_message("compared with the headers of CUDA %d.%d\n", cuda_headers_compared() / 1000, cuda_headers_compared() % 1000 / 10);
    assert_true(cuda_headers_compared() >= 12000);
}

static char *file_text(const char *path)
{
    Err err = {0};
    char *text;
    size_t len;
    if (!file_read(&err, path, 1 << 24, &text, &len))
        fail_msg("%s", err.text);
    return text;
}

/* ---- what does not start ---- */
static void doctor_says(const char *name, const char *value, const char *words)
{
    setenv(name, value, 1);
    assert_status(dav("doctor"), 0);
    assert_printed(words);
    if (strcmp(name, "DAV_CUDA_LIBRARY_PATH") == 0)
        setenv(name, DAV_CUDA_STANDIN, 1);
    else
        unsetenv(name);
}

static void failures_to_start_are_told_apart(void **state)
{
    (void)state;
    setenv("DAV_CUDA_LIBRARY_PATH", DAV_CUDA_STANDIN, 1);
    doctor_says("DAV_STANDIN_INIT", "0", "stand-in, sm_90");
    doctor_says("DAV_STANDIN_INIT", "100", "does not start (cuInit): CUDA_ERROR_NO_DEVICE (100)");
    doctor_says("DAV_STANDIN_INIT", "34", "(34); this libcuda is the toolkit's");
    doctor_says("DAV_STANDIN_INIT", "716", "(716); the device is lost");
    doctor_says("DAV_CUDA_LIBRARY_PATH", DAV_CUDA_STANDIN "/nowhere:" DAV_CUDA_STANDIN, "stand-in, sm_90");
    doctor_says("DAV_STANDIN_VERSION", "11040", "the driver is too old: it serves CUDA 11.4, 12.0 is needed");
    doctor_says("DAV_CUDA_LIBRARY_PATH", DAV_CUDA_STANDIN "/bare", "the driver is too old: libcuda.so.1 has no cuDriverGetVersion");
    doctor_says("DAV_CUDA_LIBRARY_PATH", DAV_CUDA_STANDIN "/nowhere", "libcuda.so.1, which comes with NVIDIA's driver, does not load");
    setenv("DAV_STANDIN_NVRTC", "7", 1);
    assert_mistake(dav("compile TinyDenoiser --target h100"), 1, "libnvrtc-builtins");
    unsetenv("DAV_STANDIN_NVRTC");
}

static void benchmarks_stand_beside_forecasts(void **state)
{
    (void)state;
    assert_status(dav("bench dna-fwd-b1-L8 --device cuda --dtype f32 --repeats 1"), 0);
    assert_printed("beside forecasts for h100");
    assert_printed("launches a micro-batch: measured");
    setenv("DAV_STANDIN_NAME", "NVIDIA H200 NVL", 1); /* of one level there are several devices */
    assert_status(dav("bench dna-fwd-b1-L8 --device cuda --dtype tf32 --repeats 1"), 0);
    assert_printed("beside forecasts for h200");
    assert_printed("tf32 median");
    unsetenv("DAV_STANDIN_NAME");
    assert_mistake(dav("bench --dtype tf32"), 2, "--dtype tf32: expected a CUDA device (--device cuda), found cpu");
    assert_mistake(dav("compile TinyDenoiser --dtype tf32"), 2, "--dtype tf32: expected a CUDA device (--target h100)");
    assert_mistake(dav("run nowhere --in x --out y --dtype tf32"), 2, "--dtype tf32: expected a CUDA device");
    setenv("DAV_CUDA_BLASLT", "yes", 1);
    assert_mistake(dav("compile TinyDenoiser --target h100"), 2, "DAV_CUDA_BLASLT: expected 0 (never), 1");
    unsetenv("DAV_CUDA_BLASLT");
    setenv("DAV_CUDA_LIBRARY_PATH", DAV_CUDA_STANDIN "/nowhere", 1);
    assert_status(dav("bench --device cuda"), 0);
    assert_printed("SKIPPED: no CUDA device: CUDA: libcuda.so.1");
    setenv("DAV_CUDA_LIBRARY_PATH", DAV_CUDA_STANDIN, 1);
    assert_mistake(dav("bench --device cuda:7"), 2, "cuda:7");
}

/* ---- a program of one large value between two products ---- */
static Graph *graph_of(Arena *a, Err *err, int64_t rows)
{
    Graph *g = graph_new(a, err, "large");
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){rows, 64}));
    ContractSpec s = {.nloop = 3, .nout = 2, .extent = {rows, rows, 64}, .rank = {2, 2}};
    const int loop[2][2] = {{0, 2}, {1, 2}};
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < 2; d++)
            s.dim[o][d] = (DimExpr){.nterm = 1, .loop = {loop[o][d]}, .coef = {1}, .div = 1};
    graph_at(g, "model.c", 12);
    graph_output(g, "y", g_reduce_mask(g, OP_SUM, g_un(g, OP_EXP, g_contract(g, x, x, &s, DAV_F32)), 2));
    return g;
}

static void a_full_device_is_explained(void **state)
{
    (void)state;
    Err err = {0};
    Arena *a = arena_new();
    setenv("DAV_STANDIN_MEMORY", "8000000", 1);
    assert_null(program_compile(&err, graph_of(a, &err, 2048), &(ProgramOptions){.device = "cuda"}));
    unsetenv("DAV_STANDIN_MEMORY");
    assert_int_equal(err.kind, ERR_ENV);
    for (const char *const *words = (const char *const[]){"stand-in (8.0 MB, 8.0 MB free)", "arena of 'large'", "16.8 MB (model.c:12)", "memory_budget of 7 MB", NULL};
         *words; words++)
        if (!strstr(err.text, *words))
            fail_msg("'%s' is missing in: %s", *words, err.text);
    arena_free(a);
}

static void a_lost_device_says_what_is_left(void **state)
{
    (void)state;
    Err err = {0};
    Arena *a = arena_new();
    Program *p = program_compile(&err, graph_of(a, &err, 16), &(ProgramOptions){.device = "cuda"});
    float x[16 * 64] = {0}, y[16];
    int (*fail_in)(long long) = (int (*)(long long))cuda_standin_symbol("fail_in");
    if (!p || !fail_in)
        fail_msg("%s", err.text);
    assert_true(program_run(p, &err, (void *[]){x}, (void *[]){y}, 1, 1));
    setenv("DAV_STANDIN_STATUS", "719", 1);
    fail_in(4); /* context, graph, context, wait */
    assert_false(program_run(p, &err, (void *[]){x}, (void *[]){y}, 1, 1));
    fail_in(0);
    unsetenv("DAV_STANDIN_STATUS");
    if (!strstr(err.text, "CUDA_ERROR_LAUNCH_FAILED") || !strstr(err.text, "--resume") || !strstr(err.text, "'large'"))
        fail_msg("%s", err.text);
    program_free(p);
    /* step by step the kernel is named, with its lines */
    setenv("DAV_CUDA_SYNC", "1", 1);
    err_clear(&err);
    p = program_compile(&err, graph_of(a, &err, 16), &(ProgramOptions){.device = "cuda"});
    unsetenv("DAV_CUDA_SYNC");
    assert_true(p && program_run(p, &err, (void *[]){x}, (void *[]){y}, 1, 1));
    setenv("DAV_STANDIN_STATUS", "719", 1);
    fail_in(4); /* context, inputs, launch, wait */
    assert_false(program_run(p, &err, (void *[]){x}, (void *[]){y}, 1, 1));
    fail_in(0);
    unsetenv("DAV_STANDIN_STATUS");
    if (!strstr(err.text, "kernel 0 (pointwise_") || !strstr(err.text, "of 'large' from model.c:12, on stand-in: CUDA: running: CUDA_ERROR_LAUNCH_FAILED"))
        fail_msg("%s", err.text);
    program_free(p);
    arena_free(a);
}

/* ---- generations ---- */
/* Row sums of exp(x x'), on a device of the level. */
static void runs_on_level(const char *level)
{
    enum { ROWS = 16 };
    Err err = {0};
    Arena *a = arena_new();
    float x[ROWS * 64], y[ROWS];
    for (int i = 0; i < ROWS * 64; i++)
        x[i] = 0.01f * (float)(i % 37);
    setenv("DAV_STANDIN_SM", level, 1);
    Program *p = program_compile(&err, graph_of(a, &err, ROWS), &(ProgramOptions){.device = "cuda"});
    if (!p || !program_run(p, &err, (void *[]){x}, (void *[]){y}, 1, 1))
        fail_msg("sm_%s: %s", level, err.text);
    for (int i = 0; i < ROWS; i++) {
        double want = 0;
        for (int j = 0; j < ROWS; j++) {
            double dot = 0;
            for (int k = 0; k < 64; k++)
                dot += (double)x[i * 64 + k] * x[j * 64 + k];
            want += exp(dot);
        }
        assert_true(fabs(y[i] - want) < 1e-4 * want);
    }
    program_free(p);
    arena_free(a);
    unsetenv("DAV_STANDIN_SM");
}

static void later_devices_take_ptx(void **state)
{
    (void)state;
    runs_on_level("87");  /* machine code for sm_86 */
    runs_on_level("103"); /* for sm_100 */
    runs_on_level("130"); /* of a generation that no table knows: PTX */
    Err err = {0};
    Arena *a = arena_new();
    setenv("DAV_STANDIN_SM", "70", 1);
    assert_null(program_compile(&err, graph_of(a, &err, 16), &(ProgramOptions){.device = "cuda"}));
    assert_non_null(strstr(err.text, "sm_75 is the least"));
    unsetenv("DAV_STANDIN_SM");
    arena_free(a);
}

static void refused_modules_are_explained(void **state)
{
    (void)state;
    Err err = {0};
    Arena *a = arena_new();
    setenv("DAV_STANDIN_LOAD", "222", 1);
    assert_null(program_compile(&err, graph_of(a, &err, 16), &(ProgramOptions){.device = "cuda"}));
    unsetenv("DAV_STANDIN_LOAD");
    assert_int_equal(err.kind, ERR_ENV);
    if (!strstr(err.text, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION") || !strstr(err.text, "the driver serves CUDA 13.0 and refuses what NVRTC 13."))
        fail_msg("%s", err.text);
    arena_free(a);
}

/* A kernel that does not compile is a bug of dav's: it dies and leaves the kernel. */
static void refused_kernels_are_left_behind(void **state)
{
    (void)state;
    char *folder = in_scratch("repro");
    assert_int_equal(mkdir(folder, 0777), 0);
    setenv("TMPDIR", folder, 1);
    setenv("DAV_STANDIN_NVRTC", "6", 1);
    assert_true(dav("compile TinyDenoiser --target h100") >= 128); /* aborted */
    unsetenv("DAV_STANDIN_NVRTC");
    unsetenv("TMPDIR");
    char *said = file_text(in_scratch("said")), *path = strstr(said, folder), *end = path ? strstr(path, ".cu") : NULL;
    if (!end || !strstr(said, "as DAV_STANDIN_NVRTC says"))
        fail_msg("%s", said);
    end[3] = 0;
    char *kernel = file_text(path);
    assert_int_equal(strncmp(kernel, "// nvcc --std=c++17 -fmad=false -arch=sm_90 ", 44), 0);
    assert_non_null(strstr(kernel, "__global__"));
    mem_free(kernel);
    mem_free(said);
}

/* ---- one text ---- */
/* The stand-in compiles the text that NVRTC gets, but for the machine's functions, which are a file of their own. */
static void both_compile_one_text(void **state)
{
    (void)state;
    Err err = {0};
    Arena *a = arena_new();
    CompileOptions o = {.precision = DAV_BF16, .tile_rows = CUDA_TILE_ROWS, .tile_columns = CUDA_TILE_COLUMNS, .processors = CUDA_PROCESSORS,
                        .sums_of_any_stride = true};
    PassCx cx = {.arena = a, .err = &err, .options = &o};
    const Graph *g = passes_run(&cx, graph_of(a, &err, 24), NULL);
    int compared = 0;
    char *machine = file_text(DAV_SOURCE_DIR "/codegen/cuda/machine.cu"), *kept_path = in_scratch("kept");
    const Nvrtc *nvrtc = nvrtc_open(&err);
    if (!nvrtc)
        fail_msg("%s", err.text);
    setenv("DAV_STANDIN_KEEP", kept_path, 1);
    for (Val v = 1; v < g->n; v++) {
        Buf text = {0}, cubin = {0}, log = {0};
        CudaLaunch launch;
        if (node_of(g, v)->op != OP_KERNEL)
            continue;
        const CudaTarget *t = cuda_target(&err, "h100");
        assert_true(cuda_source(t, &err, attr_graph(node_of(g, v), A_GRAPH), "kernel", &text, &launch));
        assert_true(cuda_compile(nvrtc, &err, t, text.at, &cubin, &log));
        char *kept = file_text(kept_path);
        assert_memory_equal(text.at, machine, strlen(machine));
        assert_string_equal(text.at + strlen(machine), kept);
        assert_null(strstr(kept, "#include"));
        assert_null(strstr(kept, "asm"));
        compared++;
        mem_free(kept);
        buf_free(&text);
        buf_free(&cubin);
        buf_free(&log);
    }
    unsetenv("DAV_STANDIN_KEEP");
    assert_true(compared >= 2);
    vec_free(cx.notes);
    vec_free(cx.times);
    mem_free(machine);
    arena_free(a);
}

/* ---- races ---- */
/* Runs a kernel of one input and one output by itself. */
static bool launch_text(Err *err, const char *text, const CudaLaunch *l, const float *x, size_t nx, float *y, size_t ny)
{
    CudaDevice d = {0};
    const CudaTarget *t = cuda_target(err, "h100");
    const Nvrtc *nvrtc = nvrtc_open(err);
    Buf cubin = {0}, log = {0};
    CuStream stream = NULL;
    CuModule module = NULL;
    CuFunction f = NULL;
    CuPtr in = 0, out = 0;
    bool ok = nvrtc && cuda_compile(nvrtc, err, t, text, &cubin, &log) && cuda_device_open(&d, err, 0);
    const CudaDriver *c = d.driver;
    void *arg[] = {&in, &out};
    ok = ok && cuda_ok(c, err, c->cuStreamCreate(&stream, 1), "stream") && cuda_ok(c, err, c->cuModuleLoadData(&module, cubin.at), "module") &&
         cuda_ok(c, err, c->cuModuleGetFunction(&f, module, "kernel"), "function") && cuda_ok(c, err, c->cuMemAlloc_v2(&in, nx * 4), "memory") &&
         cuda_ok(c, err, c->cuMemAlloc_v2(&out, ny * 4), "memory") && cuda_ok(c, err, c->cuMemcpyHtoDAsync_v2(in, x, nx * 4, stream), "copy") &&
         cuda_ok(c, err, c->cuLaunchKernel(f, (unsigned)l->blocks, 1, 1, (unsigned)l->threads, 1, 1, 0, stream, arg, NULL), "launch") &&
         cuda_ok(c, err, c->cuMemcpyDtoHAsync_v2(y, out, ny * 4, stream), "copy") && cuda_ok(c, err, c->cuStreamSynchronize(stream), "wait");
    if (module)
        c->cuModuleUnload(module);
    buf_free(&cubin);
    buf_free(&log);
    return ok;
}

/* In a process of its own: after a failed launch the stand-in's device is lost. */
static int race_in_child(bool planted)
{
    Err err = {0};
    Arena *a = arena_new();
    Graph *g = graph_new(a, &err, "rows");
    static float x[3 * 600], y[3];
    CudaLaunch l;
    Buf text = {0};
    Val in = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){3, 600}));
    graph_output(g, "y", g_reduce_mask(g, OP_SUM, in, 2));
    CompileOptions o = {.tile_rows = CUDA_TILE_ROWS, .tile_columns = CUDA_TILE_COLUMNS, .processors = CUDA_PROCESSORS};
    PassCx cx = {.arena = a, .err = &err, .options = &o};
    const Graph *k = passes_run(&cx, g, NULL);
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == OP_KERNEL)
            cuda_source(cuda_target(&err, "h100"), &err, attr_graph(node_of(k, v), A_GRAPH), "kernel", &text, &l);
    char *barrier = strstr(strstr(text.at, "part[dav_thread() / 32] = v;"), "dav_sync_block();");
    for (int i = 0; planted && i < (int)strlen("dav_sync_block()"); i++)
        barrier[i] = ' ';
    for (int i = 0; i < 3 * 600; i++)
        x[i] = 1;
    bool ok = launch_text(&err, text.at, &l, x, 3 * 600, y, 3);
    return ok && y[2] == 600 ? 0 : strstr(err.text, "CUDA_ERROR_LAUNCH_FAILED") ? 3 : 4;
}

static int run_child(int (*f)(bool), bool with)
{
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(f(with));
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* All the products and joins that test_cuda and test_attention run, watched. */
static int products_in_child(bool half)
{
    Err err = {0};
    Arena *a = arena_new();
    static float x[48 * 64], y[48];
    Program *p = program_compile(&err, graph_of(a, &err, 48), &(ProgramOptions){.device = "cuda", .compile.precision = half ? DAV_BF16 : DAV_F32});
    return p && program_run(p, &err, (void *[]){x}, (void *[]){y}, 1, 1) ? 0 : 5;
}

static void races_are_seen(void **state)
{
    (void)state;
    setenv("DAV_STANDIN_RACE", "1", 1);
    assert_int_equal(run_child(race_in_child, false), 0);
    assert_int_equal(run_child(race_in_child, true), 3);
    assert_int_equal(run_child(products_in_child, false), 0);
    assert_int_equal(run_child(products_in_child, true), 0);
    unsetenv("DAV_STANDIN_RACE");
}

int main(void)
{
    setenv("DAV_CUDA_LIBRARY_PATH", DAV_CUDA_STANDIN, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(declarations_are_the_headers), cmocka_unit_test(failures_to_start_are_told_apart),
        cmocka_unit_test(benchmarks_stand_beside_forecasts),
        cmocka_unit_test(a_full_device_is_explained),   cmocka_unit_test(a_lost_device_says_what_is_left),
        cmocka_unit_test(later_devices_take_ptx),       cmocka_unit_test(refused_modules_are_explained),
        cmocka_unit_test(refused_kernels_are_left_behind),
        cmocka_unit_test(both_compile_one_text),        cmocka_unit_test(races_are_seen),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
