/* dav inspect: the story of a dump folder, or of a run, on a terminal. */
#include "cli/cli.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 64 << 20, SLOWEST = 12 };

typedef struct Step {
    const char *name, *at;
    double ms, predicted, flops, bytes;
    int spills; /* of vector registers */
} Step;

static json_t *read_json(Err *err, const char *dir, const char *file)
{
    char path[4096], *text;
    size_t len;
    json_error_t why;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    if (!file_read(err, path, MOST_BYTES, &text, &len))
        return NULL;
    json_t *j = json_loadb(text, len, 0, &why);
    mem_free(text);
    if (!j)
        err_user(err, "%s:%d: %s", path, why.line, why.text);
    return j;
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static double number_of(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static int slower_first(const void *a, const void *b)
{
    double x = ((const Step *)a)->ms, y = ((const Step *)b)->ms;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The steps by measured time; where nothing was measured by the predicted one. */
static bool kernels_story(Err *err, const char *dir)
{
    json_t *list = read_json(err, dir, "kernels.json"), *o;
    if (!list)
        return false;
    size_t n = json_array_size(list), i;
    Step *step = mem_alloc(mem_mul(n + 1, sizeof *step));
    double total = 0, flops = 0;
    json_array_foreach(list, i, o) {
        double ms = number_of(o, "measured_ms"), predicted = number_of(o, "predicted_ms");
        step[i] = (Step){text_of(o, "name"), text_of(o, "at"), ms > 0 ? ms : predicted, predicted, number_of(o, "flops"),
                         number_of(o, "bytes"), (int)number_of(o, "vector_spills")};
        total += step[i].ms;
        flops += step[i].flops;
    }
    qsort(step, n, sizeof *step, slower_first);
    printf("%zu steps, %.3f ms, %.3f GFLOP (%.1f GFLOP/s over all)\n\nslowest\n%9s %6s %9s %8s %10s %6s  %s\n", n, total, flops / 1e9,
           total > 0 ? flops / total / 1e6 : 0, "ms", "share", "GFLOP/s", "GB/s", "predicted", "spills", "kernel, first source line");
    for (i = 0; i < n && i < SLOWEST; i++) {
        const Step *s = &step[i];
        printf("%9.4f %5.1f%% %9.1f %8.1f %10.4f %6d  %s  %s\n", s->ms, total > 0 ? 100 * s->ms / total : 0,
               s->ms > 0 ? s->flops / s->ms / 1e6 : 0, s->ms > 0 ? s->bytes / s->ms / 1e6 : 0, s->predicted, s->spills, s->name, s->at);
    }
    mem_free(step);
    json_decref(list);
    return true;
}

/* Prints the lines of a table for which keep says so, the first `most` of them. */
static bool table_story(Err *err, const char *dir, const char *file, bool (*keep)(char **field, int n), int most)
{
    char path[4096], *text, *rest;
    size_t len;
    int shown = 0, left = 0;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    if (!file_read(err, path, MOST_BYTES, &text, &len))
        return false;
    printf("\n%s\n", file);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *field[16], *cell;
        int n = 0;
        if (*line == '#') {
            printf("%s\n", line);
            continue;
        }
        for (char *at = line; n < 16 && (cell = strsep(&at, "\t")) != NULL;)
            field[n++] = cell;
        if (keep && !keep(field, n))
            continue;
        if (shown++ >= most) {
            left++;
            continue;
        }
        for (int i = 0; i < n; i++)
            printf("%s%-12s", i ? " " : "  ", field[i]);
        printf("\n");
    }
    if (left)
        printf("  ... %d more in %s\n", left, path);
    mem_free(text);
    return true;
}

static bool at_peak(char **field, int n)
{
    return n > 7 && (strcmp(field[7], "yes") == 0 || strcmp(field[7], "at_peak") == 0);
}

static bool not_fused(char **field, int n)
{
    return n > 2 && strcmp(field[2], "yes") != 0;
}

static bool dump_story(Err *err, const char *dir)
{
    json_t *m = read_json(err, dir, "manifest.json");
    if (!m)
        return false;
    printf("graph %s for %s, %s, %d threads\n", text_of(m, "graph"), text_of(m, "device"), text_of(m, "precision"),
           (int)number_of(m, "threads"));
    json_decref(m);
    return kernels_story(err, dir) && table_story(err, dir, "memory.tsv", at_peak, 12) && table_story(err, dir, "passes.tsv", NULL, 40) &&
           table_story(err, dir, "fusion.tsv", not_fused, 16);
}

/* The last rows of a run's log, each number by its name. */
static bool run_story(Err *err, const char *dir)
{
    char path[4096], *text, *rest;
    size_t len;
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    if (!file_read(err, path, MOST_BYTES, &text, &len))
        return false;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        json_t *o = json_loads(line, 0, NULL), *v;
        const char *key;
        printf("%s", o ? "" : "damaged row");
        json_object_foreach(o, key, v) {
            if (json_is_string(v))
                printf("%s ", json_string_value(v));
            else if (json_is_number(v))
                printf("%s %.5g  ", key, json_number_value(v));
        }
        printf("\n");
        json_decref(o);
    }
    mem_free(text);
    return true;
}

typedef struct Inspect { int argc; char **argv; Err *err; } Inspect;

static bool inspect_command(void *arg)
{
    Inspect *c = arg;
    const char *operand[1];
    char path[4096];
    int n;
    const CliUse use = {.synopsis = "inspect DUMP|RUN", .least = 1, .most = 1,
                        .doc = "Tells the story of a dump folder (slowest kernels, memory at the peak, passes, what was not fused and "
                               "why) or of a run."};
    if (!cli_parse(c->err, &use, c->argc, c->argv, operand, &n))
        return false;
    snprintf(path, sizeof path, "%s/kernels.json", operand[0]);
    if (file_exists(path))
        return dump_story(c->err, operand[0]);
    snprintf(path, sizeof path, "%s/metrics.jsonl", operand[0]);
    if (file_exists(path))
        return run_story(c->err, operand[0]);
    return err_user(c->err, "%s: expected a dump folder (kernels.json) or a run (metrics.jsonl), found neither", operand[0]);
}

int cmd_inspect(int argc, char **argv)
{
    Err err = {0};
    Inspect c = {argc, argv, &err};
    mem_protect(&err, inspect_command, &c);
    return cli_end(&err);
}
