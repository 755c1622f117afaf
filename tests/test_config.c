/* Configuration tables: JSON, YAML, --set, presets, errors, round trip. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/settings.h"
#include "support/config_table.h"

typedef struct Fixture {
    Arena *arena;
    DavConfig *c;
    Settings *s;
    Err err;
    char folder[64];
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof *f);
    f->arena = arena_new();
    f->c = config_new(f->arena);
    f->s = settings_new(f->arena);
    config_add_table(f->c, "", table, N_KEYS);
    strcpy(f->folder, "/tmp/dav-config-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", f->folder);
    int ignored = system(command);
    (void)ignored;
    arena_free(f->arena);
    free(f);
    return 0;
}

static bool json(Fixture *f, const char *text)
{
    return config_read_json(f->c, &f->err, "config.json", text, strlen(text));
}

static bool yaml(Fixture *f, const char *text)
{
    return settings_parse_yaml(f->s, &f->err, "run.yaml", text, strlen(text)) && settings_apply(f->s, &f->err, f->c);
}

static void assert_error(const Fixture *f, const char *text)
{
    assert_int_equal(f->err.kind, ERR_USER);
    assert_string_equal(f->err.text, text);
    assert_null(strchr(f->err.text, '\n'));
}

static void test_json_values(void **state)
{
    Fixture *f = *state;
    int n;
    assert_true(
        json(f, "{\"steps\": 7, \"model\": {\"name\": \"DNAConv\", \"dilations\": [2, 64]}, \"train.replay\": false,"
                "\"train\": {\"lr\": 1}, \"search.gamma\": null}"));
    assert_true(config_finish(f->c, &f->err, "config.json"));
    assert_int_equal(dav_config_int(f->c, "steps"), 7);
    assert_string_equal(dav_config_string(f->c, "model.name"), "DNAConv");
    const int64_t *d = dav_config_ints(f->c, "model.dilations", &n);
    assert_int_equal(n, 2);
    assert_int_equal(d[0], 2);
    assert_int_equal(d[1], 64);
    assert_false(dav_config_bool(f->c, "train.replay"));
    assert_true(dav_config_float(f->c, "train.lr") == 1.0);
    assert_true(dav_config_float(f->c, "search.gamma") == 0.9);
    assert_int_equal(dav_config_int(f->c, "search.duplicate"), 10);
    assert_string_equal(config_place(f->c, "steps"), "config.json");
    assert_string_equal(config_place(f->c, "search.duplicate"), "default");
}

/* text of the source, error; every line ends in exactly this message */
static const char *const json_errors[][2] = {
    {"{\"stepps\": 7}", "config.json: stepps: unknown key, did you mean steps?"},
    {"{\"model\": {\"nam\": \"x\"}}", "config.json: model.nam: unknown key, did you mean model.name?"},
    {"{\"qqqqqqqqqqqq\": 1}", "config.json: qqqqqqqqqqqq: unknown key"},
    {"{\"steps\": 7.0}", "config.json: steps: expected an integer from 1 to 4096, found 7.0"},
    {"{\"steps\": \"7\"}", "config.json: steps: expected an integer from 1 to 4096, found the string \"7\""},
    {"{\"steps\": 0}", "config.json: steps: expected an integer from 1 to 4096, found 0"},
    {"{\"steps\": [1]}", "config.json: steps: expected an integer from 1 to 4096, found [1]"},
    {"{\"steps\": {\"a\": 1}}", "config.json: steps: expected an integer from 1 to 4096, found an object"},
    {"{\"search.gamma\": 1.5}", "config.json: search.gamma: expected a number from 0 to 1, found 1.5"},
    {"{\"train.replay\": 1}", "config.json: train.replay: expected true or false, found 1"},
    {"{\"search\": \"non\"}",
     "config.json: search: expected one of none|dav|best, found the string \"non\", did you mean none?"},
    {"{\"model.name\": null}", "config.json: model.name: expected a string, found null"},
    {"{\"model.name\": 5}", "config.json: model.name: expected a string, found 5"},
    {"{\"model.dilations\": [1, \"a\"]}", "config.json: model.dilations: expected a list of integers from 1 to 512, "
                                          "found a list whose item 1 is no integer"},
    {"{\"model.dilations\": [0]}",
     "config.json: model.dilations: expected a list of integers from 1 to 512, found [0]"},
    {"[1]", "config.json: expected a JSON object at the top"},
};

