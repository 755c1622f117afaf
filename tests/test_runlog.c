/* Run folder, metrics, resume, TensorBoard bytes, progress. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/progress.h"
#include "runtime/runlog.h"
#include "runtime/tensorboard.h"
#include "support/fixture.h"

typedef struct Fixture { char root[64], run[100]; Err err; } Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof *f);
    folder_make(f->root);
    snprintf(f->run, sizeof f->run, "%s/a/run", f->root);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;
    folder_remove(f->root);
    free(f);
    return 0;
}

static void path_of(const Fixture *f, char path[300], const char *name)
{
    snprintf(path, 300, "%s/%s", f->run, name);
}

static char *contents(const Fixture *f, const char *name, size_t *n)
{
    char path[300], *data;
    Err err = {0};
    path_of(f, path, name);
    assert_true(file_read(&err, path, 1 << 20, &data, n));
    return data;
}

static void row(Fixture *f, RunLog *log, int64_t round)
{
    runlog_begin(log, "round");
    runlog_int(log, "round", round);
    runlog_number(log, "elbo", 0.1 * (double)round);
    runlog_number(log, "ess", (double)NAN);
    runlog_string(log, "name", "a\"b\\\n");
    runlog_numbers(log, "reward", (double[]){1, 2.5}, 2);
    assert_true(runlog_end(log, &f->err, round));
    assert_true(runlog_seconds(log, &f->err, round, 1.25));
}

static void test_rows(void **state)
{
    Fixture *f = *state;
    RunLog *log;
    size_t n;
    assert_true(runlog_open(&f->err, f->run, RUN_NEW, 0, 0, &log));
    row(f, log, 3);
    char *text = contents(f, "metrics.jsonl", &n); /* already there before the log is closed */
    assert_string_equal(text, "{\"event\": \"round\", \"round\": 3, \"elbo\": 0.30000000000000004, \"ess\": null, "
                              "\"name\": \"a\\\"b\\\\\\u000a\", \"reward\": [1, 2.5]}\n");
    mem_free(text);
    text = contents(f, "times.jsonl", &n);
    assert_string_equal(text, "{\"event\": \"round\", \"round\": 3, \"seconds\": 1.25}\n");
    mem_free(text);
    runlog_close(log);
}

static void test_starts(void **state)
{
    Fixture *f = *state;
    RunLog *log, *second;
    assert_false(runlog_open(&f->err, f->run, RUN_RESUME, 0, 0, &log));
    assert_non_null(strstr(f->err.text, "expected a run folder, found no metrics.jsonl"));
    err_clear(&f->err);
    assert_true(runlog_open(&f->err, f->run, RUN_NEW, 0, 0, &log));
    row(f, log, 1);
    assert_false(runlog_open(&f->err, f->run, RUN_RESUME, 0, 0, &second));
    assert_int_equal(f->err.kind, ERR_ENV);
    assert_non_null(strstr(f->err.text, "another process is writing this run"));
    runlog_close(log);

    err_clear(&f->err);
    assert_false(runlog_open(&f->err, f->run, RUN_NEW, 0, 0, &log));
    assert_null(log);
    assert_int_equal(f->err.kind, ERR_USER);
    assert_non_null(
        strstr(f->err.text, "holds a run that is not finished; --resume continues one, --overwrite replaces it"));
    err_clear(&f->err);
    assert_true(runlog_open(&f->err, f->run, RUN_RESUME, 0, 0, &log));
    assert_true(runlog_finish(log, &f->err));
    runlog_close(log);
    assert_true(runlog_is_finished(f->run));
    assert_false(runlog_open(&f->err, f->run, RUN_RESUME, 0, 0, &log));
    assert_non_null(strstr(f->err.text, "this run is finished"));

    err_clear(&f->err);
    char path[300];
    path_of(f, path, "notes.txt"); /* not ours: overwriting leaves it */
    assert_true(file_write(&f->err, path, "x", 1));
    assert_true(runlog_open(&f->err, f->run, RUN_OVERWRITE, 0, 0, &log));
    assert_false(runlog_is_finished(f->run));
    assert_true(file_exists(path));
    runlog_close(log);
    size_t n;
    mem_free(contents(f, "metrics.jsonl", &n));
    assert_int_equal(n, 0);

    path_of(f, path, "metrics.jsonl");
    unlink(path);
    assert_false(runlog_open(&f->err, f->run, RUN_OVERWRITE, 0, 0, &log));
    assert_non_null(strstr(f->err.text, "expected an empty or new folder, found one with other files in it"));
}

