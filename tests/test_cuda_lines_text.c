/* Of which accesses to memory NVRTC makes vector loops in lines (codegen/cuda/lines.c).  Without NVRTC: SKIPPED. */
#include "codegen/cuda/cuda.h"
#include "passes/plan.h"
#include "runtime/cuda/run.h"
#include "support/line_graphs.h"
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

static const char *machine_text(Arena *arena, const Nvrtc *nvrtc, const Graph *g)
{
    Err err = {0};
    CompileOptions o = {.precision = DAV_F32, .processors = CUDA_PROCESSORS, .sums_of_any_stride = true};
    PassCx cx = {.arena = arena, .err = &err, .options = &o};
    CudaTarget t = *cuda_target(&err, "h100");
    Buf text = {0}, ptx = {0}, log = {0};
    CudaLaunch launch;
    t.ptx = true;
    const Graph *low = passes_run(&cx, g, NULL);
    if (!low)
        fail_msg("%s", err.text);
    const Plan *plan = plan_make(arena, low, NULL);
    assert_int_equal(plan->nkernel, 1);
    if (!cuda_source(&t, &err, plan->kernel[0], "kernel", &text, &launch) || !cuda_compile(nvrtc, &err, &t, text.at, &ptx, &log))
        fail_msg("%s", err.text);
    buf_add(&ptx, "", 1);
    const char *kept = arena_printf(arena, "%s", ptx.at);
    vec_free(cx.notes);
    vec_free(cx.times);
    buf_free(&text);
    buf_free(&ptx);
    buf_free(&log);
    return kept;
}

static Accesses accesses(const char *ptx, const char *verb)
{
    char wide[40], half[40], any[40];
    snprintf(wide, sizeof wide, "%s.global.v4", verb);
    snprintf(half, sizeof half, "%s.global.v2", verb);
    snprintf(any, sizeof any, "%s.global", verb);
    return (Accesses){count_in(ptx, wide), count_in(ptx, half), count_in(ptx, any)};
}

static void expect(Arena *arena, const Nvrtc *nvrtc, const char *name, const Graph *g, Accesses load, Accesses store)
{
    const char *ptx = machine_text(arena, nvrtc, g);
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
    Err err = {0};
    const Nvrtc *nvrtc = nvrtc_open(&err);
    if (!nvrtc) {
        print_message("SKIPPED: %s\n", err.text);
        skip();
    }
    Arena *a = arena_new();
    expect(a, nvrtc, "softmax", softmax_graph(a, &err, DAV_F32, 64, 1024), (Accesses){2, 0, 2}, (Accesses){1, 0, 1});
    expect(a, nvrtc, "softmax of bf16", softmax_graph(a, &err, DAV_BF16, 64, 1024), (Accesses){0, 2, 2}, (Accesses){0, 1, 1});
    expect(a, nvrtc, "norm", norm_graph(a, &err, DAV_F32, 64, 1024), (Accesses){4, 0, 4}, (Accesses){1, 0, 1});
    expect(a, nvrtc, "norm of bf16", norm_graph(a, &err, DAV_BF16, 64, 1024), (Accesses){1, 3, 4}, (Accesses){0, 1, 1});
    expect(a, nvrtc, "mixed", mixed_graph(a, &err, 64, 1024), (Accesses){3, 1, 6}, (Accesses){3, 1, 5});
    expect(a, nvrtc, "slices", slices_graph(a, &err, false, 64, 1024), (Accesses){0, 0, 1}, (Accesses){0, 0, 1});
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(norms_softmax_and_elementwise_are_wide)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