static void test_json_errors(void **state)
{
    Fixture *f = *state;
    for (size_t i = 0; i < sizeof json_errors / sizeof *json_errors; i++) {
        err_clear(&f->err);
        assert_false(json(f, json_errors[i][0]));
        assert_error(f, json_errors[i][1]);
    }
    err_clear(&f->err);
    assert_false(json(f, "{\n\"steps\": 7,\n\"steps\": 8}"));
    assert_non_null(strstr(f->err.text, "config.json:3: expected JSON, found: duplicate object key"));
    err_clear(&f->err);
    assert_false(json(f, "{\"steps\": 7"));
    assert_non_null(strstr(f->err.text, "config.json:1: expected JSON, found: "));
}

static void test_json_depth(void **state)
{
    Fixture *f = *state;
    Buf b = {0};
    for (int i = 0; i < 100; i++)
        buf_str(&b, "{\"a\":");
    buf_str(&b, "1");
    for (int i = 0; i < 100; i++)
        buf_str(&b, "}");
    assert_false(json(f, b.at));
    assert_non_null(strstr(f->err.text, "objects nested deeper than 16"));
    buf_free(&b);
}

/* A megabyte of mistakes takes no longer than one of settings. */
static void test_many_errors(void **state)
{
    Fixture *f = *state;
    Buf b = {0};
    buf_str(&b, "{\"steps\": 1");
    for (int i = 0; b.len < CONFIG_MAX_BYTES - 100; i++)
        buf_printf(&b, ", \"unknown_name_%d\": 1", i);
    buf_str(&b, "}");
    clock_t start = clock();
    assert_false(json(f, b.at));
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 2);
    assert_string_equal(f->err.text, "config.json: unknown_name_0: unknown key");
    assert_true(f->err.count > 10000);
    buf_free(&b);
}

static void test_missing_and_accepted(void **state)
{
    Fixture *f = *state;
    static const char *const fine[] = {"dropout", "extra.*"};
    config_accept(f->c, fine, 2);
    assert_true(json(f, "{\"dropout\": {\"any\": [1]}, \"extra\": {\"x\": [\"y\"], \"z\": null}}"));
    assert_false(config_finish(f->c, &f->err, "config.json"));
    assert_error(f, "config.json: model.name: missing, expected a string");
    err_clear(&f->err);
    assert_false(json(f, "{\"dropouts\": 1}"));
}

static void test_yaml_values(void **state)
{
    Fixture *f = *state;
    int n;
    assert_true(yaml(f, "# a comment\nsteps: 32\nsearch: none\nsearch.gamma: .97\ntrain: {lr: 1e-3, replay: false}\n"
                        "model:\n  name: \"the \\\"net\\\"\"\n  dilations:\n    - 1\n    - 16\n"));
    assert_string_equal(settings_get(f->s, "search"), "none");
    assert_null(settings_get(f->s, "search.duplicate"));
    assert_true(settings_set(f->s, &f->err, "steps=64"));
    assert_true(settings_set(f->s, &f->err, "model.dilations=3,5,7"));
    assert_true(settings_apply(f->s, &f->err, f->c) && config_finish(f->c, &f->err, "run.yaml"));
    assert_int_equal(dav_config_int(f->c, "steps"), 64);
    assert_string_equal(dav_config_string(f->c, "search"), "none");
    assert_true(dav_config_float(f->c, "search.gamma") == 0.97);
    assert_true(dav_config_float(f->c, "train.lr") == 1e-3);
    assert_false(dav_config_bool(f->c, "train.replay"));
    assert_string_equal(dav_config_string(f->c, "model.name"), "the \"net\"");
    assert_int_equal(dav_config_ints(f->c, "model.dilations", &n)[2], 7);
    assert_int_equal(n, 3);
    assert_string_equal(config_place(f->c, "steps"), "--set");
    assert_string_equal(config_place(f->c, "train.lr"), "run.yaml:5");
    assert_string_equal(config_text(f->c, "model.dilations"), "[3, 5, 7]");
}

