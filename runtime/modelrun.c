#include "runtime/modelrun.h"
#include "frontend/net.h"
#include "runtime/params.h"
#include "runtime/programfile.h"
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

typedef struct Work {
    const ModelRun *run;
    Err *err;
    Arena *arena;
    SafeTensors *file;
    DavNet *net;
    ParamSet *params;
    Program *program;
} Work;

static const DavModel *model_of(const Work *w)
{
    return w->run->dir->model;
}

static int count_ports(const DavPort *port)
{
    int n = 0;
    while (n < DAV_MAX_PORTS && port[n].name)
        n++;
    return n;
}

/* ---- what the file holds, against what the model takes ---- */
static const DavPort *find_port(const DavPort *port, const char *name)
{
    for (int i = 0; i < count_ports(port); i++)
        if (strcmp(port[i].name, name) == 0)
            return &port[i];
    return NULL;
}

static bool is_cotangent(const Work *w, const char *name)
{
    return w->run->vjp && strncmp(name, "grad.", 5) == 0 && find_port(model_of(w)->output, name + 5);
}

static bool unknown_tensor(Work *w, const char *name)
{
    const char *names[2 * DAV_MAX_PORTS];
    int n = 0;
    for (int i = 0; i < count_ports(model_of(w)->input); i++)
        names[n++] = model_of(w)->input[i].name;
    for (int i = 0; w->run->vjp && i < count_ports(model_of(w)->output); i++)
        names[n++] = arena_printf(w->arena, "grad.%s", model_of(w)->output[i].name);
    Buf all = {0};
    for (int i = 0; i < n; i++)
        buf_printf(&all, "%s%s", i ? ", " : "", names[i]);
    const char *near = err_nearest(name, names, n);
    bool cotangent = strncmp(name, "grad.", 5) == 0 && !w->run->vjp;
    err_user(w->err, "%s: unknown tensor '%.200s'%s; %s takes %s%s%s%s", w->run->in, name,
             cotangent ? " (without --vjp)" : "", model_of(w)->name, all.at, near ? "; nearest: '" : "",
             near ? near : "", near ? "'" : "");
    buf_free(&all);
    return false;
}

static bool check_names(Work *w)
{
    bool cotangents = false;
    for (size_t i = 0; i < w->file->n; i++) {
        const char *name = w->file->tensor[i].name;
        bool cotangent = is_cotangent(w, name);
        cotangents |= cotangent;
        if (!cotangent && !find_port(model_of(w)->input, name))
            return unknown_tensor(w, name);
    }
    if (w->run->vjp && !cotangents)
        return err_user(w->err, "%s: --vjp needs the cotangent of at least one output, such as 'grad.%s'", w->run->in,
                        model_of(w)->output[0].name);
    return true;
}

/* ---- the graph ---- */
static bool write_inputs(Work *w, DavVal *in)
{
    PortSizes sizes = {0};
    for (int i = 0; i < count_ports(model_of(w)->input); i++) {
        const DavPort *port = &model_of(w)->input[i];
        const SafeTensor *t = safetensors_find(w->file, port->name);
        if (!t && port->optional)
            continue;
        if (!t) {
            Buf want = {0};
            port_types_text(&want, port, w->run->dir->config);
            err_user(w->err, "%s: tensor '%s', %s, is missing", w->run->in, port->name, want.at);
            buf_free(&want);
            return false;
        }
        if (!port_accepts(w->err, w->run->in, port, w->run->dir->config, t, &sizes))
            return false;
        in[i] = dav_input_(DAV_HERE, w->net, port->name, t->dtype, t->rank, t->dim);
    }
    return true;
}

/* <output, cotangent>, {0} when the file has none. */
static bool write_cotangent(Work *w, DavVal out, const char *name, DavVal *product)
{
    const char *full = arena_printf(w->arena, "grad.%s", name);
    const SafeTensor *t = safetensors_find(w->file, full);
    *product = (DavVal){0};
    if (!t)
        return true;
    Type want = type_of(w->net->g, out.id), have = type_make(DAV_F32, t->rank, t->dim);
    if (t->dtype != DAV_F32 || !type_same_shape(&want, &have)) {
        char a[160], b[160];
        return err_user(w->err, "%s: tensor '%s' is %s%s, expected F32%s, the shape of '%s'", w->run->in, full,
                        t->file_dtype, type_text(&have, b) + 3, type_text(&want, a) + 3, name);
    }
    DavVal g = dav_input_(DAV_HERE, w->net, full, DAV_F32, t->rank, t->dim);
    *product = dav_sum(dav_mul(out, g));
    return true;
}

