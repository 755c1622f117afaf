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
    buf_printf(&l->out, l->markdown ? "\n| %s | type | |\n|---|---|---|\n" : "%s\n", title);
    for (int i = 0; i < DAV_MAX_PORTS && port[i].name; i++) {
        const char *meaning = port[i].meaning ? port[i].meaning : "";
        if (l->markdown) { /* a bar would end the cell */
            buf_printf(&l->out, "| `%s` | `", port[i].name);
            for (const char *p = port[i].types; *p; p += strncmp(p, " | ", 3) == 0 ? 3 : 1)
                buf_printf(&l->out, strncmp(p, " | ", 3) == 0 ? "` or `" : "%c", *p);
            buf_printf(&l->out, "` | %s |\n", meaning);
        } else {
            buf_printf(&l->out, "  %-18s %s  %s\n", port[i].name, port[i].types, meaning);
        }
    }
}

static void keys(List *l, const DavKey *table, int n)
{
    buf_str(&l->out, l->markdown ? "\n" : n ? "settings\n" : "no settings\n");
    if (n)
        config_describe(&l->out, "", table, n, l->markdown ? CONFIG_AS_MARKDOWN : CONFIG_AS_TEXT);
}

static void describe_model(List *l, const DavModel *m)
{
    buf_printf(&l->out, l->markdown ? "\n## %s\n\nA %s: %s.\n" : "%s (%s): %s\n", m->name, kind_name(m->kind),
               m->doc ? m->doc : "");
    ports(l, "inputs", m->input);
    ports(l, "outputs", m->output);
    keys(l, m->keys, m->n_keys);
}

static void list_models_of(List *l, bool rewards)
{
    const DavModel *m;
    if (l->markdown)
        buf_str(&l->out, "# Models\n\nWritten from the models' own tables by `./dev docs`.\n");
    for (int i = 0; (m = registry_model_at(l->registry, i)); i++) {
        if (rewards && m->kind != DAV_REWARD)
            continue;
        if (l->markdown)
            describe_model(l, m);
        else
            buf_printf(&l->out, "%-20s %-9s %s\n", m->name, kind_name(m->kind), m->doc ? m->doc : "");
    }
}

static void list_models(List *l)
{
    list_models_of(l, false);
}

static void list_rewards(List *l)
{
    const DavHostReward *h;
    list_models_of(l, true);
    for (int i = 0; (h = registry_reward_at(l->registry, i)); i++)
        row(l, h->name, h->doc);
}

static void list_searches(List *l)
{
    const DavSearch *s;
    row(l, "none", "plain sampling");
    for (int i = 0; (s = registry_search_at(l->registry, i)); i++)
        row(l, s->name, s->doc);
}

static void list_losses(List *l)
{
    const DavLoss *o;
    for (int i = 0; (o = registry_loss_at(l->registry, i)); i++)
        row(l, o->name, o->doc);
}

static void list_objectives(List *l)
{
    buf_str(&l->out, "searches (how a child is chosen)\n");
    list_searches(l);
    buf_str(&l->out, "losses (of the distillation)\n");
    list_losses(l);
}

static void describe_objective(List *l, const char *what, const char *setting, const char *name, const char *doc,
                               const DavKey *table, int n)
{
    buf_printf(&l->out, "%s (%s): %s\n", name, what, doc ? doc : "");
    if (n)
        config_describe(&l->out, setting, table, n, CONFIG_AS_TEXT);
    else
        buf_str(&l->out, "no settings\n");
}

