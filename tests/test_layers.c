/* Layers look down only: who includes whom, over every source of the tree, against the one table below. */
#define _GNU_SOURCE /* nftw */
#include "base/text.h"
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* A folder may include from itself and from what is listed; "dav" is include/dav, "llvm" the LLVM headers. */
static const struct {
    const char *folder, *may;
} layers[] = {
    {"dav", ""},
    {"base", ""},
    {"ir", " base dav "},
    {"frontend", " base ir dav "},
    {"passes", " base ir dav "},
    {"codegen", " base ir passes dav llvm "},
    {"runtime", " base ir frontend passes codegen dav "},
    {"models", " dav "},
    {"cli", " base ir frontend passes codegen runtime dav "},
};
enum { LAYERS = sizeof layers / sizeof layers[0] };

static int layer_index(const char *folder, size_t len)
{
    for (int i = 0; i < LAYERS; i++)
        if (strlen(layers[i].folder) == len && strncmp(layers[i].folder, folder, len) == 0)
            return i;
    return -1;
}

static bool may_include(int from, const char *folder)
{
    char word[64];
    snprintf(word, sizeof word, " %s ", folder);
    /* Models are the examples of the API: not even headers of their own, so that each is a file a user could write. */
    bool own = strcmp(layers[from].folder, folder) == 0 && strcmp(folder, "models") != 0;
    return own || strstr(layers[from].may, word);
}

/* The folder that an #include line names: false for system headers, for headers beside the file and for generated ones,
 * which have no folder. */
static bool include_folder(const char *line, char folder[64])
{
    char path[256];
    if (sscanf(line, " # include %*1[<\"]%255[^>\"\n]", path) != 1)
        return false;
    size_t n = strcspn(path, "/");
    if (path[n] == '\0')
        return false;
    bool llvm = strncmp(path, "llvm", 4) == 0;
    bool ours = layer_index(path, n) >= 0 || strchr(line, '"') || strncmp(path, "..", 2) == 0;
    snprintf(folder, 64, "%.*s", llvm ? 4 : (int)n, path);
    return llvm || ours;
}

static int counts[LAYERS][LAYERS], files, breaches;
static Buf report;

static void check_file(const char *path, int from)
{
    Err err = {0};
    char *text, folder[64];
    size_t len;
    if (!file_read(&err, path, 1 << 24, &text, &len))
        fail_msg("%s", err.text);
    int line = 1;
    for (char *at = text; at; line++) {
        char *end = strchr(at, '\n');
        if (end)
            *end = '\0';
        if (include_folder(at, folder)) {
            int to = layer_index(folder, strlen(folder));
            if (to >= 0)
                counts[from][to]++;
            if (!may_include(from, folder)) {
                breaches++;
                buf_printf(&report, "%s:%d: %s may not include %s: %s\n", path, line, layers[from].folder, folder, at);
            }
        }
        at = end ? end + 1 : NULL;
    }
    files++;
    mem_free(text);
}

static int visit(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)at;
    const char *dot = strrchr(path, '.');
    if (kind != FTW_F || !dot || !strstr(" .c .h .cc .def ", dot))
        return 0;
    const char *in_tree = path + strlen(DAV_SOURCE_DIR) + 1;
    if (strncmp(in_tree, "include/", 8) == 0)
        in_tree += 8;
    check_file(path, layer_index(in_tree, strcspn(in_tree, "/")));
    return 0;
}

static void layers_look_down_only(void **state)
{
    (void)state;
    for (int i = 0; i < LAYERS; i++) {
        char root[4096];
        snprintf(root, sizeof root, "%s/%s%s", DAV_SOURCE_DIR, i == 0 ? "include/" : "", layers[i].folder);
        assert_int_equal(nftw(root, visit, 16, FTW_PHYS), 0);
    }
    buf_printf(&report, "%-10s", "includes");
    for (int to = 0; to < LAYERS; to++)
        buf_printf(&report, " %8s", layers[to].folder);
    for (int from = 0; from < LAYERS; from++) {
        buf_printf(&report, "\n%-10s", layers[from].folder);
        for (int to = 0; to < LAYERS; to++)
            buf_printf(&report, " %8d", counts[from][to]);
    }
    print_message("%s\n%d files\n", report.at, files);
    assert_true(files > LAYERS);
    assert_int_equal(breaches, 0);
    buf_free(&report);
}

static void the_rule_itself(void **state)
{
    (void)state;
    char folder[64];
    assert_true(include_folder("#include \"ir/graph.h\"", folder));
    assert_string_equal(folder, "ir");
    assert_true(include_folder("#  include <dav/model.h>", folder));
    assert_string_equal(folder, "dav");
    assert_true(include_folder("#include <llvm-c/Core.h>", folder));
    assert_string_equal(folder, "llvm");
    assert_true(include_folder("#include \"../ir/graph.h\"", folder));
    assert_string_equal(folder, "..");
    assert_false(include_folder("#include <stdio.h>", folder));
    assert_false(include_folder("#include \"state_generated.h\"", folder));
    assert_false(include_folder("static int include;", folder));

    int models = layer_index("models", 6), ir = layer_index("ir", 2), cli = layer_index("cli", 3);
    assert_true(may_include(models, "dav"));
    assert_false(may_include(models, "models"));
    assert_false(may_include(models, "ir"));
    assert_false(may_include(ir, "passes"));
    assert_false(may_include(ir, "llvm"));
    assert_false(may_include(ir, ".."));
    assert_true(may_include(ir, "ir"));
    assert_true(may_include(cli, "runtime"));
    assert_false(may_include(cli, "models"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rule_itself),
        cmocka_unit_test(layers_look_down_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
