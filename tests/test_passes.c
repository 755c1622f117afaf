/* Passes: golden text before -> after, meaning kept by every prefix of the pipeline, what layout promises, the runner.
 */
#include "frontend/net.h"
#include "ir/config.h"
#include "ir/interp.h"
#include "ir/parse.h"
#include "ir/print.h"
#include "models/builtin.h"
#include "passes/pass.h"
#include "passes/plan.h"
#include "runtime/program.h"
#include "support/random_graph.h"
#include <dav/objective.h>
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define GOLDEN DAV_SOURCE_DIR "/tests/golden"

/* ---- golden text: a file is the graph before, a line "->", the graph after; DAV_GOLDEN=write puts in what comes out
 * ---- */
static int golden_files;

static void check_golden(const PassInfo *pass, const char *path)
{
    Err err = {0};
    Arena *arena = arena_new();
    char *text;
    size_t len;
    if (!file_read(&err, path, 1 << 20, &text, &len))
        fail_msg("%s", err.text);
    char *arrow = strstr(text, "->\n");
    if (!arrow)
        fail_msg("%s: expected a line \"->\"", path);
    for (char *next; (next = strstr(arrow + 1, "\n->\n")) != NULL;)
        arrow = next + 1;
    Graph *before = graph_parse(arena, &err, path, text, (size_t)(arrow - text));
    if (!before)
        fail_msg("%s", err.text);
    CompileOptions options = {.precision = strcmp(pass->name, "precision") == 0 ? DAV_BF16 : DAV_F32,
                              .memory_budget = strcmp(pass->name, "remat") == 0 ? 9500 : 0};
    PassCx cx = {.arena = arena, .err = &err, .options = &options, .state = pass->needs};
    Graph *after = graph_new(arena, &err, before->name);
    if (!pass->run(&cx, before, after))
        fail_msg("%s: %s", path, err.text);
    Buf found = {0};
    graph_print(&found, after);
    if (getenv("DAV_GOLDEN")) {
        Buf all = {0};
        buf_add(&all, text, (size_t)(arrow - text));
        buf_printf(&all, "->\n%s", found.at);
        assert_true(file_write(&err, path, all.at, all.len));
        buf_free(&all);
    } else if (strcmp(arrow + 3, found.at) != 0) {
        fail_msg("%s: expected\n%sfound\n%s", path, arrow + 3, found.at);
    }
    golden_files++;
    buf_free(&found);
    mem_free(text);
    vec_free(cx.notes);
    arena_free(arena);
}

static void test_golden(void **state)
{
    (void)state;
    for (int i = 0; i < pass_count; i++) {
        char folder[600], path[900];
        snprintf(folder, sizeof folder, "%s/%s", GOLDEN, pass_info[i].name);
        DIR *d = opendir(folder);
        for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
            size_t n = strlen(e->d_name);
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
            if (n > 3 && strcmp(e->d_name + n - 3, ".ir") == 0)
                check_golden(&pass_info[i], path);
        }
        if (d)
            closedir(d);
    }
    assert_true(golden_files >= 10);
}

/* ---- every prefix means the same ---- */
static const Graph *prefix(Arena *arena, const Graph *g, const char *last)
{
    Err err = {0};
    PassCx cx = {.arena = arena, .err = &err};
    const Graph *out = passes_run(&cx, g, last);
    vec_free(cx.notes);
    vec_free(cx.times);
    if (!out)
        fail_msg("%s up to %s: %s", g->name, last, err.text);
    return out;
}

static void **tensors_for(Arena *arena, const Graph *g, const Val *v, int n)
{
    void **t = arena_array(arena, void *, n + 1);
    for (int i = 0; i < n; i++)
        t[i] = arena_alloc(arena, (size_t)node_count(g, v[i]) * 8 + 8);
    return t;
}

