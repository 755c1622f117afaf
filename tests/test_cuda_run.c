/* What runs on a CUDA device wait for and copy, and the method's two phases on it. The device is the stand-in of tests/cuda_standin, unless
 * DAV_CUDA_LIBRARY_PATH names another. */
#include "ir/build.h"
#include "runtime/mstep.h"
#include "support/cuda.h"
#include "support/tiny_em.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the method: the same search and the same M-step on both ---- */
enum { TRAJECTORIES = 24, STEPS = 3 };

static Trajectories *search_on(Tiny *t)
{
    SearchSettings s = tiny_settings(t, 0.5, 0.9, true);
    Trajectories *tr = search_run(t->k, &t->err, &s, 0, TRAJECTORIES, true);
    if (!tr)
        fail_msg("%s", t->err.text);
    return tr;
}

static void searches_choose_alike(void **state)
{
    (void)state;
    for (int guided = 0; guided < 2; guided++) {
        Tiny *a = tiny_new_on("cpu", 4, guided, STEPS, 32), *b = tiny_new_on("cuda", 4, guided, STEPS, 32);
        Trajectories *ta = search_on(a), *tb = search_on(b);
        int differ = 0;
        for (int i = 0; i < TRAJECTORIES * (STEPS + 1) * L; i++)
            differ += ta->state[i] != tb->state[i];
        assert_int_equal(differ, 0);
        for (int i = 0; i < TRAJECTORIES; i++) {
            assert_float_equal(ta->reward[i], tb->reward[i], 1e-5f);
            assert_true(fabs(ta->elbo[i] - tb->elbo[i]) < 1e-4);
        }
        trajectories_free(ta);
        trajectories_free(tb);
        tiny_free(a);
        tiny_free(b);
    }
    assert_int_equal(cuda_standin("live"), 0);
}

/* With the reward in the graph the host waits for the end of a run of trajectories, for no step of it; asked to go step by step it waits
 * for every program of each. */
static void trajectories_wait_for_nobody(void **state)
{
    (void)state;
    enum { ROWS_A_RUN = 32, CHILDREN = 4, RUNS = TRAJECTORIES * CHILDREN / ROWS_A_RUN };
    cuda_standin_or_skip();
    for (int guided = 0; guided < 2; guided++) {
        Tiny *t = tiny_new_on("cuda", CHILDREN, guided, STEPS, ROWS_A_RUN);
        Trajectories *first = search_on(t);
        long long before = cuda_standin("waits");
        Trajectories *whole = search_on(t);
        assert_int_equal(cuda_standin("waits") - before, RUNS);
        print_message("%s: %lld launches and copies a trajectory of %d steps\n", guided ? "guided" : "plain",
                      (long long)program_stats(t->k->whole->program).launches, STEPS);
        assert_true(program_stats(t->k->whole->program).captures == 1);
        t->spec.whole = WHOLE_NEVER;
        tiny_rebuild(t, "cuda", STEPS, ROWS_A_RUN);
        before = cuda_standin("waits");
        Trajectories *steps = search_on(t);
        assert_true(cuda_standin("waits") - before >= 3 * STEPS);
        assert_memory_equal(whole->state, steps->state, (size_t)TRAJECTORIES * (STEPS + 1) * L);
        assert_memory_equal(whole->reward, steps->reward, TRAJECTORIES * sizeof(float));
        assert_memory_equal(whole->elbo, steps->elbo, TRAJECTORIES * sizeof(double));
        trajectories_free(first);
        trajectories_free(whole);
        trajectories_free(steps);
        tiny_free(t);
    }
    assert_int_equal(cuda_standin("live"), 0);
}