static const char *const yaml_errors[][2] = {
    {"search:\n  gama: 1\n", "run.yaml:2: search.gama: unknown key, did you mean search.gamma?"},
    {"steps: many\n", "run.yaml:1: steps: expected an integer from 1 to 4096, found many"},
    {"steps: \"7\"\n", "run.yaml:1: steps: expected an integer from 1 to 4096, found the string \"7\""},
    {"steps:\n", "run.yaml:1: steps: expected an integer from 1 to 4096, found nothing"},
    {"train.replay: yes\n", "run.yaml:1: train.replay: expected true or false, found yes"},
    {"steps: 1\n\nsteps: 2\n", "run.yaml:3: steps: set twice, first in line 1"},
    {"search:\n  gamma: 1\nsearch.gamma: 1\n", "run.yaml:3: search.gamma: set twice, first in line 2"},
    {"steps: &a 1\n", "run.yaml:1: expected plain settings, found an anchor"},
    {"steps: !!int 1\n", "run.yaml:1: expected plain settings, found a tag"},
    {"steps: *a\n", "run.yaml:1: expected plain settings, found an alias"},
    {"model: {}\n", "run.yaml:1: model. expected settings, found an empty map"},
    {"- 1\n", "run.yaml:1: expected a map of settings (name: value)"},
    {"", "run.yaml: expected a map of settings, found nothing"},
    {"model.dilations: [1, [2]]\n", "run.yaml:1: model.dilations: expected a list of values, found a list in it"},
    {"steps: 1\n---\nsteps: 2\n", "run.yaml:2: expected the end, found a second document"},
    {"model.name: \"a\\0b\"\n", "run.yaml:1: model.name: expected text, found a zero byte in it"},
};

static void test_yaml_errors(void **state)
{
    Fixture *f = *state;
    for (size_t i = 0; i < sizeof yaml_errors / sizeof *yaml_errors; i++) {
        err_clear(&f->err);
        f->s = settings_new(f->arena);
        assert_false(yaml(f, yaml_errors[i][0]));
        assert_error(f, yaml_errors[i][1]);
    }
    err_clear(&f->err);
    assert_false(yaml(f, "a: [1\nb: }"));
    assert_non_null(strstr(f->err.text, "run.yaml:2: expected YAML, found: "));
    const char *sets[] = {"steps", "=1", ""};
    for (int i = 0; i < 3; i++) {
        err_clear(&f->err);
        assert_false(settings_set(f->s, &f->err, sets[i]));
        assert_non_null(strstr(f->err.text, "--set: expected NAME=VALUE, found "));
    }
    err_clear(&f->err);
    f->s = settings_new(f->arena);
    assert_true(settings_set(f->s, &f->err, "search.gama=1"));
    assert_false(settings_apply(f->s, &f->err, f->c));
    assert_error(f, "--set: search.gama: unknown key, did you mean search.gamma?");
}

static void test_yaml_depth(void **state)
{
    Fixture *f = *state;
    Buf b = {0};
    for (int i = 0; i < 100000; i++)
        buf_str(&b, "{a: ");
    assert_false(yaml(f, b.at));
    assert_error(f, "run.yaml:1: maps nested deeper than 16");
    buf_free(&b);
}

static void put(const Fixture *f, const char *name, const char *text)
{
    char path[200];
    Err err = {0};
    snprintf(path, sizeof path, "%s/%s", f->folder, name);
    assert_true(file_write(&err, path, text, strlen(text)));
}

static bool read_yaml(Fixture *f, const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", f->folder, name);
    f->s = settings_new(f->arena);
    err_clear(&f->err);
    return settings_read_yaml(f->s, &f->err, path);
}

static void test_presets(void **state)
{
    Fixture *f = *state;
    char sub[100], expected[300];
    snprintf(sub, sizeof sub, "%s/sub", f->folder);
    assert_true(file_mkdirs(&f->err, sub));
    put(f, "bottom.yaml", "steps: 1\nsearch.duplicate: 1\nmodel.name: x\n");
    put(f, "sub/middle.yaml", "base: ../bottom.yaml\nsteps: 2\nsearch.gamma: .5\n");
    put(f, "top.yaml", "search.gamma: .25\nbase: sub/middle.yaml\n");
    assert_true(read_yaml(f, "top.yaml"));
    assert_true(settings_apply(f->s, &f->err, f->c) && config_finish(f->c, &f->err, "top.yaml"));
    assert_int_equal(dav_config_int(f->c, "search.duplicate"), 1);
    assert_int_equal(dav_config_int(f->c, "steps"), 2);
    assert_true(dav_config_float(f->c, "search.gamma") == 0.25);
    snprintf(expected, sizeof expected, "%s/sub/middle.yaml:2", f->folder);
    assert_string_equal(config_place(f->c, "steps"), expected);

    put(f, "bottom.yaml", "base: top.yaml\n");
    assert_false(read_yaml(f, "top.yaml"));
    assert_non_null(strstr(f->err.text, "top.yaml: rests upon itself (base of "));
    put(f, "bottom.yaml", "base: absent.yaml\n");
    assert_false(read_yaml(f, "top.yaml"));
    assert_non_null(strstr(f->err.text, "absent.yaml: no such file (base of "));
    for (int i = 0; i < 20; i++) {
        char name[32], text[64];
        snprintf(name, sizeof name, "c%d.yaml", i);
        snprintf(text, sizeof text, "base: c%d.yaml\n", i + 1);
        put(f, name, text);
    }
    assert_false(read_yaml(f, "c0.yaml"));
    assert_non_null(strstr(f->err.text, "more than 8 files rest one upon the other"));
}

