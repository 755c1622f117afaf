/* Rewards outside of the graph: a process that is right, dead, lying, slow or dying; a plugin's C function; alignments with
 * both.  This program is the process as well: test_reward serve FORMAT MODE [FILE]. */
#define _GNU_SOURCE
#include "runtime/masked_programs.h"
#include "runtime/modeldir.h"
#include "runtime/reward.h"
#include "support/command.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char self[1024];

/* ---- the process ---- */
static void answer(const char *mode, int64_t i, int64_t n, int score)
{
    if (strcmp(mode, "words") == 0 && i == 1)
        printf("three\n");
    else if (strcmp(mode, "nan") == 0 && i == 1)
        printf("nan\n");
    else if (strcmp(mode, "long") == 0)
        printf("%0300d\n", score);
    else if (strcmp(mode, "few") != 0 || i + 1 < n)
        printf("%d\n", score);
    if (strcmp(mode, "many") == 0 && i + 1 == n)
        printf("7\n");
}

static int count_of(const char *s, size_t len, char what)
{
    int n = 0;
    for (size_t i = 0; i < len; i++)
        n += s[i] == what;
    return n;
}

/* The score is the number of A. */
static int serve_fasta(int64_t *n, int score[4096])
{
    static char line[4096];
    for (*n = 0; fgets(line, sizeof line, stdin);) {
        if (line[0] == '\n')
            return 1;
        if (line[0] != '>')
            score[(*n)++] = count_of(line, strlen(line), 'A');
    }
    return 0;
}

static int serve_raw(int64_t *n, int score[4096])
{
    int64_t head[2];
    if (fread(head, sizeof head, 1, stdin) != 1)
        return 0;
    static char letters[4096];
    for (*n = 0; *n < head[0]; score[(*n)++] = count_of(letters, (size_t)head[1], 0))
        if (fread(letters, (size_t)head[1], 1, stdin) != 1)
            return 0;
    return 1;
}

static int serve(const char *format, const char *mode, const char *file)
{
    static int score[4096];
    int64_t n;
    if (strcmp(mode, "dead") == 0)
        return 3;
    for (int batch = 0; strcmp(format, "raw") == 0 ? serve_raw(&n, score) : serve_fasta(&n, score); batch++) {
        if (strcmp(mode, "slow") == 0)
            pause();
        if (strcmp(mode, "crash") == 0)
            abort();
        if (strcmp(mode, "once") == 0 && batch == 8 && access(file, F_OK) != 0) { /* dies the first time only */
            fclose(fopen(file, "w"));
            raise(SIGKILL);
        }
        for (int64_t i = 0; i < n; i++)
            answer(mode, i, n, score[i]);
        fflush(stdout);
    }
    return 0;
}

/* ---- the process as the runtime sees it ---- */
enum { N = 3, L = 8 };
static const int64_t letters[N * L] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 3, 2, 1, 3, 2, 1, 3, 2};

static Reward *start(Err *err, RewardFormat format, const char *mode)
{
    char command[2000];
    snprintf(command, sizeof command, "exec %s serve %s %s", self, format == REWARD_RAW ? "raw" : "fasta", mode);
    Reward *r = reward_from_command(err, command, format, strcmp(mode, "slow") == 0 ? 0.2 : 20);
    assert_non_null(r);
    return r;
}

static void right_scores(void **state)
{
    (void)state;
    for (int format = REWARD_FASTA; format <= REWARD_RAW; format++) {
        Err err = {0};
        Reward *r = start(&err, (RewardFormat)format, "good");
        for (int batch = 1; batch <= 3; batch++) { /* of sizes 1, 2, 3 */
            float v[N] = {-1, -1, -1};
            if (!reward_batch(r, &err, batch, L, letters, v))
                fail_msg("%s", err.text);
            for (int i = 0; i < batch; i++)
                assert_true(v[i] == ((const float[]){2, 8, 0})[i]);
        }
        assert_int_equal(reward_calls(r), 6);
        reward_free(r);
    }
}