/* Rounds 1 2 | 3 4 killed, resumed after 2: the same file as 1 2 3 4 at once. */
static void test_resume(void **state)
{
    Fixture *f = *state;
    RunLog *log;
    uint64_t metrics, events;
    size_t n, n_events, m;
    assert_true(runlog_open(&f->err, f->run, RUN_NEW, 0, 0, &log));
    row(f, log, 1);
    row(f, log, 2);
    assert_true(runlog_sync(log, &f->err, &metrics, &events));
    row(f, log, 3);
    row(f, log, 4);
    runlog_close(log);
    char *whole = contents(f, "metrics.jsonl", &n);
    mem_free(contents(f, "events.out.tfevents.0.dav", &n_events));
    assert_true(metrics > 0 && metrics < n);

    char path[300];
    path_of(f, path, "metrics.jsonl");
    FILE *torn = fopen(path, "a"); /* the kill came in the middle of a row */
    fputs("{\"event\": \"rou", torn);
    fclose(torn);
    assert_true(runlog_open(&f->err, f->run, RUN_RESUME, metrics, events, &log));
    row(f, log, 3);
    row(f, log, 4);
    runlog_close(log);
    char *again = contents(f, "metrics.jsonl", &m);
    assert_int_equal(m, n);
    assert_memory_equal(again, whole, n);
    mem_free(again);
    mem_free(whole);
    mem_free(contents(f, "events.out.tfevents.0.dav", &m));
    assert_int_equal(m, n_events);

    assert_false(runlog_open(&f->err, f->run, RUN_RESUME, n + 1, 0, &log));
    assert_non_null(strstr(f->err.text, "metrics.jsonl: "));
    assert_non_null(strstr(f->err.text, "expected at least the"));
    err_clear(&f->err);
    assert_false(runlog_open(&f->err, f->run, RUN_RESUME, metrics - 1, 0, &log));
    assert_non_null(strstr(f->err.text, "expected the end of a line at byte"));
}

static void test_paths(void **state)
{
    (void)state;
    Err err = {0};
    char path[4096], *dir = malloc(5000);
    assert_true(runlog_samples_path(&err, path, "run", "before"));
    assert_string_equal(path, "run/samples/before.fasta");
    assert_true(runlog_round_samples_path(&err, path, "run", 12));
    assert_string_equal(path, "run/samples/round-0012.fasta");
    memset(dir, 'x', 4999);
    dir[4999] = 0;
    assert_false(runlog_samples_path(&err, path, dir, "before"));
    assert_int_equal(err.kind, ERR_USER);
    free(dir);
}

/* tests/reference/tensorboard_events.py */
static const unsigned char expected_events[] = {
    0x18, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xa3, 0x7f, 0x4b, 0x22, 0x09, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0xf8, 0x3f, 0x1a, 0x0d, 0x62, 0x72, 0x61, 0x69, 0x6e, 0x2e, 0x45, 0x76, 0x65,
    0x6e, 0x74, 0x3a, 0x32, 0x2a, 0x28, 0x64, 0x6c, 0x21, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x7b, 0xec, 0xf6, 0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x40, 0x10, 0xac, 0x02,
    0x2a, 0x13, 0x0a, 0x11, 0x0a, 0x0a, 0x72, 0x6f, 0x75, 0x6e, 0x64, 0x2f, 0x65, 0x6c, 0x62, 0x6f,
    0x15, 0xcd, 0xcc, 0xcc, 0xbd, 0x04, 0x26, 0x2f, 0x34,
};

static void test_tensorboard(void **state)
{
    (void)state;
    Buf b = {0};
    assert_int_equal(crc32c("123456789", 9), 0xe3069283u); /* the check value of CRC-32C (RFC 3720) */
    tensorboard_version(&b, 1.5);
    tensorboard_scalar(&b, 2.5, 300, "round/elbo", -0.1);
    assert_int_equal(b.len, sizeof expected_events);
    assert_memory_equal(b.at, expected_events, sizeof expected_events);
    buf_free(&b);
}

static double fake_time;

static double fake_now(void)
{
    return fake_time;
}

static void test_progress(void **state)
{
    (void)state;
    char text[4000] = "", out[16];
    const struct {
        double s;
        const char *text;
    } times[] = {{0, "0s"}, {59.9, "59s"}, {185, "3:05"}, {3729, "1:02:09"}, {-1, "?"}};
    for (int i = 0; i < 5; i++) {
        progress_time(out, times[i].s);
        assert_string_equal(out, times[i].text);
    }
    Progress p;
    FILE *f = fmemopen(text, sizeof text, "w");
    progress_begin(&p, f, 100, 0);
    p.now = fake_now;
    p.started = fake_time = 10;
    progress_label(&p, "round %d/%d", 1, 2);
    fake_time = 60;
    progress_add(&p, 50);
    fflush(f);
    assert_string_equal(text, ""); /* no terminal: quiet until a round ends */
    progress_note(&p, "reward %.1f", 10.8);
    progress_line(&p);
    assert_string_equal(text, "round 1/2  reward 10.8  50s\n");
    p.terminal = true;
    p.last_drawn = 0;
    progress_add(&p, 0);
    progress_end(&p);
    assert_non_null(strstr(text, "\r\033[Kround 1/2 "));
    assert_non_null(strstr(text, " 50%  50s, 50s left  1.0/s  reward 10.8\r\033[K"));
    p.width = 24;
    p.last_drawn = 0;
    rewind(f);
    memset(text, 0, sizeof text);
    progress_add(&p, 0);
    int columns = 0;
    for (const char *c = text + 4; *c && *c != '\r'; c++)
        columns += ((unsigned char)*c & 0xc0) != 0x80;
    assert_int_equal(columns, 23);
    fclose(f);
    progress_begin(&p, NULL, 1, 0);
    progress_add(&p, 1);
    progress_line(&p);
    progress_end(&p);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_rows), T(test_starts), T(test_resume), T(test_paths), T(test_tensorboard), T(test_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
