/* The models of this program that have no outside reference against PyTorch (tests/reference/small_models.py); all
 * models: what their tables say, configurations at their limits, memory that runs out while they are built. */
#include "frontend/net.h"
#include "runtime/modelrun.h"
#include "support/compare.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void agree(const char *name, const char *device, DavDtype dtype, double tolerance)
{
    Arena *arena = arena_new();
    Registry *r = registry_new();
    Err err = {0};
    ModelDir dir;
    char out[] = "/tmp/dav-models-XXXXXX";
    int fd = mkstemp(out);
    assert_true(fd >= 0);
    close(fd);
    const char *folder = arena_printf(arena, "%s/tests/data/models/%s", DAV_SOURCE_DIR, name);
    ModelRun run = {.dir = &dir,
                    .in = arena_printf(arena, "%s/in.safetensors", folder),
                    .out = out,
                    .vjp = true,
                    .dtype = dtype,
                    .device = device};
    if (!modeldir_open(arena, &err, r, folder, &dir) || !model_run(&err, &run))
        fail_msg("%s on %s: %s", name, device, err.text);
    SafeTensors *have = safetensors_open(&err, out);
    SafeTensors *want = safetensors_open(&err, arena_printf(arena, "%s/expected.safetensors", folder));
    assert_non_null(have);
    assert_non_null(want);
    const char *where;
    double worst = compare_files(have, want, NULL, &where);
    if (!(worst <= tolerance))
        fail_msg("%s on %s: %s is off by %g", name, device, where, worst);
    safetensors_close(have);
    safetensors_close(want);
    unlink(out);
    registry_free(r);
    arena_free(arena);
}

static void small_models_agree_with_pytorch(void **state)
{
    static const char *const names[] = {"seqcnn", "seqcnn-silu", "tiny"};
    (void)state;
    for (int i = 0; i < 3; i++) {
        agree(names[i], "interp", DAV_F32, 1e-5);
        agree(names[i], "interp", DAV_F64, 1e-12);
        agree(names[i], "cpu", DAV_F32, 1e-5);
    }
}

/* ---- every model ---- */
typedef struct Building {
    const DavModel *model;
    const DavConfig *config;
    Arena *arena;
    Err *err;
    DavNet *net;
    int64_t batch, length;
} Building;

/* Sizes of the first alternative of a port; letters: B is the batch, others the length. */
static DavVal port_input(Building *b, const DavPort *port)
{
    char dtype[8];
    int64_t dim[DAV_MAX_RANK];
    int rank = 0;
    const char *p = strchr(port->types, '[');
    snprintf(dtype, sizeof dtype, "%.*s", (int)(p - port->types), port->types);
    for (p++; *p != ']'; p += *p == ',') {
        size_t n = strcspn(p, ",]");
        const char *word = arena_strn(b->arena, p, n);
        int64_t v;
        dim[rank++] = text_to_i64(word, &v) ? v
                      : n == 1              ? (*word == 'B' ? b->batch : b->length)
                                            : dav_config_int(b->config, word);
        p += n;
    }
    DavDtype t = DAV_F32;
    assert_true(dav_dtype_from_name(dtype, &t));
    return dav_input_(DAV_HERE, b->net, port->name, t, rank, dim);
}

static bool build(void *arg)
{
    Building *b = arg;
    DavVal in[DAV_MAX_PORTS] = {{0}}, out[DAV_MAX_PORTS] = {{0}};
    b->net = net_new(b->arena, b->err, "model");
    for (int i = 0; i < DAV_MAX_PORTS && b->model->input[i].name; i++)
        in[i] = port_input(b, &b->model->input[i]);
    b->model->forward(b->net, b->config, in, out);
    for (int i = 0; i < DAV_MAX_PORTS && b->model->output[i].name; i++)
        dav_output(b->net, b->model->output[i].name, out[i]);
    return b->err->kind == ERR_NONE;
}

static DavConfig *config_of(Arena *arena, Err *err, const DavModel *m, const char *assignments)
{
    DavConfig *c = config_new(arena);
    config_add_table(c, "", m->keys, m->n_keys);
    if (!config_read_json(c, err, "test", assignments, strlen(assignments)) || !config_finish(c, err, "test"))
        return NULL;
    return c;
}

/* The parameters of a model with these settings; -1: a mistake, in err. */
static int64_t parameters(const char *name, const char *settings, Err *err)
{
    Arena *arena = arena_new();
    Registry *r = registry_new();
    const DavModel *m = registry_model(r, err, "test", name);
    Building b = {.model = m,
                  .config = m ? config_of(arena, err, m, settings) : NULL,
                  .arena = arena,
                  .err = err,
                  .batch = 2,
                  .length = 33};
    int64_t n = -1;
    if (b.config && mem_protect(err, build, &b)) {
        n = 0;
        for (int i = 0; i < net_param_count(b.net); i++)
            n += node_count(b.net->g, net_param(b.net, i)->val);
    }
    net_free(b.net);
    registry_free(r);
    arena_free(arena);
    return n;
}

