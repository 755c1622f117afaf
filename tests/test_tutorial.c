/* docs/tutorial.md: its network is built by `dav build`, agrees with PyTorch (tests/reference/tutorial.py), and is
 * trained; plugins that are not what they should be are refused. */
#include "support/compare.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DATA DAV_SOURCE_DIR "/tests/data/tutorial"
#define TUTORIAL DAV_SOURCE_DIR "/docs/tutorial"
static char scratch[64];

static char *path(const char *name)
{
    static char text[4][200];
    static int next;
    next = (next + 1) % 4;
    snprintf(text[next], sizeof text[0], "%s/%s", scratch, name);
    return text[next];
}

static char *read_text(const char *file)
{
    Err err = {0};
    char *text;
    size_t len;
    if (!file_read(&err, file, 1 << 20, &text, &len))
        fail_msg("%s", err.text);
    return text;
}

/* Runs dav; its words on both streams are in the scratch file "said". */
static int dav(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int dav(const char *fmt, ...)
{
    char arguments[2000], command[4000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(arguments, sizeof arguments, fmt, ap);
    va_end(ap);
    snprintf(command, sizeof command, "DAV_INCLUDE_DIR='%s/include' '%s' %s >%s/said 2>&1", DAV_SOURCE_DIR, DAV_BINARY,
             arguments, scratch);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void assert_runs(int status)
{
    if (status != 0) {
        char *said = read_text(path("said"));
        fail_msg("status %d: %s", status, said);
    }
}

static void assert_said(const char *words)
{
    char *said = read_text(path("said"));
    if (!strstr(said, words))
        fail_msg("expected '%s', found: %s", words, said);
    mem_free(said);
}

static void build_from(const char *name, const char *code)
{
    Err err = {0};
    char source[80];
    snprintf(source, sizeof source, "%s.c", name);
    assert_true(file_write(&err, path(source), code, strlen(code)));
}

static void agrees_with_pytorch(void **state)
{
    (void)state;
    assert_runs(dav("run --plugin %s " DATA " --in " DATA "/in.safetensors --out %s --vjp", path("transformer.so"),
                    path("out")));
    Err err = {0};
    SafeTensors *out = safetensors_open(&err, path("out")),
                *want = safetensors_open(&err, DATA "/expected.safetensors");
    assert_non_null(out);
    assert_non_null(want);
    const char *where; /* the key's bias has no effect: its gradient is rounding around 0 */
    double worst = compare_files(out, want, "key.bias", &where);
    if (!(worst <= 1e-5))
        fail_msg("%s is off by %g", where, worst);
    safetensors_close(out);
    safetensors_close(want);
}

static void learns_and_is_listed(void **state)
{
    (void)state;
    Buf lines = {0};
    Err err = {0};
    uint64_t z = 1;
    for (int i = 0; i < 100 * 25; i++) { /* 100 lines of 24 letters: enough that every fold has some */
        z = z * 6364136223846793005u + 1442695040888963407u;
        buf_printf(&lines, "%c", i % 25 == 24 ? '\n' : "ACGT"[z >> 62]);
    }
    assert_true(file_write(&err, path("lines.txt"), lines.at, lines.len));
    buf_free(&lines);
    assert_runs(dav("list --plugin %s models Transformer", path("transformer.so")));
    assert_said("they divide the width");
    assert_runs(dav("pretrain --plugin %s --config " TUTORIAL "/pretrain.yaml --data %s --out %s --set data.folds=all "
                    "--set model.length=24 --set model.width=8 --set model.layers=1 --set train.steps=30 "
                    "--set train.batch_size=16 --set train.micro_batch=16 --set eval.every=30",
                    path("transformer.so"), path("lines.txt"), path("run")));
    char weights[220];
    snprintf(weights, sizeof weights, "%s/diffusion_pytorch_model.safetensors", path("run"));
    assert_true(file_exists(weights));
}

static void mistakes_name_the_line(void **state)
{
    (void)state;
    assert_int_equal(dav("pretrain --plugin %s --config " TUTORIAL
                         "/pretrain.yaml --data /dev/null --out %s --set model.widht=8",
                         path("transformer.so"), path("never")),
                     2);
    assert_said("did you mean");
    Err err = {0};
    char *config = read_text(DATA "/config.json"), *heads = strstr(config, "\"heads\": 2");
    heads[9] = '3';
    assert_true(file_mkdirs(&err, path("odd")));
    assert_true(file_write(&err, path("odd/config.json"), config, strlen(config)));
    mem_free(config);
    assert_int_equal(dav("run --plugin %s %s --in " DATA "/in.safetensors --out %s --vjp", path("transformer.so"),
                         path("odd"), path("never")),
                     2);
    assert_said("transformer.c:");
    assert_said("3 heads do not divide the width 8");
    assert_false(file_exists(path("never")));
}

static void other_plugins_are_refused(void **state)
{
    (void)state;
    build_from("old", "#include <dav/dav.h>\nDAV_PLUGIN(.abi = 77);\n");
    assert_int_equal(dav("build %s -o %s", path("old.c"), path("old.so")), 2);
    assert_said("ABI version 77, this program has 2");
    build_from("none", "int nothing;\n");
    assert_int_equal(dav("build %s -o %s", path("none.c"), path("none.so")), 2);
    assert_said("is no plugin");
    build_from("wrong", "this is not C\n");
    assert_int_equal(dav("build %s -o %s", path("wrong.c"), path("wrong.so")), 2);
    assert_said("the compiler refused it");
    assert_int_equal(dav("build %s -o %s", path("absent.c"), path("absent.so")), 2);
    assert_int_equal(dav("list --plugin %s", path("none.c")), 2);
    assert_said("cannot be loaded as a plugin");
    assert_int_equal(dav("list --plugin %s --plugin %s", path("transformer.so"), path("transformer.so")), 2);
    assert_said("is there already");
}

/* Every indented block of C in the page that is of the network stands in its file. */
static void page_shows_the_file(void **state)
{
    (void)state;
    char *page = read_text(DAV_SOURCE_DIR "/docs/tutorial.md"), *code = read_text(TUTORIAL "/transformer.c");
    int lines = 0;
    for (char *line = strtok(page, "\n"), *c; line && !strstr(line, "## 5."); line = strtok(NULL, "\n")) {
        if (strncmp(line, "    ", 4) != 0 || strstr(line, "...") || strncmp(line, "    transformer.c:", 18) == 0)
            continue;
        c = strstr(code, line + 4);
        if (!c)
            fail_msg("docs/tutorial.md shows a line that docs/tutorial/transformer.c has not: %s", line);
        lines++;
    }
    assert_true(lines > 15);
    mem_free(page);
    mem_free(code);
}

/* The code of section 6, a search of a user's own, as a plugin. */
static void page_brings_a_search(void **state)
{
    (void)state;
    char *page = read_text(DAV_SOURCE_DIR "/docs/tutorial.md"), *at = strstr(page, "## 6.");
    Buf code = {0};
    buf_str(&code, "#include <dav/dav.h>\n");
    for (char *line = strtok(at, "\n"); line; line = strtok(NULL, "\n"))
        if (strncmp(line, "    ", 4) == 0)
            buf_printf(&code, "%s\n", line);
    build_from("search", code.at);
    assert_runs(dav("build %s -o %s", path("search.c"), path("search.so")));
    assert_runs(dav("list searches --plugin %s", path("search.so")));
    assert_said("value ");
    buf_free(&code);
    mem_free(page);
}

static void models_document_is_up_to_date(void **state)
{
    (void)state;
    assert_runs(dav("list models --markdown"));
    char *now = read_text(path("said")), *then = read_text(DAV_SOURCE_DIR "/docs/models.md");
    if (strcmp(now, then) != 0)
        fail_msg("docs/models.md differs from the tables: run ./dev docs");
    mem_free(now);
    mem_free(then);
}

static int setup(void **state)
{
    (void)state;
    snprintf(scratch, sizeof scratch, "/tmp/dav-tutorial-XXXXXX");
    if (!mkdtemp(scratch))
        return -1;
    assert_runs(dav("build " TUTORIAL "/transformer.c -o %s", path("transformer.so")));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_pytorch),           cmocka_unit_test(learns_and_is_listed),
        cmocka_unit_test(mistakes_name_the_line),        cmocka_unit_test(other_plugins_are_refused),
        cmocka_unit_test(page_shows_the_file),           cmocka_unit_test(page_brings_a_search),
        cmocka_unit_test(models_document_is_up_to_date),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