static void **outputs(Arena *arena, const Graph *g, void *const *in)
{
    Err err = {0};
    void **out = arena_array(arena, void *, g->nout + 1);
    for (int i = 0; i < g->nout; i++)
        out[i] = arena_alloc(arena, (size_t)node_count(g, g->out[i].val) * 8 + 8);
    if (!graph_interpret(&err, g, true, (const void *const *)in, out, NULL))
        fail_msg("%s: %s", g->name, err.text);
    return out;
}

static bool is_float(const Graph *g, Val v)
{
    return dav_dtype_is_float((DavDtype)node_of(g, v)->dtype);
}

static void compare(const Graph *g, void *const *want, void *const *have, const char *last, int number)
{
    for (int k = 0; k < g->nout; k++) {
        int64_t n = node_count(g, g->out[k].val);
        bool flt = is_float(g, g->out[k].val);
        double scale = 1;
        for (int64_t i = 0; flt && i < n; i++)
            scale = fmax(scale, fabs(((double *)want[k])[i]));
        if (!flt &&
            memcmp(want[k], have[k], (size_t)n * dav_dtype_size((DavDtype)node_of(g, g->out[k].val)->dtype)) != 0)
            fail_msg("graph %d, output %s differs after %s", number, g->out[k].name, last);
        for (int64_t i = 0; flt && i < n; i++) {
            double a = ((double *)want[k])[i], b = ((double *)have[k])[i];
            if (!(fabs(a - b) <= 1e-9 * scale || (isnan(a) && isnan(b)) || a == b))
                fail_msg("graph %d, output %s[%lld] is %.12g after %s, was %.12g", number, g->out[k].name, (long long)i,
                         b, last, a);
        }
    }
}

static void check_prefixes(Arena *arena, const Graph *g, Rng *rng, int number)
{
    const Graph *plain = prefix(arena, g, "autodiff"); /* the interpreter knows no grad */
    int nin;
    const Val *in = graph_inputs(plain, arena, &nin);
    void **data = tensors_for(arena, plain, in, nin);
    for (int i = 0; i < nin; i++) {
        Type t = type_of(plain, in[i]);
        bool flt = is_float(plain, in[i]);
        if (!flt)
            random_fill(rng, &t, data[i]);
        for (int64_t e = 0; flt && e < type_count(&t); e++)
            ((double *)data[i])[e] = 2 * rng_unit(rng) - 1;
    }
    void **want = outputs(arena, plain, data);
    bool reached = false;
    for (int p = 0; p < pass_count && strcmp(pass_info[p].name, "lower") != 0; p++) {
        if (reached)
            compare(plain, want, outputs(arena, prefix(arena, g, pass_info[p].name), data), pass_info[p].name, number);
        reached |= strcmp(pass_info[p].name, "autodiff") == 0;
    }
}

/* Adds the gradients of the sum of the float outputs with respect to the float inputs. */
static void add_gradients(Graph *g)
{
    Val arg[64];
    int n = 1;
    arg[0] = 0;
    for (int k = 0; k < g->nout; k++) {
        Val v = g->out[k].val;
        if (node_of(g, v)->dtype != DAV_F32)
            continue;
        Val sum = g_reshape(g, g_reduce_mask(g, OP_SUM, g_un(g, OP_TANH, v), (1u << node_of(g, v)->rank) - 1), 0, NULL);
        arg[0] = arg[0] ? g_bin(g, OP_ADD, arg[0], sum) : sum;
    }
    for (Val v = 1; v < g->n && n < 64; v++)
        if (node_of(g, v)->op == OP_INPUT && node_of(g, v)->dtype == DAV_F32)
            arg[n++] = v;
    if (!arg[0] || n == 1)
        return;
    Val tuple = graph_node(g, OP_GRAD, arg, n, NULL, 0, NULL);
    for (int i = 0; i < n - 1; i++)
        graph_output(g, arena_printf(g->arena, "grad%d", i), g_pick(g, tuple, i));
}

static void test_random_graphs(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        Arena *arena = arena_new();
        Err err = {0};
        Rng rng = {(uint64_t)i * 77 + 5};
        Graph *g = random_graph(arena, &err, &rng, 5 + i / 2);
        add_gradients(g);
        assert_int_equal(err.kind, ERR_NONE);
        check_prefixes(arena, g, &rng, i);
        arena_free(arena);
    }
}

