/* Forecasts on paper: occupancy against the published calculator, and the launches, bytes and time of the programs that matter. */
#include "codegen/cuda/predict.h"
#include "passes/plan.h"
#include "frontend/net.h"
#include "runtime/optim.h"
#include "runtime/program.h"
#include "support/blocks.h"
#include "support/command.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* CUDA's occupancy calculator: threads, registers, shared memory -> blocks a multiprocessor. */
static void occupancy_is_the_calculators(void **state)
{
    (void)state;
    static const struct { const char *device; int threads, regs, shared, blocks; } row[] = {
        {"a100", 256, 32, 0, 8},      {"a100", 128, 128, 0, 4},       {"a100", 1024, 64, 0, 1},   {"a100", 32, 16, 0, 32},
        {"a100", 128, 64, 49152, 3},  {"h100", 128, 168, 0, 3},       {"h100", 256, 255, 0, 1},   {"h100", 128, 32, 113 << 10, 2},
        {"rtx4090", 256, 32, 0, 6},   {"rtx4090", 128, 32, 49152, 2}, {"t4", 256, 32, 0, 4},      {"t4", 64, 32, 0, 16},
        {"b200", 384, 168, 0, 1},
    };
    Err err = {0};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        int blocks = cuda_blocks_per_sm(cuda_target(&err, row[i].device), row[i].threads, row[i].regs, row[i].shared);
        if (blocks != row[i].blocks)
            fail_msg("%s, %d threads, %d registers, %d bytes: %d blocks, expected %d", row[i].device, row[i].threads, row[i].regs,
                     row[i].shared, blocks, row[i].blocks);
    }
}

static void logs_are_read(void **state)
{
    (void)state;
    CudaUse u;
    assert_true(cuda_use_of_log("ptxas info    : Compiling entry function 'kernel' for 'sm_90'\n"
                                "ptxas info    : Function properties for kernel\n"
                                "    8 bytes stack frame, 24 bytes spill stores, 16 bytes spill loads\n"
                                "ptxas info    : Used 104 registers, used 1 barriers, 17536 bytes smem\n", &u));
    assert_true(u.regs == 104 && u.spill_bytes == 24 && u.shared_bytes == 17536 && u.known);
    assert_false(cuda_use_of_log("", &u));
}

/* A copy of 1 GB has two bounds that anybody can compute. */
static void a_copy_takes_its_bytes(void **state)
{
    (void)state;
    Err err = {0};
    Arena *arena = arena_new();
    Graph *g = graph_new(arena, &err, "twice");
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){1 << 14, 1 << 13}));
    graph_output(g, "y", g_bin(g, OP_ADD, x, x));
    Program *p = program_compile(&err, g, &(ProgramOptions){.device = "paper:a100"});
    ProgramForecast f;
    Buf text = {0};
    if (!p)
        fail_msg("%s", err.text);
    assert_true(program_forecast(p, &f, &text));
    assert_int_equal(f.launches, 1);
    assert_true(f.bytes == 8.0 * (1 << 27) && f.least_bytes == f.bytes);
    assert_true(f.seconds > f.bytes / 1555e9 && f.seconds < 1.4 * f.bytes / 1555e9);
    assert_non_null(strstr(text.at, "memory"));
    float *none = NULL;
    assert_false(program_run(p, &err, (void *[]){none}, (void *[]){none}, 1, 1));
    assert_int_equal(err.kind, ERR_USER);
    buf_free(&text);
    program_free(p);
    arena_free(arena);
}

static void unknown_devices_are_named(void **state)
{
    (void)state;
    Err err = {0};
    Arena *arena = arena_new();
    Graph *g = graph_new(arena, &err, "x");
    graph_output(g, "y", g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 0, NULL)));
    assert_null(program_compile(&err, g, &(ProgramOptions){.device = "paper:h101"}));
    assert_non_null(strstr(err.text, "h100"));
    err_clear(&err);
    assert_string_equal(cuda_target(&err, "sm_86")->name, "a10");
    assert_string_equal(cuda_target(&err, "sm_90a")->name, "h100");
    assert_null(cuda_target(&err, "sm_90b"));
    assert_null(cuda_target(&err, "sm_91"));
    arena_free(arena);
}

/* Sums over rows, added to accumulators: a launch of two of each shape, for every level.  Its table of buffers is read where it lies:
 * a thread has no memory of its own. */