/* The search, the loss or both of a name; what: which of them are asked for. */
static bool describe_objectives(List *l, const char *topic, const char *name)
{
    const DavSearch *s = NULL;
    const DavLoss *o = NULL;
    bool any = strcmp(topic, "objectives") == 0, found = false;
    char prefix[CONFIG_MAX_NAME];
    for (int i = 0; (any || strcmp(topic, "searches") == 0) && (s = registry_search_at(l->registry, i)); i++)
        if (strcmp(s->name, name) == 0) {
            snprintf(prefix, sizeof prefix, "search.%s.", name);
            describe_objective(l, "search", prefix, name, s->doc, s->keys, s->n_keys);
            found = true;
        }
    for (int i = 0; (any || strcmp(topic, "losses") == 0) && (o = registry_loss_at(l->registry, i)); i++)
        if (strcmp(o->name, name) == 0) {
            snprintf(prefix, sizeof prefix, "train.%s.", name);
            describe_objective(l, "loss", prefix, name, o->doc, o->keys, o->n_keys);
            found = true;
        }
    if (found)
        return true;
    const char *names[256];
    int n = 0;
    for (int i = 0; n < 128 && strcmp(topic, "losses") != 0 && (s = registry_search_at(l->registry, i)); i++)
        names[n++] = s->name;
    for (int i = 0; n < 256 && strcmp(topic, "searches") != 0 && (o = registry_loss_at(l->registry, i)); i++)
        names[n++] = o->name;
    const char *near = err_nearest(name, names, n);
    return err_user(l->err, "list %s: nothing is named '%.100s'%s%s%s", topic, name, near ? ", did you mean '" : "", near ? near : "",
                    near ? "'?" : "; without a name it lists them");
}

static void list_ops(List *l)
{
    if (l->markdown)
        ops_markdown(&l->out);
    for (int i = 1; i < OP_COUNT && !l->markdown; i++)
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
    row(l, "cuda", "an NVIDIA device, by NVRTC; cuda:N: the N-th");
    row(l, "interp", "the reference interpreter, in f32");
    row(l, "interp64", "the reference interpreter, every float in f64");
}

static const struct Topic {
    const char *name;
    void (*list)(List *l);
} topics[] = {
    {"models", list_models}, {"objectives", list_objectives}, {"searches", list_searches},
    {"losses", list_losses}, {"rewards", list_rewards},       {"ops", list_ops},
    {"passes", list_passes}, {"devices", list_devices},
};
enum { TOPICS = sizeof topics / sizeof topics[0] };

static bool list_topic(List *l, const char *topic, const char *name)
{
    const char *names[TOPICS];
    if (name && (strcmp(topic, "objectives") == 0 || strcmp(topic, "searches") == 0 || strcmp(topic, "losses") == 0))
        return describe_objectives(l, topic, name);
    if (name && strcmp(topic, "models") != 0 && strcmp(topic, "rewards") != 0)
        return err_user(l->err, "list %s takes no further name; usage: dav list models NAME", topic);
    if (name) {
        const DavModel *m = registry_model_of(l->registry, l->err, "list models", name);
        if (m)
            describe_model(l, m);
        return m != NULL;
    }
    for (int i = 0; i < TOPICS; i++) {
        names[i] = topics[i].name;
        if (strcmp(topic, names[i]) == 0) {
            topics[i].list(l);
            return true;
        }
    }
    const char *near = err_nearest(topic, names, TOPICS);
    return err_user(
        l->err,
        "list: unknown topic '%.60s'%s%s%s; there are models, objectives, searches, losses, rewards, ops, passes, "
        "devices",
        topic, near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static bool list_command(void *arg)
{
    List *l = arg;
    const char *operand[2];
    int n;
    const CliOption options[] = {
        {"plugin", CLI_LIST, &l->plugins, "FILE.so", "a plugin to load first; may be given again"},
        {"markdown", CLI_FLAG, &l->markdown, "", "models and ops as the pages in docs/ have them"}};
    const CliUse use = {
        .synopsis = "list [models|objectives|searches|losses|rewards|ops|passes|devices] [NAME]",
        .most = 2,
        CLI_OPTIONS(options),
        .doc = "Lists what the program and its plugins bring; with a model's or an objective's name, its settings."};
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
