/* The page of a run: what it holds, what it leaves out, hostile input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"
#include "runtime/page.h"
#include "runtime/page_chart.h"
#include "support/fixture.h"

typedef struct Fixture { char dir[64]; Err err; char *page; } Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof *f);
    char samples[100];
    folder_make(f->dir);
    snprintf(samples, sizeof samples, "%s/samples", f->dir);
    assert_true(file_mkdirs(&f->err, samples));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;
    folder_remove(f->dir);
    mem_free(f->page);
    free(f);
    return 0;
}

static void put(Fixture *f, const char *name, const char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    assert_true(file_write(&f->err, path, text, strlen(text)));
}

static const char *page(Fixture *f)
{
    char path[200], reference[200];
    size_t n;
    snprintf(path, sizeof path, "%s/index.html", f->dir);
    snprintf(reference, sizeof reference, "%s/real.json", f->dir);
    mem_free(f->page);
    f->page = NULL;
    assert_true(page_write(&f->err, f->dir, reference));
    assert_true(file_read(&f->err, path, 1 << 24, &f->page, &n));
    assert_int_equal(strlen(f->page), n);
    return f->page;
}

#define assert_has(text) assert_non_null(strstr(f->page, text))
#define assert_lacks(text) assert_null(strstr(f->page, text))

static const char rounds[] =
    "{\"event\": \"round\", \"round\": 1, \"reward_median\": 5, \"heldout_median\": 6.25, \"elbo\": 1, \"elbo_se\": "
    "0.5, "
    "\"forwards\": 1000}\n"
    "{\"event\": \"round\", \"round\": 2, \"reward_median\": 7, \"heldout_median\": 8.5, \"elbo\": 3, \"elbo_se\": "
    "0.5, \"elbo_undiscounted\": 7.25, \"elbo_undiscounted_se\": 0.5, "
    "\"forwards\": 1234}\n"
    "{\"event\": \"eval\", \"name\": \"before\", \"reward\": [1, 2, 3], \"heldout\": [4, 5, 9], \"gc\": 0.39}\n"
    "{\"event\": \"eval\", \"name\": \"after\", \"reward\": [3, 9], \"heldout\": [7, 8], \"gain\": 1.5, "
    "\"heldout_median\": 7.5, \"heldout_median_low\": 7.25, \"heldout_median_high\": 7.75}\n"
    "{\"event\": \"rou";

static void test_alignment(void **state)
{
    Fixture *f = *state;
    put(f, "metrics.jsonl", rounds);
    put(f, "times.jsonl",
        "{\"event\": \"round\", \"round\": 1, \"seconds\": 9}\n{\"event\": \"round\", \"round\": 2, \"seconds\": 3}\n"
        "{\"event\": \"round\", \"round\": 1, \"seconds\": 2}\n");
    put(f, "real.json", "{\"numbers\": {\"heldout.test\": [5, 6, 7], \"gc.all\": [0.3, 0.38, 0.4]}}");
    put(f, "samples/after.fasta", ">1\nACGT\n>2\nACCC\nTT\n");
    put(f, "config.yaml", "search:\n  gamma: 0.9  # --set\nseed: 0  # default\n");
    page(f);
    assert_has("Alignment, 2 rounds, not finished");
    assert_has("Reward by round");
    assert_has("held-out 8.500 at 2");
    assert_has("discounted 3.000 at 2");
    assert_has("no discount 7.250 at 2");
    assert_has("<td>1\xe2\x80\x89" "234</td>");               /* forwards in all */
    assert_has("<td>2</td><td>234</td>");                      /* and of the second round */
    assert_has("<td>5.00</td></tr>\n</tbody>");                /* seconds: the later row of round 1 counts */
    assert_has("<td>5.00</td><td>7.50<br><small>7.25\xe2\x80\x93"
               "7.75</small></td><td>6.00</td>"); /* held-out medians of before, after, real */
    assert_has("<td>0.390</td><td>\xe2\x80\x93</td><td>0.380</td>");
    assert_has("Letters by position");
    assert_has("1 unreadable line of the logs were left out"); /* the torn one */
    assert_has("<code>search.gamma</code><b>0.9</b><small title=\"--set\">");
    assert_has("<div class=\"same\"><code>seed</code>");
    assert_lacks("Diversity");
    assert_lacks("Validation");
    /* the better sample, by the eval row's rewards, is the second */
    assert_true(strstr(f->page, "<i class=\"C\">CCC</i>") < strstr(f->page, "<i class=\"G\">G</i>"));
    put(f, "finished", "");
    page(f);
    assert_has("Alignment, 2 rounds</p>");
}