static void launches_of_several_kernels_compile(void **state)
{
    (void)state;
    static const char *const level[] = {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"};
    Err err = {0};
    const Nvrtc *nvrtc = nvrtc_open(&err);
    if (!nvrtc) {
        print_message("SKIPPED: %s\n", err.text);
        skip();
    }
    Arena *arena = arena_new();
    Graph *g = graph_new(arena, &err, "sums");
    for (int i = 0; i < 3; i++) {
        Val x = g_input(g, arena_printf(arena, "x%d", i), ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){50, 40 + i}));
        graph_output(g, arena_printf(arena, "y%d", i), g_reduce_mask(g, OP_SUM, x, 1));
    }
    static const CompileOptions none = {0};
    PassCx cx = {.arena = arena, .err = &err, .options = &none};
    const Plan *plan = plan_make(arena, passes_run(&cx, g, NULL), NULL);
    CudaPart part[CUDA_MOST_PARTS];
    assert_int_equal(plan->nkernel, 3);
    for (int i = 0; i < 3; i++)
        part[i] = (CudaPart){plan->kernel[i], 2};
    for (size_t l = 0; l < sizeof level / sizeof *level; l++) {
        Buf text = {0}, cubin = {0}, log = {0};
        CudaLaunch launch;
        const CudaTarget *t = cuda_target(&err, level[l]);
        cuda_group_source(t, part, 3, "kernel", &text, &launch);
        if (!cuda_compile(nvrtc, &err, t, text.at, &cubin, &log))
            fail_msg("%s", err.text);
        if (!strstr(log.at, " 0 bytes stack frame, 0 bytes spill stores"))
            fail_msg("%s: %s", level[l], log.at);
        buf_free(&text);
        buf_free(&cubin);
        buf_free(&log);
    }
    vec_free(cx.notes);
    vec_free(cx.times);
    arena_free(arena);
}

/* ---- the programs that matter, for an h100 in bf16 ---- */
static void told(const char *name, const ProgramForecast *f, int64_t launches, double mb, double bytes, double time)
{
    print_message("%-28s %4lld launches %9.1f MB (%.2f of the minimum) %9.1f us (%.2f)\n", name, (long long)f->launches, f->bytes * 1e-6,
                  f->bytes / f->least_bytes, 1e6 * f->seconds, f->seconds / f->least_seconds);
    if (f->launches != launches)
        fail_msg("%s: %lld launches, expected %lld", name, (long long)f->launches, (long long)launches);
    if (f->bytes > mb * 1e6)
        fail_msg("%s: %.1f MB, expected at most %.1f", name, f->bytes * 1e-6, mb);
    if (f->bytes / f->least_bytes > bytes || f->seconds / f->least_seconds > time)
        fail_msg("%s: %.2f times the bytes and %.2f times the time of the fused minimum, expected at most %.2f and %.2f", name,
                 f->bytes / f->least_bytes, f->seconds / f->least_seconds, bytes, time);
}

static void block(const char *name, BlockWriter write, bool backward, int64_t launches, double mb, double bytes, double time)
{
    Arena *arena = arena_new();
    Err err = {0};
    DavNet *n = block_net(arena, &err, write, backward);
    Program *p = program_compile(&err, n->g, &(ProgramOptions){.device = "paper:h100", .compile.precision = DAV_BF16});
    ProgramForecast f;
    if (!p)
        fail_msg("%s", err.text);
    program_forecast(p, &f, NULL);
    told(name, &f, launches, mb, bytes, time);
    program_free(p);
    net_free(n);
    arena_free(arena);
}

static void blocks_need_few_launches(void **state)
{
    (void)state;
    block("transformer block", transformer_block, false, 9, 390, 1.6, 3.2);
    block("transformer block, backward", transformer_block, true, 32, 1950, 2, 3.2);
    block("unet block", unet_block, false, 13, 132, 2.1, 6);
    block("unet block, backward", unet_block, true, 38, 765, 2.8, 6);
}

/* Attention's backward direction has 8 heads x (4096 / 64 panels of keys + as many of queries) blocks, more than an h100 runs at
 * once; of 7 products of 4096 x 4096 x 40 a head. */
static void attention_fills_the_device(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    DavNet *n = net_new(arena, &err, "attention");
    DavVal x[3], grad[3];
    for (int i = 0; i < 3; i++)
        x[i] = dav_input(n, i == 0 ? "q" : i == 1 ? "k" : "v", DAV_F32, 1, 8, 4096, 40);
    dav_grads(dav_sum(dav_square(dav_attention(x[0], x[1], x[2])), 0, 1, 2, 3), x, 3, grad);
    for (int i = 0; i < 3; i++)
        dav_output(n, i == 0 ? "dq" : i == 1 ? "dk" : "dv", grad[i]);
    Program *p = program_compile(&err, n->g, &(ProgramOptions){.device = "paper:h100", .compile.precision = DAV_BF16});
    ProgramForecast f;
    Buf text = {0};
    if (!p)
        fail_msg("%s", err.text);
    program_forecast(p, &f, &text);
    double gflop = 7 * 8 * 2 * 4096.0 * 4096 * 40 * 1e-9, waves = 0, most = 0;
    long long blocks = 0, found = 0;
    for (char *at = text.at; (at = strchr(at, '\n')); at++) { /* the row of the most operations */
        double w, g;
        long long b;
        if (sscanf(at + 1, "%*f %*d %*s product %lld x 128 %*d %*d %*f%% %lf %*f %lf", &b, &w, &g) == 3 && ++found && g > most) {
            most = g;
            blocks = b;
            waves = w;
        }
    }
    assert_int_equal(found, 2);
    assert_int_equal(blocks, 8 * 2 * 4096 / 64);
    assert_true(waves > 1);
    assert_true(most > gflop && most < 1.05 * gflop);
    buf_free(&text);
    program_free(p);
    net_free(n);
    arena_free(arena);
}

