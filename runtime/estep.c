#include "runtime/estep_whole.h"
#include <math.h>
#include <string.h>

/* Trajectories that go through the steps side by side: bounds the memory of their children's evaluations. */
enum { SIDE_BY_SIDE = 256 };

typedef struct Search {
    Masked *k;
    const SearchSettings *s;
    Trajectories *out;
    int64_t first, n;    /* global number of row 0 of this group; rows */
    int64_t at;          /* of row 0 in out */
    States parent, next; /* [n] */
    States fresh;        /* room for [n * M] states that must be evaluated */
    int64_t *slot;       /* [slots] hash table of states: 0 empty, else as `source`, shifted by one */
    size_t slots;
    int64_t *child;      /* [n, M, L] */
    int64_t *source;     /* [n, M] where a child's evaluation is: < 0: parent ~v, else fresh v */
    float *r, *lp, *lq;  /* [n, M] */
    float *guide;        /* [n, L, V] */
    float *fresh_guide;  /* [n, L, V] of the states in fresh */
    uint32_t *counter;   /* [n, M, 3] */
    int32_t *choice;     /* [n] */
    float *lognorm, *ess; /* [n] */
    uint32_t draw_key[2], choice_key[2];
} Search;

float search_scale(const Masked *k, const SearchSettings *s, int step)
{
    return (float)(pow(s->gamma, k->steps - step - 1 + s->gamma_offset) / s->alpha);
}

float search_guide_scale(const Masked *k, const SearchSettings *s, int step)
{
    float scale = search_scale(k, s, step);
    return s->guide_divisor > 0 ? (float)(scale / s->guide_divisor) : scale;
}

void search_keys(const SearchSettings *s, uint32_t draw[2], uint32_t choice[2])
{
    draw[0] = choice[0] = s->seed;
    draw[1] = hash_name32(s->stream);
    choice[1] = draw[1] ^ hash_name32("choice");
}

void search_add_step(Trajectories *t, const SearchSettings *s, int64_t i, int step, float lognorm, float lq, float lp, float ess)
{
    double term = (double)lognorm + (double)lq - (double)lp;
    t->elbo[i] -= pow(s->gamma, step) * term;
    t->elbo_undiscounted[i] -= term;
    t->ess += ess;
}

void search_add_end(Trajectories *t, const SearchSettings *s, int64_t i, float reward)
{
    double scaled = (double)reward / s->alpha;
    t->reward[i] = reward;
    t->elbo[i] += pow(s->gamma, t->steps - 1) * scaled;
    t->elbo_undiscounted[i] += scaled;
}

static size_t cells(const Search *w, int64_t per_row)
{
    return mem_mul((size_t)w->n, (size_t)per_row);
}

static void search_open(Search *w)
{
    int64_t m = w->s->children, l = w->k->length;
    search_keys(w->s, w->draw_key, w->choice_key);
    w->parent = states_new(w->k, w->n);
    w->next = states_new(w->k, w->n);
    w->fresh = states_new(w->k, w->n * m);
    w->child = mem_alloc(mem_mul(cells(w, m * l), sizeof(int64_t)));
    w->source = mem_alloc(mem_mul(cells(w, m), sizeof(int64_t)));
    w->r = mem_alloc(mem_mul(cells(w, m), sizeof(float)));
    w->lp = mem_alloc(mem_mul(cells(w, m), sizeof(float)));
    w->lq = mem_alloc(mem_mul(cells(w, m), sizeof(float)));
    w->guide = w->s->gradient ? mem_alloc(mem_mul(cells(w, l * w->k->letters), sizeof(float))) : NULL;
    w->fresh_guide = w->s->gradient ? mem_alloc(mem_mul(cells(w, l * w->k->letters), sizeof(float))) : NULL;
    for (w->slots = 16; w->slots < 2 * cells(w, m + 1);)
        w->slots *= 2;
    w->slot = mem_alloc(mem_mul(w->slots, sizeof *w->slot));
    w->counter = mem_alloc(mem_mul(cells(w, 3 * m), sizeof(uint32_t)));
    w->choice = mem_alloc(mem_mul(cells(w, 1), sizeof(int32_t)));
    w->lognorm = mem_alloc(mem_mul(cells(w, 1), sizeof(float)));
    w->ess = mem_alloc(mem_mul(cells(w, 1), sizeof(float)));
}

