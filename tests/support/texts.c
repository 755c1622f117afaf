#include "support/texts.h"
#include "codegen/cuda/emit.h"
#include "codegen/cuda/predict.h"
#include "ir/parse.h"
#include "passes/plan.h"
#include "runtime/cuda/blaslt_rule.h"
#include "runtime/cuda/group.h"
#include "runtime/cuda/run.h"
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct Text {
    char program[120];
    int kernel, parts;   /* of the plan; kernels in the launch */
    const char *class_;  /* tensor, tile, sum, loops, shared */
    const CudaTarget *target;
    bool must_be_tensor; /* a product of operands that tensor cores take */
    Buf text, cubin, log;
    CudaLaunch launch;
    Err err;
} Text;

static const Nvrtc *nvrtc;
static FILE *table;
static const char *cubins;
static Map seen;    /* hashes of texts, by level */
static Text *texts; /* vec: to be compiled */

static const char *const devices[] = {"a100", "h100", "b200", "a10", "rtx4090", "rtx5090", "t4"}; /* the usual ones, those with tf32, all */
enum { USUAL = 3, ROUNDING = 6, DEVICES = sizeof devices / sizeof *devices };
static CudaTarget target[DEVICES], rounding[ROUNDING]; /* the same with tf32 */

bool texts_open(void)
{
    static const char toolkit[] = "/usr/local/cuda/lib64";
    Err err = {0};
    if (!getenv("DAV_CUDA_LIBRARY_PATH") && access("/usr/local/cuda/lib64/libnvrtc.so.13", R_OK) == 0)
        setenv("DAV_CUDA_LIBRARY_PATH", toolkit, 1);
    nvrtc = nvrtc_open(&err);
    if (!nvrtc)
        print_message("SKIPPED: %s\n", err.text);
    cubins = getenv("DAV_CUDA_CUBINS");
    if (getenv("DAV_CUDA_TABLE") && (table = fopen(getenv("DAV_CUDA_TABLE"), "w")) != NULL)
        fputs("program\tkernel\tclass\tkernels\tlevel\tregisters\tspilled\tshared\tthreads\tblocks\twarps\n", table);
    for (int i = 0; i < DEVICES; i++)
        target[i] = *cuda_target(&err, devices[i]);
    for (int i = 0; i < ROUNDING; i++) {
        rounding[i] = target[i];
        rounding[i].tf32 = true;
    }
    return nvrtc != NULL;
}

void texts_close(void)
{
    map_free(&seen);
    vec_free(texts);
    if (table)
        fclose(table);
}

const Nvrtc *texts_compiler(void)
{
    return nvrtc;
}

const char *texts_kernel(const char *text)
{
    Buf prologue = {0};
    cuda_prologue(&prologue);
    size_t len = prologue.len;
    buf_free(&prologue);
    return strlen(text) > len ? text + len : "";
}

/* ---- what is to be compiled ---- */
static bool has_op(const Graph *k, Op op)
{
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == op)
            return true;
    return false;
}

static bool multiplies_bf16(const Graph *k)
{
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == OP_TILE_CONTRACT && node_of(k, k_tile_contract_of(k, v).a)->dtype == DAV_BF16)
            return true;
    return false;
}

static bool is_new(const CudaTarget *t, const Buf *text)
{
    char key[60];
    snprintf(key, sizeof key, "%d %016llx%016llx", t->sm, (unsigned long long)hash_bytes(text->at, text->len, 11),
             (unsigned long long)hash_bytes(text->at, text->len, 23));
    return map_put(&seen, key, 1);
}

static void add(const char *program, int i, const CudaGroup *g, const CudaTarget *t)
{
    Text x = {.kernel = i, .parts = g->nstep, .target = t};
    const Graph *k = g->part[0].kernel;
    bool tile = has_op(k, OP_TILE_CONTRACT);
    snprintf(x.program, sizeof x.program, "%s", program);
    if (!cuda_group_text(t, &x.err, g, &x.text, &x.launch))
        fail_msg("%s kernel %d for sm_%d: %s", program, i, t->sm, x.err.text);
    if (!is_new(t, &x.text)) {
        buf_free(&x.text);
        return;
    }
    const char *kernel = texts_kernel(x.text.at);
    bool tensor = tile && (strstr(kernel, "dav_mma_tile<") || strstr(kernel, "dav_tf32_tile<"));
    x.must_be_tensor = tile && t->sm >= 80 && (multiplies_bf16(k) || t->tf32);
    x.class_ = tensor ? "tensor" : tile ? "tile" : g->nstep > 1 ? "shared" : has_op(k, OP_ACC_UPDATE) ? "sum" : "loops";
    vec_push(texts, x);
}