/* ---- networks in channels-first order ---- */
static DavVal images(DavNet *n, int64_t batch)
{
    DavVal x = dav_input(n, "x", DAV_F32, batch, 4, 8, 6);
    DavVal h = dav_silu(dav_group_norm(n, "norm", dav_conv(n, "c1", x, 8, .kernel = {3, 3}, .pad = {1, 1}), 2));
    DavVal d = dav_conv(n, "down", h, 8, .kernel = {3, 2}, .stride = {2, 2}, .pad = {1, 0}, .groups = 2);
    DavVal u = dav_conv_transposed(n, "up", dav_relu(d), 4, .kernel = {2, 2}, .stride = {2, 2});
    DavVal both = dav_concat(1, u, h);
    DavVal m = dav_max_pool(both, .size = {2, 2}, .stride = {2, 2});
    DavVal p = dav_avg_pool(dav_swap(m, 2, 3), .size = {3, 2}, .stride = {1, 2});
    return dav_linear(n, "head", dav_reshape(p, batch, -1), 3);
}

static DavVal sequences(DavNet *n, int64_t batch)
{
    DavVal ids = dav_input(n, "x", DAV_I32, batch, 7);
    DavVal h = dav_swap(dav_embedding(n, "embed", ids, 6, 8), 1, 2);
    DavVal a = dav_conv(n, "conv", h, 8, .kernel = {3}, .dilation = {2}, .pad = {2});
    DavVal t = dav_swap(dav_layer_norm(n, "norm", dav_add(h, dav_gelu(a)), .axis = 1), 1, 2);
    DavVal q = dav_linear(n, "q", t, 8), k = dav_linear(n, "k", t, 8), v = dav_linear(n, "v", t, 8);
    DavVal s = dav_softmax(dav_mul(dav_matmul(q, dav_swap(k, 1, 2)), 0.35), 2);
    return dav_mean(dav_matmul(s, v), 1);
}

/* One step of a recurrent convolution: (h, w, x of the step) -> (h', mean of h'). */
static void recurrent_step(DavNet *n, const void *context, const DavVal *in, DavVal *out)
{
    (void)n, (void)context; /* in: carried h, scanned x, invariant w */
    DavVal h = dav_add(dav_convolve(in[0], in[2], .pad = {1}), in[1]);
    out[0] = dav_tanh(h);
    out[1] = dav_mean(out[0], 2);
}

static DavVal recurrent(DavNet *n, int64_t batch)
{
    DavVal x = dav_input(n, "x", DAV_F32, batch, 8, 10), out[2];
    DavVal w = dav_param(n, "w", ((DavInit){DAV_INIT_NORMAL, 0.1}), 8, 8, 3);
    DavVal steps = dav_param(n, "steps", ((DavInit){DAV_INIT_NORMAL, 0.1}), 3, 1, 8, 10);
    DavVal in[3] = {dav_relu(dav_conv(n, "first", x, 8, .kernel = {3}, .pad = {1})),
                    dav_broadcast(steps, -1, batch, -1, -1), w};
    dav_loop(n, "", recurrent_step, NULL, in, 3, out, 2, .trip = 3, .carry = 1, .scan = 1);
    return dav_add(dav_mean(out[0], 2), dav_mean(out[1], 0));
}

/* The network, a loss, and the gradients of its parameters. */
static Graph *trained(Arena *arena, Err *err, DavVal (*network)(DavNet *, int64_t), int64_t batch)
{
    DavNet *n = net_new(arena, err, "net");
    DavVal y = network(n, batch), xs[64], grads[64];
    dav_output(n, "y", y);
    int count = net_param_count(n);
    for (int i = 0; i < count; i++)
        xs[i] = net_val(n, net_param(n, i)->val);
    dav_grads(dav_sum(dav_square(y)), xs, count, grads);
    for (int i = 0; i < count; i++)
        dav_output(n, arena_printf(arena, "grad%d", i), grads[i]);
    Graph *g = n->g;
    net_free(n);
    if (err->kind != ERR_NONE)
        fail_msg("%s", err->text);
    return g;
}

