/* Commands as a user gives them, on networks small enough for seconds: twelve letters, one hidden layer. */
#include "support/command.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { LETTERS = 12 };

/* Sequences with a measured value, the number of A. */
static void write_data(void)
{
    Buf table = {0};
    Err err = {0};
    uint64_t z = 1;
    buf_str(&table, "sequence\tvalue\n");
    for (int i = 0; i < 300; i++) {
        int value = 0;
        for (int j = 0; j < LETTERS; j++) {
            z = z * 6364136223846793005u + 1442695040888963407u;
            buf_printf(&table, "%c", "ACGT"[z >> 62]);
            value += z >> 62 == 0;
        }
        buf_printf(&table, "\t%d\n", value);
    }
    assert_true(file_write(&err, in_scratch("data.tsv"), table.at, table.len));
    buf_free(&table);
}

static void write_text(const char *name, const char *text)
{
    Err err = {0};
    assert_true(file_write(&err, in_scratch(name), text, strlen(text)));
}

static const char align_yaml[] =
    "pretrained: {model: denoiser}\nreward: {model: oracle}\nheldout: {model: oracle}\nnum_epochs: 2\n"
    "sample: {num_steps: 4, trajectories: 8, batch_size: 8}\nsearch: {duplicate: 3, search_kl: 1}\n"
    "train: {batch_size: 16, micro_batch: 8}\neval: {samples: 16, posterior: 0, elbo: 8}\n";

#define PRETRAIN "pretrain --data %s --out %s --set train.batch_size=16 --set train.micro_batch=16 --set train.steps=6 " \
                 "--set eval.every=6 --config "

static int prepare(void **state)
{
    if (scratch_open(state) != 0)
        return -1;
    write_data();
    write_text("denoiser.yaml", "model: {name: TinyDenoiser, alphabet_size: 5, length: 12}\ndata: {folds: all}\n");
    write_text("oracle.yaml", "model: {name: SeqCNN, length: 12, channels: [4], kernels: [3], pool: [2], dense: 4}\n");
    write_text("align.yaml", align_yaml);
    assert_status(dav(PRETRAIN "%s", in_scratch("data.tsv"), in_scratch("denoiser"), in_scratch("denoiser.yaml")), 0);
    assert_status(dav(PRETRAIN "%s", in_scratch("data.tsv"), in_scratch("oracle"), in_scratch("oracle.yaml")), 0);
    return 0;
}

/* The line of a table that begins with a word; mem_free. */
static char *row_of(const char *word)
{
    char *text = text_of(in_scratch("out")), *line = strstr(text, word);
    if (!line)
        fail_msg("no line '%s' in: %s", word, text);
    Buf row = {0};
    buf_add(&row, line, strcspn(line, "\n"));
    mem_free(text);
    return row.at;
}

/* A run whose end was lost is taken up at its last round. */
static void resumed_table_is_whole(void **state)
{
    (void)state;
    assert_status(dav("align --config %s --out %s", in_scratch("align.yaml"), in_scratch("whole")), 0);
    char *whole = row_of("before");
    char *log = text_of(in_scratch("whole/metrics.jsonl"));
    assert_non_null(strstr(log, "elbo_undiscounted_se"));
    mem_free(log);
    assert_status(dav("align --config %s --out %s --set num_epochs=2", in_scratch("align.yaml"), in_scratch("torn")), 0);
    assert_int_equal(remove(in_scratch("torn/finished")), 0);
    assert_status(dav("align --resume %s", in_scratch("torn")), 0);
    char *resumed = row_of("before");
    assert_string_equal(whole, resumed);
    mem_free(whole);
    mem_free(resumed);
}