static void bad_processes(void **state)
{
    (void)state;
    static const struct { const char *mode, *says; ErrKind kind; } row[] = {
        {"dead", "ended with status 3 after 0 of 3", ERR_ENV},
        {"crash", "was killed by signal 6 after 0 of 3", ERR_ENV},
        {"slow", "no answer within 0.2 s (0 of 3 answers came)", ERR_ENV},
        {"words", "answer 2: expected a finite number, found \"three\"", ERR_USER},
        {"nan", "answer 2: expected a finite number, found \"nan\"", ERR_USER},
        {"long", "answer 1 is longer than", ERR_USER},
        {"many", "more answers than the", ERR_USER},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        for (int format = REWARD_FASTA; format <= REWARD_RAW; format++) {
            Err err = {0};
            Reward *r = start(&err, (RewardFormat)format, row[i].mode);
            float v[N];
            bool ok = reward_batch(r, &err, N, L, letters, v); /* an extra line may only show in the next batch */
            if (ok)
                usleep(50000);
            ok = ok && reward_batch(r, &err, N, L, letters, v);
            assert_false(ok);
            assert_int_equal(err.kind, row[i].kind);
            assert_null(strchr(err.text, '\n'));
            if (!strstr(err.text, row[i].says))
                fail_msg("%s: expected '%s', found '%s'", row[i].mode, row[i].says, err.text);
            reward_free(r);
        }
}

/* Too few lines look like silence. */
static void too_few(void **state)
{
    (void)state;
    Err err = {0};
    char command[2000];
    snprintf(command, sizeof command, "exec %s serve fasta few", self);
    Reward *r = reward_from_command(&err, command, REWARD_FASTA, 0.3);
    float v[N];
    assert_false(reward_batch(r, &err, N, L, letters, v));
    assert_non_null(strstr(err.text, "no answer within 0.3 s (2 of 3 answers came)"));
    assert_int_equal(err.kind, ERR_ENV);
    reward_free(r);
}

/* ---- alignments ---- */
#define SMALL "align --config " DAV_SOURCE_DIR "/configs/yeast-demo.yaml --set num_epochs=2 --set sample.trajectories=4 " \
              "--set sample.num_steps=4 --set search.duplicate=2 --set train.batch_size=8 --set train.micro_batch=8 " \
              "--set eval.samples=8 --set eval.posterior=0 --set sample.batch_size=8 --set reward.model= --set heldout.model= "

/* The process dies in the second round; resumed, the run gives the bits of one whose process lived. */
static void nothing_is_lost(void **state)
{
    (void)state;
    assert_int_equal(dav(SMALL "--set \"reward.command=exec %s serve fasta good\" --out %s", self, in_scratch("whole")), 0);
    int status = dav(SMALL "--set \"reward.command=exec %s serve fasta once %s\" --out %s", self, in_scratch("died"), in_scratch("torn"));
    assert_mistake(status, 1, "was killed by signal 9");
    assert_int_equal(dav("align --resume %s", in_scratch("torn")), 0);
    assert_same_file(in_scratch("whole/metrics.jsonl"), in_scratch("torn/metrics.jsonl"));
    assert_same_file(in_scratch("whole/diffusion_pytorch_model.safetensors"), in_scratch("torn/diffusion_pytorch_model.safetensors"));
    assert_same_file(in_scratch("whole/samples/after.fasta"), in_scratch("torn/samples/after.fasta"));
}

static void statuses(void **state)
{
    (void)state;
    int status = dav(SMALL "--set \"reward.command=exec %s serve raw words\" --set reward.format=raw --out %s", self, in_scratch("lie"));
    assert_mistake(status, 2, "expected a finite number, found \"three\"");
    status = dav(SMALL "--set \"reward.command=exec %s serve fasta slow\" --set reward.timeout=0.3 --out %s", self, in_scratch("slow"));
    assert_mistake(status, 1, "no answer within 0.3 s");
    status = dav(SMALL "--set reward.command=true --set reward.function=gc --out %s", in_scratch("both"));
    assert_mistake(status, 2, "reward.command and reward.function are both given");
}

#define PLUGIN(score, more) "#include <dav/dav.h>\n" \
    "static const char *count(int64_t n, int64_t length, const int64_t *letters, double *values) {\n" score \
    "for (int64_t i = 0; i < n; i++) { values[i] = 0; for (int64_t j = 0; j < length; j++)\n" \
    "values[i] += letters[i * length + j] == 0; } return 0; }\n" \
    "static const DavHostReward reward = DAV_HOST_REWARD(.name = \"count\", .doc = \"letters A\", .score = count);\n" \
    "static const DavHostReward *const rewards[] = {&reward}; DAV_PLUGIN(.rewards = rewards, .n_rewards = 1" more ");\n"

static void build_plugin(const char *name, const char *code)
{
    Err err = {0};
    char source[80], object[80];
    snprintf(source, sizeof source, "%s.c", name);
    snprintf(object, sizeof object, "%s.so", name);
    assert_true(file_write(&err, in_scratch(source), code, strlen(code)));
    char command[2000];
    snprintf(command, sizeof command, "cc -shared -fPIC -w -I%s/include %s -o %s", DAV_SOURCE_DIR, in_scratch(source), in_scratch(object));
    assert_int_equal(system(command), 0);
}

/* The same reward as a C function and as a process: the same alignment. */
static void a_plugins_function(void **state)
{
    (void)state;
    build_plugin("count", PLUGIN("", ""));
    assert_int_equal(dav("list rewards --plugin %s", in_scratch("count.so")), 0);
    char *listed = text_of(in_scratch("out"));
    assert_non_null(strstr(listed, "letters A"));
    mem_free(listed);
    if (dav(SMALL "--plugin %s --set reward.function=count --out %s", in_scratch("count.so"), in_scratch("c")) != 0)
        fail_msg("%s", text_of(in_scratch("said")));
    if (access(in_scratch("whole"), F_OK) == 0) {
        assert_same_file(in_scratch("whole/metrics.jsonl"), in_scratch("c/metrics.jsonl"));
        assert_same_file(in_scratch("whole/diffusion_pytorch_model.safetensors"), in_scratch("c/diffusion_pytorch_model.safetensors"));
    }
    int status = dav(SMALL "--plugin %s --set reward.function=cuont --out %s", in_scratch("count.so"), in_scratch("no"));
    assert_mistake(status, 2, "did you mean 'count'?");
    build_plugin("fails", PLUGIN("return \"the sun went down\";", ""));
    status = dav(SMALL "--plugin %s --set reward.function=count --out %s", in_scratch("fails.so"), in_scratch("no"));
    assert_mistake(status, 1, "reward count: the sun went down");
    build_plugin("nan", PLUGIN("values[0] = 0.0 / 0; return 0;", ""));
    status = dav(SMALL "--plugin %s --set reward.function=count --out %s", in_scratch("nan.so"), in_scratch("nan"));
    assert_mistake(status, 2, "is not a finite number");
    build_plugin("other", PLUGIN("", ", .size_reward = 24"));
    status = dav("list rewards --plugin %s", in_scratch("other.so"));
    assert_mistake(status, 2, "built for sizeof(DavHostReward) 24, this program has");
}

/* ---- a reward that gives several numbers ---- */
enum { MPRA_LENGTH = 145, MPRA_TASKS = 12, ROWS = 3 };

static Network network_of(Arena *arena, const Registry *r, const char *name, const char *const (*set)[2], int n)
{
    Err err = {0};
    const DavModel *m = registry_model(r, &err, "test", name);
    DavConfig *c = config_new(arena);
    config_add_table(c, "", m->keys, m->n_keys);
    for (int i = 0; i < n; i++)
        assert_true(config_set(c, &err, "test", set[i][0], (ConfigText){CONFIG_PLAIN, set[i][1]}));
    assert_true(config_finish(c, &err, "test"));
    return (Network){m, c};
}

static void write_all_tasks(DavNet *n, const void *context, int64_t rows)
{
    const MaskedSpec *s = context;
    DavVal x0 = dav_input(n, "x0", DAV_I64, rows, MPRA_LENGTH);
    dav_output(n, "y", network_apply(n, "phi", s->reward, dav_one_hot(x0, 4, DAV_F32), (DavVal){0}));
}

/* reward.output = k is column k of what the network says. */
static void the_asked_number_is_the_reward(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Registry *registry = registry_new();
    Err err = {0};
    const char *const set[][2] = {{"length", "145"}, {"hidden_dim", "4"}, {"num_cnn_stacks", "1"}};
    MaskedSpec s = {.denoiser = network_of(arena, registry, "DNAConv", set, 3),
                    .reward = network_of(arena, registry, "MPRADragoNN", NULL, 0), .children = 1, .search = &dav_search_dav};
    assert_true(masked_spec_shape(&err, &s));
    ParamSet *theta = masked_denoiser_params(&err, &s, 1), *phi = masked_reward_params(&err, &s, 2);
    for (int64_t i = 0; i < phi->size; i++) /* variances too: positive, and no two tasks alike */
        phi->value[i] = 0.02f * (float)(1 + (i * 37 + i / 11) % 19);
    const BuildOptions o = {.compile = {.precision = DAV_F32}, .device = "cpu", .rows = ROWS};
    RowProgram *all = build_program(&err, "all", &o, write_all_tasks, &s);
    if (!all)
        fail_msg("%s", err.text);
    rows_bind_params(all, phi, "phi.", phi->value);
    static int64_t x0[ROWS * MPRA_LENGTH];
    float y[ROWS][MPRA_TASKS], r[ROWS];
    for (int i = 0; i < ROWS * MPRA_LENGTH; i++)
        x0[i] = (i * 7 + i / 13) % 4;
    RowArg in = {"x0", x0, ROW_EACH}, out = {"y", y, ROW_EACH};
    assert_true(rows_run(all, &err, ROWS, &in, 1, &out, 1));
    assert_true(y[0][7] != y[0][0]);
    for (s.reward_output = 0; s.reward_output < MPRA_TASKS; s.reward_output += 7) {
        Masked *k = masked_new(&err, &s, &o, 4, theta, phi, NULL);
        if (!k || !masked_score(k, &err, ROWS, x0, r))
            fail_msg("%s", err.text);
        for (int i = 0; i < ROWS; i++)
            assert_float_equal(r[i], y[i][s.reward_output], 1e-5f * (1 + y[i][s.reward_output]));
        masked_free(k);
    }
    rows_free(all);
    params_free(theta);
    params_free(phi);
    registry_free(registry);
    arena_free(arena);
}

int main(int argc, char **argv)
{
    if (argc > 3 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2], argv[3], argc > 4 ? argv[4] : "");
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(right_scores),    cmocka_unit_test(bad_processes), cmocka_unit_test(too_few),
        cmocka_unit_test(nothing_is_lost), cmocka_unit_test(statuses),      cmocka_unit_test(a_plugins_function),
        cmocka_unit_test(the_asked_number_is_the_reward),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
