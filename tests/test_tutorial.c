/* docs/tutorial.md: its network is built by `dav build`, agrees with PyTorch (tests/reference/tutorial.py), and is
 * trained; plugins that are not what they should be are refused. */
#include "support/command.h"
#include "support/compare.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DATA DAV_SOURCE_DIR "/tests/data/tutorial"
#define TUTORIAL DAV_SOURCE_DIR "/docs/tutorial"

static void build_from(const char *name, const char *code)
{
    Err err = {0};
    char source[80];
    snprintf(source, sizeof source, "%s.c", name);
    assert_true(file_write(&err, in_scratch(source), code, strlen(code)));
}

static void agrees_with_pytorch(void **state)
{
    (void)state;
    assert_status(dav("run --plugin %s " DATA " --in " DATA "/in.safetensors --out %s --vjp", in_scratch("transformer.so"),
                    in_scratch("tensors")), 0);
    Err err = {0};
    SafeTensors *out = safetensors_open(&err, in_scratch("tensors")),
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
    assert_true(file_write(&err, in_scratch("lines.txt"), lines.at, lines.len));
    buf_free(&lines);
    assert_status(dav("list --plugin %s models Transformer", in_scratch("transformer.so")), 0);
    assert_printed("they divide the width");
    assert_status(dav("pretrain --plugin %s --config " TUTORIAL "/pretrain.yaml --data %s --out %s --set data.folds=all "
                    "--set model.length=24 --set model.width=8 --set model.layers=1 --set train.steps=30 "
                    "--set train.batch_size=16 --set train.micro_batch=16 --set eval.every=30",
                    in_scratch("transformer.so"), in_scratch("lines.txt"), in_scratch("run")), 0);
    char weights[220];
    snprintf(weights, sizeof weights, "%s/diffusion_pytorch_model.safetensors", in_scratch("run"));
    assert_true(file_exists(weights));
}

static void mistakes_name_the_line(void **state)
{
    (void)state;
    assert_int_equal(dav("pretrain --plugin %s --config " TUTORIAL
                         "/pretrain.yaml --data /dev/null --out %s --set model.widht=8",
                         in_scratch("transformer.so"), in_scratch("never")),
                     2);
    assert_said("did you mean");
    Err err = {0};
    char *config = text_of(DATA "/config.json"), *heads = strstr(config, "\"heads\": 2");
    heads[9] = '3';
    assert_true(file_mkdirs(&err, in_scratch("odd")));
    assert_true(file_write(&err, in_scratch("odd/config.json"), config, strlen(config)));
    mem_free(config);
    assert_int_equal(dav("run --plugin %s %s --in " DATA "/in.safetensors --out %s --vjp", in_scratch("transformer.so"),
                         in_scratch("odd"), in_scratch("never")),
                     2);
    assert_said("transformer.c:");
    assert_said("3 heads do not divide the width 8");
    assert_false(file_exists(in_scratch("never")));
}

static void other_plugins_are_refused(void **state)
{
    (void)state;
    build_from("old", "#include <dav/dav.h>\nDAV_PLUGIN(.abi = 77);\n");
    assert_int_equal(dav("build %s -o %s", in_scratch("old.c"), in_scratch("old.so")), 2);
    assert_said("ABI version 77, this program has 2");
    build_from("none", "int nothing;\n");
    assert_int_equal(dav("build %s -o %s", in_scratch("none.c"), in_scratch("none.so")), 2);
    assert_said("is no plugin");
    build_from("wrong", "this is not C\n");
    assert_int_equal(dav("build %s -o %s", in_scratch("wrong.c"), in_scratch("wrong.so")), 2);
    assert_said("the compiler refused it");
    assert_int_equal(dav("build %s -o %s", in_scratch("absent.c"), in_scratch("absent.so")), 2);
    assert_int_equal(dav("list --plugin %s", in_scratch("none.c")), 2);
    assert_said("cannot be loaded as a plugin");
    assert_int_equal(dav("list --plugin %s --plugin %s", in_scratch("transformer.so"), in_scratch("transformer.so")), 2);
    assert_said("is there already");
}

/* Every indented block of C in the page that is of the network stands in its file. */
static void page_shows_the_file(void **state)
{
    (void)state;
    char *page = text_of(DAV_SOURCE_DIR "/docs/tutorial.md"), *code = text_of(TUTORIAL "/transformer.c");
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
    char *page = text_of(DAV_SOURCE_DIR "/docs/tutorial.md"), *at = strstr(page, "## 6.");
    Buf code = {0};
    buf_str(&code, "#include <dav/dav.h>\n");
    for (char *line = strtok(at, "\n"); line; line = strtok(NULL, "\n"))
        if (strncmp(line, "    ", 4) == 0)
            buf_printf(&code, "%s\n", line);
    build_from("search", code.at);
    assert_status(dav("build %s -o %s", in_scratch("search.c"), in_scratch("search.so")), 0);
    assert_status(dav("list searches --plugin %s", in_scratch("search.so")), 0);
    assert_printed("value ");
    buf_free(&code);
    mem_free(page);
}

static void models_document_is_up_to_date(void **state)
{
    (void)state;
    assert_status(dav("list models --markdown"), 0);
    char *now = text_of(in_scratch("out")), *then = text_of(DAV_SOURCE_DIR "/docs/models.md");
    if (strcmp(now, then) != 0)
        fail_msg("docs/models.md differs from the tables: run ./dev docs");
    mem_free(now);
    mem_free(then);
}

static int setup(void **state)
{
    if (scratch_open(state) != 0)
        return -1;
    assert_status(dav("build " TUTORIAL "/transformer.c -o %s", in_scratch("transformer.so")), 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_pytorch),           cmocka_unit_test(learns_and_is_listed),
        cmocka_unit_test(mistakes_name_the_line),        cmocka_unit_test(other_plugins_are_refused),
        cmocka_unit_test(page_shows_the_file),           cmocka_unit_test(page_brings_a_search),
        cmocka_unit_test(models_document_is_up_to_date),
    };
    return cmocka_run_group_tests(tests, setup, scratch_close);
}