static void eval_says_everything_as_json(void **state)
{
    (void)state;
    const char *samples = in_scratch("whole/samples/after.fasta");
    assert_status(dav("eval --samples %s --config %s --data %s --json", samples, in_scratch("align.yaml"), in_scratch("data.tsv")), 0);
    assert_printed("\"log_likelihood\":-1");
    assert_printed("\"log_likelihood_se\":");
    assert_printed("\"train_distance\":");
    assert_printed("\"train_distance_low\":");
    assert_status(dav("eval --samples %s --config %s", samples, in_scratch("align.yaml")), 0);
    assert_printed("log-likelihood under the pretrained model -1");
}

/* A note "planned A -> B bytes under a budget of C" with the budget asked for, and B within it. */
static void assert_planned_within(const char *stream, long long budget)
{
    long long from, to, under;
    char *text = text_of(in_scratch(stream)), *at = text;
    while (at && sscanf(at, "planned %lld -> %lld bytes under a budget of %lld, ", &from, &to, &under) != 3)
        at = strstr(at + 1, "planned ");
    if (!at)
        fail_msg("no note in: %s", text);
    assert_true(under == budget && to <= under && from > under);
    mem_free(text);
}

/* Values are computed again, the results are the same bits. */
static void memory_is_bounded_and_told(void **state)
{
    (void)state;
    const char *config = in_scratch("deep.yaml"), *data = in_scratch("data.tsv");
    write_text("deep.yaml", "model: {name: DNAConv, length: 12, hidden_dim: 8, num_cnn_stacks: 2}\ndata: {folds: all}\n");
    assert_status(dav(PRETRAIN "%s", data, in_scratch("wide"), config), 0);
    assert_said("memory  pretrain ");
    assert_status(dav(PRETRAIN "%s --set memory_budget=120kB", data, in_scratch("narrow"), config), 0);
    assert_planned_within("said", 120000);
    char *note = text_of(in_scratch("narrow/metrics.jsonl"));
    assert_non_null(strstr(note, "\"event\": \"memory\""));
    assert_non_null(strstr(note, "\"pretrain_note\": \"planned "));
    mem_free(note);
    assert_same_file(in_scratch("wide/diffusion_pytorch_model.safetensors"), in_scratch("narrow/diffusion_pytorch_model.safetensors"));
    assert_status(dav("compile DNAConv --task learn --rows 16 --set length=12 --set hidden_dim=8 --set num_cnn_stacks=2 "
                      "--memory-budget 120kB"), 0);
    assert_planned_within("out", 120000);
    assert_mistake(dav(PRETRAIN "%s --set memory_budget=1kB", data, in_scratch("no"), config), 2, "cannot be met");
    assert_mistake(dav(PRETRAIN "%s --set memory_budget=much", data, in_scratch("no"), config), 2, "such as 800MB or 2GiB");
    assert_mistake(dav("compile DNAConv --memory-budget 2XB"), 2, "--memory-budget: expected bytes");
    assert_mistake(dav("compile no/such"), 2, "no such model folder");
    assert_mistake(dav("compile %s --set hidden=12", in_scratch("denoiser")), 2, "has its own configuration");
    assert_mistake(dav("sample --model %s --n -3 --out %s", in_scratch("denoiser"), in_scratch("none.fasta")), 2, "--n: expected 1 to 10000000, found -3");
    assert_mistake(dav("sample --model %s --n 2 --out %s", in_scratch("denoiser"), in_scratch(".")), 1, "found a folder");
    assert_mistake(dav("sample --model %s --n 2 --out ''", in_scratch("denoiser")), 2, "found an empty one");
    if (mkfifo(in_scratch("pipe"), 0600) == 0) { /* what is no file of ours stays what it is */
        struct stat st;
        assert_mistake(dav("sample --model %s --n 2 --out %s", in_scratch("denoiser"), in_scratch("pipe")), 1, "found a special file");
        assert_true(stat(in_scratch("pipe"), &st) == 0 && S_ISFIFO(st.st_mode));
    }
    write_text("short.fasta", ">a\nACGTACGTACGT\n>b\nACGT\n");
    assert_mistake(dav("eval --samples %s --config %s", in_scratch("short.fasta"), in_scratch("align.yaml")), 2,
                   "short.fasta: sequence 2: expected 12 letters, found 4");
    write_text("one.fasta", ">a\nACGTACGTACGT\n");
    assert_status(dav("eval --samples %s --config %s", in_scratch("one.fasta"), in_scratch("align.yaml")), 0);
    assert_mistake(dav("sample --model no/such --n 2 --out %s", in_scratch("none.fasta")), 2, "--model: pretrained.model");
}

