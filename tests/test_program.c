/* Programs as their callers see them: signatures, in-place results, parameters' versions, host functions, loops,
 * threads, rows that do not depend on their batch. */
#include "runtime/program.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MANY = 1 << 16 };

typedef struct Fixture { Arena *arena; Err err; Graph *g; } Fixture;

static Fixture begin(void)
{
    Fixture f = {.arena = arena_new()};
    return f;
}

static Graph *new_graph(Fixture *f)
{
    return f->g = graph_new(f->arena, &f->err, "test");
}

static Type f32(int rank, int64_t a, int64_t b, int64_t c)
{
    return type_make(DAV_F32, rank, (int64_t[]){a, b, c});
}

static Program *compile_on(Fixture *f, const char *device, const char *inplace)
{
    ProgramOptions o = {.device = device, .inplace = inplace};
    assert_string_equal(f->err.text, "");
    Program *p = program_compile(&f->err, f->g, &o);
    if (!p)
        fail_msg("%s", f->err.text);
    return p;
}

static void run(Fixture *f, Program *p, void *const *in, void *const *out, uint64_t version, int threads)
{
    if (!program_run(p, &f->err, in, out, version, threads))
        fail_msg("%s", f->err.text);
}

static void end(Fixture *f)
{
    arena_free(f->arena);
}

static const char *const devices[] = {"cpu", "kernels", "interp"};
#define each_device(d) (int d = 0; d < 3; d++)

static void test_signature(void **state)
{
    (void)state;
    Fixture f = begin();
    Graph *g = new_graph(&f);
    Val x = g_input(g, "x", ROLE_DATA, f32(2, 3, 4, 0));
    g_input(g, "unused", ROLE_PARAM, f32(1, 7, 0, 0));
    graph_output(g, "same", x);
    graph_output(g, "flat", g_reshape(g, x, 1, (int64_t[]){12}));
    graph_output(g, "twice", g_bin(g, OP_ADD, x, x));
    for each_device (d) {
        Program *p = compile_on(&f, devices[d], NULL);
        assert_int_equal(program_input_count(p), 2);
        assert_int_equal(program_output_count(p), 3);
        assert_int_equal(program_input(p, "unused"), 1);
        assert_int_equal(program_input(p, "nothing"), -1);
        assert_string_equal(program_output_name(p, 2), "twice");
        assert_int_equal(program_output_type(p, 1).rank, 1);
        float in[12], same[12], flat[12], twice[12];
        for (int i = 0; i < 12; i++)
            in[i] = (float)i - 3;
        run(&f, p, (void *[]){in, in}, (void *[]){same, flat, twice}, 1, 0);
        assert_memory_equal(in, same, sizeof in);
        assert_memory_equal(in, flat, sizeof in);
        assert_true(twice[11] == 16);
        program_free(p);
    }
    ProgramOptions bad = {.device = "gpu"};
    assert_null(program_compile(&f.err, g, &bad));
    assert_int_equal(f.err.kind, ERR_USER);
    end(&f);
}

/* p' = p - g and q' = q + p: the second reads p before the first overwrites it; r' = reversed r needs a copy. */
static void test_inplace(void **state)
{
    (void)state;
    Fixture f = begin();
    Graph *g = new_graph(&f);
    Val p = g_input(g, "p", ROLE_PARAM, f32(1, 1000, 0, 0)), d = g_input(g, "g", ROLE_DATA, f32(1, 1000, 0, 0));
    Val q = g_input(g, "q", ROLE_STATE, f32(1, 1000, 0, 0)), r = g_input(g, "r", ROLE_STATE, f32(1, 1000, 0, 0));
    graph_output(g, "p2", g_bin(g, OP_SUB, p, d));
    graph_output(g, "q2", g_bin(g, OP_ADD, q, p));
    int64_t axis = 0;
    graph_output(g, "r2", graph_node(g, OP_REVERSE, &r, 1, (Attr[]){{.name = A_AXES, .n = 1, .ints = &axis}}, 1, NULL));
    graph_output(g, "old", p);
    for each_device (dev) {
        Program *pr = compile_on(&f, devices[dev], "p=p2;q=q2;r=r2");
        static float vp[1000], vg[1000], vq[1000], vr[1000], old[1000];
        for (int i = 0; i < 1000; i++) {
            vp[i] = (float)i;
            vg[i] = 1;
            vq[i] = 2;
            vr[i] = (float)i;
        }
        void *out[] = {dev == 1 ? NULL : vp, vq, vr, old};
        run(&f, pr, (void *[]){vp, vg, vq, vr}, out, 1, 2);
        for (int i = 0; i < 1000; i++) {
            assert_true(vp[i] == (float)i - 1);
            assert_true(vq[i] == (float)i + 2);
            assert_true(vr[i] == (float)(999 - i));
            assert_true(old[i] == (float)i);
        }
        program_free(pr);
    }
    ProgramOptions bad = {.inplace = "p=nothing"};
    assert_null(program_compile(&f.err, g, &bad));
    assert_string_equal(f.err.text, "inplace: there is no output 'nothing'");
    end(&f);
}

