/* Alignment on a CUDA device (the stand-in unless DAV_CUDA_LIBRARY_PATH names another): choice by choice beside the processor,
 * interrupted and resumed, and with every call of the driver failing. */
#include "runtime/checkpoint.h"
#include "runtime/cuda/driver.h"
#include "support/command.h"
#include "support/cuda.h"
#include "support/em_world.h"
#include "support/tiny_em.h"
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- teacher-forced ---- */
static void choices_agree_step_by_step(void **state)
{
    (void)state;
    enum { N = 256, T = 6, CHILDREN = 4 };
    int64_t equal = 0, all = 0;
    for (int guided = 0; guided < 2; guided++) {
        Tiny *cpu = tiny_new_on("cpu", CHILDREN, guided, T, 64), *cuda = tiny_new_on("cuda", CHILDREN, guided, T, 64);
        SearchSettings s = tiny_settings(cpu, 0.5, 0.9, true);
        Trajectories *teacher = search_run(cpu->k, &cpu->err, &s, 0, N, true);
        assert_non_null(teacher);
        s = tiny_settings(cuda, 0.5, 0.9, true);
        s.teacher = teacher;
        Trajectories *forced = search_run(cuda->k, &cuda->err, &s, 0, N, true);
        if (!forced)
            fail_msg("%s", cuda->err.text);
        for (int i = 0; i < N; i++)
            for (int t = 1; t <= T; t++) {
                const size_t at = (size_t)(i * (T + 1) + t) * L;
                equal += memcmp(teacher->state + at, forced->state + at, L) == 0;
                all++;
            }
        trajectories_free(forced);
        trajectories_free(teacher);
        tiny_free(cpu);
        tiny_free(cuda);
    }
    print_message("%lld of %lld choices are equal\n", (long long)equal, (long long)all);
    assert_true((double)equal >= 0.999 * (double)all);
}

/* A teacher's states are what a step starts from: with its own as teacher, a search repeats itself; with another's it does not. */
static void a_teacher_is_followed(void **state)
{
    (void)state;
    enum { N = 64, T = 6 };
    Tiny *t = tiny_new_on("cpu", 4, false, T, 64);
    SearchSettings s = tiny_settings(t, 0.5, 0.9, true), other = s;
    other.round = 7;
    Trajectories *own = search_run(t->k, &t->err, &s, 0, N, true), *foreign = search_run(t->k, &t->err, &other, 0, N, true);
    s.teacher = own;
    Trajectories *same = search_run(t->k, &t->err, &s, 0, N, true);
    s.teacher = foreign;
    Trajectories *led = search_run(t->k, &t->err, &s, 0, N, true);
    const size_t bytes = (size_t)N * (T + 1) * L;
    assert_memory_equal(own->state, same->state, bytes);
    assert_memory_not_equal(own->state, led->state, bytes);
    assert_memory_not_equal(foreign->state, led->state, bytes);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < L; j++) /* a letter once set stays set */
            for (int k = 0; k < T; k++) {
                uint8_t before = foreign->state[((size_t)i * (T + 1) + (size_t)k) * L + (size_t)j];
                assert_true(before == V || before == led->state[((size_t)i * (T + 1) + (size_t)k + 1) * L + (size_t)j]);
            }
    trajectories_free(own);
    trajectories_free(foreign);
    trajectories_free(same);
    trajectories_free(led);
    tiny_free(t);
}

/* ---- rounds, checkpoints, failures ---- */
static const char *const small[] = {"device=cuda",          "sample.trajectories=4", "search.duplicate=2",       "train.batch_size=4",
                                    "train.improve_steps=1", "train.micro_batch=4",   "sample.batch_size=4", NULL};

static World *small_world(void)
{
    return world_new((ExactEm){.length = 2, .letters = 2, .steps = 2, .hidden = 4, .alpha = 0.5, .gamma = 0.9}, 2);
}

static Checkpoint at(const char *dir, int64_t round)
{
    return (Checkpoint){.dir = dir, .precision = "f32", .device = "cuda", .seed = 5, .round = round};
}