/* The page loads nothing: no address, no script. */
static void test_self_contained(void **state)
{
    Fixture *f = *state;
    put(f, "metrics.jsonl", rounds);
    page(f);
    static const char *const outside[] = {
        "http:", "https:", "<script", "src=", "url(", "@import", "<link", "javascript:"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        assert_lacks(outside[i]);
}

static void test_training(void **state)
{
    Fixture *f = *state;
    Buf b = {0};
    for (int i = 1; i <= 5000; i++)
        buf_printf(&b, "{\"event\": \"step\", \"step\": %d, \"loss\": %g%s}\n", i, 1.3 + 1.0 / i,
                   i % 1000 ? "" : ", \"val_nats\": 1.34");
    put(f, "metrics.jsonl", b.at);
    buf_free(&b);
    page(f);
    assert_has("Training, 5\xe2\x80\x89" "000 steps");
    assert_has("Training loss");
    assert_has("nats a letter");
    assert_lacks("Comparison");
    assert_true(strlen(f->page) < 60000); /* long logs are thinned */
}

static void test_nothing(void **state)
{
    Fixture *f = *state;
    page(f);
    assert_has("No rounds and no steps were logged yet");
    assert_lacks("<svg");
}

static const char *const hostile[] = {
    "null\n[]\n3\n\"x\"\n{}\n",
    "{\"event\": \"round\"}\n{\"event\": \"round\", \"round\": \"1\"}\n",
    "{\"event\": \"round\", \"round\": 1, \"elbo\": 1e308, \"elbo_se\": 1e308}\n{\"event\": \"round\", \"round\": 2, "
    "\"elbo\": -1e308}\n",
    "{\"event\": \"round\", \"round\": 1e300, \"loss\": 1}\n{\"event\": \"round\", \"round\": -1e300, \"loss\": "
    "1e-300}\n",
    "{\"event\": \"round\", \"round\": 1, \"loss\": 1}\n{\"event\": \"round\", \"round\": 1.0000000000000002, "
    "\"loss\": 1}\n",
    "{\"event\": \"round\", \"round\": 1, \"loss\": 100000000000000000}\n{\"event\": \"round\", \"round\": 2, "
    "\"loss\": 100000000000000016}\n",
    "{\"event\": \"eval\", \"name\": \"after\", \"reward\": {\"a\": 1}, \"heldout\": [null, \"x\", []]}\n",
    "{\"event\": \"eval\", \"name\": \"after\", \"reward\": [1e308, -1e308], \"heldout\": [5]}\n",
    "{\"event\": [], \"name\": {}}\n",
};

static void test_hostile_metrics(void **state)
{
    Fixture *f = *state;
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        put(f, "metrics.jsonl", hostile[i]);
        put(f, "times.jsonl", hostile[i]);
        put(f, "real.json", hostile[i]);
        page(f);
        assert_true(strlen(f->page) < 200000);
        assert_has("</html>");
        assert_lacks("nan");
        assert_lacks("inf ");
    }
}

static void test_escaping(void **state)
{
    Fixture *f = *state;
    put(f, "config.yaml", "name: \"</b><img onerror=x> & 'q'\"  # a\"b<c>.yaml:1\n");
    put(f, "samples/after.fasta", "><script>\nAC<b>GT\n>\n\n>only a header");
    put(f, "metrics.jsonl", rounds);
    page(f);
    assert_lacks("<img");
    assert_lacks("<script");
    assert_lacks("<c>");
    assert_has("&#60;/b&#62;&#60;img onerror=x&#62; &#38; &#39;q&#39;");
    Buf b = {0};
    page_text(&b, "a\xff\xc3\xa9\x01<");
    assert_string_equal(b.at, "a\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd&#60;");
    buf_free(&b);
}

static void test_numbers(void **state)
{
    (void)state;
    char out[48];
    static const struct { double v; int digits; const char *text;
    } cases[] = {
        {12.345, 3, "12.3"},
        {0.9583, 3, "0.958"},
        {-3.5, 2,
         "\xe2\x88\x92"
         "3.5"},
        {0, 3, "0.00"},
        {1234567, 3, "1.23\xe2\x80\x89M"},
        {20480, 3, "20.5\xe2\x80\x89k"},
        {0.00012, 2, "0.00012"},
        {0.0158, 3, "0.016"},
        {1e-9, 2, "1.0e-09"},
        {-0.0001, 1,
         "\xe2\x88\x92"
         "0.0001"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(page_short(out, cases[i].v, cases[i].digits), cases[i].text);
    assert_string_equal(page_count(out, 1234567), "1\xe2\x80\x89" "234\xe2\x80\x89" "567");
    assert_string_equal(page_count(out, -12), "\xe2\x88\x92" "12");
    assert_string_equal(page_count(out, 1e300), "\xe2\x80\x93");
}

static void test_failures(void **state)
{
    Fixture *f = *state;
    assert_false(page_write(&f->err, "/nonexistent/run", NULL));
    assert_int_equal(f->err.kind, ERR_ENV);
    put(f, "metrics.jsonl", rounds);
    put(f, "samples/after.fasta", ">1\nACGT\n");
    put(f, "config.yaml", "seed: 0  # default\n");
    int64_t before = mem_live();
    bool ok = false;
    for (int n = 1; !ok; n += 3) {
        Err err = {0};
        mem_fail_at(n);
        ok = page_write(&err, f->dir, NULL);
        mem_fail_at(0);
        assert_int_equal(mem_live(), before);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_alignment),       T(test_self_contained), T(test_training), T(test_nothing),
        T(test_hostile_metrics), T(test_escaping),       T(test_numbers),  T(test_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
