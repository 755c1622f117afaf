/* Options of a command, read by its table. */
#include "cli/cli.h"
#include <stdio.h>
#include <string.h>

static void print_help(const CliUse *use)
{
    printf("usage: dav %s\n%s\n", use->synopsis, use->doc);
    for (int i = 0; i < use->n; i++) {
        const CliOption *o = &use->option[i];
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->kind == CLI_FLAG ? "" : " ",
                 o->kind == CLI_FLAG ? "" : o->arg);
        printf("  %-28s %s\n", left, o->meaning);
    }
}

static const CliOption *find(Err *err, const CliUse *use, const char *name)
{
    const char *names[64];
    int n = 0;
    for (int i = 0; i < use->n; i++) {
        if (strcmp(use->option[i].name, name) == 0)
            return &use->option[i];
        if (n < 64)
            names[n++] = use->option[i].name;
    }
    const char *near = err_nearest(name, names, n);
    err_user(err, "unknown option '--%.100s'%s%s%s; usage: dav %s", name, near ? ", did you mean '--" : "",
             near ? near : "", near ? "'?" : "", use->synopsis);
    return NULL;
}

static bool store(Err *err, const CliOption *o, const char *value)
{
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)o->into = true;
        return true;
    case CLI_TEXT:
        *(const char **)o->into = value;
        return true;
    case CLI_INT:
        return text_to_i64(value, o->into) ||
               err_user(err, "--%s: expected an integer, found '%.100s'", o->name, value);
    case CLI_FLOAT:
        return text_to_f64(value, o->into) || err_user(err, "--%s: expected a number, found '%.100s'", o->name, value);
    case CLI_LIST: {
        const char **list = *(const char ***)o->into;
        vec_push(list, value);
        *(const char ***)o->into = list;
        return true;
    }
    }
    return false;
}

/* One option at argv[*i]; steps over its value. */
static bool read_option(Err *err, const CliUse *use, int argc, char **argv, int *i)
{
    const char *text = argv[*i] + 2, *equals = strchr(text, '=');
    char name[128];
    snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - text < 127 ? equals - text : 127) : 127, text);
    const CliOption *o = find(err, use, name);
    if (!o)
        return false;
    if (o->kind == CLI_FLAG)
        return equals ? err_user(err, "--%s takes no value", name) : store(err, o, NULL);
    if (equals)
        return store(err, o, equals + 1);
    if (*i + 1 >= argc)
        return err_user(err, "--%s needs a value: --%s %s", name, name, o->arg);
    return store(err, o, argv[++*i]);
}

bool cli_parse(Err *err, const CliUse *use, int argc, char **argv, const char **operand, int *n)
{
    bool options = true;
    *n = 0;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (options && strcmp(a, "--") == 0) {
            options = false;
        } else if (options && (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0)) {
            print_help(use);
            return false;
        } else if (options && a[0] == '-' && a[1] == '-') {
            if (!read_option(err, use, argc, argv, &i))
                return false;
        } else if (options && a[0] == '-' && a[1]) {
            return err_user(err, "unknown option '%.100s'; usage: dav %s", a, use->synopsis);
        } else if (*n == use->most) {
            return err_user(err, "unexpected '%.200s'; usage: dav %s", a, use->synopsis);
        } else {
            operand[(*n)++] = a;
        }
    }
    return *n >= use->least || err_user(err, "too few arguments; usage: dav %s", use->synopsis);
}

int cli_end(const Err *err)
{
    if (err->kind != ERR_NONE) {
        if (err->count > 1)
            fprintf(stderr, "dav: %s (and %d more)\n", err->text, err->count - 1);
        else
            fprintf(stderr, "dav: %s\n", err->text);
    }
    return err_exit_status(err);
}