/* Rounds from `done` on up to `end`, a checkpoint after each. */
static bool rounds(World *w, const char *dir, int64_t end)
{
    RoundReport report;
    Aligner *a = aligner_open(&w->err, w->registry, world_config(w, small));
    Checkpoint c = at(dir, 0);
    bool ok = a != NULL;
    if (ok && state_exists(dir)) {
        ok = checkpoint_load(&w->err, &c, a->theta, a->optim, false);
        a->rounds_done = c.round;
        params_touch(a->theta);
    } else if (ok) {
        ok = checkpoint_save(&w->err, &c, a->theta, a->optim);
    }
    while (ok && a->rounds_done < end) {
        c = at(dir, a->rounds_done + 1);
        ok = aligner_round(a, &w->err, &report) && checkpoint_save(&w->err, &c, a->theta, a->optim);
    }
    aligner_close(a);
    return ok;
}

static void weights_of(World *w, const char *dir, float *to, int64_t *round)
{
    Aligner *a = world_aligner(w, (const char *const[]){"search.method=none", NULL});
    Checkpoint c = at(dir, 0);
    world_check(w, checkpoint_load(&w->err, &c, a->theta, a->optim, true));
    memcpy(to, a->theta->value, (size_t)a->theta->size * sizeof *to);
    *round = c.round;
    aligner_close(a);
}

static char *folder(World *w, const char *name)
{
    char *dir = arena_printf(w->arena, "%s/%s", w->dir, name);
    Err err = {0};
    assert_true(file_mkdirs(&err, arena_printf(w->arena, "%s/checkpoints", dir)));
    return dir;
}

static void a_resumed_run_ends_alike(void **state)
{
    (void)state;
    World *w = small_world();
    static float whole[4096], parts[4096];
    int64_t round;
    char *a = folder(w, "whole"), *b = folder(w, "parts");
    world_check(w, rounds(w, a, 3));
    world_check(w, rounds(w, b, 1));
    world_check(w, rounds(w, b, 3));
    weights_of(w, a, whole, &round);
    weights_of(w, b, parts, &round);
    assert_int_equal(round, 3);
    assert_memory_equal(whole, parts, sizeof whole);
    assert_int_equal(cuda_standin("live"), 0);
    world_free(w);
}

/* One failure at call n of an alignment that goes on from a checkpoint: an error or an unharmed end, nothing left behind, and the
 * checkpoint good for what follows. */
static void fail_once(World *w, int (*fail_in)(long long), const char *dir, long long n, int64_t *rounds_kept)
{
    static float weights[4096];
    err_clear(&w->err);
    fail_in(n);
    bool ok = rounds(w, dir, 2);
    fail_in(0);
    if (!ok && (w->err.kind != ERR_ENV || !strstr(w->err.text, "CUDA")))
        fail_msg("call %lld: %s", n, w->err.text);
    if (cuda_standin("live") != 0)
        fail_msg("call %lld (%s) leaves %lld objects", n, w->err.text, cuda_standin("live"));
    err_clear(&w->err);
    *rounds_kept = -1;
    if (state_exists(dir)) /* else it failed before the first one */
        weights_of(w, dir, weights, rounds_kept);
}

static void failing_calls_leave_a_checkpoint(void **state)
{
    (void)state;
    enum { DRAWN = 200 };
    World *w = small_world();
    static float whole[4096], after[4096];
    int64_t kept;
    char *dir = folder(w, "good");
    world_check(w, rounds(w, dir, 2));
    weights_of(w, dir, whole, &kept);
    int (*fail_in)(long long) = (int (*)(long long))cuda_standin_symbol("fail_in");
    long long before = cuda_standin("calls");
    world_check(w, rounds(w, folder(w, "counted"), 2));
    long long calls = cuda_standin("calls") - before;
    unsigned seed = 3;
    int failed = 0;
    for (int i = 0; i < DRAWN; i++) {
        seed = seed * 1664525u + 1013904223u;
        long long n = 1 + (long long)((seed >> 4) % (unsigned)calls);
        char *run = folder(w, arena_printf(w->arena, "run%d", i));
        fail_once(w, fail_in, run, n, &kept);
        failed += kept < 2;
        if (i % 10 == 0) { /* goes on to where it would have come */
            world_check(w, rounds(w, run, 2));
            weights_of(w, run, after, &kept);
            assert_memory_equal(whole, after, sizeof whole);
        }
    }
    print_message("%lld calls; %d of %d failures cut the run short\n", calls, failed, DRAWN);
    assert_true(failed > DRAWN / 2);
    world_free(w);
}