/* An input that a later step reads is not written over before: s' = 2 s in place of s; (sums down the columns of s') s
 * needs both. */
static void test_inplace_input_is_still_read(void **state)
{
    (void)state;
    enum { N = 8 };
    Fixture f = begin();
    Graph *g = new_graph(&f);
    Val s = g_input(g, "s", ROLE_STATE, f32(2, N, N, 0)), twice = g_bin(g, OP_ADD, s, s);
    ContractSpec c = {.nloop = 3, .nout = 2, .extent = {N, N, N}, .rank = {2, 2}};
    const int loop[2][2] = {{0, 2}, {2, 1}};
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < 2; d++)
            c.dim[o][d] = (DimExpr){.nterm = 1, .loop = {loop[o][d]}, .coef = {1}, .div = 1};
    graph_output(g, "s'", twice);
    Attr down[] = {{.name = A_AXIS, .i = 0}, {.name = A_EXCLUSIVE, .i = 0}, {.name = A_REVERSE, .i = 0}};
    graph_output(g, "product", g_contract(g, graph_node(g, OP_CUMSUM, &twice, 1, down, 3, NULL), s, &c, DAV_F32));
    for each_device (d) {
        Program *p = compile_on(&f, devices[d], "s=s'");
        float m[N][N], old[N][N], product[N][N];
        for (int i = 0; i < N * N; i++)
            old[i / N][i % N] = m[i / N][i % N] = (float)(i % 7) - 3;
        run(&f, p, (void *[]){m}, (void *[]){m, product}, 1, 2);
        for (int i = 0; i < N * N; i++) {
            float want = 0;
            for (int k = 0; k < N; k++)
                for (int row = 0; row <= i / N; row++)
                    want += 2 * old[row][k] * old[k][i % N];
            assert_float_equal(m[i / N][i % N], 2 * old[i / N][i % N], 0);
            assert_float_equal(product[i / N][i % N], want, 0);
        }
        program_free(p);
    }
    end(&f);
}

static void test_params_version(void **state)
{
    (void)state;
    Fixture f = begin();
    Graph *g = new_graph(&f);
    Val w = g_input(g, "w", ROLE_PARAM, f32(1, 8, 0, 0)), x = g_input(g, "x", ROLE_DATA, f32(1, 8, 0, 0));
    Val packed = g_reduce_mask(g, OP_SUM, g_un(g, OP_EXP, w), 1);
    graph_output(g, "y", g_bin(g, OP_MUL, x, g_broadcast_like(g, packed, x)));
    Program *p = compile_on(&f, "cpu", NULL);
    float wv[8] = {0}, xv[8] = {1, 2, 3, 4, 5, 6, 7, 8}, y[8];
    void *in[] = {wv, xv}, *out[] = {y};
    run(&f, p, in, out, 1, 1);
    assert_true(y[1] == 16);
    wv[0] = logf(9);
    run(&f, p, in, out, 2, 1);
    assert_true(fabsf(y[1] - 32) < 1e-4f);
    assert_true(program_stats(p).packed_bytes > 0);
    program_free(p);
    end(&f);
}

static bool negate(void *ctx, Err *err, int nin, const Type *in_type, const void *const *in, int nout,
                   const Type *out_type, void *const *out)
{
    (void)nout, (void)out_type;
    int *calls = ctx;
    if (++*calls > 2)
        return err_user(err, "no more");
    assert_int_equal(nin, 1);
    for (int64_t i = 0; i < type_count(&in_type[0]); i++)
        ((float *)out[0])[i] = -((const float *)in[0])[i];
    return true;
}