static void search_close(Search *w)
{
    states_free(&w->parent);
    states_free(&w->next);
    states_free(&w->fresh);
    void *all[] = {w->child, w->source, w->r,      w->lp,      w->lq,  w->guide, w->fresh_guide,
                   w->slot,  w->counter, w->choice, w->lognorm, w->ess};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
}

/* ---- equal states are evaluated once ---- */
static const int64_t *letters_of(const Search *w, int64_t source)
{
    return source < 0 ? w->parent.x + ~source * w->k->length : w->fresh.x + source * w->k->length;
}

/* The slot of an equal state, or the empty one where it would go. */
static int64_t *slot_of(const Search *w, const int64_t *x)
{
    size_t bytes = (size_t)w->k->length * sizeof *x, i = (size_t)hash_bytes(x, bytes, 0) & (w->slots - 1);
    while (w->slot[i] != 0) {
        int64_t v = w->slot[i] > 0 ? w->slot[i] - 1 : w->slot[i];
        if (memcmp(letters_of(w, v), x, bytes) == 0)
            break;
        i = (i + 1) & (w->slots - 1);
    }
    return &w->slot[i];
}

/* Names for every row of x the evaluation it shares, and puts the new states into fresh (fresh.n counts them).  Without time
 * input a state that has not changed keeps its parent's evaluation. */
static void share_evaluations(Search *w, const int64_t *x, int64_t rows, bool parents_count)
{
    int64_t l = w->k->length;
    memset(w->slot, 0, w->slots * sizeof *w->slot);
    for (int64_t i = 0; parents_count && i < w->n; i++) {
        int64_t *slot = slot_of(w, w->parent.x + i * l);
        if (*slot == 0)
            *slot = ~i;
    }
    w->fresh.n = 0;
    for (int64_t i = 0; i < rows; i++) {
        int64_t *slot = slot_of(w, x + i * l);
        if (*slot == 0) {
            memcpy(w->fresh.x + w->fresh.n * l, x + i * l, (size_t)l * sizeof *x);
            *slot = ++w->fresh.n;
        }
        w->source[i] = *slot > 0 ? *slot - 1 : *slot;
    }
}

static bool evaluate_fresh(Search *w, Err *err, double t, bool with_reward)
{
    return (with_reward ? states_evaluate : states_denoise)(w->k, err, &w->fresh, t);
}

/* ---- the start: every position masked ---- */
static void copy_evaluation(const Search *w, States *to, int64_t row, const States *from, int64_t source)
{
    int64_t l = w->k->length, lv = l * w->k->letters;
    memmove(to->logp + row * lv, from->logp + source * lv, (size_t)lv * sizeof(float));
    memmove(to->x0 + row * l, from->x0 + source * l, (size_t)l * sizeof(int64_t));
    to->r[row] = from->r[source];
}

static bool start(Search *w, Err *err)
{
    int64_t l = w->k->length;
    w->fresh.n = 1;
    for (int64_t j = 0; j < l; j++)
        w->fresh.x[j] = w->k->letters;
    /* A child that is still all masked shares this evaluation, its value included. */
    if (!evaluate_fresh(w, err, 1, w->s->weigh && !w->k->time_input))
        return false;
    for (int64_t i = 0; i < w->n; i++) {
        memcpy(w->parent.x + i * l, w->fresh.x, (size_t)l * sizeof(int64_t));
        copy_evaluation(w, &w->parent, i, &w->fresh, 0);
    }
    return true;
}

/* ---- one reverse step ---- */
static void set_counters(Search *w, int step)
{
    for (int64_t i = 0; i < w->n; i++)
        for (int64_t m = 0; m < w->s->children; m++) {
            uint32_t *c = w->counter + 3 * (i * w->s->children + m);
            c[0] = w->s->round;
            c[1] = (uint32_t)(w->first + i);
            c[2] = (uint32_t)step << 16 | (uint32_t)m;
        }
}

