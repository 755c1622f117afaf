/* dav compile: what a model's programs become; the dump folder, or the graph as text. */
#include "cli/cli.h"
#include "runtime/masked_programs.h"
#include "runtime/modeldir.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_STEPS = 32 }; /* of a trajectory; they are a loop, whose kernels are the same for any number */

typedef struct Compile {
    int argc;
    char **argv;
    Err *err;
    Arena *arena;
    Registry *registry;
    const char **plugins, **tasks, **set;
    const char *dump, *emit, *dtype, *budget, *reward, *target;
    int64_t budget_bytes;
    int64_t rows, children;
    ModelDir dir;
} Compile;

/* ---- a model: a folder, a plugin's first model, or a name; the last two with their defaults and what was set ---- */
static bool defaults_of(Compile *c, const DavModel *m, const char **set, ModelDir *out)
{
    DavConfig *config = config_new(c->arena);
    config_add_table(config, "", m->keys, m->n_keys);
    for (size_t i = 0; i < vec_len(set); i++) {
        const char *equals = strchr(set[i], '=');
        if (!equals)
            return err_user(c->err, "--set %.100s: expected KEY=VALUE", set[i]);
        const char *key = arena_strn(c->arena, set[i], (size_t)(equals - set[i]));
        if (!config_set(config, c->err, "--set", key, (ConfigText){CONFIG_PLAIN, equals + 1}))
            return false;
    }
    *out = (ModelDir){.model = m, .config = config, .path = m->name};
    return config_finish(config, c->err, m->name);
}

static bool open_model(Compile *c, const char *what, const char **set, ModelDir *out)
{
    if (file_is_dir(what) && vec_len(set))
        return err_user(c->err, "--set %.100s: the folder %s has its own configuration, which its weights were made for", set[0], what);
    if (file_is_dir(what))
        return modeldir_open(c->arena, c->err, c->registry, what, out);
    if (strchr(what, '/') && !file_exists(what))
        return err_user(c->err, "compile: %s: no such model folder or plugin", what);
    const DavModel *m = registry_model_of(c->registry, c->err, "compile", what);
    return m && defaults_of(c, m, set, out);
}

static bool has_key(const DavModel *m, const char *name)
{
    for (int i = 0; i < m->n_keys; i++)
        if (strcmp(m->keys[i].name, name) == 0)
            return true;
    return false;
}

/* The reward of value, guide and whole; by its name it is made for the denoiser's sequences, where it has keys for that. */
static bool open_reward(Compile *c, MaskedSpec *s)
{
    ModelDir dir;
    const char **set = NULL; /* vec */
    const DavModel *named = file_is_dir(c->reward) ? NULL : registry_model_of(c->registry, c->err, "--reward", c->reward);
    if (!named && !file_is_dir(c->reward))
        return false;
    if (named && has_key(named, "length"))
        vec_push(set, arena_printf(c->arena, "length=%lld", (long long)s->length));
    if (named && has_key(named, "letters"))
        vec_push(set, arena_printf(c->arena, "letters=%lld", (long long)s->letters));
    bool ok = named ? defaults_of(c, named, set, &dir) : open_model(c, c->reward, NULL, &dir);
    vec_free(set);
    int64_t length = 0, letters = 0;
    if (ok && dir.model->kind != DAV_REWARD)
        ok = err_user(c->err, "--reward: %s gives no reward of sequences; dav list rewards", dir.model->name);
    ok = ok && model_sequence(c->err, dir.model, dir.config, &length, &letters);
    if (ok && (length != s->length || letters != s->letters))
        ok = err_user(c->err, "--reward: %s reads %lld positions of %lld letters; %s makes %lld of %lld", dir.model->name,
                      (long long)length, (long long)letters, s->denoiser.model->name, (long long)s->length, (long long)s->letters);
    s->reward = ok ? (Network){dir.model, dir.config} : (Network){0};
    return ok;
}

/* ---- a network that is neither denoiser nor reward: its forward pass, letters other than B standing for 64 ---- */
static DavVal port_input(DavNet *n, const DavPort *port, const DavConfig *config, int64_t rows)
{
    Buf text = {0};
    port_types_text(&text, port, config);
    DavDtype t = text.at[0] == 'i' ? DAV_I64 : DAV_F32;
    int64_t dim[DAV_MAX_RANK];
    int rank = 0;
    for (char *p = strchr(text.at, '['); p && *p != ']' && rank < DAV_MAX_RANK; p = strpbrk(p + 1, ",]"))
        dim[rank++] = isdigit((unsigned char)p[1]) ? strtoll(p + 1, NULL, 10) : p[1] == 'B' ? rows : 64;
    buf_free(&text);
    return dav_input_(DAV_HERE, n, port->name, t, rank, dim);
}

