/* Every kernel of the op cases, of the networks' programs and of attention, compiled by the real NVRTC for sm_80, 90 and 100, those
 * with products for 75, 86, 89 and 120 as well: nothing of a product spills, products of bf16 and tf32 use tensor cores.
 * DAV_CUDA_TABLE=FILE writes what ptxas says of each kernel, DAV_CUDA_CUBINS=FOLDER the cubins of products (tests/slow/sass.py).
 * Without NVRTC: SKIPPED. */
#include "codegen/cuda/predict.h"
#include "frontend/net.h"
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
static const char *cubins;
static bool only_tiles;
static bool every_level; /* of the products: for 75, 86, 89 and 120, too */
static int compiled, spilled, mma, crowded;

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

/* The kernel itself, behind what is the same in all of them. */
static const char *kernel_in(const char *text)
{
    const char *at = strstr(text, "DAV_KERNEL("), *kernel = at;
    while ((at = strstr(at + 1, "DAV_KERNEL(")))
        kernel = at;
    return kernel ? kernel : "";
}

static bool names(const char *text, const char *tile)
{
    return strstr(kernel_in(text), tile) != NULL;
}

static void keep_cubin(const CudaTarget *t, const char *program, int i, const char *text, const Buf *cubin)
{
    char path[4096], name[200];
    Err err = {0};
    snprintf(name, sizeof name, "%s-%d%s-sm_%d", program, i, t->tf32 ? "-tf32" : "", t->sm);
    for (char *c = name; *c; c++)
        if (*c == ' ' || *c == '/')
            *c = '_';
    snprintf(path, sizeof path, "%s/%s.cubin", cubins, name);
    bool ok = file_write(&err, path, cubin->at, cubin->len);
    snprintf(path, sizeof path, "%s/%s.cu", cubins, name);
    if (!ok || !file_write(&err, path, kernel_in(text), strlen(kernel_in(text))))
        fail_msg("%s", err.text);
}

static void compile_kernel(const CudaTarget *t, const char *program, int i, const Graph *k)
{
    Err err = {0};
    Buf text = {0}, cubin = {0}, log = {0};
    CudaLaunch launch;
    bool tiles = has_op(k, OP_TILE_CONTRACT);
    if ((only_tiles && !tiles) || !first_time(t->sm + (t->tf32 ? 1000 : 0), k))
        return;
    if (!cuda_source(t, &err, k, "kernel", &text, &launch) || !cuda_compile(nvrtc, &err, t, text.at, &cubin, &log))
        fail_msg("%s kernel %d for sm_%d: %s", program, i, t->sm, err.text);
    assert_true(cubin.len > 100);
    Usage u = usage_of(log.at ? log.at : "");
    bool tensor = names(text.at, "dav_mma_tile<") || names(text.at, "dav_tf32_tile<");
    compiled++;
    mma += tensor;
    if (tiles && u.spill_bytes) {
        print_error("%s kernel %d for sm_%d spills %d bytes\n", program, i, t->sm, u.spill_bytes);
        spilled++;
    }
    int active = cuda_blocks_per_sm(t, launch.threads, u.registers, u.shared_bytes + launch.shared_bytes) * launch.threads / 32;
    if (tiles && active < 4) { /* one warp for each scheduler of a multiprocessor */
        print_error("%s kernel %d for sm_%d: %d warps\n", program, i, t->sm, active);
        crowded++;
    }
    bool bf16 = false;
    for (Val v = 1; v < k->n; v++)
        bf16 |= node_of(k, v)->op == OP_TILE_CONTRACT && node_of(k, k_tile_contract_of(k, v).a)->dtype == DAV_BF16;
    if (t->sm >= 80 && tiles && (bf16 || t->tf32) && !tensor)
        fail_msg("%s kernel %d for sm_%d: a product without tensor cores", program, i, t->sm);
    if (table)
        fprintf(table, "%s\t%d\t%s\tsm_%d%s\t%d\t%d\t%d\t%d\t%lld\t%d\n", program, i, tensor ? "tensor" : tiles ? "tile" : "loops", t->sm,
                t->tf32 ? " tf32" : "", u.registers, u.spill_bytes, u.shared_bytes, launch.threads, (long long)launch.blocks, active);
    if (cubins && tiles && t->sm == 90)
        keep_cubin(t, program, i, text.at, &cubin);
    buf_free(&text);
    buf_free(&cubin);
    buf_free(&log);
}