/* The reward's gradient at the parents, once for equal ones; the denoiser runs again, its activations were not kept. */
static bool guide_parents(Search *w, Err *err, int step)
{
    Masked *k = w->k;
    int64_t cell = k->length * k->letters;
    float sigma = (float)(k->time_input ? masked_sigma(masked_time(k, step)) : 0);
    share_evaluations(w, w->parent.x, w->n, false);
    int64_t n = w->fresh.n;
    RowArg in[] = {{"x", w->fresh.x, ROW_EACH}, {"t", &sigma, ROW_SHARED}}, out[] = {{"g", w->fresh_guide, ROW_EACH}};
    if (!rows_run(k->guide, err, n, in, k->time_input ? 2 : 1, out, 1))
        return false;
    for (int64_t i = 0; i < w->n; i++)
        memcpy(w->guide + i * cell, w->fresh_guide + w->source[i] * cell, (size_t)cell * sizeof(float));
    k->count.forwards += n;
    k->count.vjps += n;
    k->count.reward_forwards += n;
    k->count.reward_vjps += n;
    return true;
}

static bool propose(Search *w, Err *err, int step, float scale)
{
    Masked *k = w->k;
    float shares[2] = {(float)masked_share(masked_time(k, step)), (float)masked_share(masked_time(k, step + 1))};
    if (w->guide && !guide_parents(w, err, step))
        return false;
    RowArg in[] = {{"x", w->parent.x, ROW_EACH},    {"logp", w->parent.logp, ROW_EACH}, {"shares", shares, ROW_SHARED},
                   {"key", w->draw_key, ROW_SHARED}, {"counter", w->counter, ROW_EACH}, {"scale", &scale, ROW_SHARED},
                   {"g", w->guide, ROW_EACH}};
    RowArg out[] = {{"children", w->child, ROW_EACH}, {"lp", w->lp, ROW_EACH}, {"lq", w->lq, ROW_EACH}};
    return rows_run(k->propose, err, w->n, in, w->guide ? 7 : 5, out, 3);
}

static bool choose(Search *w, Err *err, float scale)
{
    for (int64_t i = 0; i < w->n * w->s->children; i++)
        w->r[i] = w->source[i] < 0 ? w->parent.r[~w->source[i]] : w->fresh.r[w->source[i]];
    uint32_t *counter = w->counter; /* the first child's row of each trajectory, packed in place */
    for (int64_t i = 0; i < w->n; i++)
        memmove(counter + 3 * i, w->counter + 3 * i * w->s->children, 3 * sizeof *counter);
    RowArg in[] = {{"r", w->r, ROW_EACH},          {"lp", w->lp, ROW_EACH},             {"lq", w->lq, ROW_EACH},
                   {"scale", &scale, ROW_SHARED}, {"key", w->choice_key, ROW_SHARED}, {"counter", counter, ROW_EACH}};
    RowArg out[] = {{"choice", w->choice, ROW_EACH}, {"lognorm", w->lognorm, ROW_EACH}, {"ess", w->ess, ROW_EACH}};
    return rows_run(w->k->choose, err, w->n, in, 6, out, 3);
}

void search_put_letters(uint8_t *to, const int64_t *from, int64_t l)
{
    for (int64_t j = 0; j < l; j++)
        to[j] = (uint8_t)from[j];
}

/* The chosen children become the parents; their evaluations go along. */
static void advance(Search *w, int step)
{
    Trajectories *t = w->out;
    int64_t l = w->k->length, m = w->s->children;
    States next = w->next;
    for (int64_t i = 0; i < w->n; i++) {
        int64_t c = i * m + (w->s->weigh ? w->choice[i] : 0), from = w->source[c];
        memcpy(next.x + i * l, w->child + c * l, (size_t)l * sizeof(int64_t));
        copy_evaluation(w, &next, i, from < 0 ? &w->parent : &w->fresh, from < 0 ? ~from : from);
        search_put_letters(t->state + ((w->at + i) * (t->steps + 1) + step + 1) * l, next.x + i * l, l);
        search_put_letters(t->x0 + ((w->at + i) * t->steps + step) * l, next.x0 + i * l, l);
        if (w->s->weigh)
            search_add_step(t, w->s, w->at + i, step, w->lognorm[i], w->lq[c], w->lp[c], w->ess[i]);
    }
    w->next = w->parent;
    w->parent = next;
}

static bool step_once(Search *w, Err *err, int step)
{
    Masked *k = w->k;
    int64_t rows = w->n * w->s->children;
    set_counters(w, step);
    if (!propose(w, err, step, search_guide_scale(k, w->s, step)))
        return false;
    share_evaluations(w, w->child, rows, !k->time_input);
    if (!evaluate_fresh(w, err, masked_time(k, step + 1), w->s->weigh))
        return false;
    if (w->s->weigh && !choose(w, err, search_scale(k, w->s, step)))
        return false;
    advance(w, step);
    return true;
}