static void write_gradients(Work *w, DavVal total, const DavVal *in)
{
    int np = net_param_count(w->net), nx = 0;
    DavVal *x = arena_array(w->arena, DavVal, np + DAV_MAX_PORTS),
           *grad = arena_array(w->arena, DavVal, np + DAV_MAX_PORTS);
    const char **name = arena_array(w->arena, const char *, np + DAV_MAX_PORTS);
    for (int i = 0; i < count_ports(model_of(w)->input); i++)
        if (in[i].net && dav_dtype_is_float(dav_dtype(in[i]))) {
            name[nx] = model_of(w)->input[i].name;
            x[nx++] = in[i];
        }
    for (int i = 0; i < np; i++)
        if (!net_param(w->net, i)->frozen) {
            name[nx] = net_param(w->net, i)->name;
            x[nx++] = (DavVal){w->net, net_param(w->net, i)->val};
        }
    dav_grads(total, x, nx, grad);
    for (int i = 0; i < nx; i++)
        dav_output(w->net, dav_name(w->net, "grad.%s", name[i]), grad[i]);
}

static bool write_graph(Work *w)
{
    DavVal in[DAV_MAX_PORTS] = {{0}}, out[DAV_MAX_PORTS] = {{0}}, total = {0};
    w->net = net_new(w->arena, w->err, model_of(w)->name);
    if (!write_inputs(w, in))
        return false;
    model_of(w)->forward(w->net, w->run->dir->config, in, out);
    for (int i = 0; i < count_ports(model_of(w)->output); i++) {
        const char *name = model_of(w)->output[i].name;
        DavVal product;
        dav_output(w->net, name, out[i]);
        if (w->err->kind != ERR_NONE || !write_cotangent(w, out[i], name, &product))
            return false;
        total = !product.net ? total : total.net ? dav_add(total, product) : product;
    }
    if (w->run->vjp)
        write_gradients(w, total, in);
    return w->err->kind == ERR_NONE;
}

/* ---- parameters ---- */
/* A config may ask for more than there is memory; a weights file that could hold it bounds what is believed. */
static bool file_could_hold(Work *w)
{
    const char *path = w->run->dir->weights;
    struct stat st;
    if (stat(path, &st) != 0)
        return err_user(w->err, "%s: the weights are missing", path);
    double need = 0;
    for (int i = 0; i < net_param_count(w->net); i++)
        need += 2.0 * (double)node_count(w->net->g, net_param(w->net, i)->val);
    return need <= (double)st.st_size ||
           err_user(w->err, "%s: holds %lld bytes, expected at least %.0f for the %d tensors of %s with this config",
                    path, (long long)st.st_size, need, net_param_count(w->net), model_of(w)->name);
}

static bool load_params(Work *w)
{
    if (!file_could_hold(w))
        return false;
    w->params = params_from_graph(w->net->g, "");
    return params_load(w->params, w->err, w->run->dir->weights, w->params->value);
}

static const ParamEntry *find_param(const ParamSet *p, const char *name)
{
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->entry[i].name, name) == 0)
            return &p->entry[i];
    return NULL;
}

/* ---- running ---- */
static InputData input_data(void *ctx, const char *name)
{
    const Work *w = ctx;
    const ParamEntry *p = find_param(w->params, name);
    if (p)
        return (InputData){w->params->value + p->offset, DAV_F32};
    const SafeTensor *t = safetensors_find(w->file, name);
    return (InputData){t->data, t->dtype};
}

static bool work(void *arg)
{
    Work *w = arg;
    w->file = safetensors_open(w->err, w->run->in);
    if (!w->file || !check_names(w) || !write_graph(w) || !load_params(w))
        return false;
    const char *device = w->run->dtype == DAV_F64 ? "interp64" : w->run->device;
    ProgramOptions o = {
        .compile = {.precision = w->run->dtype == DAV_BF16 ? DAV_BF16 : DAV_F32, .tf32 = w->run->tf32, .threads = w->run->threads},
        .device = device};
    w->program = program_compile(w->err, w->net->g, &o);
    return w->program && program_run_to_file(w->err, w->arena, w->program, input_data, w, w->run->out, w->run->threads);
}

bool model_run(Err *err, const ModelRun *run)
{
    Work w = {.run = run, .err = err, .arena = arena_new()};
    bool ok = mem_protect(err, work, &w);
    program_free(w.program);
    params_free(w.params);
    net_free(w.net);
    safetensors_close(w.file);
    arena_free(w.arena);
    return ok;
}