/* Programs that are bound to another array work with that one, a captured run too. */
static void another_array_is_followed(void **state)
{
    (void)state;
    Trajectories *tr[2][2];
    for (int d = 0; d < 2; d++) {
        Tiny *t = tiny_new_on(d ? "cuda" : "cpu", 4, false, STEPS, 32);
        float *other = params_flat(t->theta);
        for (int64_t i = 0; i < t->theta->size; i++)
            other[i] = -2 * t->theta->value[i];
        flat_wrote(other);
        tr[d][0] = search_on(t);
        masked_bind(t->k, other);
        tr[d][1] = search_on(t);
        tiny_free(t);
        flat_free(other);
    }
    const size_t bytes = (size_t)TRAJECTORIES * (STEPS + 1) * L;
    assert_memory_not_equal(tr[0][0]->state, tr[0][1]->state, bytes);
    for (int i = 0; i < 2; i++)
        assert_memory_equal(tr[0][i]->state, tr[1][i]->state, bytes);
    for (int i = 0; i < 4; i++)
        trajectories_free(tr[i / 2][i % 2]);
    assert_int_equal(cuda_standin("live"), 0);
}

/* Two updates of all parameters by the M-step on the CPU's trajectories. */
static void learn_alike(void)
{
    Tiny *t[2] = {tiny_new_on("cpu", 4, false, STEPS, 32), tiny_new_on("cuda", 4, false, STEPS, 32)};
    Trajectories *tr = search_on(t[0]);
    MStepReport r[2];
    for (int d = 0; d < 2; d++) {
        const BuildOptions o = {.compile = {.precision = DAV_F32}, .device = d ? "cuda" : "cpu", .rows = 16};
        Optim *optim = optim_new(&t[d]->err, t[d]->theta, &o.compile, o.device);
        MStep s = {.distil = masked_distil(&t[d]->err, &t[d]->spec, &o, t[d]->theta, optim)};
        if (!s.distil)
            fail_msg("%s", t[d]->err.text);
        MStepSettings set = {.optim = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-3, .clip = 1, .ema = 0.9}, .epochs = 1,
                             .batch = 36, .seed = 1};
        if (!mstep_run(&s, &t[d]->err, t[d]->k, tr, &set, t[d]->theta, optim, &r[d]))
            fail_msg("%s", t[d]->err.text);
        rows_free(s.distil);
        optim_free(optim);
    }
    assert_true(r[0].updates >= 2 && r[0].updates == r[1].updates);
    assert_true(fabs(r[0].loss - r[1].loss) < 1e-5 && fabs(r[0].grad_norm - r[1].grad_norm) < 1e-4);
    for (int d = 0; d < 2; d++)
        assert_true(flat_read(&t[d]->err, t[d]->theta->value));
    for (int64_t i = 0; i < t[0]->theta->size; i++)
        assert_float_equal(t[0]->theta->value[i], t[1]->theta->value[i], 1e-5f);
    trajectories_free(tr);
    tiny_free(t[0]);
    tiny_free(t[1]);
    assert_int_equal(cuda_standin("live"), 0);
}

static void msteps_learn_alike(void **state)
{
    (void)state;
    learn_alike();
}

/* All its plain products by cuBLASLt. */
static void msteps_learn_alike_by_a_library(void **state)
{
    (void)state;
    setenv("DAV_CUDA_BLASLT", "1", 1);
    learn_alike();
    unsetenv("DAV_CUDA_BLASLT");
    assert_true(!cuda_standin_symbol("products") || cuda_standin("products") > 10);
}

/* Bytes that a run has to bring or take: of what lies in no flat array. */
static long long bytes_of_ends(const Program *p, const char *const *kept, bool output)
{
    long long sum = 0;
    for (int i = 0; i < (output ? program_output_count(p) : program_input_count(p)); i++) {
        const char *name = output ? program_output_name(p, i) : program_input_name(p, i);
        Type t = output ? program_output_type(p, i) : program_input_type(p, i);
        bool counts = true;
        for (int k = 0; kept[k]; k++)
            counts = counts && strncmp(name, kept[k], strlen(kept[k])) != 0;
        if (counts)
            sum += (type_count(&t) * (int64_t)dav_dtype_size(t.dtype) + 255) / 256 * 256;
    }
    return sum;
}