static const char objectives_c[] =
    "#include <dav/dav.h>\n"
    "static const DavKey search_keys[] = {{\"beta\", DAV_KEY_FLOAT, \"1\", 0, 9, 0, \"power of the weights\"}};\n"
    "static const DavKey loss_keys[] = {{\"factor\", DAV_KEY_FLOAT, \"1\", 0, 9, 0, \"of the loss\"}};\n"
    "static DavVal weights(DavNet *n, const DavConfig *c, const DavStep *s) {\n"
    "    return dav_mul(dav_importance_weights(s->reward, s->logp, s->logq, s->scale), dav_config_float(c, \"beta\")); }\n"
    "static DavVal loss(DavNet *n, const DavConfig *c, const DavTransition *t) {\n"
    "    return dav_mul(dav_masked_loss(t->logp, t->x, t->next), dav_config_float(c, \"factor\")); }\n"
    "static const DavSearch tempered = DAV_SEARCH(.name = \"tempered\", .weights = weights, DAV_KEYS(search_keys));\n"
    "static const DavLoss scaled = DAV_LOSS(.name = \"scaled\", .loss = loss, DAV_KEYS(loss_keys));\n"
    "static const DavSearch *const searches[] = {&tempered};\n"
    "static const DavLoss *const losses[] = {&scaled};\n"
    "DAV_PLUGIN(.searches = searches, .n_searches = 1, .losses = losses, .n_losses = 1);\n";

#define WEIGHTS(run) in_scratch(run "/diffusion_pytorch_model.safetensors")

/* Settings of a plugin's objectives are read, refused, listed, and reach the graph. */
static void objectives_have_settings(void **state)
{
    (void)state;
    char align[300];
    snprintf(align, sizeof align, "align --plugin %s --config %s", in_scratch("objectives.so"), in_scratch("align.yaml"));
    write_text("objectives.c", objectives_c);
    assert_status(dav("build %s -o %s", in_scratch("objectives.c"), in_scratch("objectives.so")), 0);
    assert_status(dav("list --plugin %s objectives tempered", in_scratch("objectives.so")), 0);
    assert_printed("search.tempered.beta");
    assert_printed("power of the weights");
    assert_status(dav("list --plugin %s losses scaled", in_scratch("objectives.so")), 0);
    assert_printed("train.scaled.factor");
    assert_mistake(dav("list --plugin %s objectives temperd", in_scratch("objectives.so")), 2, "did you mean 'tempered'?");
    assert_status(dav("%s --set search.method=tempered --out %s", align, in_scratch("same")), 0);
    assert_same_file(WEIGHTS("whole"), WEIGHTS("same"));
    assert_status(dav("%s --set search.method=tempered --set search.tempered.beta=0 --out %s", align, in_scratch("flat")), 0);
    double ess = 0;
    char *flat = text_of(in_scratch("flat/metrics.jsonl")), *at = strstr(flat, "\"ess\": ");
    assert_true(at && sscanf(at, "\"ess\": %lf", &ess) == 1 && ess > 2.99999 && ess < 3.00001); /* equal weights of three children */
    mem_free(flat);
    assert_status(dav("%s --set train.loss=scaled --set train.scaled.factor=0 --out %s", align, in_scratch("still")), 0);
    assert_same_file(WEIGHTS("denoiser"), WEIGHTS("still"));
    assert_mistake(dav("%s --set search.method=tempered --set search.tempered.bta=2 --out %s", align, in_scratch("no")), 2,
                   "did you mean search.tempered.beta?");
    assert_mistake(dav("%s --set search.method=tempered --set search.tempered.beta=10 --out %s", align, in_scratch("no")), 2,
                   "a number from 0 to 9");
    /* the settings of the search stay in the run's folder, where plain samples need none */
    assert_status(dav("sample --plugin %s --model %s --n 4 --out %s", in_scratch("objectives.so"), in_scratch("flat"),
                      in_scratch("plain.fasta")), 0);
}

