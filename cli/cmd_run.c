/* dav run: a model of a folder, or a graph in IR text, on tensors of a file. */
#include "cli/cli.h"
#include "runtime/cuda/run.h"
#include "runtime/modelrun.h"
#include "runtime/programfile.h"
#include <string.h>

typedef struct Run {
    int argc;
    char **argv;
    Err *err;
    Arena *arena;
    Registry *registry;
    const char **plugins;
} Run;

static bool dtype_of(Err *err, const char *text, ModelRun *m)
{
    static const char *const names[] = {"f32", "f64", "bf16", "tf32"};
    m->tf32 = strcmp(text, "tf32") == 0;
    if (m->tf32 && cuda_device_index(m->device) < 0)
        return err_user(err, "--dtype tf32: expected a CUDA device (--device cuda), found %.40s", m->device);
    if (dav_dtype_from_name(m->tf32 ? "f32" : text, &m->dtype) && (m->dtype == DAV_F32 || m->dtype == DAV_F64 || m->dtype == DAV_BF16))
        return true;
    const char *near = err_nearest(text, names, 4);
    return err_user(err, "--dtype: expected f32, f64, bf16 or tf32, found '%.40s'%s%s%s", text,
                    near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static bool device_of(Err *err, const char *text)
{
    return program_device_known(text) || err_user(err, "--device: expected cpu, cuda, cuda:N or interp (the reference interpreter), found '%.40s'", text);
}

static bool is_graph(const char *path)
{
    size_t n = strlen(path);
    return n > 3 && strcmp(path + n - 3, ".ir") == 0;
}

static bool run_graph(Err *err, const char *path, const ModelRun *m)
{
    if (m->vjp)
        return err_user(err, "--vjp: expected a model's folder; a graph in text has the gradients that it computes");
    const ProgramOptions o = {
        .compile = {.precision = m->dtype == DAV_BF16 ? DAV_BF16 : DAV_F32, .tf32 = m->tf32, .threads = m->threads},
        .device = m->dtype == DAV_F64 ? "interp64" : m->device};
    return graph_run_file(err, path, m->in, m->out, &o);
}

static bool run_command(void *arg)
{
    Run *r = arg;
    ModelRun m = {.device = "cpu"};
    const char *dtype = "f32", *operand[1];
    int64_t threads = 0;
    int n;
    const CliOption options[] = {
        {"in", CLI_TEXT, &m.in, "FILE", "safetensors file with the inputs, and grad.<output> with --vjp"},
        {"out", CLI_TEXT, &m.out, "FILE", "safetensors file to write"},
        {"vjp", CLI_FLAG, &m.vjp, "", "also gradients of inputs and parameters"},
        {"dtype", CLI_TEXT, &dtype, "TYPE", "f32 (default), bf16, tf32 (of CUDA devices), or f64 (by the interpreter)"},
        {"device", CLI_TEXT, &m.device, "DEVICE", "cpu (default), cuda, cuda:N or interp, the reference interpreter"},
        {"threads", CLI_INT, &threads, "N", "0, the default: all"},
        {"plugin", CLI_LIST, &r->plugins, "FILE.so", "a plugin to load first; may be given again"},
    };
    const CliUse use = {
        .synopsis = "run DIR|GRAPH.ir --in FILE --out FILE [--vjp]",
        .least = 1,
        .most = 1,
        CLI_OPTIONS(options),
        .doc = "Runs the model of a folder (config.json and weights), or a graph, on the tensors of a file."};
    if (!cli_parse(r->err, &use, r->argc, r->argv, operand, &n))
        return false;
    if (!m.in || !m.out)
        return err_user(r->err, "--%s is missing; usage: dav %s", m.in ? "out" : "in", use.synopsis);
    if (threads < 0 || threads > 4096)
        return err_user(r->err, "--threads: expected 0 to 4096, found %lld", (long long)threads);
    ModelDir dir;
    m.threads = (int)threads;
    m.dir = &dir;
    if (!device_of(r->err, m.device) || !dtype_of(r->err, dtype, &m))
        return false;
    if (is_graph(operand[0]))
        return run_graph(r->err, operand[0], &m);
    return registry_load_all(r->registry, r->err, r->plugins, (int)vec_len(r->plugins)) &&
           modeldir_open(r->arena, r->err, r->registry, operand[0], &dir) && model_run(r->err, &m);
}

int cmd_run(int argc, char **argv)
{
    Err err = {0};
    Run r = {.argc = argc, .argv = argv, .err = &err, .arena = arena_new(), .registry = registry_new()};
    mem_protect(&err, run_command, &r);
    arena_free(r.arena);
    registry_free(r.registry);
    vec_free(r.plugins);
    return cli_end(&err);
}