/* The launch at kernel i's step; alone: and the kernel as DAV_CUDA_SYNC=1 launches it. */
static void add_launches(const char *program, const Plan *p, CudaGroup *const *group, const CudaTarget *t, bool alone)
{
    for (int i = 0; i < p->nkernel; i++) {
        CudaPart part = {p->kernel[i], 1};
        if (t->tf32 && !has_op(p->kernel[i], OP_TILE_CONTRACT))
            continue;
        if (group[i])
            add(program, i, group[i], t);
        if (alone)
            add(program, i, &(CudaGroup){.nstep = 1, .npart = 1, .part = &part}, t);
    }
}

CompileOptions texts_options(TextsPrecision precision)
{
    return (CompileOptions){.precision = precision == TEXTS_BF16 ? DAV_BF16 : DAV_F32, .tf32 = precision == TEXTS_TF32,
                            .tile_rows = CUDA_TILE_ROWS, .tile_columns = CUDA_TILE_COLUMNS, .processors = CUDA_PROCESSORS,
                            .sums_of_any_stride = true};
}

void texts_of_lowered(const char *program, const Graph *lowered, TextsPrecision precision, TextsLevels levels)
{
    const bool tf32 = precision == TEXTS_TF32;
    const int count = levels == TEXTS_USUAL ? USUAL : tf32 ? ROUNDING : DEVICES;
    char name[120];
    PlanGrouping grouping = cuda_grouping(0);
    Program p = {.arena = arena_new(), .graph = lowered};
    p.plan = plan_make_grouped(p.arena, lowered, NULL, &grouping);
    p.product = arena_array(p.arena, struct ProductChoice, p.plan->nkernel + 1); /* none by a library */
    CudaGroup **group = cuda_groups(&p);
    snprintf(name, sizeof name, "%s%s", precision == TEXTS_BF16 ? "bf16 " : tf32 ? "tf32 " : "", program);
    for (int d = 0; d < count; d++)
        add_launches(name, p.plan, group, tf32 ? &rounding[d] : &target[d], levels == TEXTS_ALL);
    arena_free(p.arena);
}

void texts_of(const char *program, const Graph *g, TextsPrecision precision, TextsLevels levels)
{
    Err err = {0};
    Arena *arena = arena_new();
    CompileOptions o = texts_options(precision);
    PassCx cx = {.arena = arena, .err = &err, .options = &o};
    const Graph *lowered = passes_run(&cx, g, NULL);
    if (!lowered)
        fail_msg("%s: %s", program, err.text);
    texts_of_lowered(program, lowered, precision, levels);
    vec_free(cx.notes);
    vec_free(cx.times);
    arena_free(arena);
}

void texts_of_ir(const char *program, const char *text, size_t len, TextsPrecision precision, TextsLevels levels)
{
    Err err = {0};
    Arena *arena = arena_new();
    Graph *g = graph_parse(arena, &err, program ? program : "graph", text, len);
    if (!g)
        fail_msg("%s", err.text);
    texts_of(program ? program : g->name, g, precision, levels);
    arena_free(arena);
}

