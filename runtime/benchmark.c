#include "runtime/benchmark.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const prefix[] = {"dna-fwd-b", "dna-train-b"};

bool bench_work_parse(Err *err, const char *name, BenchWork *out)
{
    for (int train = 0; train < 2; train++) {
        size_t n = strlen(prefix[train]);
        const char *l = strncmp(name, prefix[train], n) == 0 ? strstr(name + n, "-L") : NULL;
        char batch[16] = "";
        if (!l || (size_t)(l - name) - n >= sizeof batch)
            continue;
        memcpy(batch, name + n, (size_t)(l - name) - n);
        *out = (BenchWork){name, train, 0, 0};
        if (text_to_i64(batch, &out->batch) && text_to_i64(l + 2, &out->length) && out->batch >= 1 && out->batch <= 65536 &&
            out->length >= 1 && out->length <= 4096)
            return true;
    }
    return err_user(err, "unknown work '%.100s': expected dna-fwd-bBATCH-LLENGTH or dna-train-bBATCH-LLENGTH", name);
}

typedef struct Bench {
    const BenchWork *w;
    Arena *arena;
    MaskedSpec spec;
    ParamSet *theta;
    Optim *optim;
    RowProgram *program;
    int64_t *x;
    float *a, *share, *weight; /* outputs; of the training rows */
    uint32_t *counter;
} Bench;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool config_of(Err *err, Bench *b, const DavModel *m)
{
    DavConfig *c = config_new(b->arena);
    config_add_table(c, "", m->keys, m->n_keys);
    if (!config_set(c, err, "bench", "length", (ConfigText){CONFIG_PLAIN, arena_printf(b->arena, "%lld", (long long)b->w->length)}) ||
        !config_finish(c, err, "bench"))
        return false;
    b->spec.denoiser = (Network){m, c};
    return masked_spec_shape(err, &b->spec);
}

static void write_forward(DavNet *n, const void *context, int64_t rows)
{
    const MaskedSpec *s = context;
    DavVal x = dav_input(n, "x", DAV_I64, rows, s->length);
    dav_output(n, "logits", network_apply(n, "theta", s->denoiser, x, dav_const(n, DAV_F32, 0, 1)));
}

/* Two times the multiply-adds of the network's contractions for one row, in GFLOP. */
static bool count_flops(Err *err, Bench *b, double *all, double *useful)
{
    Arena *arena = arena_new();
    DavNet *n = net_new(arena, err, "count");
    write_forward(n, &b->spec, 1);
    *all = *useful = 0;
    for (Val v = 1; v < n->g->n && err->kind == ERR_NONE; v++) {
        const Node *node = node_of(n->g, v);
        if (node->op != OP_CONTRACT)
            continue;
        double u, a;
        Type ta = type_of(n->g, node->arg[0]), tb = type_of(n->g, node->arg[1]);
        spec_work(attr_spec(node), &ta, &tb, &u, &a);
        *all += 2e-9 * a;
        *useful += 2e-9 * u;
    }
    net_free(n);
    arena_free(arena);
    return err->kind == ERR_NONE;
}

static bool build(Err *err, Bench *b, const BenchSettings *s)
{
    BuildOptions o = {.compile = {.precision = s->precision, .tf32 = s->tf32, .threads = s->threads},
                      .device = s->device,
                      .rows = s->rows && s->rows < b->w->batch ? s->rows : b->w->batch};
    b->theta = build_params(err, write_forward, &b->spec, "theta.", 0);
    if (!b->theta)
        return false;
    if (b->w->train) {
        b->optim = optim_new(err, b->theta, &o.compile, o.device);
        b->program = b->optim ? masked_pretrain(err, &b->spec, &o, b->theta, b->optim) : NULL;
    } else {
        b->program = build_program(err, "forward", &o, write_forward, &b->spec);
        if (b->program)
            rows_bind_params(b->program, b->theta, "theta.", b->theta->value);
    }
    return b->program != NULL;
}