/* After the first update nothing but batches, losses and the norm is copied; the host gets the parameters when it asks for them. */
static void parameters_stay_on_the_device(void **state)
{
    (void)state;
    static const char *const theta[] = {"theta.", "acc.theta.", NULL}, *const all[] = {"theta", "grad", "m", "v", "ema", NULL},
                      *const made[] = {"theta'", "grad'", "m'", "v'", "ema'", NULL};
    cuda_standin_or_skip();
    Tiny *t = tiny_new_on("cuda", 4, false, STEPS, 32);
    Trajectories *tr = search_on(t);
    const BuildOptions o = {.compile = {.precision = DAV_F32}, .device = "cuda", .rows = 16};
    Optim *optim = optim_new(&t->err, t->theta, &o.compile, "cuda");
    MStep s = {.distil = masked_distil(&t->err, &t->spec, &o, t->theta, optim)};
    MStepSettings set = {.optim = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-3, .clip = 1, .ema = 0.9}, .epochs = 1, .batch = 32};
    MStepReport r;
    long long in[2], out[2];
    for (int i = 0; i < 2; i++) {
        in[i] = cuda_standin("bytes_to_device");
        out[i] = cuda_standin("bytes_to_host");
        if (!s.distil || !mstep_run(&s, &t->err, t->k, tr, &set, t->theta, optim, &r))
            fail_msg("%s", t->err.text);
        in[i] = cuda_standin("bytes_to_device") - in[i];
        out[i] = cuda_standin("bytes_to_host") - out[i];
    }
    const Program *learn = s.distil->program, *update = optim->program;
    long long runs = 0;
    for (long long left = r.states; left > 0; left -= set.batch)
        runs += ((left < set.batch ? left : set.batch) + o.rows - 1) / o.rows;
    assert_int_equal(in[1], runs * bytes_of_ends(learn, theta, false) + r.updates * bytes_of_ends(update, all, false));
    assert_int_equal(out[1], runs * bytes_of_ends(learn, theta, true) + r.updates * bytes_of_ends(update, made, true));
    assert_true(isnan(t->theta->value[0])); /* poisoned: the device has the newer ones */
    assert_true(flat_read(&t->err, t->theta->value));
    for (int64_t i = 0; i < t->theta->size; i++)
        assert_true(isfinite(t->theta->value[i]));
    t->theta->value[0] = 7; /* and what the host writes goes there */
    flat_wrote(t->theta->value);
    params_touch(t->theta);
    set.optim.lr = 0;
    assert_true(mstep_run(&s, &t->err, t->k, tr, &set, t->theta, optim, &r) && flat_read(&t->err, t->theta->value));
    assert_true(t->theta->value[0] == 7);
    trajectories_free(tr);
    rows_free(s.distil);
    optim_free(optim);
    tiny_free(t);
    assert_int_equal(cuda_standin("live"), 0);
}

/* Philox and all else of a row: alone, among others, in another micro-batch. */
static void rows_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    static const int64_t rows[] = {1, 7, 64};
    Trajectories *tr[3];
    for (int i = 0; i < 3; i++) {
        Tiny *t = tiny_new_on("cuda", 2, false, STEPS, rows[i]);
        tr[i] = search_on(t);
        tiny_free(t);
    }
    for (int i = 1; i < 3; i++) {
        assert_memory_equal(tr[0]->state, tr[i]->state, (size_t)TRAJECTORIES * (STEPS + 1) * L);
        assert_memory_equal(tr[0]->reward, tr[i]->reward, TRAJECTORIES * sizeof(float));
        assert_memory_equal(tr[0]->elbo, tr[i]->elbo, TRAJECTORIES * sizeof(double));
    }
    for (int i = 0; i < 3; i++)
        trajectories_free(tr[i]);
}

/* ---- functions of the host ---- */
enum { TRIP = 4, N = 3 };