void texts_of_folder(const char *folder)
{
    char pattern[4096];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/*.cu", folder);
    if (glob(pattern, 0, NULL, &found) != 0)
        fail_msg("%s: no texts", folder);
    for (size_t f = 0; f < found.gl_pathc; f++)
        for (int d = 0; d < USUAL; d++) {
            Text x = {.parts = 1, .class_ = "recorded", .target = &target[d]};
            char *text;
            size_t len;
            if (!file_read(&x.err, found.gl_pathv[f], 1 << 24, &text, &len))
                fail_msg("%s", x.err.text);
            buf_add(&x.text, text, len);
            mem_free(text);
            const char *bound = strstr(texts_kernel(x.text.at), "DAV_KERNEL(");
            snprintf(x.program, sizeof x.program, "%s", strrchr(found.gl_pathv[f], '/') + 1);
            x.launch.threads = bound ? atoi(bound + strlen("DAV_KERNEL(")) : 0;
            assert_true(x.launch.threads > 0);
            vec_push(texts, x);
        }
    globfree(&found);
}

/* ---- what is promised ---- */
static void keep_cubin(const Text *x)
{
    char name[200], path[4096];
    Err err = {0};
    snprintf(name, sizeof name, "%s-%d-sm_%d%s", x->program, x->kernel, x->target->sm, x->parts > 1 ? "-shared" : "");
    for (char *c = name; *c; c++)
        if (*c == ' ' || *c == '/')
            *c = '_';
    const char *kernel = texts_kernel(x->text.at);
    snprintf(path, sizeof path, "%s/%s.cubin", cubins, name);
    bool ok = file_write(&err, path, x->cubin.at, x->cubin.len);
    snprintf(path, sizeof path, "%s/%s.cu", cubins, name);
    if (!ok || !file_write(&err, path, kernel, strlen(kernel)))
        fail_msg("%s", err.text);
}

/* Rows times columns of the largest tile; 0: none. */
static int largest_tile(const char *kernel)
{
    int largest = 0, rows, cols;
    for (const char *at = kernel; (at = strstr(at, "_tile<")); at++)
        if (sscanf(at, "_tile<%d, %d", &rows, &cols) == 2 && rows * cols > largest)
            largest = rows * cols;
    return largest;
}

/* All products for sm_90, those in large tiles for sm_80 and sm_100. */
static bool is_kept(const Text *x)
{
    int size = largest_tile(texts_kernel(x->text.at)), sm = x->target->sm;
    return cubins && (sm == 90 ? size > 0 : (sm == 80 || sm == 100) && size >= 64 * 64);
}

/* One warp for each scheduler of a multiprocessor; where nothing is multiplied in tiles, two. */
static int least_warps(const Text *x)
{
    return strcmp(x->class_, "loops") == 0 || strcmp(x->class_, "sum") == 0 || strcmp(x->class_, "shared") == 0 ? 8 : 4;
}

/* Without tensor cores for bf16, attention backward of 128 values keeps a few of them in memory, beside its loops. */
static int most_spilled(const Text *x)
{
    return x->target->sm == 75 ? 32 : 0;
}

/* Complains; true when all is as promised. */
static bool check(const Text *x)
{
    CudaUse use;
    if (x->err.kind != ERR_NONE)
        fail_msg("%s kernel %d for sm_%d: %s", x->program, x->kernel, x->target->sm, x->err.text);
    assert_true(x->cubin.len > 100 && cuda_use_of_log(x->log.at, &use));
    int warps = cuda_blocks_per_sm(x->target, x->launch.threads, use.regs, use.shared_bytes + x->launch.shared_bytes) * x->launch.threads / 32;
    bool tensor = strcmp(x->class_, "tensor") == 0, ok = use.spill_bytes <= most_spilled(x) && warps >= least_warps(x) && (tensor || !x->must_be_tensor);
    if (!ok)
        print_error("%s kernel %d (%s) for sm_%d: %d bytes spilled, %d warps a multiprocessor%s\n", x->program, x->kernel, x->class_,
                    x->target->sm, use.spill_bytes, warps, x->must_be_tensor && !tensor ? ", no tensor cores" : "");
    if (table)
        fprintf(table, "%s\t%d\t%s\t%d\tsm_%d\t%d\t%d\t%d\t%d\t%lld\t%d\n", x->program, x->kernel, x->class_, x->parts, x->target->sm, use.regs,
                use.spill_bytes, use.shared_bytes + x->launch.shared_bytes, x->launch.threads, (long long)x->launch.blocks, warps);
    if (is_kept(x))
        keep_cubin(x);
    return ok;
}

TextsCount texts_compile(void)
{
    TextsCount count = {.compiled = (int)vec_len(texts)};
    int broken = 0;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < count.compiled; i++) {
        Text *x = &texts[i];
        cuda_compile(nvrtc, &x->err, x->target, x->text.at, &x->cubin, &x->log);
    }
    for (int i = 0; i < count.compiled; i++) {
        Text *x = &texts[i];
        broken += !check(x);
        count.tensor += strcmp(x->class_, "tensor") == 0;
        count.shared += x->parts > 1;
        buf_free(&x->text);
        buf_free(&x->cubin);
        buf_free(&x->log);
    }
    vec_free(texts);
    print_message("%d texts compiled, %d with tensor cores, %d of several kernels\n", count.compiled, count.tensor, count.shared);
    assert_int_equal(broken, 0);
    return count;
}