static const char *const strings[] = {
    "plain",
    "",
    "true",
    "1e5",
    "null",
    "with # hash: and colon",
    "tab\there",
    "\"quoted\\\"",
    "-",
    "~",
    "\xc3\xa9\xc2\x85!",
    "yes",
};

static void test_round_trip(void **state)
{
    Fixture *f = *state;
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        DavConfig *back = config_new(f->arena);
        config_add_table(back, "", table, N_KEYS);
        assert_true(config_set(f->c, &f->err, "odd\nfile:1", "model.name", (ConfigText){CONFIG_STRING, strings[i]}));
        assert_true(config_set(f->c, &f->err, "x", "train.lr", (ConfigText){CONFIG_PLAIN, "1e-5"}));
        assert_true(config_finish(f->c, &f->err, "x"));
        Buf out = {0};
        settings_write_yaml(&out, f->c);
        Settings *s = settings_new(f->arena);
        assert_true(settings_parse_yaml(s, &f->err, "config.yaml", out.at, out.len));
        assert_true(settings_apply(s, &f->err, back) && config_finish(back, &f->err, "x"));
        for (int k = 0; k < config_count(back); k++) {
            const char *name;
            config_key(back, k, &name);
            assert_string_equal(config_text(back, name), config_text(f->c, name));
        }
        buf_free(&out);
    }
}

static void test_written_yaml(void **state)
{
    Fixture *f = *state;
    assert_true(yaml(f, "model.name: DNAConv\nsearch: best\n") && config_finish(f->c, &f->err, "x"));
    Buf out = {0};
    settings_write_yaml(&out, f->c);
    assert_string_equal(out.at, "steps: 128  # default\n"
                                "search: best  # run.yaml:2\n"
                                "search.gamma: 0.9  # default\n"
                                "search.duplicate: 10  # default\n"
                                "train:\n"
                                "  lr: 3e-4  # default\n"
                                "  replay: true  # default\n"
                                "model:\n"
                                "  dilations: [1, 1, 4]  # default\n"
                                "  name: DNAConv  # run.yaml:1\n");
    buf_free(&out);
}

static void test_describe(void **state)
{
    (void)state;
    Buf out = {0};
    config_describe(&out, "a.", table, 2, CONFIG_AS_MARKDOWN);
    assert_string_equal(out.at, "| key | default | expected | meaning |\n|---|---|---|---|\n"
                                "| `a.steps` | 128 | an integer from 1 to 4096 | reverse steps |\n"
                                "| `a.search` | dav | one of none\\|dav\\|best | how trajectories are made |\n");
    out.len = 0;
    config_describe(&out, "", table + 7, 1, CONFIG_AS_TEXT);
    assert_string_equal(out.at, "  model.name  required  a string  the network\n");
    buf_free(&out);
}

/* The n-th allocation fails: an error, nothing lost. */
static bool everything(void *arg)
{
    Err *err = ((void **)arg)[1];
    Arena *a = ((void **)arg)[0];
    DavConfig *c = config_new(a);
    Settings *s = settings_new(a);
    config_add_table(c, "", table, N_KEYS);
    static const char text[] = "model: {name: x, dilations: [1, 2]}\n";
    static const char object[] = "{\"steps\": 3}";
    return settings_parse_yaml(s, err, "a", text, sizeof text - 1) && settings_apply(s, err, c) &&
           config_read_json(c, err, "b", object, sizeof object - 1) && config_finish(c, err, "a");
}

static void test_allocation_failures(void **state)
{
    (void)state;
    bool ok = false;
    for (int n = 1; !ok; n++) {
        int64_t before = mem_live();
        Err err = {0};
        void *args[2] = {arena_new(), &err};
        mem_fail_at(n);
        ok = mem_protect(&err, everything, args);
        mem_fail_at(0);
        assert_int_equal(err.kind, ok ? ERR_NONE : ERR_ENV);
        arena_free(args[0]);
        assert_int_equal(mem_live(), before);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_json_values),         T(test_json_errors),          T(test_json_depth),
        T(test_many_errors),         T(test_missing_and_accepted), T(test_yaml_values),
        T(test_yaml_errors),         T(test_yaml_depth),           T(test_presets),
        T(test_round_trip),          T(test_written_yaml),         T(test_describe),
        T(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
