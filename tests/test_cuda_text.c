/* Every kernel and shared launch of the op cases, golden graphs, attention, networks, objectives and of the optimiser, compiled by the real
 * NVRTC (support/texts.h says what is demanded of them): for sm_80, 90 and 100, the small ones for 75, 86, 89 and 120 as well.
 * Without NVRTC: SKIPPED. */
#include "frontend/net.h"
#include "ir/parse.h"
#include "passes/plan.h"
#include "runtime/masked_graphs.h"
#include "runtime/program_impl.h"
#include "support/blocks.h"
#include "support/texts.h"
#include "support/tiny_em.h"
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void op_cases_compile(void **state)
{
    (void)state;
    if (!texts_compiler())
        skip();
    Err err = {0};
    char *text;
    size_t len;
    assert_true(file_read(&err, DAV_SOURCE_DIR "/tests/data/op_values.ir", 1 << 24, &text, &len));
    for (char *at = text, *end; at && *at; at = end + strspn(end, "\n")) {
        end = strstr(at, "\n}\n");
        assert_non_null(end);
        end += 3;
        texts_of_ir(NULL, at, (size_t)(end - at), TEXTS_F32, TEXTS_ALL);
        texts_of_ir(NULL, at, (size_t)(end - at), TEXTS_TF32, TEXTS_ALL);
    }
    mem_free(text);
    assert_true(texts_compile().compiled > 1000);
}

/* ---- golden graphs: what stands before the arrow, from its pass on ---- */
static void golden_compiles(const PassInfo *pass, const char *path)
{
    Err err = {0};
    Arena *arena = arena_new();
    char *text;
    size_t len;
    assert_true(file_read(&err, path, 1 << 20, &text, &len));
    const char *arrow = strstr(text, "\n->\n");
    assert_non_null(arrow);
    const Graph *g = graph_parse(arena, &err, path, text, (size_t)(arrow + 1 - text));
    TextsPrecision precision = strcmp(pass->name, "precision") == 0 ? TEXTS_BF16 : TEXTS_F32;
    CompileOptions o = texts_options(precision);
    o.memory_budget = strcmp(pass->name, "remat") == 0 ? 9500 : 0;
    PassCx cx = {.arena = arena, .err = &err, .options = &o};
    for (const PassInfo *before = pass_info; before < pass; before++)
        cx.state |= before->gives;
    for (int number = 0; g && pass < pass_info + pass_count; pass++)
        g = pass_run(&cx, pass, number++, g);
    if (!g)
        fail_msg("%s", err.text);
    texts_of_lowered(strrchr(path, '/') + 1, g, precision, TEXTS_ALL);
    vec_free(cx.notes);
    vec_free(cx.times);
    mem_free(text);
    arena_free(arena);
}

static void golden_graphs_compile(void **state)
{
    (void)state;
    if (!texts_compiler())
        skip();
    int files = 0;
    for (int i = 0; i < pass_count; i++) {
        char pattern[600];
        glob_t found;
        snprintf(pattern, sizeof pattern, DAV_SOURCE_DIR "/tests/golden/%s/*.ir", pass_info[i].name);
        if (glob(pattern, 0, NULL, &found) != 0)
            continue;
        for (size_t f = 0; f < found.gl_pathc; f++, files++)
            golden_compiles(&pass_info[i], found.gl_pathv[f]);
        globfree(&found);
    }
    assert_true(files >= 20);
    assert_true(texts_compile().compiled > 100);
}

/* ---- attention ---- */
static void attention(int64_t queries, int64_t keys, int64_t width, bool causal, TextsPrecision precision)
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
    snprintf(name, sizeof name, "attention %lldx%lld width %lld%s", (long long)queries, (long long)keys, (long long)width,
             causal ? " causal" : "");
    texts_of(name, n->g, precision, TEXTS_ALL);
    net_free(n);
    arena_free(arena);
}

/* Forward and backward: the widths of Stable Diffusion and of language models, self attention and the 77 keys of a prompt. */
static void attention_compiles(void **state)
{
    static const int64_t width[] = {40, 64, 80, 128, 160};
    (void)state;
    if (!texts_compiler())
        skip();
    for (size_t i = 0; i < sizeof width / sizeof *width; i++) {
        attention(1024, 1024, width[i], width[i] == 64, TEXTS_BF16);
        attention(256, 77, width[i], false, TEXTS_BF16);
        attention(256, i % 2 ? 256 : 77, width[i], false, TEXTS_F32);
        attention(256, i % 2 ? 77 : 256, width[i], false, TEXTS_TF32);
    }
    assert_true(texts_compile().tensor >= 15 * 2 * 6);
}