static void test_host(void **state)
{
    (void)state;
    for each_device (d) {
        Fixture f = begin();
        Graph *g = new_graph(&f);
        Type t = f32(1, 50, 0, 0);
        Val x = g_bin(g, OP_ADD, g_input(g, "x", ROLE_DATA, t), g_const(g, t, 1));
        Val h = graph_node(g, OP_HOST, &x, 1, (Attr[]){{.name = A_NAME, .s = "negate"}}, 1, &t);
        graph_output(g, "y", g_bin(g, OP_MUL, h, g_const(g, t, 2)));
        Program *p = compile_on(&f, devices[d], NULL);
        float in[50], out[50];
        for (int i = 0; i < 50; i++)
            in[i] = (float)i;
        assert_false(program_run(p, &f.err, (void *[]){in}, (void *[]){out}, 1, 2));
        err_clear(&f.err);
        int calls = 0;
        program_set_host(p, "negate", negate, &calls);
        for (int i = 0; i < 2; i++)
            run(&f, p, (void *[]){in}, (void *[]){out}, 1, 2);
        assert_true(out[3] == -8);
        assert_false(program_run(p, &f.err, (void *[]){in}, (void *[]){out}, 1, 2));
        assert_string_equal(f.err.text, "no more");
        program_free(p);
        end(&f);
    }
}

static bool count_call(void *ctx, Err *err, int nin, const Type *in_type, const void *const *in, int nout, const Type *out_type,
                       void *const *out)
{
    (void)err, (void)nin, (void)nout, (void)in_type, (void)in;
    for (int64_t i = 0; i < type_count(&out_type[0]); i++)
        ((float *)out[0])[i] = (float)*(int *)ctx;
    ++*(int *)ctx;
    return true;
}

/* A host function may answer differently each time: in a loop it is asked each time, whatever its operands. */
static void test_host_in_loop(void **state)
{
    (void)state;
    enum { TRIP = 4, N = 3 };
    for each_device (d) {
        Fixture f = begin();
        Graph *body = graph_new(f.arena, &f.err, "step");
        Type t = f32(1, N, 0, 0);
        Val c = g_input(body, "c", ROLE_DATA, t), same = g_input(body, "same", ROLE_DATA, t);
        Val h = graph_node(body, OP_HOST, &same, 1, (Attr[]){{.name = A_NAME, .s = "count"}}, 1, &t);
        graph_output(body, "next", g_bin(body, OP_ADD, g_bin(body, OP_MUL, c, g_const(body, t, 10)), h));
        Graph *g = new_graph(&f);
        Val args[] = {g_input(g, "c0", ROLE_DATA, t), g_input(g, "fixed", ROLE_DATA, t)};
        Attr a[] = {{.name = A_TRIP, .i = TRIP}, {.name = A_CARRY, .i = 1}, {.name = A_SCAN, .i = 0}};
        graph_output(g, "last", g_pick(g, g_region(g, OP_LOOP, body, args, 2, a, 3), 0));
        Program *p = compile_on(&f, devices[d], NULL);
        int calls = 1;
        program_set_host(p, "count", count_call, &calls);
        float c0[N] = {0}, fixed[N] = {0}, last[N];
        run(&f, p, (void *[]){c0, fixed}, (void *[]){last}, 1, 2);
        assert_int_equal(calls, 1 + TRIP);
        assert_true(last[0] == 1234 && last[N - 1] == 1234);
        program_free(p);
        end(&f);
    }
}