static void write_network(DavNet *n, const void *context, int64_t rows)
{
    const Compile *c = context;
    const DavModel *m = c->dir.model;
    DavVal in[DAV_MAX_PORTS] = {{0}}, out[DAV_MAX_PORTS] = {{0}};
    for (int i = 0; i < DAV_MAX_PORTS && m->input[i].name; i++)
        if (!m->input[i].optional)
            in[i] = port_input(n, &m->input[i], c->dir.config, rows);
    m->forward(n, c->dir.config, in, out);
    for (int i = 0; i < DAV_MAX_PORTS && m->output[i].name; i++)
        dav_output(n, m->output[i].name, out[i]);
}

/* ---- one task ---- */
typedef struct Task {
    const char *name;
    GraphWriter write;
    const void *context;
    bool learner;
    ParamSet *theta;
    Optim *optim;
} Task;

static void report(const Compile *c, const Task *t, const RowProgram *p)
{
    ProgramStats s = program_stats(p->program);
    printf("%s %s: %d kernels, %d of them different, %d from the cache; passes %.0f ms, code %.0f ms; memory planned %.1f MB -> %.1f MB, "
           "packed weights %.1f MB\n", c->dir.model->name, t->name, s.kernels, s.unique_kernels, s.cached_kernels, s.pass_ms, s.codegen_ms,
           (double)s.unplanned_bytes / 1e6, (double)s.arena_bytes / 1e6, (double)s.packed_bytes / 1e6);
    ProgramForecast f;
    Buf text = {0};
    if (program_forecast(p->program, &f, &text))
        fputs(text.at, stdout);
    buf_free(&text);
    if (s.memory_note)
        printf("%s %s: %s\n", c->dir.model->name, t->name, s.memory_note);
}

static bool needs_reward(const char *task)
{
    return strcmp(task, "value") == 0 || strcmp(task, "guide") == 0 || strcmp(task, "whole") == 0;
}

static bool run_task(Compile *c, const MaskedSpec *spec, const char *name)
{
    const DavModel *m = c->dir.model;
    bool network = m->kind == DAV_NETWORK, regression = m->kind == DAV_REWARD;
    Task t = {.name = name, .write = network ? write_network : masked_writer(name, regression),
              .context = network ? (const void *)c : spec, .learner = strcmp(name, "learn") == 0 || strcmp(name, "pretrain") == 0};
    if (!t.write || (network && strcmp(name, "forward") != 0))
        return err_user(c->err, "--task %.40s: %s has the tasks %s", name, m->name,
                        network      ? "forward"
                        : regression ? "forward, learn, value"
                                     : "forward, step, choose, whole, learn, pretrain, score, prior, value, guide");
    if (!regression && needs_reward(name) && !spec->reward.model)
        return err_user(c->err, "--task %s: which reward? --reward MODEL|DIR|PLUGIN.so", name);
    BuildOptions o = {.compile = {.precision = strcmp(c->dtype, "bf16") == 0 ? DAV_BF16 : DAV_F32, .memory_budget = c->budget_bytes,
                                  .tf32 = strcmp(c->dtype, "tf32") == 0},
                      .device = c->target ? arena_printf(c->arena, "paper:%s", c->target) : "cpu", .rows = c->rows};
    if (c->emit) {
        Buf text = {0};
        bool ok = build_text(c->err, name, &o, t.write, t.context, t.learner, &text);
        fputs(ok && text.at ? text.at : "", stdout);
        buf_free(&text);
        return ok;
    }
    o.compile.dump = c->dump;
    RowProgram *p = NULL;
    if (!t.learner) {
        p = build_program(c->err, name, &o, t.write, t.context);
    } else if ((t.theta = build_params(c->err, masked_writer("forward", regression), spec, "theta.", 0)) &&
               (t.optim = optim_new(c->err, t.theta, &(CompileOptions){.precision = DAV_F32}, "cpu"))) {
        p = build_learner(c->err, name, &o, t.write, t.context, t.theta, t.optim);
    }
    if (p)
        report(c, &t, p);
    bool ok = p && (!c->dump || program_dump(p->program, c->err, c->dump));
    rows_free(p);
    optim_free(t.optim);
    params_free(t.theta);
    return ok;
}

