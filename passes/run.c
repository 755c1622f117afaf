/* The pass runner: order, timing, verification, dumps. */
#include "ir/print.h"
#include "ir/verify.h"
#include "passes/pass.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PASS(name, ...) bool pass_##name(PassCx *cx, const Graph *in, Graph *out);
#include "passes/passes.def"
#undef PASS

const PassInfo pass_info[] = {
#define PASS(name, needs, gives, doc) {#name, pass_##name, needs, gives, doc},
#include "passes/passes.def"
#undef PASS
};
const int pass_count = sizeof pass_info / sizeof *pass_info;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

typedef struct DumpJob {
    const Graph *graph;
    const char *path;
    Err *err;
    Buf text;
} DumpJob;

static bool write_graph(void *arg)
{
    DumpJob *j = arg;
    graph_print(&j->text, j->graph);
    return file_write(j->err, j->path, j->text.at ? j->text.at : "", j->text.len);
}

static bool dump_graph(PassCx *cx, int number, const char *pass, const Graph *g)
{
    if (!cx->options || !cx->options->dump)
        return true;
    DumpJob job = {.graph = g, .path = arena_printf(cx->arena, "%s/%02d-%s.ir", cx->options->dump, number, pass), .err = cx->err};
    bool ok = mem_protect(cx->err, write_graph, &job);
    buf_free(&job.text);
    return ok;
}

typedef struct InFlight {
    const char *pass;
    const Graph *in, *out;
} InFlight;

/* For die: which pass broke, and on what. */
static void print_in_flight(void *arg)
{
    const InFlight *f = arg;
    Buf text = {0};
    graph_print(&text, f->in);
    fprintf(stderr, "in pass %s, reading:\n%s", f->pass, text.at ? text.at : "");
    buf_free(&text);
}

static bool verify_after(PassCx *cx, const Graph *g)
{
    bool refused[OP_COUNT] = {
        [OP_GRAD] = (cx->state & HAS_NO_GRAD) != 0,
        [OP_CALL] = (cx->state & HAS_NO_CALL) != 0,
    };
    return graph_verify(cx->err, g, refused);
}

const Graph *pass_run(PassCx *cx, const PassInfo *p, int number, const Graph *in)
{
    if ((p->needs & cx->state) != p->needs)
        die("pass %s stands too early: it needs %#x, reached is %#x", p->name, p->needs, cx->state);
    Graph *out = graph_new(cx->arena, cx->err, in->name);
    InFlight flight = {p->name, in, out};
    die_set_hook(print_in_flight, &flight);
    int errors = cx->err->count;
    double start = now_ms();
    bool ok = p->run(cx, in, out) && cx->err->count == errors;
    double ms = now_ms() - start;
    die_set_hook(NULL, NULL);
    if (!ok)
        return NULL;
    cx->state |= p->gives;
    PassTime row = {p->name, ms, in->n - 1, out->n - 1, graph_hash(in) != graph_hash(out)};
    vec_push(cx->times, row);
    if (!dump_graph(cx, number, p->name, out))
        return NULL;
    if (!verify_after(cx, out)) {
        err_prefix(cx->err, "after pass %s", p->name);
        return NULL;
    }
    return out;
}

static int last_pass(const char *name)
{
    for (int i = 0; i < pass_count; i++)
        if (name && strcmp(pass_info[i].name, name) == 0)
            return i;
    if (name)
        die("there is no pass '%s'", name);
    return pass_count - 1;
}

const Graph *passes_run(PassCx *cx, const Graph *g, const char *last)
{
    int end = last_pass(last);
    if (cx->err->kind != ERR_NONE || !dump_graph(cx, 0, "input", g) || !verify_after(cx, g))
        return NULL;
    for (int i = 0; i <= end && g; i++)
        g = pass_run(cx, &pass_info[i], i + 1, g);
    return g;
}
