/* dav bench: timed works, as lines of JSON or a table. */
#include "cli/cli.h"
#include "codegen/cuda/cuda.h"
#include "runtime/benchmark.h"
#include "runtime/checkpoint.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/run.h"
#include "runtime/plugin.h"
#include "runtime/stats.h"
#include <inttypes.h>
#include <jansson.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

typedef struct BenchCommand {
    int argc;
    char **argv;
    Err *err;
    Registry *registry;
    bool json;
    char paper[64];
} BenchCommand;

static const char *dtype_name(const BenchSettings *s)
{
    return s->precision == DAV_BF16 ? "bf16" : s->tf32 ? "tf32" : "f32";
}

static void print_json(const BenchWork *w, const BenchSettings *s, const BenchResult *r, double median)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    json_t *times = json_array();
    for (size_t i = 0; i < vec_len(r->second); i++)
        json_array_append_new(times, json_real(r->second[i]));
    size_t n = vec_len(r->second);
    json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:i, s:f, s:f, s:f, s:i, s:f, s:f, s:f, s:f, s:f, s:i, s:i, s:f, s:f, s:s, s:o}",
                          "work", w->name, "peer", "dav", "dtype", dtype_name(s), "mode", s->device,
                          "threads", s->threads, "median_s", median, "min_s", r->second[0], "max_s", r->second[n - 1], "repeats",
                          (int)n, "gflop", r->gflop, "gflops", r->gflop / median, "useful_gflops", r->useful_gflop / median,
                          "compile_s", r->compile_s, "first_call_s", r->first_s, "kernels", r->kernels, "kernels_from_cache",
                          r->cached, "arena_mb", (double)r->arena_bytes / 1e6, "peak_rss_mb", (double)u.ru_maxrss / 1e3, "version",
                          dav_version(), "times", times);
    json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    json_decref(j);
    printf("\n");
    fflush(stdout);
}

static bool one_work(BenchCommand *b, const char *name, const BenchSettings *s)
{
    BenchWork w;
    BenchResult r = {0};
    const DavModel *m = registry_model(b->registry, b->err, "bench", "DNAConv");
    bool ok = m && bench_work_parse(b->err, name, &w) && bench_run(b->err, m, &w, s, &r);
    if (ok) {
        size_t n = vec_len(r.second);
        stats_sort(r.second, n);
        double median = stats_quantile(r.second, n, 0.5);
        if (b->json)
            print_json(&w, s, &r, median);
        else
            printf("%-22s %-4s median %.4f s (%.4f..%.4f, %zu)  %7.1f GFLOP/s, %7.1f useful  built in %.2f s, %d kernels (%d cached), "
                   "%.0f MB\n", w.name, dtype_name(s), median, r.second[0], r.second[n - 1], n,
                   r.gflop / median, r.useful_gflop / median, r.compile_s, r.kernels, r.cached, (double)r.arena_bytes / 1e6);
        if (!b->json && s->paper)
            printf("%-22s %-4s forecast %.6f s for %s, %" PRId64 " launches a micro-batch: measured %.2f times the forecast\n", "", "",
                   r.forecast_s, s->paper + strlen("paper:"), r.launches, median / r.forecast_s);
    }
    vec_free(r.second);
    return ok;
}

/* A CUDA device's works stand beside what is forecast for its kind; *there: it opens. */
static bool forecast_for(BenchCommand *b, BenchSettings *s, bool *there)
{
    Err err = {0};
    CudaDevice d = {0};
    CudaTarget t;
    int index = cuda_device_index(s->device);
    *there = index < 0 || cuda_device_open(&d, &err, index);
    if (err.kind == ERR_USER) /* a number that no device has */
        return *b->err = err, false;
    if (!*there)
        printf("SKIPPED: no CUDA device: %s\n", err.text);
    else if (index >= 0 && cuda_target_of_device(d.name, d.sm, &t))
        snprintf(b->paper, sizeof b->paper, "paper:%s", t.name);
    if (b->paper[0] && !b->json)
        printf("%s, sm_%d, beside forecasts for %s\n", d.name, d.sm, t.name);
    s->paper = b->paper[0] ? b->paper : NULL;
    cuda_device_close(&d);
    return true;
}

static bool bench_command(void *arg)
{
    BenchCommand *b = arg;
    static const char *const usual[] = {"dna-fwd-b64-L200", "dna-fwd-b64-L80", "dna-train-b64-L200", "dna-train-b64-L80"};
    const char *works[64], *dtype = NULL;
    int64_t threads = omp_get_max_threads(), rows = 0, repeats = 7;
    BenchSettings s = {.device = "cpu"};
    int n;
    const CliOption options[] = {
        {"dtype", CLI_TEXT, &dtype, "TYPE", "f32 (default), bf16, or tf32 (of CUDA devices); default on cuda: f32 and bf16"},
        {"threads", CLI_INT, &threads, "N", "default: all"},
        {"rows", CLI_INT, &rows, "N", "rows of a micro-batch; default: the batch"},
        {"repeats", CLI_INT, &repeats, "N", "timed runs, default 7"},
        {"min-s", CLI_FLOAT, &s.min_seconds, "S", "at least this many seconds of timed runs"},
        {"device", CLI_TEXT, &s.device, "DEVICE", "cpu (default), cuda, cuda:N or interp"},
        {"json", CLI_FLAG, &b->json, "", "one line of JSON a work"},
    };
    const CliUse use = {.synopsis = "bench [WORK ...] [--dtype f32|bf16|tf32] [--threads N] [--json]", .most = 64, CLI_OPTIONS(options),
                        .doc = "Times works such as dna-train-b64-L200 on random weights; without one, the four usual ones."};
    if (!cli_parse(b->err, &use, b->argc, b->argv, works, &n))
        return false;
    s.tf32 = dtype && strcmp(dtype, "tf32") == 0;
    if (dtype && !s.tf32 && strcmp(dtype, "f32") != 0 && strcmp(dtype, "bf16") != 0)
        return err_user(b->err, "--dtype: expected f32, bf16 or tf32, found '%.40s'", dtype);
    if (s.tf32 && cuda_device_index(s.device) < 0)
        return err_user(b->err, "--dtype tf32: expected a CUDA device (--device cuda), found %.40s", s.device);
    if (threads < 1 || threads > 1024 || repeats < 1 || repeats > 100000 || rows < 0 || rows > 65536)
        return err_user(b->err, "--threads, --repeats, --rows: out of range");
    s.threads = (int)threads;
    s.rows = rows;
    s.repeats = (int)repeats;
    omp_set_num_threads(s.threads);
    bool there;
    if (!forecast_for(b, &s, &there) || !there)
        return b->err->kind == ERR_NONE;
    bool both = !dtype && s.paper;
    for (int half = 0; half < 2; half++) {
        bool asked = both || half == (dtype && strcmp(dtype, "bf16") == 0);
        s.precision = half ? DAV_BF16 : DAV_F32;
        for (int i = 0; asked && i < (n ? n : 4); i++)
            if (!one_work(b, n ? works[i] : usual[i], &s))
                return false;
    }
    return true;
}

int cmd_bench(int argc, char **argv)
{
    Err err = {0};
    BenchCommand b = {.argc = argc, .argv = argv, .err = &err, .registry = registry_new()};
    mem_protect(&err, bench_command, &b);
    registry_free(b.registry);
    return cli_end(&err);
}