/* ---- blocks of larger networks, with their gradients ---- */
static void blocks_compile(void **state)
{
    static const struct { const char *name; BlockWriter write; } block[] = {{"transformer block", transformer_block}, {"unet block", unet_block}};
    (void)state;
    if (!texts_compiler())
        skip();
    for (size_t i = 0; i < sizeof block / sizeof *block; i++)
        for (TextsPrecision p = TEXTS_F32; p <= TEXTS_TF32; p++) {
            Err err = {0};
            Arena *arena = arena_new();
            DavNet *n = block_net(arena, &err, block[i].write, true);
            texts_of(block[i].name, n->g, p, TEXTS_USUAL);
            net_free(n);
            arena_free(arena);
        }
    assert_true(texts_compile().tensor > 100);
}

/* ---- networks: their programs as the command prints them ---- */
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

static void program(const char *what, TextsPrecision precision)
{
    Buf text = {0};
    program_text(what, &text);
    texts_of_ir(what, text.at, text.len, precision, TEXTS_USUAL);
    buf_free(&text);
}

static void networks_compile(void **state)
{
    static const char *const programs[] = {
        "DNAConv --task forward", "DNAConv --task step", "DNAConv --task choose", "DNAConv --task learn --rows 64",
        "DNAConv --task pretrain", "DNAConv --task score", "DNAConv --task prior", "DNAConv --task value --reward SeqCNN",
        "DNAConv --task guide --reward SeqCNN", "DNAConv --task whole --reward SeqCNN", "SeqCNN --task learn", "SeqCNN --task value",
        "SeqTransformer --task forward", "SeqTransformer --task learn", "SeqTransformer --task pretrain", "MPRADragoNN", "MPRADragoNN --task learn",
        "MPRADragoNN --task value", "AestheticMLP",
    };
    (void)state;
    if (!texts_compiler())
        skip();
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        for (TextsPrecision p = TEXTS_F32; p <= TEXTS_TF32; p++)
            program(programs[i], p);
    TextsCount count = texts_compile();
    assert_true(count.compiled > 2000 && count.tensor > 400 && count.shared > 50);
}

/* The configurations that stand beside PyTorch's numbers, of sizes that fit nothing. */
static void odd_networks_compile(void **state)
{
    static const struct { const char *what; bool half; } programs[] = {
        {"tests/data/run/dnaconv-tiny --task learn", false},  {"tests/data/run/dnaconv-odd", false},
        {"tests/data/run/dnaconv-odd --task learn", true},    {"tests/data/run/dnaconv-relaxed --task learn", false},
        {"tests/data/run/dnaconv-mixed-dtypes", false},       {"tests/data/run/mpra-random --task learn", false},
        {"tests/data/run/aesthetic-random", false},           {"tests/data/run/transformer-tiny --task learn", true},
        {"tests/data/run/transformer-relaxed --task learn", false}, {"tests/data/models/seqcnn --task learn", true},
        {"tests/data/models/seqcnn-silu --task learn", false}, {"tests/data/models/tiny --task learn", false},
    };
    (void)state;
    if (!texts_compiler())
        skip();
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        for (int half = 0; half <= programs[i].half; half++)
            program(programs[i].what, half ? TEXTS_BF16 : TEXTS_F32);
    assert_true(texts_compile().compiled > 500);
}

/* ---- what the search and the M-step can be asked for, on the smallest denoiser and reward ---- */
static void task(const char *name, const MaskedSpec *s, const char *what, TextsPrecision precision)
{
    Err err = {0};
    Buf text = {0};
    char full[100];
    const BuildOptions o = {.rows = 8};
    snprintf(full, sizeof full, "TinyDenoiser %s %s", what, name);
    if (!build_text(&err, what, &o, masked_writer(what, false), s, strcmp(what, "learn") == 0 || strcmp(what, "pretrain") == 0, &text))
        fail_msg("%s", err.text);
    texts_of_ir(full, text.at, text.len, precision, precision == TEXTS_F32 ? TEXTS_ALL : TEXTS_USUAL);
    buf_free(&text);
}

static void objectives_compile(void **state)
{
    static const char *const tasks[] = {"forward", "step", "choose", "whole", "learn", "pretrain", "score", "prior", "value", "guide"};
    static const DavLoss *const losses[] = {&dav_loss_dav, &dav_loss_released, &dav_loss_released_weight};
    (void)state;
    if (!texts_compiler())
        skip();
    Tiny *t = tiny_new(4, true, 3, 8);
    for (int variant = 0; variant < 4; variant++) {
        MaskedSpec s = t->spec;
        s.steps = 3;
        s.gradient = variant & 1;
        s.greedy = s.mean_logp = s.time_input = s.train_time_input = variant & 2;
        for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
            for (TextsPrecision p = TEXTS_F32; p <= TEXTS_BF16; p++)
                task(variant & 2 ? "greedy, timed" : variant ? "guided" : "", &s, tasks[i], p);
        s.search = NULL;
        s.children = 1;
        task("without a search", &s, "whole", TEXTS_F32);
    }
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++)
        for (int kl = 0; kl < 2; kl++) {
            MaskedSpec s = t->spec;
            s.loss = losses[i];
            s.distil_kl = kl;
            task(losses[i]->name, &s, "learn", TEXTS_F32);
            task(losses[i]->name, &s, "learn", TEXTS_BF16);
        }
    tiny_free(t);
    assert_true(texts_compile().compiled > 300);
}