static void test_networks(void **state)
{
    (void)state;
    for (int64_t batch = 1; batch < 4; batch++) {
        Arena *arena = arena_new();
        Err err = {0};
        Rng rng = {7};
        check_prefixes(arena, trained(arena, &err, images, batch), &rng, (int)batch);
        check_prefixes(arena, trained(arena, &err, sequences, batch), &rng, 10 + (int)batch);
        check_prefixes(arena, trained(arena, &err, recurrent, batch), &rng, 20 + (int)batch);
        arena_free(arena);
    }
}

/* Copies of the weight in another order, made inside of loops. */
static int transposes_in_loops(const Graph *g, bool inside)
{
    int n = 0;
    for (Val v = 1; v < g->n; v++) {
        n += inside && node_of(g, v)->op == OP_TRANSPOSE;
        if (node_of(g, v)->op == OP_LOOP)
            n += transposes_in_loops(attr_graph(node_of(g, v), A_GRAPH), true);
    }
    return n;
}

static void weights_are_packed_outside_of_loops(void **state)
{
    (void)state;
    int found[2];
    for (int hoisted = 0; hoisted < 2; hoisted++) {
        Arena *arena = arena_new();
        Err err = {0};
        CompileOptions options = {0};
        PassCx cx = {.arena = arena, .err = &err, .options = &options};
        const Graph *g = passes_run(&cx, trained(arena, &err, recurrent, 2), hoisted ? "hoist" : "pack");
        if (!g)
            fail_msg("%s", err.text);
        found[hoisted] = transposes_in_loops(g, false);
        vec_free(cx.times);
        arena_free(arena);
    }
    print_message("transposes inside of loops: %d before, %d after\n", found[0], found[1]);
    assert_true(found[0] > 0);
    assert_true(found[1] < found[0]);
}

/* The same networks by the whole pipeline and compiled code; bf16 only has to come near. */
static void test_compiled(void **state)
{
    (void)state;
    static DavVal (*const network[])(DavNet *, int64_t) = {images, sequences, recurrent};
    for (int k = 0; k < 9; k++) {
        Arena *arena = arena_new();
        Err err = {0};
        Rng rng = {5};
        Graph *g = trained(arena, &err, network[k % 3], 3);
        bool bf16 = k >= 6;
        void *in[64], **out[2];
        int nin = 0;
        for (int d = 0; d < 2; d++) {
            ProgramOptions o = {.device = d ? "cpu" : "interp", .compile = {.precision = bf16 ? DAV_BF16 : DAV_F32}};
            Program *p = program_compile(&err, g, &o);
            if (!p)
                fail_msg("%s", err.text);
            for (; !d && nin < program_input_count(p); nin++) {
                Type t = program_input_type(p, nin);
                in[nin] = mem_alloc_aligned((size_t)type_count(&t) * 4, 64);
                random_fill(&rng, &t, in[nin]);
            }
            out[d] = arena_array(arena, void *, program_output_count(p));
            for (int i = 0; i < program_output_count(p); i++) {
                Type t = program_output_type(p, i);
                out[d][i] = mem_alloc_aligned((size_t)type_count(&t) * 4, 64);
            }
            if (!program_run(p, &err, in, out[d], 1, 1 + k / 3 % 2))
                fail_msg("%s", err.text);
            program_free(p);
        }
        for (int i = 0; i < g->nout; i++) {
            double off = 0, all = 1e-2; /* a key bias has no gradient but noise */
            for (int64_t e = 0; e < node_count(g, g->out[i].val); e++) {
                double a = ((float *)out[0][i])[e], b = ((float *)out[1][i])[e];
                off += (a - b) * (a - b);
                all += a * a;
            }
            if (!(sqrt(off / all) < (bf16 ? 0.2 : 1e-4)))
                fail_msg("network %d, output %s: off by %.3g", k % 3, g->out[i].name, sqrt(off / all));
            mem_free(out[0][i]);
            mem_free(out[1][i]);
        }
        for (int i = 0; i < nin; i++)
            mem_free(in[i]);
        arena_free(arena);
    }
}

