/* Commands as a user gives them, on networks small enough for seconds: twelve letters, one hidden layer. */
#include "support/command.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resumed_table_is_whole),
        cmocka_unit_test(eval_says_everything_as_json),
    };
    return cmocka_run_group_tests(tests, prepare, scratch_close);
}
