/* Every kernel of the op cases and of the networks' programs, compiled by the real NVRTC: nothing of a contraction spills, and
 * contractions of bf16 use tensor cores.  DAV_CUDA_TABLE=FILE writes what ptxas says of each kernel.  Without NVRTC: SKIPPED. */
#include "codegen/cuda/cuda.h"
#include "ir/parse.h"
#include "passes/plan.h"
#include "runtime/learn.h"
#include "runtime/masked_programs.h"
#include "runtime/plugin.h"
#include "runtime/cuda/run.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const Nvrtc *nvrtc;
static Map seen; /* hashes of kernels compiled for the level at hand */
static FILE *table;
static int compiled, spilled, mma;

typedef struct Usage { int registers, spill_bytes, shared_bytes, stack_bytes; } Usage;

static int number_before(const char *log, const char *what)
{
    const char *at = strstr(log, what);
    if (!at)
        return 0;
    while (at > log && at[-1] == ' ')
        at--;
    while (at > log && at[-1] >= '0' && at[-1] <= '9')
        at--;
    return atoi(at);
}

static Usage usage_of(const char *log)
{
    const char *used = strstr(log, "Used ");
    return (Usage){used ? atoi(used + 5) : 0, number_before(log, "bytes spill stores") + number_before(log, "bytes spill loads"),
                   number_before(log, "bytes smem"), number_before(log, "bytes stack frame")};
}

static bool has_op(const Graph *k, Op op)
{
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == op)
            return true;
    return false;
}

static bool first_time(int sm, const Graph *k)
{
    char key[40];
    snprintf(key, sizeof key, "%d %016llx", sm, (unsigned long long)graph_hash(k));
    return map_put(&seen, key, 1);
}

static void compile_kernel(const CudaTarget *t, const char *program, int i, const Graph *k)
{
    Err err = {0};
    Buf text = {0}, cubin = {0}, log = {0};
    CudaLaunch launch;
    if (!first_time(t->sm, k))
        return;
    if (!cuda_source(t, &err, k, "kernel", &text, &launch) || !cuda_compile(nvrtc, &err, t, text.at, &cubin, &log))
        fail_msg("%s kernel %d for sm_%d: %s", program, i, t->sm, err.text);
    assert_true(cubin.len > 100);
    Usage u = usage_of(log.at ? log.at : "");
    bool tiles = has_op(k, OP_TILE_CONTRACT);
    compiled++;
    mma += tiles && strstr(text.at + strlen(text.at) / 2, "dav_mma_tile<") && strstr(strstr(text.at, "DAV_KERNEL("), "dav_mma_tile<");
    if (tiles && u.spill_bytes) {
        print_error("%s kernel %d for sm_%d spills %d bytes\n", program, i, t->sm, u.spill_bytes);
        spilled++;
    }
    if (table)
        fprintf(table, "%s\t%d\t%s\tsm_%d\t%d\t%d\t%d\t%d\t%lld\n", program, i, tiles ? "tile" : "loops", t->sm, u.registers, u.spill_bytes,
                u.shared_bytes, launch.threads, (long long)launch.blocks);
    buf_free(&text);
    buf_free(&cubin);
    buf_free(&log);
}

static void compile_graph(const char *program, const Graph *g, DavDtype precision, Arena *arena)
{
    static const char *const devices[] = {"a100", "h100", "b200"};
    Err err = {0};
    CompileOptions o = {.precision = precision, .tile_rows = CUDA_TILE_ROWS, .tile_columns = CUDA_TILE_COLUMNS, .sums_of_any_stride = true};
    PassCx cx = {.arena = arena, .err = &err, .options = &o};
    const Graph *lowered = passes_run(&cx, g, NULL);
    if (!lowered)
        fail_msg("%s: %s", program, err.text);
    Plan *p = plan_make(arena, lowered, NULL);
    for (size_t d = 0; d < sizeof devices / sizeof *devices; d++)
        for (int i = 0; i < p->nkernel; i++)
            compile_kernel(cuda_target(&err, devices[d]), program, i, p->kernel[i]);
    vec_free(cx.notes);
    vec_free(cx.times);
}

static void compile_text(const char *program, const char *text, size_t len, DavDtype precision)
{
    Arena *arena = arena_new();
    Err err = {0};
    Graph *g = graph_parse(arena, &err, program, text, len);
    if (!g)
        fail_msg("%s", err.text);
    compile_graph(program[0] == '-' ? g->name : program, g, precision, arena);
    arena_free(arena);
}

static void op_cases_compile(void **state)
{
    (void)state;
    if (!nvrtc)
        skip();
    Err err = {0};
    char *text;
    size_t len;
    assert_true(file_read(&err, DAV_SOURCE_DIR "/tests/data/op_values.ir", 1 << 24, &text, &len));
    compiled = spilled = 0;
    for (char *at = text, *end; at && *at; at = end + strspn(end, "\n")) {
        end = strstr(at, "\n}\n");
        assert_non_null(end);
        end += 3;
        compile_text("-", at, (size_t)(end - at), DAV_F32);
    }
    mem_free(text);
    print_message("%d kernels compiled\n", compiled);
    assert_true(compiled > 300);
    assert_int_equal(spilled, 0);
}

/* The program as its command prints it. */
static void compile_program(const char *what, DavDtype precision)
{
    char command[600], part[65536];
    Buf text = {0};
    snprintf(command, sizeof command, "%s compile %s --emit ir", DAV_BINARY, what);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;)
        buf_add(&text, part, n);
    assert_int_equal(pclose(f), 0);
    snprintf(command, sizeof command, "%s%s", precision == DAV_BF16 ? "bf16 " : "", what);
    compile_text(command, text.at, text.len, precision);
    buf_free(&text);
}

static void networks_compile(void **state)
{
    static const char *const programs[] = {
        "DNAConv --task forward", "DNAConv --task step", "DNAConv --task choose", "DNAConv --task learn --rows 64",
        "DNAConv --task pretrain", "DNAConv --task value --reward SeqCNN", "DNAConv --task guide --reward SeqCNN",
        "SeqCNN --task learn", "SeqTransformer --task forward", "SeqTransformer --task learn", "MPRADragoNN", "AestheticMLP",
    };
    (void)state;
    if (!nvrtc)
        skip();
    compiled = spilled = mma = 0;
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        for (int half = 0; half < 2; half++)
            compile_program(programs[i], half ? DAV_BF16 : DAV_F32);
    print_message("%d kernels compiled, %d with tensor cores\n", compiled, mma);
    assert_true(compiled > 300);
    assert_true(mma > 60);
    assert_int_equal(spilled, 0);
}

int main(void)
{
    static const char toolkit[] = "/usr/local/cuda/lib64";
    Err err = {0};
    if (!getenv("DAV_CUDA_LIBRARY_PATH") && access("/usr/local/cuda/lib64/libnvrtc.so.13", R_OK) == 0)
        setenv("DAV_CUDA_LIBRARY_PATH", toolkit, 1);
    nvrtc = nvrtc_open(&err);
    if (!nvrtc)
        print_message("SKIPPED: %s\n", err.text);
    if (getenv("DAV_CUDA_TABLE"))
        table = fopen(getenv("DAV_CUDA_TABLE"), "w");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(op_cases_compile),
        cmocka_unit_test(networks_compile),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    map_free(&seen);
    if (table)
        fclose(table);
    return failed;
}