static const char network_c[] =
    "#include <dav/dav.h>\n"
    "static const DavKey keys[] = {{\"alphabet_size\", DAV_KEY_INT, \"5\", 2, 64, 0, \"symbols\"},\n"
    "                              {\"length\", DAV_KEY_INT, \"12\", 1, 64, 0, \"positions\"}};\n"
    "static void forward(DavNet *n, const DavConfig *c, const DavVal *in, DavVal *out) {\n"
    "    DavVal x = dav_rank(in[0]) == 2 ? dav_one_hot(in[0], 5, DAV_F32) : in[0];\n"
    "    out[0] = dav_linear(n, \"out\", dav_gelu(dav_linear(n, \"in\", x, 8)), 5); }\n"
    "static const DavModel network = DAV_MODEL(.kind = DAV_DENOISER, .name = \"Plugged\", .doc = \"one layer\", DAV_KEYS(keys),\n"
    "    .input = {{\"seq\", \"i64[B,length] | f32[B,length,alphabet_size]\", \"alphabet_size\", false, \"symbols\"}},\n"
    "    .output = {{\"logits\", \"f32[B,length,alphabet_size]\", NULL, false, \"of the clean symbol\"}}, .forward = forward);\n"
    "static const DavModel *const models[] = {&network};\n"
    "DAV_PLUGIN(.models = models, .n_models = 1);\n";

/* Wherever a model is named, a plugin's path names its first one. */
static void a_plugin_is_a_models_name(void **state)
{
    (void)state;
    const char *so = in_scratch("network.so"), *run = in_scratch("plugged");
    write_text("network.c", network_c);
    assert_status(dav("build %s -o %s", in_scratch("network.c"), so), 0);
    assert_status(dav("list models %s", so), 0);
    assert_printed("Plugged (denoiser): one layer");
    assert_status(dav("compile %s --task learn", so), 0);
    assert_printed("Plugged learn: ");
    assert_status(dav("pretrain --data %s --out %s --config %s --set model.name=%s", in_scratch("data.tsv"), run,
                      in_scratch("denoiser.yaml"), so), 0);
    assert_status(dav("align --plugin %s --config %s --set pretrained.model=%s --out %s", so, in_scratch("align.yaml"), run,
                      in_scratch("plugged-aligned")), 0);
    assert_status(dav("sample --plugin %s --model %s --search --n 4 --out %s", so, in_scratch("plugged-aligned"),
                      in_scratch("plugged.fasta")), 0);
    assert_status(dav("eval --plugin %s --samples %s --config %s --set pretrained.model=%s", so, in_scratch("plugged.fasta"),
                      in_scratch("align.yaml"), run), 0);
    assert_mistake(dav("compile %s", in_scratch("objectives.so")), 2, "the plugin has no model");
}