static bool count_call(void *ctx, Err *err, int nin, const Type *in_type, const void *const *in, int nout, const Type *out_type,
                       void *const *out)
{
    (void)err, (void)nin, (void)nout, (void)in_type;
    const float *c = in[0], *one = in[1];
    ++*(int *)ctx;
    for (int64_t i = 0; i < type_count(&out_type[0]); i++)
        ((float *)out[0])[i] = 9 * c[i] + (float)*(int *)ctx * one[i];
    return true;
}

/* c = c + (9 c + the number of the call), by steps of a loop: each call is waited for once, its result's way back is not. */
static void a_host_function_is_waited_for_once(void **state)
{
    (void)state;
    cuda_standin_or_skip();
    Err err = {0};
    Arena *a = arena_new();
    Type t = type_make(DAV_F32, 1, (int64_t[]){N});
    Graph *body = graph_new(a, &err, "step"), *g = graph_new(a, &err, "calls");
    Val c = g_input(body, "c", ROLE_DATA, t);
    Val h = graph_node(body, OP_HOST, (Val[]){c, g_const(body, t, 1)}, 2, (Attr[]){{.name = A_NAME, .s = "count"}}, 1, &t);
    graph_output(body, "next", g_bin(body, OP_ADD, c, h));
    Val c0 = g_input(g, "c0", ROLE_DATA, t);
    Attr of_loop[] = {{.name = A_TRIP, .i = TRIP}, {.name = A_CARRY, .i = 1}, {.name = A_SCAN, .i = 0}};
    graph_output(g, "last", g_pick(g, g_region(g, OP_LOOP, body, &c0, 1, of_loop, 3), 0));
    Program *p = program_compile(&err, g, &(ProgramOptions){.device = "cuda"});
    if (!p)
        fail_msg("%s", err.text);
    int calls = 0;
    program_set_host(p, "count", count_call, &calls);
    float zero[N] = {0}, last[N];
    long long before = cuda_standin("waits");
    if (!program_run(p, &err, (void *[]){zero}, (void *[]){last}, 1, 1))
        fail_msg("%s", err.text);
    assert_int_equal(cuda_standin("waits") - before, TRIP + 1);
    for (int i = 0; i < N; i++)
        assert_true(last[i] == 1234);
    program_free(p);
    arena_free(a);
    assert_int_equal(cuda_standin("live"), 0);
}

/* The reward as a number of base 3; what the device still has to do when it is called. */
typedef struct Asked { int calls, busy; int64_t rows; bool fails; } Asked;

static bool number_of(void *ctx, Err *err, int64_t n, int64_t length, const int64_t *letters, double *values)
{
    Asked *a = ctx;
    a->calls++;
    a->busy += cuda_standin("pending") > 0;
    a->rows += n;
    for (int64_t i = 0; i < n; i++) {
        values[i] = 0;
        for (int64_t j = 0; j < length; j++)
            values[i] = 3 * values[i] + (double)letters[i * length + j];
    }
    return !a->fails || err_env(err, "no answer");
}

static void use_host_reward(Tiny *t, const char *device, Reward *r)
{
    const BuildOptions o = {.compile = {.precision = DAV_F32}, .device = device, .rows = 8};
    masked_free(t->k);
    t->spec.reward = (Network){0};
    t->k = masked_new(&t->err, &t->spec, &o, STEPS, t->theta, NULL, r);
    if (!t->k)
        fail_msg("%s", t->err.text);
}

/* 27 states, 8 a run: the first three batches are scored while the device has the next one, the last by an idle device.  On the
 * processor one call has all of them. */
