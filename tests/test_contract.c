/* `dav run` as the outside world sees it: the program is started on the cases of tests/data/run (tests/reference/models.py made
 * them), and on inputs with one mistake each. */
#include "support/cuda.h"
#include "support/draw.h"
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DATA DAV_SOURCE_DIR "/tests/data/run"
#define WEIGHTS "diffusion_pytorch_model.safetensors"
static const double forward_tolerance = 1e-4, gradient_tolerance = 1e-3;
static char scratch[64];

/* Starts dav with its output in files of the scratch folder; the text of stderr is left in *said. */
static int dav(Buf *said, const char *arguments)
{
    Buf command = {0};
    buf_printf(&command, "'%s' %s >%s/stdout 2>%s/stderr", DAV_BINARY, arguments, scratch, scratch);
    int status = system(command.at);
    Err err = {0};
    char *text;
    size_t len;
    char path[100];
    snprintf(path, sizeof path, "%s/stderr", scratch);
    if (!file_read(&err, path, 1 << 20, &text, &len))
        fail_msg("%s", err.text);
    buf_add(said, text, len);
    mem_free(text);
    buf_free(&command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static SafeTensors *open_or_fail(const char *path)
{
    Err err = {0};
    SafeTensors *s = safetensors_open(&err, path);
    if (!s)
        fail_msg("%s", err.text);
    return s;
}

/* max|a-b| / (max|b| + 1e-6) over the whole tensor, or over its samples with the checksum beside them. */
static double disagreement(const SafeTensors *expected, const SafeTensor *e, const float *found, int64_t count)
{
    char other[300];
    snprintf(other, sizeof other, "at:%s", e->name);
    const SafeTensor *at = safetensors_find(expected, other);
    snprintf(other, sizeof other, "norm:%s", e->name);
    const SafeTensor *norm = safetensors_find(expected, other);
    assert_int_equal(safetensor_count(e), at ? safetensor_count(at) : count);

    const double *want = e->data;
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < safetensor_count(e); i++) {
        double got = found[at ? ((const int64_t *)at->data)[i] : i];
        worst = fmax(worst, isnan(got) ? INFINITY : fabs(got - want[i]));
        largest = fmax(largest, fabs(want[i]));
    }
    if (norm) {
        largest = ((const double *)norm->data)[0];
        double checksum = 0;
        for (int64_t i = 0; i < count; i++)
            checksum += draw_sign(e->name, i) * found[i];
        worst = fmax(worst, fabs(checksum - ((const double *)norm->data)[1]) / sqrt((double)count));
    }
    return worst / (largest + 1e-6);
}

static int compare(const char *out_path, const char *expected_path)
{
    SafeTensors *out = open_or_fail(out_path), *expected = open_or_fail(expected_path);
    int bad = 0;
    for (size_t i = 0; i < expected->n; i++) {
        const SafeTensor *e = &expected->tensor[i];
        if (strncmp(e->name, "at:", 3) == 0 || strncmp(e->name, "norm:", 5) == 0)
            continue;
        const SafeTensor *o = safetensors_find(out, e->name);
        double tolerance = strncmp(e->name, "grad.", 5) == 0 ? gradient_tolerance : forward_tolerance, off = INFINITY;
        if (o && o->dtype == DAV_F32)
            off = disagreement(expected, e, o->data, safetensor_count(o));
        if (!(off <= tolerance)) {
            print_error("%s: off by %.3g, allowed %.3g%s\n", e->name, off, tolerance, o ? "" : " (missing)");
            bad++;
        }
    }
    safetensors_close(out);
    safetensors_close(expected);
    return bad;
}

static bool has_cotangent(const char *path)
{
    SafeTensors *s = open_or_fail(path);
    bool has = false;
    for (size_t i = 0; i < s->n; i++)
        has |= strncmp(s->tensor[i].name, "grad.", 5) == 0;
    safetensors_close(s);
    return has;
}

static void agrees_on(const char *name, const char *device)
{
    char from[512], folder[512], path[3][600];
    snprintf(from, sizeof from, "%s/%s", DATA, name);
    snprintf(folder, sizeof folder, "%s", from);
    snprintf(path[0], sizeof path[0], "%s/recipe.txt", from);
    if (file_exists(path[0])) {
        snprintf(folder, sizeof folder, "%s/%s", scratch, name);
        assert_true(mkdir(folder, 0777) == 0 || errno == EEXIST); /* another device had the case before */
        if (!recipe_materialise(from, folder, getenv("DAV_TEST_DATA"))) {
            print_message("SKIPPED %s: its weights are third-party data, found by DAV_TEST_DATA\n", name);
            skip();
        }
    }
    snprintf(path[0], sizeof path[0], "%s/in.safetensors", folder);
    snprintf(path[1], sizeof path[1], "%s/%s.out", scratch, name);
    snprintf(path[2], sizeof path[2], "%s/expected.safetensors", from);
    Buf arguments = {0}, said = {0};
    buf_printf(&arguments, "run %s --in %s --out %s --device %s%s", folder, path[0], path[1], device,
               has_cotangent(path[0]) ? " --vjp" : "");
    if (dav(&said, arguments.at) != 0)
        fail_msg("dav %s\n%s", arguments.at, said.at);
    assert_int_equal(compare(path[1], path[2]), 0);
    buf_free(&arguments);
    buf_free(&said);
}

static void agrees_with_reference(void **state)
{
    agrees_on(*state, "cpu");
}

static void agrees_on_cuda(void **state)
{
    cuda_or_skip();
    agrees_on(*state, "cuda");
}

/* ---- one mistake each ---- */

typedef struct Case {
    SafeTensor in[8], weight[64];
    size_t nin, nweight;
    char config[1000];
    bool vjp;
} Case;

static SafeTensor *named(SafeTensor *t, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(t[i].name, name) == 0)
            return &t[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static size_t drop(SafeTensor *t, size_t n, const char *name)
{
    *named(t, n, name) = t[n - 1];
    return n - 1;
}

static int64_t zeros[4096], ids[48];

static void drop_t(Case *c) { c->nin = drop(c->in, c->nin, "t"); }
static void add_unknown(Case *c) { c->in[c->nin++] = (SafeTensor){.name = "timestep", .dtype = DAV_F32, .rank = 1, .dim = {2}, .data = zeros}; }
static void ids_i32(Case *c) { SafeTensor *t = named(c->in, c->nin, "seq"); t->dtype = DAV_I32, t->data = zeros; }
static void t_f64(Case *c) { SafeTensor *t = named(c->in, c->nin, "t"); t->dtype = DAV_F64, t->data = zeros; }
static void t_i64(Case *c) { SafeTensor *t = named(c->in, c->nin, "t"); t->dtype = DAV_I64, t->data = zeros; }
static void ids_too_large(Case *c) { ids[17] = 5, named(c->in, c->nin, "seq")->data = ids; }
static void ids_negative(Case *c) { ids[17] = -1, named(c->in, c->nin, "seq")->data = ids; }
static void ids_huge(Case *c) { ids[17] = INT64_MIN, named(c->in, c->nin, "seq")->data = ids; }
static void batch_zero(Case *c) { named(c->in, c->nin, "seq")->dim[0] = 0; }
static void batches_differ(Case *c) { named(c->in, c->nin, "t")->dim[0] = 1; }
static void wrong_rank(Case *c) { named(c->in, c->nin, "t")->rank = 2, named(c->in, c->nin, "t")->dim[1] = 1; }
static void no_vjp(Case *c) { c->vjp = false; }
static void no_cotangent(Case *c) { c->nin = drop(c->in, c->nin, "grad.logits"); }
static void unknown_cotangent(Case *c) { named(c->in, c->nin, "grad.logits")->name = "grad.logit"; }
static void cotangent_shape(Case *c) { named(c->in, c->nin, "grad.logits")->dim[2] = 4; }
static void weight_missing(Case *c) { c->nweight = drop(c->weight, c->nweight, "norms.3.bias"); }
static void weight_unknown(Case *c) { c->weight[c->nweight++] = (SafeTensor){.name = "norms.5.bias", .dtype = DAV_F32, .rank = 1, .dim = {8}, .data = zeros}; }
static void weight_misshapen(Case *c) { SafeTensor *t = named(c->weight, c->nweight, "linear.weight"); t->dim[1] = 9, t->dim[2] = 5; }
static void weight_integer(Case *c) { SafeTensor *t = named(c->weight, c->nweight, "linear.bias"); t->dtype = DAV_I32, t->data = zeros; }
static void config_class(Case *c) { strcpy(c->config, "{\"_class_name\": \"DNAConf\"}"); }
static void config_cut(Case *c) { c->config[40] = '\0'; }
static void config_type(Case *c) { strcpy(c->config, "{\"_class_name\": \"DNAConv\", \"hidden_dim\": \"wide\"}"); }
static void config_huge(Case *c) { strcpy(c->config, "{\"_class_name\": \"DNAConv\", \"hidden_dim\": 1000000000, \"length\": 1000000000}"); }
static void config_key(Case *c) { strcpy(c->config, "{\"_class_name\": \"DNAConv\", \"hiden_dim\": 8}"); }
static void config_empty(Case *c) { c->config[0] = '\0'; }

static const struct Mistake {
    const char *name;
    void (*make)(Case *);
    const char *file, *word; /* both must stand in the one line on stderr */
} mistakes[] = {
    {"missing input", drop_t, "in.safetensors", "t"},
    {"unknown input", add_unknown, "in.safetensors", "timestep"},
    {"ids in I32", ids_i32, "in.safetensors", "seq"},
    {"times in F64", t_f64, "in.safetensors", "F64"},
    {"times in I64", t_i64, "in.safetensors", "I64"},
    {"id too large", ids_too_large, "in.safetensors", "5"},
    {"id negative", ids_negative, "in.safetensors", "-1"},
    {"id huge", ids_huge, "in.safetensors", "seq"},
    {"batch of 0", batch_zero, "in.safetensors", "seq"},
    {"batches differ", batches_differ, "in.safetensors", "t"},
    {"wrong rank", wrong_rank, "in.safetensors", "t"},
    {"cotangent without --vjp", no_vjp, "in.safetensors", "grad.logits"},
    {"--vjp without cotangent", no_cotangent, "in.safetensors", "grad."},
    {"unknown cotangent", unknown_cotangent, "in.safetensors", "grad.logit"},
    {"misshapen cotangent", cotangent_shape, "in.safetensors", "grad.logits"},
    {"missing weight", weight_missing, WEIGHTS, "norms.3.bias"},
    {"unknown weight", weight_unknown, WEIGHTS, "norms.5.bias"},
    {"misshapen weight", weight_misshapen, WEIGHTS, "linear.weight"},
    {"integer weight", weight_integer, WEIGHTS, "linear.bias"},
    {"unknown class", config_class, "config.json", "DNAConv"},
    {"config cut off", config_cut, "config.json", ""},
    {"config value of the wrong type", config_type, "config.json", "hidden_dim"},
    {"config asks for a huge network", config_huge, "config.json", ""},
    {"misspelt config key", config_key, "config.json", "hidden_dim"},
    {"empty config", config_empty, "config.json", ""},
};

static void write_case(const Case *c, const char *folder)
{
    Err err = {0};
    char path[600];
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/%s", folder, WEIGHTS);
    bool ok = safetensors_write(&err, path, c->weight, c->nweight, NULL, 0);
    snprintf(path, sizeof path, "%s/in.safetensors", folder);
    ok = ok && safetensors_write(&err, path, c->in, c->nin, NULL, 0);
    snprintf(path, sizeof path, "%s/config.json", folder);
    if (!ok || !file_write(&err, path, c->config, strlen(c->config)))
        fail_msg("%s", err.text);
}

/* Processor time of the processes so far, and the most memory that one of them had. */
static double seconds_used(void)
{
    struct rusage u;
    getrusage(RUSAGE_CHILDREN, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int64_t most_bytes(void)
{
    struct rusage u;
    getrusage(RUSAGE_CHILDREN, &u);
    return (int64_t)u.ru_maxrss * 1024;
}

static void is_refused(void **state)
{
    const struct Mistake *m = *state;
    SafeTensors *in = open_or_fail(DATA "/dnaconv-tiny/in.safetensors");
    SafeTensors *weights = open_or_fail(DATA "/dnaconv-tiny/" WEIGHTS);
    Case c = {.nin = in->n, .nweight = weights->n, .vjp = true};
    memcpy(c.in, in->tensor, in->n * sizeof *c.in);
    memcpy(c.weight, weights->tensor, weights->n * sizeof *c.weight);
    memset(ids, 0, sizeof ids);
    Err err = {0};
    char *config, folder[100], out[120];
    size_t len;
    assert_true(file_read(&err, DATA "/dnaconv-tiny/config.json", sizeof c.config - 1, &config, &len));
    memcpy(c.config, config, len);
    m->make(&c);
    snprintf(folder, sizeof folder, "%s/mistake", scratch);
    snprintf(out, sizeof out, "%s/mistake.out", scratch);
    write_case(&c, folder);

    Buf arguments = {0}, said = {0};
    buf_printf(&arguments, "run %s --in %s/in.safetensors --out %s%s", folder, folder, out, c.vjp ? " --vjp" : "");
    double before = seconds_used();
    int status = dav(&said, arguments.at);
    print_message("# %s", said.at);
    assert_true(seconds_used() - before <= 2);
    assert_true(most_bytes() <= INT64_C(1) << 30);
    assert_int_equal(status, 2);
    assert_non_null(strstr(said.at, m->file));
    assert_non_null(strstr(said.at, m->word));
    assert_ptr_equal(strchr(said.at, '\n'), said.at + said.len - 1); /* one line */
    assert_false(file_exists(out));
    buf_free(&arguments);
    buf_free(&said);
    mem_free(config);
    safetensors_close(in);
    safetensors_close(weights);
}

static int make_scratch(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/dav-contract-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    return system(command);
}

int main(void)
{
    static const char *const cases[] = {
        "dnaconv-tiny",         "dnaconv-forward",   "dnaconv-relaxed",  "dnaconv-odd",         "dnaconv-mixed-dtypes",
        "dnaconv-true-size",    "mpra-random",       "mpra-real",        "aesthetic-random",    "aesthetic-real",
        "transformer-tiny",     "transformer-relaxed",
    };
    /* of every network those that the stand-in, which does a device's work on one thread, ends in seconds */
    static const char *const on_cuda[][2] = {
        {"cuda: dnaconv-tiny", "dnaconv-tiny"},     {"cuda: dnaconv-odd", "dnaconv-odd"}, {"cuda: dnaconv-relaxed", "dnaconv-relaxed"},
        {"cuda: mpra-random", "mpra-random"},       {"cuda: aesthetic-random", "aesthetic-random"},
        {"cuda: transformer-tiny", "transformer-tiny"}, {"cuda: transformer-relaxed", "transformer-relaxed"},
    };
    enum { CASES = sizeof cases / sizeof *cases, MISTAKES = sizeof mistakes / sizeof *mistakes, CUDA = sizeof on_cuda / sizeof *on_cuda };
    struct CMUnitTest tests[CASES + MISTAKES + CUDA] = {0};
    cuda_choose();
    for (int i = 0; i < CASES; i++)
        tests[i] = (struct CMUnitTest){cases[i], agrees_with_reference, NULL, NULL, (void *)(uintptr_t)cases[i]};
    for (int i = 0; i < MISTAKES; i++)
        tests[CASES + i] = (struct CMUnitTest){mistakes[i].name, is_refused, NULL, NULL, (void *)(uintptr_t)&mistakes[i]};
    for (int i = 0; i < CUDA; i++)
        tests[CASES + MISTAKES + i] = (struct CMUnitTest){on_cuda[i][0], agrees_on_cuda, NULL, NULL, (void *)(uintptr_t)on_cuda[i][1]};
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