static void compile_graph(const char *program, const Graph *g, DavDtype precision, Arena *arena)
{
    static const char *const devices[] = {"a100", "h100", "b200"};
    Err err = {0};
    CompileOptions o = {.precision = precision, .tile_rows = CUDA_TILE_ROWS, .tile_columns = CUDA_TILE_COLUMNS, .processors = CUDA_PROCESSORS,
                        .sums_of_any_stride = true};
    PassCx cx = {.arena = arena, .err = &err, .options = &o};
    const Graph *lowered = passes_run(&cx, g, NULL);
    if (!lowered)
        fail_msg("%s: %s", program, err.text);
    Plan *p = plan_make(arena, lowered, NULL);
    for (size_t d = 0; d < sizeof devices / sizeof *devices; d++)
        for (int i = 0; i < p->nkernel; i++)
            compile_kernel(cuda_target(&err, devices[d]), program, i, p->kernel[i]);
    static const char *const others[] = {"t4", "a10", "rtx4090", "rtx5090"};
    for (size_t d = 0; d < sizeof others / sizeof *others; d++)
        for (int i = 0; i < p->nkernel && every_level; i++)
            if (has_op(p->kernel[i], OP_TILE_CONTRACT))
                compile_kernel(cuda_target(&err, others[d]), program, i, p->kernel[i]);
    CudaTarget rounding = *cuda_target(&err, "h100");
    rounding.tf32 = true;
    for (int i = 0; i < p->nkernel && precision == DAV_F32 && every_level; i++)
        if (has_op(p->kernel[i], OP_TILE_CONTRACT))
            compile_kernel(&rounding, program, i, p->kernel[i]);
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
    compiled = spilled = crowded = 0;
    every_level = true;
    for (char *at = text, *end; at && *at; at = end + strspn(end, "\n")) {
        end = strstr(at, "\n}\n");
        assert_non_null(end);
        end += 3;
        compile_text("-", at, (size_t)(end - at), DAV_F32);
    }
    every_level = false;
    mem_free(text);
    print_message("%d kernels compiled\n", compiled);
    assert_true(compiled > 300);
    assert_int_equal(spilled + crowded, 0);
}

static void compile_attention(int64_t queries, int64_t keys, int64_t width, bool causal, DavDtype precision)
{
    Arena *arena = arena_new();
    Err err = {0};
    char name[80];
    DavNet *n = net_new(arena, &err, "attention");
    DavVal q = dav_input(n, "q", DAV_F32, 1, 8, queries, width), k = dav_input(n, "k", DAV_F32, 1, 8, keys, width);
    DavVal v = dav_input(n, "v", DAV_F32, 1, 8, keys, width), x[] = {q, k, v}, grad[3], out = dav_attention(q, k, v, .causal = causal);
    dav_grads(dav_sum(dav_square(out), 0, 1, 2, 3), x, 3, grad);
    dav_output(n, "out", out);
    for (int g = 0; g < 3; g++)
        dav_output(n, g == 0 ? "dq" : g == 1 ? "dk" : "dv", grad[g]);
    snprintf(name, sizeof name, "%sattention %lldx%lld width %lld%s", precision == DAV_BF16 ? "bf16 " : "", (long long)queries,
             (long long)keys, (long long)width, causal ? " causal" : "");
    compile_graph(name, n->g, precision, arena);
    net_free(n);
    arena_free(arena);
}

/* Forward and backward: the widths of Stable Diffusion and of language models, self attention and the 77 keys of a prompt. */
static void attention_compiles(void **state)
{
    static const int64_t width[] = {40, 64, 80, 128, 160};
    (void)state;
    if (!nvrtc)
        skip();
    compiled = spilled = mma = crowded = 0;
    only_tiles = true;
    for (size_t i = 0; i < sizeof width / sizeof *width; i++) {
        compile_attention(1024, 1024, width[i], width[i] == 64, DAV_BF16);
        compile_attention(256, 77, width[i], false, DAV_BF16);
        compile_attention(256, i % 2 ? 256 : 77, width[i], false, DAV_F32);
    }
    only_tiles = false;
    print_message("%d kernels compiled, %d with tensor cores\n", compiled, mma);
    assert_true(mma >= 10 * 2 * 3);
    assert_int_equal(spilled + crowded, 0);
}

/* The program as its command prints it. */
static void program_text(const char *what, Buf *text)
{
    char command[600], part[65536];
    snprintf(command, sizeof command, "%s compile %s --emit ir", DAV_BINARY, what);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;)
        buf_add(text, part, n);
    assert_int_equal(pclose(f), 0);
}

static void compile_program(const char *what, DavDtype precision)
{
    char command[600];
    Buf text = {0};
    program_text(what, &text);
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
    compiled = spilled = mma = crowded = 0;
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        for (int half = 0; half < 2; half++)
            compile_program(programs[i], half ? DAV_BF16 : DAV_F32);
    print_message("%d kernels compiled, %d with tensor cores\n", compiled, mma);
    assert_true(compiled > 300);
    assert_true(mma > 60);
    assert_int_equal(spilled + crowded, 0);
}

/* ---- large products: fragments of whole tiles from lines of 16 bytes, nothing element by element ---- */
static int count_in(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++)
        n++;
    return n;
}