/* What the search and the M-step ask of networks, as tasks. */
static void what_networks_are_asked_are_tasks(void **state)
{
    (void)state;
    static const char tiny[] = "compile TinyDenoiser --set alphabet_size=5 --set length=12 --rows 4";
    assert_status(dav("%s --task value --task guide --reward SeqCNN", tiny), 0);
    assert_printed("TinyDenoiser value: ");
    assert_printed("TinyDenoiser guide: ");
    assert_status(dav("%s --task guide --reward %s --emit ir", tiny, in_scratch("oracle")), 0);
    assert_printed("f32[4,12,4]"); /* d reward / d one-hot letters */
    assert_status(dav("compile MPRADragoNN --task forward --task value --task learn"), 0); /* its length is no key */
    assert_status(dav("compile DNAConv --rows 2 --set length=145 --set num_cnn_stacks=1 --set hidden_dim=8 --task guide --reward MPRADragoNN"), 0);
    assert_mistake(dav("%s --task value --reward MPRADragoNN", tiny), 2, "reads 145 positions of 4 letters; TinyDenoiser makes 12 of 4");
    assert_status(dav("compile %s --task value", in_scratch("oracle")), 0);
    assert_printed("SeqCNN value: ");
    assert_mistake(dav("%s --task guide", tiny), 2, "--task guide: which reward?");
    assert_mistake(dav("%s --task whole", tiny), 2, "--task whole: which reward?");
    assert_mistake(dav("compile SeqCNN --task whole"), 2, "SeqCNN has the tasks forward, learn, value");
    assert_status(dav("%s --task whole --reward SeqCNN --children 3 --emit ir", tiny), 0);
    assert_printed("trip=33 carry=4"); /* 32 steps and the one before; state, its log-probabilities, fill and reward */
    assert_printed("i64[4,32,12]");
    assert_status(dav("%s --task score --task prior --task whole --reward SeqCNN", tiny), 0);
    assert_printed("TinyDenoiser score: ");
    assert_printed("TinyDenoiser prior: ");
    assert_printed("TinyDenoiser whole: ");
    assert_mistake(dav("%s --task guide --reward DNAConv", tiny), 2, "gives no reward of sequences");
    assert_mistake(dav("%s --task guied --reward SeqCNN", tiny), 2, "value, guide");
}

/* The largest number of a name in a log. */
static int64_t count_in(const char *file, const char *field)
{
    char *log = text_of(in_scratch(file)), *at = log, word[64];
    long long most = -1, next;
    snprintf(word, sizeof word, "\"%s\": ", field);
    while ((at = strstr(at, word)))
        if (sscanf(at += strlen(word), "%lld", &next) == 1 && next > most)
            most = next;
    mem_free(log);
    return most;
}

/* The departures of the released code that only the M-step sees (those of the search: test_departures). */
static void departures_of_the_mstep(void **state)
{
    (void)state;
    char align[300], *a, *b;
    snprintf(align, sizeof align, "align --config %s --set num_epochs=1", in_scratch("align.yaml"));
    assert_status(dav("%s --set train.discarded_parts=3 --out %s", align, in_scratch("parts")), 0);
    assert_status(dav("%s --set train.time_conditioning=sample --out %s", align, in_scratch("time0")), 0);
    assert_status(dav("%s --set train.time_conditioning=sigma --set train.train_kl=0.1 --out %s", align, in_scratch("time1")), 0);
    assert_status(dav("%s --set train.train_kl=0.1 --out %s", align, in_scratch("time2")), 0);
    assert_int_equal(count_in("parts/metrics.jsonl", "updates"), count_in("time0/metrics.jsonl", "updates"));
    assert_true(count_in("parts/metrics.jsonl", "vjps") * 3 < count_in("time0/metrics.jsonl", "vjps"));
    a = text_of(in_scratch("time1/metrics.jsonl"));
    b = text_of(in_scratch("time2/metrics.jsonl"));
    assert_true(strcmp(a, b) != 0);
    mem_free(a);
    mem_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resumed_table_is_whole),
        cmocka_unit_test(eval_says_everything_as_json),
        cmocka_unit_test(memory_is_bounded_and_told),
        cmocka_unit_test(objectives_have_settings),
        cmocka_unit_test(a_plugin_is_a_models_name),
        cmocka_unit_test(what_networks_are_asked_are_tasks),
        cmocka_unit_test(departures_of_the_mstep),
    };
    return cmocka_run_group_tests(tests, prepare, scratch_close);
}
