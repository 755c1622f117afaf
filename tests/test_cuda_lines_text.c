/* Of which accesses to memory NVRTC makes vector loops in lines (codegen/cuda/lines.c).  Without NVRTC: SKIPPED. */
#include "codegen/cuda/cuda.h"
#include "ir/build.h"
#include "passes/plan.h"
#include "runtime/cuda/run.h"
#include "runtime/optim.h"
#include "support/command.h"
#include "support/line_graphs.h"
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct Accesses { int of_16, of_8, all; } Accesses; /* accesses to device memory in a kernel's PTX, by bytes */

static int count_in(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++)
        n++;
    return n;
}

static const Nvrtc *nvrtc;

static const char *ptx_of(Arena *arena, const char *text)
{
    Err err = {0};
    Buf ptx = {0}, log = {0};
    CudaTarget t = *cuda_target(&err, "h100");
    t.ptx = true;
    if (!cuda_compile(nvrtc, &err, &t, text, &ptx, &log))
        fail_msg("%s", err.text);
    const char *kept = arena_printf(arena, "%.*s", (int)ptx.len, ptx.at);
    buf_free(&ptx);
    buf_free(&log);
    return kept;
}

/* Of a graph that is one kernel. */
static const char *machine_text(Arena *arena, const Graph *g)
{
    Err err = {0};
    CompileOptions o = {.precision = DAV_F32, .processors = CUDA_PROCESSORS, .sums_of_any_stride = true};
    PassCx cx = {.arena = arena, .err = &err, .options = &o};
    Buf text = {0};
    CudaLaunch launch;
    const Graph *low = passes_run(&cx, g, NULL);
    if (!low)
        fail_msg("%s", err.text);
    const Plan *plan = plan_make(arena, low, NULL);
    assert_int_equal(plan->nkernel, 1);
    if (!cuda_source(cuda_target(&err, "h100"), &err, plan->kernel[0], "kernel", &text, &launch))
        fail_msg("%s", err.text);
    const char *ptx = ptx_of(arena, text.at);
    vec_free(cx.notes);
    vec_free(cx.times);
    buf_free(&text);
    return ptx;
}

static Accesses accesses(const char *ptx, const char *verb)
{
    char wide[40], half[40], any[40];
    snprintf(wide, sizeof wide, "%s.global.v4", verb);
    snprintf(half, sizeof half, "%s.global.v2", verb);
    snprintf(any, sizeof any, "%s.global", verb);
    return (Accesses){count_in(ptx, wide), count_in(ptx, half), count_in(ptx, any)};
}

static void expect(Arena *arena, const char *name, const Graph *g, Accesses load, Accesses store)
{
    const char *ptx = machine_text(arena, g);
    Accesses l = accesses(ptx, "ld"), s = accesses(ptx, "st");
    if (memcmp(&l, &load, sizeof l) != 0 || memcmp(&s, &store, sizeof s) != 0)
        fail_msg("%s: loads %d %d %d, stores %d %d %d, expected %d %d %d and %d %d %d:\n%s", name, l.of_16, l.of_8, l.all, s.of_16, s.of_8,
                 s.all, load.of_16, load.of_8, load.all, store.of_16, store.of_8, store.all, ptx);
}

/* Rows of 1024 are a line for each of 256 threads, so that each access of the text is one instruction.  A softmax reads its row twice
 * and keeps what it sums in shared memory, a norm reads it three times and its scale once. */
static void norms_softmax_and_elementwise_are_wide(void **state)
{
    (void)state;
    if (!nvrtc)
        skip();
    Err err = {0};
    Arena *a = arena_new();
    expect(a, "softmax", softmax_graph(a, &err, DAV_F32, 64, 1024), (Accesses){2, 0, 2}, (Accesses){1, 0, 1});
    expect(a, "softmax of bf16", softmax_graph(a, &err, DAV_BF16, 64, 1024), (Accesses){0, 2, 2}, (Accesses){0, 1, 1});
    expect(a, "norm", norm_graph(a, &err, DAV_F32, 64, 1024), (Accesses){4, 0, 4}, (Accesses){1, 0, 1});
    expect(a, "norm of bf16", norm_graph(a, &err, DAV_BF16, 64, 1024), (Accesses){1, 3, 4}, (Accesses){0, 1, 1});
    expect(a, "mixed", mixed_graph(a, &err, 64, 1024), (Accesses){3, 1, 6}, (Accesses){3, 1, 5});
    for (int half = 0; half < 2; half++) { /* a loop that NVRTC unrolls as it likes */
        const char *ptx = machine_text(a, flat_graph(a, &err, half ? DAV_BF16 : DAV_F32, 1 << 16));
        Accesses l = accesses(ptx, "ld"), s = accesses(ptx, "st");
        if (l.of_16 < 2 || l.of_16 != l.all || s.of_16 < 1 || s.of_16 != s.all)
            fail_msg("elementwise: loads %d of %d, stores %d of %d:\n%s", l.of_16, l.all, s.of_16, s.all, ptx);
    }
    expect(a, "slices", slices_graph(a, &err, false, 64, 1024), (Accesses){0, 0, 1}, (Accesses){0, 0, 1});
    arena_free(a);
}

/* Both kernels together: the gradient, then the leaves' sums and five arrays, of which five are written; the settings and the norm are
 * single numbers. */
static void the_optimiser_is_wide(void **state)
{
    (void)state;
    if (!nvrtc)
        skip();
    Err err = {0};
    Arena *a = arena_new();
    Graph *g = graph_new(a, &err, "x");
    g_input(g, "theta.w", ROLE_PARAM, type_make(DAV_F32, 2, (int64_t[]){1024, 1024}));
    ParamSet *p = params_from_graph(g, "theta.");
    const char *dir = in_scratch("dump");
    Optim *o = optim_new(&err, p, &(CompileOptions){0}, "paper:h100");
    if (!o || !file_mkdirs(&err, dir) || !program_dump(o->program, &err, dir))
        fail_msg("%s", err.text);
    Accesses load = {0}, store = {0};
    DIR *d = opendir(in_scratch("dump/kernels"));
    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d));) {
        char *text;
        size_t len;
        if (!strstr(f->d_name, ".cu"))
            continue;
        assert_true(file_read(&err, arena_printf(a, "%s/%s", in_scratch("dump/kernels"), f->d_name), 1 << 24, &text, &len));
        const char *ptx = ptx_of(a, text);
        Accesses l = accesses(ptx, "ld"), s = accesses(ptx, "st");
        load = (Accesses){load.of_16 + l.of_16, load.of_8 + l.of_8, load.all + l.all};
        store = (Accesses){store.of_16 + s.of_16, store.of_8 + s.of_8, store.all + s.all};
        mem_free(text);
    }
    closedir(d);
    assert_int_equal(load.of_16, 1 + 1 + 5);
    assert_int_equal(load.all, 1 + 1 + 5 + 12);
    assert_int_equal(store.of_16, 5);
    assert_int_equal(store.all, 5 + 1 + 1);
    optim_free(o);
    params_free(p);
    arena_free(a);
}

int main(void)
{
    Err err = {0};
    nvrtc = nvrtc_open(&err);
    if (!nvrtc)
        print_message("SKIPPED: %s\n", err.text);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_softmax_and_elementwise_are_wide),
        cmocka_unit_test(the_optimiser_is_wide),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
