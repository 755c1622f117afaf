/* A whole trajectory as one program: nothing waits for the host between its steps.  One step more comes first, in which nothing is
 * filled: its children are the start, and what is known of the start from then on. */
#include "runtime/masked_graphs.h"
#include <stdio.h>

/* Operands of the loop: carried, scanned (a slice a step), the same for all steps; what it stacks. */
enum { X, LOGP, X0, R, CARRIED, SHARES = CARRIED, SCALE, GUIDE_SCALE, T_NOW, T_NEXT, TICK, KEY, CHOICE_KEY, COUNTER, OPERANDS };
enum { STATES = CARRIED, FILLS, LOGNORM, ESS, LP, LQ, RESULTS };

/* Of each row's children [B*M,L] or [B*M,L,V] the chosen one. */
static DavVal chosen(DavVal all, DavVal index, int64_t rows, int64_t children)
{
    int64_t l = dav_dim(all, 1);
    DavVal apart = dav_rank(all) == 2 ? dav_reshape(all, rows, children, l) : dav_reshape(all, rows, children, l, dav_dim(all, 2));
    return dav_gather(apart, index, 1);
}

static DavVal time_at(DavNet *n, const MaskedSpec *s, DavVal t)
{
    return s->time_input ? t : dav_const(n, DAV_F32, 0, 1);
}

/* log q of the letters.  A graph names each parameter once: the guide's are guide.theta and guide.phi, bound to the same arrays. */
static DavVal proposal(DavNet *n, const MaskedSpec *s, const DavVal *in)
{
    if (!s->gradient)
        return in[LOGP];
    dav_enter(n, "guide");
    DavVal g = masked_guide(n, s, in[X], time_at(n, s, in[T_NOW]));
    dav_leave(n);
    return dav_masked_guided(in[LOGP], g, in[GUIDE_SCALE]);
}

/* Without a search the one child goes on. */
static void write_step(DavNet *n, const void *context, const DavVal *in, DavVal *out)
{
    const MaskedSpec *s = context;
    int64_t rows = dav_dim(in[X], 0), m = s->children, l = s->length;
    DavVal counter = dav_add(in[COUNTER], dav_unsqueeze(in[TICK], 0));
    DavChildren c = dav_masked_children(in[X], in[LOGP], proposal(n, s, in), in[SHARES], in[KEY], counter, m);
    DavVal children = dav_reshape(c.x, rows * m, l), zero = dav_const(n, DAV_F32, 0, rows);
    Evaluation e = masked_evaluation(n, s, children, time_at(n, s, in[T_NEXT]));
    DavVal index = dav_const(n, DAV_I32, 0, rows);
    out[R] = out[LOGNORM] = out[ESS] = out[LP] = out[LQ] = zero;
    if (s->search) {
        DavVal r = dav_reshape(masked_reward(n, s, e.x0), rows, m);
        DavVal first = dav_squeeze(dav_slice(dav_reshape(counter, rows, m, 3), 1, 0, 1), 1);
        DavChoice choice = masked_choice(n, s, (DavStep){r, c.logp, c.logq, in[SCALE]}, in[CHOICE_KEY], first);
        index = choice.index;
        out[LOGNORM] = choice.lognorm;
        out[ESS] = choice.ess;
        out[R] = dav_gather(r, index, 1);
        out[LP] = dav_gather(c.logp, index, 1);
        out[LQ] = dav_gather(c.logq, index, 1);
    }
    out[X] = out[STATES] = chosen(children, index, rows, m);
    out[LOGP] = chosen(e.logp, index, rows, m);
    out[X0] = out[FILLS] = chosen(e.x0, index, rows, m);
}

static DavVal of_steps(DavNet *n, const char *name, int steps)
{
    return dav_input(n, name, DAV_F32, steps, 1);
}

/* A stack of all steps but the first, rows before steps. */
static DavVal by_row(DavVal stack)
{
    DavVal steps = dav_slice(stack, 0, 1, dav_dim(stack, 0));
    return dav_rank(steps) == 3 ? dav_transpose(steps, 1, 0, 2) : dav_transpose(steps, 1, 0);
}

void masked_whole_write(DavNet *n, const void *context, int64_t rows)
{
    const MaskedSpec *s = context;
    int64_t l = s->length, v = s->letters;
    int trip = s->steps + 1;
    DavVal start = dav_const(n, DAV_I64, (double)v, rows, l);
    DavVal in[OPERANDS] = {
        [X] = start,
        [LOGP] = dav_const(n, DAV_F32, 0, rows, l, v),
        [X0] = start,
        [R] = dav_const(n, DAV_F32, 0, rows),
        [SHARES] = dav_input(n, "shares", DAV_F32, trip, 2),
        [SCALE] = of_steps(n, "scale", trip),
        [GUIDE_SCALE] = of_steps(n, "guide_scale", trip),
        [T_NOW] = of_steps(n, "t", trip),
        [T_NEXT] = of_steps(n, "t_next", trip),
        [TICK] = dav_input(n, "tick", DAV_U32, trip, 3),
        [KEY] = dav_input(n, "key", DAV_U32, 2),
        [CHOICE_KEY] = dav_input(n, "choice_key", DAV_U32, 2),
        [COUNTER] = dav_input(n, "counter", DAV_U32, rows * s->children, 3),
    };
    DavVal out[RESULTS];
    dav_loop(n, "", write_step, s, in, OPERANDS, out, RESULTS, .trip = trip, .carry = CARRIED, .scan = KEY - SHARES);
    dav_output(n, "x", by_row(out[STATES]));
    dav_output(n, "x0", by_row(out[FILLS]));
    if (!s->search)
        return;
    dav_output(n, "lognorm", by_row(out[LOGNORM]));
    dav_output(n, "ess", by_row(out[ESS]));
    dav_output(n, "lp", by_row(out[LP]));
    dav_output(n, "lq", by_row(out[LQ]));
    dav_output(n, "r", out[R]);
}

RowProgram *masked_whole(Err *err, const MaskedSpec *s, const BuildOptions *o, int steps)
{
    BuildOptions mine = *o;
    mine.rows = o->rows / s->children > 0 ? o->rows / s->children : 1; /* o->rows states are evaluated side by side */
    MaskedSpec of_steps = *s;
    of_steps.steps = steps;
    return build_program(err, "whole", &mine, masked_whole_write, &of_steps);
}

void masked_whole_bind(RowProgram *p, const ParamSet *set, const char *prefix, float *flat)
{
    char guide[64];
    snprintf(guide, sizeof guide, "guide.%s", prefix);
    rows_bind_params(p, set, prefix, flat);
    rows_bind_params(p, set, guide, flat);
}