static void a_host_reward_scores_beside_the_device(void **state)
{
    (void)state;
    cuda_standin_or_skip();
    Trajectories *tr[2];
    for (int d = 0; d < 2; d++) {
        Asked asked = {0};
        Reward *r = reward_from_function("number", number_of, &asked, NULL);
        Tiny *t = tiny_new(4, false, STEPS, 32);
        use_host_reward(t, d ? "cuda" : "cpu", r);
        States s = states_new(t->k, STATES);
        memcpy(s.x, t->x, sizeof t->x);
        if (!states_evaluate(t->k, &t->err, &s, 0.5))
            fail_msg("%s", t->err.text);
        assert_int_equal(asked.rows, STATES);
        assert_int_equal(asked.calls, d ? 4 : 1);
        assert_int_equal(asked.busy, d ? 3 : 0);
        for (int i = 0; i < STATES; i++)
            assert_true(s.r[i] == (float)(9 * s.x0[i * L] + 3 * s.x0[i * L + 1] + s.x0[i * L + 2]));
        asked.fails = true;
        assert_false(states_evaluate(t->k, &t->err, &s, 0.5));
        assert_non_null(strstr(t->err.text, "no answer"));
        err_clear(&t->err);
        asked.fails = false; /* and what had been started has ended: the programs go on */
        states_free(&s);
        tr[d] = search_on(t);
        tiny_free(t);
        reward_free(r);
    }
    assert_memory_equal(tr[0]->state, tr[1]->state, (size_t)TRAJECTORIES * (STEPS + 1) * L);
    assert_memory_equal(tr[0]->reward, tr[1]->reward, TRAJECTORIES * sizeof(float));
    trajectories_free(tr[0]);
    trajectories_free(tr[1]);
    assert_int_equal(cuda_standin("live"), 0);
}

/* Where a trajectory is one program, those of single steps take no memory and no compilation until somebody wants them. */
static void programs_of_steps_wait_until_wanted(void **state)
{
    (void)state;
    Tiny *t = tiny_new(4, true, STEPS, 32);
    tiny_rebuild(t, "cuda", STEPS, 32);
    trajectories_free(search_on(t));
    assert_true(t->k->whole && !t->k->denoise && !t->k->propose && !t->k->choose && !t->k->guide && !t->k->value);
    States s = states_new(t->k, 1);
    assert_true(states_evaluate(t->k, &t->err, &s, 1) && t->k->denoise && t->k->guide && t->k->value);
    states_free(&s);
    tiny_free(t);
    assert_int_equal(cuda_standin("live"), 0);
}

/* An output in an input's memory, whether the caller takes it there or elsewhere. */
static void outputs_in_place_come_back(void **state)
{
    (void)state;
    Err err = {0};
    Arena *a = arena_new();
    Type t = type_make(DAV_F32, 1, (int64_t[]){N});
    Graph *g = graph_new(a, &err, "count");
    Val x = g_input(g, "x", ROLE_DATA, t);
    graph_output(g, "y", g_bin(g, OP_ADD, x, g_const(g, t, 1)));
    Program *p = program_compile(&err, g, &(ProgramOptions){.device = "cuda", .inplace = "x=y"});
    if (!p)
        fail_msg("%s", err.text);
    float in[N] = {1, 2, 3}, out[N] = {0};
    assert_true(program_run(p, &err, (void *[]){in}, (void *[]){NULL}, 1, 1));
    assert_true(in[0] == 2 && in[N - 1] == 4);
    assert_true(program_run(p, &err, (void *[]){in}, (void *[]){out}, 1, 1));
    assert_true(in[0] == 2 && out[0] == 3 && out[N - 1] == 5);
    program_free(p);
    arena_free(a);
}

int main(void)
{
    cuda_choose();
    if (!cuda_is_there())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(searches_choose_alike),
        cmocka_unit_test(trajectories_wait_for_nobody),
        cmocka_unit_test(another_array_is_followed),
        cmocka_unit_test(msteps_learn_alike),
        cmocka_unit_test(msteps_learn_alike_by_a_library),
        cmocka_unit_test(parameters_stay_on_the_device),
        cmocka_unit_test(rows_do_not_depend_on_the_batch),
        cmocka_unit_test(a_host_function_is_waited_for_once),
        cmocka_unit_test(a_host_reward_scores_beside_the_device),
        cmocka_unit_test(programs_of_steps_wait_until_wanted),
        cmocka_unit_test(outputs_in_place_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
