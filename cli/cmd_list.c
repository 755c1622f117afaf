/* dav list: what the program knows, from its tables. */
#include "cli/cli.h"
#include "ir/config.h"
#include "ir/opdoc.h"
#include "passes/pass.h"
#include "runtime/modeldir.h"
#include <stdio.h>
#include <string.h>

typedef struct List {
    int argc;
    char **argv;
    Err *err;
    Registry *registry;
    const char **plugins;
    bool markdown;
    Buf out;
} List;

static void row(List *l, const char *name, const char *doc)
{
    buf_printf(&l->out, "%-20s %s\n", name, doc ? doc : "");
}

static const char *kind_name(DavModelKind k)
{
    static const char *const names[] = {"network", "denoiser", "reward"};
    return k <= DAV_REWARD ? names[k] : "?";
}

static void ports(List *l, const char *title, const DavPort *port)
{
    buf_printf(&l->out, "%s\n", title);
    for (int i = 0; i < DAV_MAX_PORTS && port[i].name; i++)
        buf_printf(&l->out, "  %-18s %s  %s\n", port[i].name, port[i].types, port[i].meaning ? port[i].meaning : "");
}

static void keys(List *l, const DavKey *table, int n)
{
    buf_str(&l->out, n ? "settings\n" : "no settings\n");
    if (n)
        config_describe(&l->out, "", table, n, CONFIG_AS_TEXT);
}

static void list_models(List *l, bool rewards)
{
    const DavModel *m;
    for (int i = 0; (m = registry_model_at(l->registry, i)); i++)
        if (!rewards || m->kind == DAV_REWARD)
            buf_printf(&l->out, "%-20s %-9s %s\n", m->name, kind_name(m->kind), m->doc ? m->doc : "");
}

static bool describe_model(List *l, const char *name)
{
    const DavModel *m = registry_model(l->registry, l->err, "list models", name);
    if (!m)
        return false;
    buf_printf(&l->out, "%s (%s): %s\n", m->name, kind_name(m->kind), m->doc ? m->doc : "");
    ports(l, "inputs", m->input);
    ports(l, "outputs", m->output);
    keys(l, m->keys, m->n_keys);
    return true;
}

static void list_objectives(List *l)
{
    const DavSearch *s;
    const DavLoss *o;
    buf_str(&l->out, "searches (weights of the children)\n");
    for (int i = 0; (s = registry_search_at(l->registry, i)); i++)
        row(l, s->name, s->doc);
    buf_str(&l->out, "losses (of the distillation)\n");
    for (int i = 0; (o = registry_loss_at(l->registry, i)); i++)
        row(l, o->name, o->doc);
}

static void list_ops(List *l)
{
    for (int i = 1; i < OP_COUNT; i++)
        if (op_info[i].flags & OPF_TENSOR)
            row(l, op_info[i].text, op_info[i].doc);
}

static void list_passes(List *l)
{
    for (int i = 0; i < pass_count; i++)
        row(l, pass_info[i].name, pass_info[i].doc);
}

static void list_devices(List *l)
{
    row(l, "cpu", "this machine's processor, by LLVM");
    row(l, "interp", "the reference interpreter, in f32");
    row(l, "interp64", "the reference interpreter, every float in f64");
}

static bool list_topic(List *l, const char *topic, const char *name)
{
    static const char *const topics[] = {"models", "objectives", "rewards", "ops", "passes", "devices"};
    if (strcmp(topic, "models") == 0 && name)
        return describe_model(l, name);
    if (name)
        return err_user(l->err, "list %s takes no further name; usage: dav list models NAME", topic);
    if (strcmp(topic, "models") == 0 || strcmp(topic, "rewards") == 0)
        list_models(l, topic[0] == 'r');
    else if (strcmp(topic, "objectives") == 0)
        list_objectives(l);
    else if (strcmp(topic, "ops") == 0 && l->markdown)
        ops_markdown(&l->out);
    else if (strcmp(topic, "ops") == 0)
        list_ops(l);
    else if (strcmp(topic, "passes") == 0)
        list_passes(l);
    else if (strcmp(topic, "devices") == 0)
        list_devices(l);
    else {
        const char *near = err_nearest(topic, topics, 6);
        return err_user(l->err, "list: unknown topic '%.60s'%s%s%s; there are models, objectives, rewards, ops, passes, devices", topic,
                        near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    return true;
}

static bool list_command(void *arg)
{
    List *l = arg;
    const char *operand[2];
    int n;
    const CliOption options[] = {{"plugin", CLI_LIST, &l->plugins, "FILE.so", "a plugin to load first; may be given again"},
                                 {"markdown", CLI_FLAG, &l->markdown, "", "ops as docs/ops.md has them"}};
    const CliUse use = {.synopsis = "list [models|objectives|rewards|ops|passes|devices] [NAME]", .most = 2, CLI_OPTIONS(options),
                        .doc = "Lists what the program and its plugins bring; with a model's name, its inputs and settings."};
    if (!cli_parse(l->err, &use, l->argc, l->argv, operand, &n) ||
        !registry_load_all(l->registry, l->err, l->plugins, (int)vec_len(l->plugins)))
        return false;
    return list_topic(l, n > 0 ? operand[0] : "models", n > 1 ? operand[1] : NULL);
}

int cmd_list(int argc, char **argv)
{
    Err err = {0};
    List l = {.argc = argc, .argv = argv, .err = &err, .registry = registry_new()};
    if (mem_protect(&err, list_command, &l) && l.out.at)
        fputs(l.out.at, stdout);
    buf_free(&l.out);
    vec_free(l.plugins);
    registry_free(l.registry);
    return cli_end(&err);
}