static bool spec_of(Compile *c, MaskedSpec *s)
{
    const DavModel *m = c->dir.model;
    *s = (MaskedSpec){.children = (int)c->children, .steps = SHOWN_STEPS, .search = &dav_search_dav, .loss = &dav_loss_dav,
                      .search_config = c->dir.config, .loss_config = c->dir.config};
    if (m->kind == DAV_DENOISER) {
        s->denoiser = (Network){m, c->dir.config};
        return masked_spec_shape(c->err, s) && (!c->reward || open_reward(c, s));
    }
    if (m->kind == DAV_REWARD) {
        s->reward = (Network){m, c->dir.config};
        return model_sequence(c->err, m, c->dir.config, &s->length, &s->letters);
    }
    return true;
}

static bool compile_command(void *arg)
{
    Compile *c = arg;
    const char *operand[1];
    int n;
    c->rows = 32;
    c->children = 10;
    c->dtype = "f32";
    const CliOption options[] = {
        {"task", CLI_LIST, &c->tasks, "NAME", "forward (default), learn, step, choose, whole (a search of 32 steps), pretrain, score, prior, value, guide; may be given again"},
        {"dump", CLI_TEXT, &c->dump, "DIR", "folder for the dump of one task"},
        {"emit", CLI_TEXT, &c->emit, "ir", "print the graph before any pass instead"},
        {"dtype", CLI_TEXT, &c->dtype, "TYPE", "f32 (default), bf16, or tf32 (of CUDA devices)"},
        {"target", CLI_TEXT, &c->target, "DEVICE", "what it would cost on a CUDA device, which need not be there: t4, a100, a10, rtx4090, h100, h200, b200, rtx5090, or sm_90"},
        {"rows", CLI_INT, &c->rows, "N", "rows of the program, default 32"},
        {"memory-budget", CLI_TEXT, &c->budget, "BYTES", "for the program's values, such as 2GiB; default: no bound"},
        {"reward", CLI_TEXT, &c->reward, "MODEL|DIR|PLUGIN.so", "the reward of a denoiser's tasks value, guide and whole"},
        {"children", CLI_INT, &c->children, "N", "children of a step, default 10"},
        {"set", CLI_LIST, &c->set, "KEY=VALUE", "a key of the model's configuration; may be given again"},
        {"plugin", CLI_LIST, &c->plugins, "FILE.so", "a plugin to load first; may be given again"},
    };
    const CliUse use = {.synopsis = "compile MODEL|DIR|PLUGIN.so [--task NAME ...] [--dump DIR]", .least = 1, .most = 1,
                        CLI_OPTIONS(options), .doc = "Compiles a model's programs and tells what they became."};
    if (!cli_parse(c->err, &use, c->argc, c->argv, operand, &n))
        return false;
    if (c->rows < 1 || c->rows > 65536 || c->children < 1 || c->children > 65535)
        return err_user(c->err, "--rows: expected 1 to 65536, --children: 1 to 65535");
    if (c->budget && !text_to_bytes(c->budget, &c->budget_bytes))
        return err_user(c->err, "--memory-budget: expected bytes such as 800MB or 2GiB, found '%.40s'", c->budget);
    if (c->emit && strcmp(c->emit, "ir") != 0)
        return err_user(c->err, "--emit: expected ir, found '%.40s'", c->emit);
    if (strcmp(c->dtype, "f32") != 0 && strcmp(c->dtype, "bf16") != 0 && strcmp(c->dtype, "tf32") != 0)
        return err_user(c->err, "--dtype: expected f32, bf16 or tf32, found '%.40s'", c->dtype);
    if (strcmp(c->dtype, "tf32") == 0 && !c->target)
        return err_user(c->err, "--dtype tf32: expected a CUDA device (--target h100), found the processor");
    if (c->dump && vec_len(c->tasks) > 1)
        return err_user(c->err, "--dump takes one --task, found %zu", vec_len(c->tasks));
    MaskedSpec spec;
    if (!registry_load_all(c->registry, c->err, c->plugins, (int)vec_len(c->plugins)) || !open_model(c, operand[0], c->set, &c->dir) ||
        !spec_of(c, &spec) || (c->dump && !file_mkdirs(c->err, c->dump)))
        return false;
    for (size_t i = 0; i < (vec_len(c->tasks) ? vec_len(c->tasks) : 1); i++)
        if (!run_task(c, &spec, vec_len(c->tasks) ? c->tasks[i] : "forward"))
            return false;
    return true;
}

int cmd_compile(int argc, char **argv)
{
    Err err = {0};
    Compile c = {.argc = argc, .argv = argv, .err = &err, .arena = arena_new(), .registry = registry_new()};
    mem_protect(&err, compile_command, &c);
    arena_free(c.arena);
    registry_free(c.registry);
    vec_free(c.plugins);
    vec_free(c.tasks);
    vec_free(c.set);
    return cli_end(&err);
}
