#include "support/gradcheck.h"
#include "ir/interp.h"
#include "passes/pass.h"
#include "runtime/program.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t draw_state;

static double draw(double lo, double hi)
{
    draw_state = draw_state * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (double)(draw_state >> 11) * 0x1p-53;
}

/* sum of w * x with fixed weights w in [0.5, 1.5] */
static Val weighted_sum(Graph *g, Val x)
{
    Type t = type_of(g, x);
    int64_t n = type_count(&t);
    double *w = arena_array(g->arena, double, n + 1);
    for (int64_t i = 0; i < n; i++)
        w[i] = draw(0.5, 1.5);
    Attr data = {.name = A_DATA, .n = (int)n, .floats = w};
    Val sum = g_bin(g, OP_MUL, x, graph_node(g, OP_LITERAL, NULL, 0, &data, 1, &t));
    return g_reshape(g, g_reduce_mask(g, OP_SUM, sum, (1u << t.rank) - 1), 0, NULL);
}

/* The scalar of the given order; with `gradients` also its gradients as outputs g0, g1, ... */
static Graph *write(Arena *arena, Err *err, const GradCase *c, int order, bool gradients)
{
    Graph *g = graph_new(arena, err, c->name);
    Val arg[GRAD_MAX_INPUTS + 1];
    for (int i = 0; i < c->nin; i++)
        arg[i + 1] =
            g_input(g, arena_printf(arena, "x%d", i), ROLE_PARAM, type_make(DAV_F64, c->in[i].rank, c->in[i].dim));
    draw_state = 12345;
    arg[0] = weighted_sum(g, c->build(g, arg + 1, c->with));
    for (int k = 1; k < order; k++) {
        Val tuple = graph_node(g, OP_GRAD, arg, c->nin + 1, NULL, 0, NULL), sum = 0;
        for (int i = 0; i < c->nin; i++) {
            Val part = weighted_sum(g, g_pick(g, tuple, i));
            sum = sum ? g_bin(g, OP_ADD, sum, part) : part;
        }
        arg[0] = sum;
    }
    graph_output(g, "y", arg[0]);
    Val tuple = gradients ? graph_node(g, OP_GRAD, arg, c->nin + 1, NULL, 0, NULL) : 0;
    for (int i = 0; gradients && i < c->nin; i++)
        graph_output(g, arena_printf(arena, "g%d", i), g_pick(g, tuple, i));
    return g;
}

static const Graph *build(Arena *arena, Err *err, const GradCase *c, int order, bool gradients)
{
    const Graph *g = write(arena, err, c, order, gradients);
    PassCx cx = {.arena = arena, .err = err};
    const Graph *done = err->kind == ERR_NONE ? passes_run(&cx, g, "simplify") : NULL;
    vec_free(cx.notes);
    vec_free(cx.times);
    if (!done)
        fail_msg("%s, order %d: %s", c->name, order, err->text);
    return done;
}

static void run(Err *err, const Graph *g, const InterpHost *host, double *const *in, double *const *out)
{
    if (!graph_interpret(err, g, true, (const void *const *)in, (void *const *)out, host))
        fail_msg("%s: %s", g->name, err->text);
}

/* Value and gradients as a program of the device gives them, every value in its own dtype. */
static void run_on(Arena *arena, const GradCase *c, const char *device, const int64_t *count, double *const *in, double **out)
{
    Err err = {0};
    Program *p = program_compile(&err, write(arena, &err, c, 1, true), &(ProgramOptions){.device = device});
    void *from[GRAD_MAX_INPUTS], *to[GRAD_MAX_INPUTS + 1];
    for (int i = 0; p && i <= c->nin; i++) {
        out[i] = arena_array(arena, double, (i ? count[i - 1] : 1) + 1);
        to[program_output(p, i ? arena_printf(arena, "g%d", i - 1) : "y")] = out[i];
        if (i < c->nin)
            from[program_input(p, arena_printf(arena, "x%d", i))] = in[i];
    }
    if (!p || !program_run(p, &err, from, to, 1, 1))
        fail_msg("%s on %s: %s", c->name, device, err.text);
    program_free(p);
}

static void check_device(Arena *arena, const GradCase *c, const int64_t *count, double *const *in)
{
    double *want[GRAD_MAX_INPUTS + 1], *have[GRAD_MAX_INPUTS + 1];
    run_on(arena, c, "interp", count, in, want);
    run_on(arena, c, c->device, count, in, have);
    for (int i = 0; i <= c->nin; i++)
        for (int64_t e = 0; e < (i ? count[i - 1] : 1); e++)
            if (!(fabs(want[i][e] - have[i][e]) <= 1e-10 * (1 + fabs(want[i][e]))))
                fail_msg("%s on %s: output %d[%lld] is %.15g, the interpreter's %.15g", c->name, c->device, i, (long long)e, have[i][e],
                         want[i][e]);
}

static void check_order(Arena *arena, const GradCase *c, int order)
{
    Err err = {0};
    const Graph *value = build(arena, &err, c, order, false), *both = build(arena, &err, c, order, true);
    double *in[GRAD_MAX_INPUTS], y, *out[GRAD_MAX_INPUTS + 1] = {&y};
    draw_state = 99;
    int64_t count[GRAD_MAX_INPUTS];
    for (int i = 0; i < c->nin; i++) {
        Type t = type_make(DAV_F64, c->in[i].rank, c->in[i].dim);
        count[i] = type_count(&t);
        in[i] = arena_array(arena, double, count[i] + 1);
        out[i + 1] = arena_array(arena, double, count[i] + 1);
        for (int64_t e = 0; e < count[i]; e++)
            in[i][e] = c->lo == 0 && c->hi == 0 ? draw(-1, 1) : draw(c->lo, c->hi);
    }
    run(&err, both, c->host, in, out);
    if (c->device && order == 1)
        check_device(arena, c, count, in);
    const double step = 1e-5;
    for (int i = 0; i < c->nin; i++)
        for (int64_t e = 0; e < count[i]; e++) {
            double at = in[i][e], up, down;
            in[i][e] = at + step;
            run(&err, value, c->host, in, (double *[]){&up});
            in[i][e] = at - step;
            run(&err, value, c->host, in, (double *[]){&down});
            in[i][e] = at;
            double want = (up - down) / (2 * step), have = out[i + 1][e];
            if (!(fabs(want - have) <= 2e-6 * (1 + fabs(want))))
                fail_msg("%s, order %d: d/dx%d[%lld] is %.9g, differences give %.9g", c->name, order, i, (long long)e,
                         have, want);
        }
}

void grad_check(const GradCase *c)
{
    for (int order = 1; order <= (c->order ? c->order : 2); order++) {
        Arena *arena = arena_new();
        check_order(arena, c, order);
        arena_free(arena);
    }
}