/* Every place of the program that calls the driver or cuBLASLt in an alignment, once: the first of its calls fails. */
static void every_calling_place_may_fail(void **state)
{
    (void)state;
    long long (*site)(int) = (long long (*)(int))cuda_standin_symbol("site");
    int (*fail_in)(long long) = (int (*)(long long))cuda_standin_symbol("fail_in");
    cuda_standin_or_skip();
    World *w = small_world();
    enum { MOST = 1000 };
    static long long first[MOST];
    int sites = 0;
    int64_t kept;
    setenv("DAV_CUDA_BLASLT", "1", 1);
    world_check(w, rounds(w, folder(w, "before"), 2)); /* what happens once a process, such as opening libraries, and in the cache */
    site(-1);
    long long before = cuda_standin("calls");
    world_check(w, rounds(w, folder(w, "counted"), 2));
    while (sites < MOST && (first[sites] = site(sites)))
        first[sites++] -= before;
    for (int i = 0; i < sites; i++)
        fail_once(w, fail_in, folder(w, arena_printf(w->arena, "site%d", i)), first[i], &kept);
    unsetenv("DAV_CUDA_BLASLT");
    print_message("%d calling places\n", sites);
    assert_true(sites > 40 && sites < MOST);
    world_free(w);
}

/* ---- the yeast demo, shortened ---- */
static double number_in(const json_t *row, const char *key)
{
    const json_t *v = json_object_get(row, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

/* The first row of the event in a run's metrics. */
static json_t *row_of(const char *file, const char *event)
{
    char *text = text_of(in_scratch(file)), *line = strtok(text, "\n");
    json_t *found = NULL;
    for (; line && !found; line = strtok(NULL, "\n")) {
        json_t *row = json_loads(line, 0, NULL);
        const char *e = json_string_value(json_object_get(row, "event"));
        if (e && strcmp(e, event) == 0)
            found = json_incref(row);
        json_decref(row);
    }
    mem_free(text);
    if (!found)
        fail_msg("%s has no row '%s'", file, event);
    return found;
}

#define SHORT "--set num_epochs=1 --set sample.trajectories=2 --set sample.num_steps=2 --set search.duplicate=2 " \
              "--set eval.samples=2 --set eval.posterior=0 --set eval.elbo=2 --set train.batch_size=2 --set train.micro_batch=2"

static void the_demo_runs_alike(void **state)
{
    (void)state;
    static const char *const device[] = {"cpu", "cuda"};
    for (int d = 0; d < 2; d++)
        assert_status(dav("align --config " DAV_SOURCE_DIR "/configs/yeast-demo.yaml --device %s " SHORT " --out %s", device[d],
                          in_scratch(device[d])), 0);
    json_t *a = row_of("cpu/metrics.jsonl", "round"), *b = row_of("cuda/metrics.jsonl", "round");
    static const char *const bound[] = {"elbo", "elbo_undiscounted"};
    for (int i = 0; i < 2; i++) {
        char se[64];
        snprintf(se, sizeof se, "%s_se", bound[i]);
        print_message("%s: %.6g on the processor, %.6g on the device\n", bound[i], number_in(a, bound[i]), number_in(b, bound[i]));
        assert_true(fabs(number_in(a, bound[i]) - number_in(b, bound[i])) <= 2 * number_in(a, se) + 1e-6);
    }
    assert_true(number_in(a, "updates") == number_in(b, "updates") && number_in(b, "updates") >= 1);
    assert_true(fabs(number_in(a, "loss") / number_in(b, "loss") - 1) < 1e-2);
    assert_true(fabs(number_in(a, "grad_norm") / number_in(b, "grad_norm") - 1) < 1e-2);
    json_decref(a);
    json_decref(b);
}

int main(void)
{
    cuda_choose();
    if (!cuda_is_there())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_teacher_is_followed),
        cmocka_unit_test(choices_agree_step_by_step),
        cmocka_unit_test(a_resumed_run_ends_alike),
        cmocka_unit_test(failing_calls_leave_a_checkpoint),
        cmocka_unit_test(every_calling_place_may_fail),
        cmocka_unit_test(the_demo_runs_alike),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