static void fill(Bench *b)
{
    size_t n = (size_t)b->w->batch, l = (size_t)b->w->length;
    b->x = mem_alloc_aligned(n * l * sizeof(int64_t), 64);
    b->a = mem_alloc_aligned(n * l * (size_t)(b->spec.letters + 1) * sizeof(float), 64);
    b->share = mem_alloc(n * sizeof(float));
    b->weight = mem_alloc(n * sizeof(float));
    b->counter = mem_alloc(3 * n * sizeof(uint32_t));
    for (size_t i = 0; i < n * l; i++)
        b->x[i] = (int64_t)(i * 2654435761u >> 7) % (b->w->train ? b->spec.letters : b->spec.letters + 1);
    for (size_t i = 0; i < n; i++) {
        double t = ((double)i + 0.5) / (double)n;
        b->share[i] = (float)masked_share(t);
        b->weight[i] = (float)(1 / (t * (double)(l * n)));
        b->counter[3 * i + 1] = (uint32_t)i;
    }
}

static bool once(Err *err, Bench *b)
{
    if (!b->w->train) {
        RowArg in = {"x", b->x, ROW_EACH}, out = {"logits", b->a, ROW_EACH};
        return rows_run(b->program, err, b->w->batch, &in, 1, &out, 1);
    }
    uint32_t key[2] = {0, 1};
    RowArg in[] = {{"x0", b->x, ROW_EACH}, {"share", b->share, ROW_EACH}, {"key", key, ROW_SHARED}, {"counter", b->counter, ROW_EACH}};
    RowArg out = {"loss", b->a, ROW_EACH};
    OptimSettings o = {.lr = 2e-4, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip = 1, .ema = 0.999};
    double norm;
    return learn_rows(b->program, err, b->w->batch, in, 4, b->weight, &out, 1) && optim_update(b->optim, err, b->theta, &o, &norm);
}

static bool measure(Err *err, Bench *b, const BenchSettings *s, BenchResult *r)
{
    double begin = now(), spent = 0;
    if (!once(err, b))
        return false;
    r->first_s = now() - begin;
    if (!once(err, b)) /* a second warm-up: caches and clock */
        return false;
    for (int i = 0; i < s->repeats || spent < s->min_seconds; i++) {
        double t = now();
        if (!once(err, b))
            return false;
        t = now() - t;
        spent += t;
        vec_push(r->second, t);
    }
    return true;
}

/* What the model of docs/cuda.md says of the same program: its micro-batches one after the other. */
static bool forecast(Err *err, Bench *b, const BenchSettings *s, BenchResult *r)
{
    BenchSettings on_paper = *s;
    ProgramForecast f;
    on_paper.device = s->paper;
    int64_t rows = s->rows && s->rows < b->w->batch ? s->rows : b->w->batch;
    rows_free(b->program);
    optim_free(b->optim);
    params_free(b->theta);
    b->program = NULL;
    b->optim = NULL;
    if (!build(err, b, &on_paper) || !program_forecast(b->program->program, &f, NULL))
        return false;
    r->forecast_s = f.seconds * (double)((b->w->batch + rows - 1) / rows);
    return true;
}

static void close(Bench *b)
{
    rows_free(b->program);
    optim_free(b->optim);
    params_free(b->theta);
    void *all[] = {b->x, b->a, b->share, b->weight, b->counter};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
    arena_free(b->arena);
}

bool bench_run(Err *err, const DavModel *dna_conv, const BenchWork *w, const BenchSettings *s, BenchResult *out)
{
    Bench b = {.w = w, .arena = arena_new()};
    *out = (BenchResult){0};
    double begin = now(), all, useful;
    bool ok = config_of(err, &b, dna_conv) && count_flops(err, &b, &all, &useful) && build(err, &b, s);
    out->compile_s = now() - begin;
    if (ok) {
        /* the backward pass has two products for each forward one, but none for the gradient of the input letters */
        double times = (double)w->batch * (w->train ? 3 : 1);
        out->gflop = all * times;
        out->useful_gflop = useful * times;
        ProgramStats st = program_stats(b.program->program);
        out->arena_bytes = st.arena_bytes + st.packed_bytes;
        out->kernels = st.unique_kernels;
        out->cached = st.cached_kernels;
        out->launches = st.launches;
        fill(&b);
        ok = measure(err, &b, s, out) && (!s->paper || forecast(err, &b, s, out));
    }
    close(&b);
    return ok;
}