static void sizes_are_as_published(void **state)
{
    (void)state;
    Err err = {0};
    int64_t h = 128, layers = 20, layer = h * h * 9 + h + h * h + h + 2 * h;
    assert_int_equal(parameters("DNAConv", "{}", &err),
                     h * 5 * 9 + h + h / 2 + h * h + h + layers * layer + h * h + h + 5 * h + 5);
    int64_t oracle = parameters("SeqCNN", "{}", &err);
    assert_in_range(oracle, 94000, 238000);
    assert_int_equal(parameters("MPRADragoNN", "{}", &err),
                     5 * 4 * 120 + 2 * 5 * 120 * 120 + 3 * 5 * 120 + 15960 * 12 + 12);
    assert_int_equal(parameters("AestheticMLP", "{}", &err),
                     768 * 1024 + 1024 + 1024 * 128 + 128 + 128 * 64 + 64 + 64 * 16 + 16 + 17);
    assert_int_equal(err.kind, ERR_NONE);
}

static void settings_at_their_limits_build_or_say_why(void **state)
{
    static const struct {
        const char *model, *settings, *words;
    } cases[] = {
        {"DNAConv",
         "{\"alphabet_size\": 2, \"hidden_dim\": 2, \"num_cnn_stacks\": 1, \"kernel_size\": 1, \"dilations\": [4096]}",
         NULL},
        {"DNAConv", "{\"alphabet_size\": 64, \"hidden_dim\": 4096, \"kernel_size\": 129, \"dilations\": [4096, 1]}",
         NULL},
        {"DNAConv", "{\"dilations\": []}", NULL},
        {"DNAConv", "{\"hidden_dim\": 7}", "hidden_dim is 7, expected an even number (nearest: 8)"},
        {"DNAConv", "{\"kernel_size\": 4}", "kernel_size is 4, expected an odd number (nearest: 5)"},
        {"DNAConv", "{\"num_cnn_stacks\": 64, \"dilations\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}",
         "at most 1024 layers"},
        {"DNAConv", "{\"clean_data\": true}", "only as false"},
        {"DNAConv", "{\"hidden_dim\": 4097}", "expected an integer from 2 to 4096"},
        {"SeqCNN", "{\"channels\": [8], \"kernels\": [3, 3], \"pool\": [1]}", "one of each for each block"},
        {"SeqCNN", "{\"channels\": [], \"kernels\": [], \"pool\": []}", "one of each for each block"},
        {"SeqCNN", "{\"length\": 4, \"pool\": [64, 1, 1]}", "does not fit axis"},
        {"SeqCNN", "{\"activation\": \"rleu\"}", "relu"},
        {"SeqTransformer", "{\"width\": 18, \"heads\": 4}", "nearest above: 24"},
        {"TinyDenoiser", "{\"alphabet_size\": 64, \"length\": 64, \"hidden_dim\": 1024}", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Err err = {0};
        int64_t n = parameters(cases[i].model, cases[i].settings, &err);
        bool as_expected = cases[i].words ? n < 0 && err.kind == ERR_USER && strstr(err.text, cases[i].words) : n > 0;
        if (!as_expected)
            fail_msg("%s %s: %lld parameters, %s", cases[i].model, cases[i].settings, (long long)n, err.text);
    }
}

static void memory_may_run_out_at_any_point(void **state)
{
    static const char *const names[] = {"DNAConv", "SeqCNN", "TinyDenoiser", "MPRADragoNN", "AestheticMLP", "SeqTransformer"};
    (void)state;
    for (int m = 0; m < 5; m++) {
        Registry *r = registry_new();
        Err none = {0};
        const DavModel *model = registry_model(r, &none, "test", names[m]);
        bool finished = false;
        for (int64_t n = 1; !finished; n++) {
            Arena *arena = arena_new();
            Err err = {0};
            Building b = {.model = model,
                          .config = config_of(arena, &err, model, "{}"),
                          .arena = arena,
                          .err = &err,
                          .batch = 2,
                          .length = 40};
            mem_fail_at(n);
            finished = mem_protect(&err, build, &b);
            mem_fail_at(0);
            if (!finished)
                assert_int_equal(err.kind, ERR_ENV);
            net_free(b.net);
            arena_free(arena);
        }
        registry_free(r);
    }
}

static void names_have_a_nearest(void **state)
{
    (void)state;
    Registry *r = registry_new();
    Err err = {0};
    assert_null(registry_model(r, &err, "config.json", "DNAconv"));
    assert_string_equal(err.text, "config.json: no model is named 'DNAconv', did you mean 'DNAConv'?");
    err_clear(&err);
    assert_null(registry_loss(r, &err, "train.loss", "dva"));
    assert_non_null(strstr(err.text, "'dav'"));
    registry_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_models_agree_with_pytorch),
        cmocka_unit_test(sizes_are_as_published),
        cmocka_unit_test(settings_at_their_limits_build_or_say_why),
        cmocka_unit_test(memory_may_run_out_at_any_point),
        cmocka_unit_test(names_have_a_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
