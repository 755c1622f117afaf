/* The search where a trajectory is one program (runtime/masked_whole.c): the same trajectories as step by step. */
#include "runtime/estep_whole.h"
#include <math.h>
#include <string.h>

/* What the program is given and what it gives, for n trajectories. */
typedef struct Whole {
    float *shares, *scale, *guide_scale, *t, *t_next; /* by step of the program, which has one more before the first */
    uint32_t *tick, *counter;
    int64_t *x, *x0;                                  /* [n, T, L] */
    float *lognorm, *ess, *lp, *lq, *r;               /* [n, T]; r [n] */
} Whole;

static Whole whole_open(const Masked *k, const SearchSettings *s, int64_t first, int64_t n)
{
    size_t steps = (size_t)k->steps + 1, cells = mem_mul((size_t)n, (size_t)k->steps), letters = mem_mul(cells, (size_t)k->length);
    int64_t m = s->children;
    Whole w = {0};
    float **by_step[] = {&w.scale, &w.guide_scale, &w.t, &w.t_next}, **by_cell[] = {&w.lognorm, &w.ess, &w.lp, &w.lq};
    for (int i = 0; i < 4; i++) {
        *by_step[i] = mem_alloc(mem_mul(steps, sizeof(float)));
        *by_cell[i] = mem_alloc(mem_mul(cells, sizeof(float)));
    }
    w.shares = mem_alloc(mem_mul(steps, 2 * sizeof(float)));
    w.tick = mem_alloc(mem_mul(steps, 3 * sizeof(uint32_t)));
    w.counter = mem_alloc(mem_mul(mem_mul((size_t)n, (size_t)m), 3 * sizeof(uint32_t)));
    w.x = mem_alloc(mem_mul(letters, sizeof(int64_t)));
    w.x0 = mem_alloc(mem_mul(letters, sizeof(int64_t)));
    w.r = mem_alloc(mem_mul((size_t)n, sizeof(float)));
    for (int i = 0; i <= k->steps; i++) {
        int step = i > 0 ? i - 1 : 0;
        double now = masked_time(k, step), next = i > 0 ? masked_time(k, step + 1) : now;
        w.scale[i] = search_scale(k, s, step);
        w.guide_scale[i] = search_guide_scale(k, s, step);
        w.t[i] = (float)masked_sigma(now);
        w.t_next[i] = (float)masked_sigma(next);
        w.shares[2 * i] = (float)masked_share(now);
        w.shares[2 * i + 1] = (float)masked_share(next);
        w.tick[3 * i + 2] = (uint32_t)step << 16;
    }
    for (int64_t i = 0; i < n * m; i++) {
        w.counter[3 * i] = s->round;
        w.counter[3 * i + 1] = (uint32_t)(first + i / m);
        w.counter[3 * i + 2] = (uint32_t)(i % m);
    }
    return w;
}

static void whole_close(Whole *w)
{
    void *all[] = {w->shares, w->scale, w->guide_scale, w->t, w->t_next, w->tick, w->counter, w->x, w->x0, w->lognorm, w->ess,
                   w->lp,     w->lq,    w->r};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
}

static bool run(Masked *k, Err *err, const SearchSettings *s, Whole *w, int64_t n)
{
    uint32_t key[2], choice_key[2];
    search_keys(s, key, choice_key);
    RowArg in[] = {{"key", key, ROW_SHARED},        {"choice_key", choice_key, ROW_SHARED}, {"counter", w->counter, ROW_EACH},
                   {"tick", w->tick, ROW_SHARED},   {"shares", w->shares, ROW_SHARED},      {"scale", w->scale, ROW_SHARED},
                   {"guide_scale", w->guide_scale, ROW_SHARED}, {"t", w->t, ROW_SHARED},    {"t_next", w->t_next, ROW_SHARED}};
    RowArg out[] = {{"x", w->x, ROW_EACH},   {"x0", w->x0, ROW_EACH}, {"lognorm", w->lognorm, ROW_EACH}, {"ess", w->ess, ROW_EACH},
                    {"lp", w->lp, ROW_EACH}, {"lq", w->lq, ROW_EACH}, {"r", w->r, ROW_EACH}};
    if (!rows_run(k->whole, err, n, in, sizeof in / sizeof *in, out, k->weighs ? 7 : 2))
        return false;
    int64_t parents = n * (k->steps + 1), states = parents * s->children;
    parents = s->gradient ? parents : 0;
    k->count.forwards += states + parents;
    k->count.vjps += parents;
    k->count.reward_forwards += (k->weighs ? states : 0) + parents;
    k->count.reward_vjps += parents;
    return true;
}

static void keep(const Masked *k, const SearchSettings *s, const Whole *w, Trajectories *out, int64_t at, int64_t n)
{
    int64_t l = k->length, steps = k->steps;
    for (int64_t i = 0; i < n; i++)
        memset(out->state + (at + i) * (steps + 1) * l, (int)k->letters, (size_t)l);
    for (int64_t step = 0; step < steps; step++)
        for (int64_t i = 0; i < n; i++) {
            const int64_t c = i * steps + step;
            search_put_letters(out->state + ((at + i) * (steps + 1) + step + 1) * l, w->x + c * l, l);
            search_put_letters(out->x0 + ((at + i) * steps + step) * l, w->x0 + c * l, l);
            if (s->weigh)
                search_add_step(out, s, at + i, (int)step, w->lognorm[c], w->lq[c], w->lp[c], w->ess[c]);
        }
    for (int64_t i = 0; i < n; i++)
        memcpy(out->final + (at + i) * l, w->x0 + (i * steps + steps - 1) * l, (size_t)l * sizeof(int64_t));
}

bool search_whole(Masked *k, Err *err, const SearchSettings *s, Trajectories *out, int64_t first, int64_t at, int64_t n, bool with_reward)
{
    Whole w = whole_open(k, s, first, n);
    bool ok = run(k, err, s, &w, n);
    if (ok) {
        keep(k, s, &w, out, at, n);
        ok = !with_reward || s->weigh || masked_score(k, err, n, out->final + at * k->length, w.r);
    }
    for (int64_t i = 0; ok && i < n; i++)
        search_add_end(out, s, at + i, with_reward || s->weigh ? w.r[i] : NAN);
    whole_close(&w);
    return ok;
}