static bool finish(Search *w, Err *err, bool with_reward)
{
    Trajectories *t = w->out;
    int64_t l = w->k->length;
    memcpy(t->final + w->at * l, w->parent.x0, (size_t)(w->n * l) * sizeof(int64_t));
    if (with_reward && !w->s->weigh && !masked_score(w->k, err, w->n, w->parent.x0, w->parent.r))
        return false;
    bool known = with_reward || w->s->weigh;
    for (int64_t i = 0; i < w->n; i++)
        search_add_end(t, w->s, w->at + i, known ? w->parent.r[i] : NAN);
    return true;
}

/* The states of another search's trajectories in the place of those chosen here. */
static bool follow_teacher(Search *w, Err *err, int step)
{
    const Trajectories *t = w->s->teacher;
    int64_t l = w->k->length;
    for (int64_t i = 0; i < w->n; i++)
        for (int64_t j = 0; j < l; j++)
            w->parent.x[i * l + j] = t->state[((w->at + i) * (t->steps + 1) + step) * l + j];
    share_evaluations(w, w->parent.x, w->n, false);
    if (!evaluate_fresh(w, err, masked_time(w->k, step), w->s->weigh))
        return false;
    for (int64_t i = 0; i < w->n; i++)
        copy_evaluation(w, &w->parent, i, &w->fresh, w->source[i]);
    return true;
}

static bool run_group(Search *w, Err *err, bool with_reward)
{
    int64_t l = w->k->length;
    search_open(w);
    bool ok = start(w, err);
    for (int64_t i = 0; ok && i < w->n; i++)
        search_put_letters(w->out->state + (w->at + i) * (w->out->steps + 1) * l, w->parent.x + i * l, l);
    for (int step = 0; ok && step < w->k->steps; step++)
        ok = (step == 0 || !w->s->teacher || follow_teacher(w, err, step)) && step_once(w, err, step);
    ok = ok && finish(w, err, with_reward);
    search_close(w);
    return ok;
}

static Trajectories *trajectories_new(const Masked *k, int64_t n)
{
    size_t rows = (size_t)n, l = (size_t)k->length;
    Trajectories *t = mem_alloc(sizeof *t);
    *t = (Trajectories){.n = n, .length = k->length, .steps = k->steps};
    t->state = mem_alloc(mem_mul(mem_mul(rows, (size_t)k->steps + 1), l));
    t->x0 = mem_alloc(mem_mul(mem_mul(rows, (size_t)k->steps), l));
    t->final = mem_alloc(mem_mul(mem_mul(rows, l), sizeof(int64_t)));
    t->reward = mem_alloc(mem_mul(rows, sizeof(float)));
    t->elbo = mem_alloc(mem_mul(rows, sizeof(double)));
    t->elbo_undiscounted = mem_alloc(mem_mul(rows, sizeof(double)));
    return t;
}

void trajectories_free(Trajectories *t)
{
    if (!t)
        return;
    mem_free(t->state);
    mem_free(t->x0);
    mem_free(t->final);
    mem_free(t->reward);
    mem_free(t->elbo);
    mem_free(t->elbo_undiscounted);
    mem_free(t);
}

Trajectories *search_run(Masked *k, Err *err, const SearchSettings *s, int64_t first, int64_t n, bool with_reward)
{
    must(!s->teacher || (s->teacher->n == n && s->teacher->steps == k->steps && s->teacher->length == k->length));
    must(s->children == k->children && (!s->weigh || k->weighs) && (!s->gradient || k->guides));
    Trajectories *t = trajectories_new(k, n);
    for (int64_t at = 0; at < n; at += SIDE_BY_SIDE) {
        int64_t rows = n - at < SIDE_BY_SIDE ? n - at : SIDE_BY_SIDE;
        Search w = {.k = k, .s = s, .out = t, .first = first + at, .at = at, .n = rows};
        bool whole = k->whole && !s->teacher;
        if (!(whole ? search_whole(k, err, s, t, first + at, at, rows, with_reward) : run_group(&w, err, with_reward))) {
            trajectories_free(t);
            return NULL;
        }
    }
    t->ess = s->weigh ? t->ess / ((double)n * k->steps) : 1;
    return t;
}