/* Of as many parameters as the DNA denoiser has, and of few. */
static void the_optimiser_compiles(void **state)
{
    static const int64_t side[] = {3, 1024};
    (void)state;
    if (!texts_compiler())
        skip();
    for (size_t i = 0; i < sizeof side / sizeof *side; i++) {
        Err err = {0};
        Arena *arena = arena_new();
        Graph *g = graph_new(arena, &err, "parameters");
        g_input(g, "theta.w", ROLE_PARAM, type_make(DAV_F32, 2, (int64_t[]){side[i], side[i]}));
        ParamSet *p = params_from_graph(g, "theta.");
        Optim *o = optim_new(&err, p, &(CompileOptions){0}, "paper:h100");
        if (!o)
            fail_msg("%s", err.text);
        texts_of_lowered("optimiser", o->program->graph, TEXTS_F32, TEXTS_ALL);
        optim_free(o);
        params_free(p);
        arena_free(arena);
    }
    assert_true(texts_compile().compiled >= 2 * 7);
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
    const char *at = texts_kernel(text);
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
    if (!cuda_source(&t, &err, k, "kernel", &text, &launch) || !cuda_compile(texts_compiler(), &err, &t, text.at, &ptx, &log))
        fail_msg("%s: %s", name, err.text);
    buf_add(&ptx, "", 1);
    int expected = 2 * fragments_in(text.at), found = count_in(ptx.at, "mma.sync.aligned");
    if (expected < 2 * 48 || found != expected)
        fail_msg("%s kernel %d: %d tensor instructions, expected %d, at least 96", name, i, found, expected);
    if (!strstr(ptx.at, "cp.async.cg") || strstr(ptx.at, "st.shared"))
        fail_msg("%s kernel %d: elements go through a thread's hands:\n%s", name, i, texts_kernel(text.at));
    buf_free(&text);
    buf_free(&ptx);
    buf_free(&log);
}

/* Forward and backward of the denoiser's convolutions and of what stands between them. */
static void large_products_stay_in_lines(void **state)
{
    (void)state;
    if (!texts_compiler())
        skip();
    Map seen = {0};
    int compiled = 0;
    for (int half = 0; half < 2; half++) {
        Arena *arena = arena_new();
        Err err = {0};
        Buf text = {0};
        program_text("DNAConv --task learn --rows 64", &text);
        Graph *g = graph_parse(arena, &err, "learn", text.at, text.len);
        CompileOptions o = texts_options(half ? TEXTS_BF16 : TEXTS_TF32);
        PassCx cx = {.arena = arena, .err = &err, .options = &o};
        const Graph *lowered = g ? passes_run(&cx, g, NULL) : NULL;
        if (!lowered)
            fail_msg("%s", err.text);
        Plan *p = plan_make(arena, lowered, NULL);
        for (int i = 0; i < p->nkernel; i++)
            if (widest_tile(p->kernel[i]) >= 100 * 128 && is_deep(p->kernel[i]) &&
                map_put(&seen, arena_printf(arena, "%llx", (unsigned long long)graph_hash(p->kernel[i])), 1)) {
                large_product("DNAConv learn", i, p->kernel[i], !half);
                compiled++;
            }
        vec_free(cx.notes);
        vec_free(cx.times);
        buf_free(&text);
        arena_free(arena);
    }
    map_free(&seen);
    print_message("%d kernels compiled\n", compiled);
    assert_true(compiled > 20);
}

/* Whatever else the tests run on the stand-in: tests/slow/texts.sh. */
static void recorded_texts_compile(void **state)
{
    (void)state;
    if (!texts_compiler() || !getenv("DAV_CUDA_TEXTS"))
        skip();
    texts_of_folder(getenv("DAV_CUDA_TEXTS"));
    texts_compile();
}

int main(int argc, char **argv)
{
    texts_open();
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_products_stay_in_lines), cmocka_unit_test(op_cases_compile),     cmocka_unit_test(golden_graphs_compile),
        cmocka_unit_test(attention_compiles),           cmocka_unit_test(blocks_compile),       cmocka_unit_test(networks_compile),     cmocka_unit_test(odd_networks_compile),
        cmocka_unit_test(objectives_compile),           cmocka_unit_test(the_optimiser_compiles),
        cmocka_unit_test(recorded_texts_compile),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    texts_close();
    return failed;
}