/* A total of `dav compile DNAConv --rows 64 --target h100`, in the last line that begins like that. */
static void forecast_of(const char *options, const char *line, long long *launches, double *bytes, double *time)
{
    char form[200];
    snprintf(form, sizeof form, "%s%%lld launches, %%*f MB, %%*f us; fused minimum %%*f MB, %%*f us: %%lf times the bytes, %%lf", line);
    assert_status(dav("compile DNAConv --rows 64 --target h100 --dtype bf16 %s", options), 0);
    char *text = text_of(in_scratch("out"));
    bool found = false;
    for (char *at = text; at; at = strchr(at, '\n'), at += at != NULL)
        if (sscanf(at, form, launches, bytes, time) == 3) {
            found = true;
            print_message("DNAConv %s: %.*s\n", options, (int)strcspn(at, "\n"), at);
        }
    mem_free(text);
    assert_true(found);
}

/* The method's programs, 64 rows of the DNA denoiser; of a whole trajectory what a step takes, 10 children a row. */
static void the_method_needs_few_launches(void **state)
{
    (void)state;
    static const struct { const char *options, *line; long long launches; double bytes, time; } row[] = {
        {"--task forward", "", 46, 1.7, 4},
        {"--task step", "", 5, 7.2, 6},
        {"--task choose", "", 2, 1.2, 2.5},
        {"--task whole --reward SeqCNN", "each of 33 steps of a loop: ", 69, 1.7, 3},
        {"--task learn", "", 105, 2.5, 4.5},
        {"--task pretrain", "", 105, 2.5, 4.5},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        long long launches = 0;
        double bytes = 0, time = 0;
        forecast_of(row[i].options, row[i].line, &launches, &bytes, &time);
        if (launches != row[i].launches || bytes > row[i].bytes || time > row[i].time)
            fail_msg("%s: expected %lld launches, at most %.2f times the bytes and %.2f times the time", row[i].options, row[i].launches,
                     row[i].bytes, row[i].time);
    }
}

/* Norm (leaves, then over them), and clip, AdamW and average of all parameters at once. */
static void the_optimiser_is_two_kernels(void **state)
{
    (void)state;
    Err err = {0};
    Arena *arena = arena_new();
    Graph *g = graph_new(arena, &err, "x");
    ProgramForecast f;
    g_input(g, "theta.w", ROLE_PARAM, type_make(DAV_F32, 2, (int64_t[]){1024, 1024}));
    ParamSet *p = params_from_graph(g, "theta.");
    Optim *o = optim_new(&err, p, &(CompileOptions){0}, "paper:h100");
    if (!o)
        fail_msg("%s", err.text);
    assert_true(program_forecast(o->program, &f, NULL));
    told("optimiser, 1M parameters", &f, 2, 48, 1.15, 1.5);
    optim_free(o);
    params_free(p);
    arena_free(arena);
}

/* Shared launches change the order of steps, never a plan past its budget. */
static void budgets_hold_with_shared_launches(void **state)
{
    (void)state;
    static const int budget[] = {50, 55, 60};
    for (size_t i = 0; i < sizeof budget / sizeof *budget; i++) {
        double planned = 0;
        assert_status(dav("compile SeqTransformer --task learn --target h100 --rows 64 --memory-budget %dMB", budget[i]), 0);
        char *text = text_of(in_scratch("out")), *at = strstr(text, " MB -> ");
        assert_true(at && sscanf(at, " MB -> %lf", &planned) == 1);
        if (planned > budget[i])
            fail_msg("%.1f MB planned of %d", planned, budget[i]);
        mem_free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(occupancy_is_the_calculators), cmocka_unit_test(logs_are_read),
        cmocka_unit_test(a_copy_takes_its_bytes), cmocka_unit_test(launches_of_several_kernels_compile),
        cmocka_unit_test(unknown_devices_are_named),
        cmocka_unit_test(the_optimiser_is_two_kernels),
        cmocka_unit_test(budgets_hold_with_shared_launches),
        cmocka_unit_test(blocks_need_few_launches),     cmocka_unit_test(the_method_needs_few_launches),
        cmocka_unit_test(attention_fills_the_device),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