/* carry' = carry * decay + x_t, stacked: carry; by hand. */
static void test_loop(void **state)
{
    (void)state;
    enum { TRIP = 5, N = 40 };
    for each_device (d)
        for (int64_t trip = 0; trip <= TRIP; trip += TRIP) {
            Fixture f = begin();
            Graph *body = graph_new(f.arena, &f.err, "step");
            Val c = g_input(body, "c", ROLE_DATA, f32(1, N, 0, 0)), x = g_input(body, "x", ROLE_DATA, f32(1, N, 0, 0));
            Val k = g_input(body, "k", ROLE_DATA, f32(1, N, 0, 0)),
                next = g_bin(body, OP_ADD, g_bin(body, OP_MUL, c, k), x);
            graph_output(body, "next", next);
            graph_output(body, "seen", g_bin(body, OP_ADD, c, c));
            Graph *g = new_graph(&f);
            Val args[] = {g_input(g, "c0", ROLE_DATA, f32(1, N, 0, 0)), g_input(g, "xs", ROLE_DATA, f32(2, trip, N, 0)),
                          g_input(g, "decay", ROLE_DATA, f32(1, N, 0, 0))};
            Attr a[] = {{.name = A_TRIP, .i = trip}, {.name = A_CARRY, .i = 1}, {.name = A_SCAN, .i = 1}};
            Val loop = g_region(g, OP_LOOP, body, args, 3, a, 3);
            graph_output(g, "last", g_pick(g, loop, 0));
            graph_output(g, "all", g_pick(g, loop, 1));
            Program *p = compile_on(&f, devices[d], NULL);
            float c0[N], xs[TRIP * N], decay[N], last[N], all[TRIP * N], want[N];
            for (int i = 0; i < N; i++) {
                c0[i] = want[i] = (float)i;
                decay[i] = 0.5f;
                for (int t = 0; t < TRIP; t++)
                    xs[t * N + i] = (float)(t + i);
            }
            run(&f, p, (void *[]){c0, xs, decay}, (void *[]){last, all}, 1, 2);
            for (int t = 0; t < trip; t++)
                for (int i = 0; i < N; i++) {
                    assert_true(all[t * N + i] == 2 * want[i]);
                    want[i] = want[i] * 0.5f + (float)(t + i);
                }
            assert_memory_equal(want, last, sizeof want);
            program_free(p);
            end(&f);
        }
}

/* A convolution, layer norm and softmax over `batch` sequences. */
static Graph *network(Fixture *f, int64_t batch)
{
    enum { L = 60, C = 20, OUT = 150, HEADS = 3 };
    Graph *g = new_graph(f);
    Val x = g_input(g, "x", ROLE_DATA, f32(3, batch, L, C)), w = g_input(g, "w", ROLE_PARAM, f32(3, 5, C, OUT));
    ContractSpec s;
    spec_parse(&f->err, "a b+2*d-4 e, d e c -> a b c | d=5 e=20", &s);
    s.extent[0] = batch;
    s.extent[1] = L;
    s.extent[2] = OUT;
    Val h = g_contract(g, x, w, &s, DAV_F32);
    Val mean = g_bin(g, OP_MUL, g_reduce_mask(g, OP_SUM, h, 4), g_const(g, f32(3, batch, L, 1), 1.0 / OUT));
    h = g_bin(g, OP_SUB, h, g_broadcast_like(g, mean, h));
    Val e = g_un(g, OP_EXP, g_un(g, OP_TANH, h)), sum = g_reduce_mask(g, OP_SUM, e, 4);
    Val y = g_bin(g, OP_DIV, e, g_broadcast_like(g, sum, e));
    graph_output(g, "y", y);
    graph_output(g, "total", g_reduce_mask(g, OP_SUM, y, 6)); /* over positions and channels */
    for (int heads = 1; heads <= HEADS; heads += 2) { /* narrow linear layers */
        Val v = g_input(g, heads == 1 ? "one" : "three", ROLE_PARAM, f32(2, OUT, heads, 0));
        Val first = g_slice(g, y, (int64_t[]){0, 7, 0}, (int64_t[]){batch, 8, OUT}, NULL);
        spec_parse(&f->err, "a c, c b -> a b | c=150", &s);
        s.extent[0] = batch;
        s.extent[1] = heads;
        graph_output(g, heads == 1 ? "score" : "scores",
                     g_contract(g, g_reshape(g, first, 2, (int64_t[]){batch, OUT}), v, &s, DAV_F32));
    }
    return g;
}

static void fill(float *v, int n)
{
    for (int i = 0; i < n; i++)
        v[i] = sinf((float)i * 1.37f) + 0.3f * cosf((float)i * 0.11f);
}