/* Tensor instructions in a step of all tiles that the kernel's text names. */
static int fragments_in(const char *text)
{
    int sum = 0, mr, nr, down, across, kc, stages;
    const char *at = kernel_in(text);
    while ((at = strstr(at, "typedef dav_")) && ++at) {
        char kind[8];
        if (sscanf(at, "ypedef dav_%7[a-z0-9]_tile<%d, %d, %d, %d, %d, %d>", kind, &mr, &nr, &down, &across, &kc, &stages) == 7)
            sum += (mr + 16 * down - 1) / (16 * down) * ((nr + 8 * across - 1) / (8 * across)) * kc / (strcmp(kind, "mma") == 0 ? 16 : 8);
    }
    return sum;
}

/* The kernel's widest tile, in elements. */
static int64_t widest_tile(const Graph *k)
{
    int64_t widest = 0;
    for (Val v = 1; v < k->n; v++) {
        int64_t size = node_of(k, v)->op == OP_TILE ? attr_i(node_of(k, v), A_MR) * attr_i(node_of(k, v), A_NR) : 0;
        widest = size > widest ? size : widest;
    }
    return widest;
}

static bool is_deep(const Graph *k) /* no sum over the letters of an alphabet */
{
    bool deep = true;
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == OP_TILE_CONTRACT) {
            const Node *depth = node_of(k, k_tile_contract_of(k, v).k);
            deep &= depth->op != OP_CONST || attr_f(depth, A_VALUE) >= 16;
        }
    return deep;
}

static void large_product(const char *name, int i, const Graph *k, bool tf32)
{
    Err err = {0};
    Buf text = {0}, ptx = {0}, log = {0};
    CudaLaunch launch;
    CudaTarget t = *cuda_target(&err, "a100");
    t.tf32 = tf32;
    t.ptx = true;
    if (!first_time(tf32 ? 2001 : 2000, k))
        return;
    if (!cuda_source(&t, &err, k, "kernel", &text, &launch) || !cuda_compile(nvrtc, &err, &t, text.at, &ptx, &log))
        fail_msg("%s: %s", name, err.text);
    buf_add(&ptx, "", 1);
    if (cubins && tf32) { /* the networks' are compiled in f32 and bf16 alone */
        Buf cubin = {0};
        CudaTarget h100 = *cuda_target(&err, "h100");
        h100.tf32 = true;
        if (!cuda_compile(nvrtc, &err, &h100, text.at, &cubin, &log))
            fail_msg("%s: %s", name, err.text);
        keep_cubin(&h100, name, i, text.at, &cubin);
        buf_free(&cubin);
    }
    int expected = 2 * fragments_in(text.at), found = count_in(ptx.at, "mma.sync.aligned");
    if (expected < 2 * 48 || found != expected)
        fail_msg("%s kernel %d: %d tensor instructions, expected %d, at least 96", name, i, found, expected);
    if (!strstr(ptx.at, "cp.async.cg") || strstr(ptx.at, "st.shared"))
        fail_msg("%s kernel %d: elements go through a thread's hands:\n%s", name, i, kernel_in(text.at));
    buf_free(&text);
    buf_free(&ptx);
    buf_free(&log);
    compiled++;
}

/* Forward and backward of the denoiser's convolutions and of what stands between them. */
static void large_products_stay_in_lines(void **state)
{
    (void)state;
    if (!nvrtc)
        skip();
    compiled = 0;
    for (int half = 0; half < 2; half++) {
        Arena *arena = arena_new();
        Err err = {0};
        Buf text = {0};
        program_text("DNAConv --task learn --rows 64", &text);
        Graph *g = graph_parse(arena, &err, "learn", text.at, text.len);
        CompileOptions o = {.precision = half ? DAV_BF16 : DAV_F32, .tile_rows = CUDA_TILE_ROWS, .tile_columns = CUDA_TILE_COLUMNS,
                            .processors = CUDA_PROCESSORS, .sums_of_any_stride = true, .tf32 = !half};
        PassCx cx = {.arena = arena, .err = &err, .options = &o};
        const Graph *lowered = g ? passes_run(&cx, g, NULL) : NULL;
        if (!lowered)
            fail_msg("%s", err.text);
        Plan *p = plan_make(arena, lowered, NULL);
        for (int i = 0; i < p->nkernel; i++)
            if (widest_tile(p->kernel[i]) >= 100 * 128 && is_deep(p->kernel[i]))
                large_product("DNAConv learn", i, p->kernel[i], !half);
        vec_free(cx.notes);
        vec_free(cx.times);
        buf_free(&text);
        arena_free(arena);
    }
    print_message("%d kernels compiled\n", compiled);
    assert_true(compiled > 20);
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
    cubins = getenv("DAV_CUDA_CUBINS");
    if (getenv("DAV_CUDA_TABLE"))
        table = fopen(getenv("DAV_CUDA_TABLE"), "w");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_products_stay_in_lines),
        cmocka_unit_test(op_cases_compile),
        cmocka_unit_test(networks_compile),
        cmocka_unit_test(attention_compiles),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    map_free(&seen);
    if (table)
        fclose(table);
    return failed;
}