/* The denoiser's training graph has no transposed copy of an activation, forward or backward. */
static void test_no_transposes(void **state)
{
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        Arena *arena = arena_new();
        Err err = {0};
        DavNet *n = net_new(arena, &err, "denoiser");
        DavConfig *c = config_new(arena);
        config_add_table(c, "", model_dna_conv.keys, model_dna_conv.n_keys);
        const char *json = "{\"num_cnn_stacks\": 1, \"length\": 40, \"hidden_dim\": 16}";
        assert_true(config_read_json(c, &err, "json", json, strlen(json)) && config_finish(c, &err, "json"));
        DavVal x = dav_input(n, "x", DAV_I64, 4, 40), out[DAV_MAX_PORTS], xs[100], grads[100];
        model_dna_conv.forward(n, c, (DavVal[]){x, dav_input(n, "t", DAV_F32, 4)}, out);
        int count = net_param_count(n);
        for (int i = 0; i < count; i++)
            xs[i] = net_val(n, net_param(n, i)->val);
        DavVal x0 = dav_input(n, "x0", DAV_I64, 4, 40);
        dav_grads(dav_sum(dav_masked_cross_entropy(dav_masked_logp(out[0]), x, x0)), xs, count, grads);
        for (int i = 0; i < count; i++)
            dav_output(n, arena_printf(arena, "grad%d", i), grads[i]);
        CompileOptions options = {.precision = bf16 ? DAV_BF16 : DAV_F32};
        PassCx cx = {.arena = arena, .err = &err, .options = &options};
        const Graph *g = passes_run(&cx, n->g, "tidy");
        if (!g)
            fail_msg("%s", err.text);
        for (Val v = 1; v < g->n; v++)
            assert_int_not_equal(node_of(g, v)->op, OP_TRANSPOSE);
        vec_free(cx.times);
        net_free(n);
        arena_free(arena);
    }
}

/* ---- a memory budget ---- */
static DavVal deep(DavNet *n, int64_t batch)
{
    DavVal h = dav_input(n, "x", DAV_F32, batch, 8, 30);
    for (int i = 0; i < 10; i++)
        h = dav_add(h, dav_tanh(dav_conv(n, dav_name(n, "c%d", i), h, 8, .kernel = {3}, .pad = {1})));
    return dav_mean(h, 2);
}

static const Graph *under_budget(Arena *arena, Err *err, const Graph *g, const char *last, int64_t budget,
                                 const char **note)
{
    CompileOptions options = {.memory_budget = budget};
    PassCx cx = {.arena = arena, .err = err, .options = &options};
    const Graph *out = passes_run(&cx, g, last);
    vec_free(cx.notes);
    vec_free(cx.times);
    *note = cx.memory_note;
    return out;
}

/* Fewer bytes, the same values; and an error that names the peak when it cannot be done. */
static void test_memory_budget(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    const char *note;
    Graph *g = trained(arena, &err, deep, 16);
    int64_t all = plan_make(arena, under_budget(arena, &err, g, NULL, 0, &note), NULL)->arena_bytes,
            budget = all * 7 / 10;
    assert_null(note);
    const Graph *low = under_budget(arena, &err, g, NULL, budget, &note);
    if (!low)
        fail_msg("%s", err.text);
    assert_non_null(note);
    assert_true(plan_make(arena, low, NULL)->arena_bytes <= budget);
    const Graph *pair[2] = {prefix(arena, g, "tidy"), under_budget(arena, &err, g, "remat", budget, &note)};
    Rng rng = {11};
    int nin;
    const Val *in = graph_inputs(pair[0], arena, &nin);
    void **data = tensors_for(arena, pair[0], in, nin), **out[2];
    for (int i = 0; i < nin; i++)
        for (int64_t e = 0; e < node_count(pair[0], in[i]); e++)
            ((double *)data[i])[e] = 2 * rng_unit(&rng) - 1;
    for (int k = 0; k < 2; k++)
        out[k] = outputs(arena, pair[k], data);
    for (int k = 0; k < pair[0]->nout; k++) /* the same bits */
        assert_memory_equal(out[0][k], out[1][k], (size_t)node_count(pair[0], pair[0]->out[k].val) * sizeof(double));
    assert_null(under_budget(arena, &err, g, NULL, 1000, &note));
    assert_int_equal(err.kind, ERR_USER);
    assert_non_null(strstr(err.text, "a memory budget of 1000 bytes cannot be met"));
    arena_free(arena);
}