static void test_rows_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    enum { B = 7, ROW = 60 * 20, OUT_ROW = 60 * 150 };
    static float x[B * ROW], w[5 * 20 * 150], head[2][450], y[2][B * OUT_ROW], total[2][B], score[2][B],
        scores[2][3 * B];
    fill(x, B * ROW);
    fill(w, 5 * 20 * 150);
    fill(head[0], 150);
    fill(head[1], 450);
    for (int d = 0; d < 2; d++) { /* all at once, by one and by two threads; one by one */
        Fixture f = begin();
        network(&f, B);
        Program *p = compile_on(&f, "cpu", NULL);
        run(&f, p, (void *[]){x, w, head[0], head[1]}, (void *[]){y[0], total[0], score[0], scores[0]}, 1, 1 + d);
        program_free(p);
        end(&f);
        f = begin();
        network(&f, 1);
        p = compile_on(&f, "cpu", NULL);
        for (int b = 0; b < B; b++)
            run(&f, p, (void *[]){x + b * ROW, w, head[0], head[1]},
                (void *[]){y[1] + b * OUT_ROW, total[1] + b, score[1] + b, scores[1] + 3 * b}, 1, 1);
        program_free(p);
        end(&f);
        assert_memory_equal(y[0], y[1], sizeof y[0]);
        assert_memory_equal(total[0], total[1], sizeof total[0]);
        assert_memory_equal(score[0], score[1], sizeof score[0]);
        assert_memory_equal(scores[0], scores[1], sizeof scores[0]);
        assert_true(fabsf(total[0][3] - 60) < 1e-3f);
    }
}

/* A sum over a large batch: the same bits from any number of threads. */
static void test_threads(void **state)
{
    (void)state;
    static float x[MANY], first, again;
    fill(x, MANY);
    Fixture f = begin();
    Graph *g = new_graph(&f);
    Val v = g_input(g, "x", ROLE_DATA, f32(2, 256, MANY / 256, 0));
    graph_output(g, "sum", g_reduce_mask(g, OP_SUM, g_bin(g, OP_MUL, v, v), 3));
    Program *p = compile_on(&f, "cpu", NULL);
    run(&f, p, (void *[]){x}, (void *[]){&first}, 1, 1);
    double want = 0;
    for (int i = 0; i < MANY; i++)
        want += (double)x[i] * x[i];
    assert_true(fabs(first - want) < 1e-5 * want);
    for (int threads = 0; threads <= 5; threads++) {
        run(&f, p, (void *[]){x}, (void *[]){&again}, 1, threads);
        assert_memory_equal(&first, &again, sizeof first);
    }
    program_free(p);
    end(&f);
}

static void test_dump(void **state)
{
    (void)state;
    static const char *const files[] = {"manifest.json", "passes.tsv", "fusion.tsv",
                                        "kernels.json",  "memory.tsv", "trace.json"};
    char dir[] = "/tmp/dav-dump-XXXXXX", path[200], command[200];
    assert_non_null(mkdtemp(dir));
    Fixture f = begin();
    network(&f, 3);
    ProgramOptions o = {.compile = {.dump = dir}};
    Program *p = program_compile(&f.err, f.g, &o);
    assert_non_null(p);
    if (!program_dump(p, &f.err, dir))
        fail_msg("%s", f.err.text);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        assert_true(file_exists(path));
    }
    program_free(p);
    end(&f);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

/* Whichever allocation fails, compiling (up to machine code) ends with an error of the environment and leaves nothing
 * behind. */
static void test_out_of_memory(void **state)
{
    (void)state;
    for (int d = 1; d < 3; d++) {
        Fixture f = begin();
        network(&f, 2);
        int64_t live = mem_live();
        ProgramOptions o = {.device = devices[d]};
        Program *p = NULL;
        for (int64_t n = 1; !p && n < 100000; n++) {
            Err err = {0};
            mem_fail_at(n);
            p = program_compile(&err, f.g, &o);
            mem_fail_at(0);
            if (p)
                break;
            assert_int_equal(err.kind, ERR_ENV);
            if (mem_live() != live)
                fail_msg("%s: allocation %lld fails, %lld are left", devices[d], (long long)n,
                         (long long)(mem_live() - live));
        }
        assert_non_null(p);
        program_free(p);
        assert_int_equal(mem_live(), live);
        end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signature),
        cmocka_unit_test(test_inplace),
        cmocka_unit_test(test_inplace_input_is_still_read),
        cmocka_unit_test(test_params_version),
        cmocka_unit_test(test_host),
        cmocka_unit_test(test_host_in_loop),
        cmocka_unit_test(test_loop),
        cmocka_unit_test(test_rows_do_not_depend_on_the_batch),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_dump),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