/* ---- the runner ---- */
static void test_runner(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    Graph *g = graph_new(arena, &err, "square");
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 0, NULL)), y = g_bin(g, OP_MUL, x, x);
    graph_output(g, "dy", g_pick(g, graph_node(g, OP_GRAD, (Val[]){y, x}, 2, NULL, 0, NULL), 0));
    char folder[] = "/tmp/dav-passes-XXXXXX";
    assert_non_null(mkdtemp(folder));
    CompileOptions options = {.dump = folder};
    PassCx cx = {.arena = arena, .err = &err, .options = &options};
    assert_non_null(passes_run(&cx, g, "simplify"));
    assert_int_equal(vec_len(cx.times), 4);
    assert_string_equal(cx.times[2].name, "autodiff");
    assert_true(cx.times[2].changed && !cx.times[1].changed && !cx.times[0].changed);
    assert_true(cx.state & HAS_NO_GRAD);
    static const char *const files[] = {"00-input.ir", "01-inline.ir", "02-attention.ir", "03-autodiff.ir", "04-simplify.ir"};
    for (int i = 0; i < 5; i++) { /* each reads back */
        char path[100];
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        assert_non_null(graph_read(arena, &err, path));
        unlink(path);
    }
    rmdir(folder);
    vec_free(cx.times);
    options.dump = "/nowhere/at/all"; /* a failure of the environment comes back */
    PassCx again = {.arena = arena, .err = &err, .options = &options};
    assert_null(passes_run(&again, g, "inline"));
    assert_int_equal(err.kind, ERR_ENV);
    arena_free(arena);
}

/* Every pass that needs something dies when it is run first, and says what it misses. */
static void runner_refuses_a_wrong_order(void **state)
{
    (void)state;
    int refused = 0;
    for (int i = 0; i < pass_count; i++) {
        if (!pass_info[i].needs)
            continue;
        int to[2];
        assert_int_equal(pipe(to), 0);
        pid_t pid = fork();
        if (pid == 0) {
            dup2(to[1], 2);
            signal(SIGABRT, SIG_DFL);
            Err err = {0};
            Arena *arena = arena_new();
            Graph *g = graph_new(arena, &err, "order");
            graph_output(g, "y", g_const(g, type_make(DAV_F32, 0, NULL), 1));
            PassCx cx = {.arena = arena, .err = &err};
            pass_run(&cx, &pass_info[i], 1, g);
            _exit(0);
        }
        close(to[1]);
        char said[2000] = "";
        for (ssize_t len = 0, k; (k = read(to[0], said + len, sizeof said - 1 - (size_t)len)) > 0; len += k)
            said[len + k] = 0;
        close(to[0]);
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        assert_non_null(strstr(said, pass_info[i].name));
        assert_non_null(strstr(said, "stands too early"));
        refused++;
    }
    assert_true(refused >= 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_no_transposes),
        cmocka_unit_test(weights_are_packed_outside_of_loops),
        cmocka_unit_test(test_memory_budget),
        cmocka_unit_test(test_compiled),
        cmocka_unit_test(runner_refuses_a_wrong_order),
        cmocka_unit_test(test_runner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
