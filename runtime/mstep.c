#include "runtime/mstep.h"
#include <Random123/philox.h>
#include <string.h>

void shuffle(int64_t *order, int64_t n, uint32_t seed, const char *stream, uint32_t a, uint32_t b)
{
    philox4x32_key_t key = {{seed, hash_name32(stream)}};
    for (int64_t i = n - 1; i > 0; i--) {
        philox4x32_ctr_t c = {{(uint32_t)i, (uint32_t)(i >> 32), a, b}}, r = philox4x32(c, key);
        uint64_t bits = (uint64_t)r.v[0] << 32 | r.v[1];
        int64_t j = (int64_t)(bits % (uint64_t)(i + 1)), swap = order[i]; /* bias below 2^-40 */
        order[i] = order[j];
        order[j] = swap;
    }
}

/* The replayed states, gathered for the program. */
typedef struct Replay {
    int64_t n, length;
    int64_t *x, *next, *x0; /* [n, L] */
    float *share, *left;    /* [n] */
    float *t;               /* [n] sigma, for networks with time input */
    float *logp0;           /* [n, L, V] of the pretrained model; NULL without KL */
} Replay;

static bool fills_a_letter(const uint8_t *x, const uint8_t *next, int64_t l)
{
    return memcmp(x, next, (size_t)l) != 0;
}

static void widen(int64_t *to, const uint8_t *from, int64_t l)
{
    for (int64_t j = 0; j < l; j++)
        to[j] = from[j];
}

static Replay replay_gather(const Masked *k, const Trajectories *t, const MStepSettings *set)
{
    int64_t l = t->length, most = t->n * t->steps;
    size_t letters = mem_mul(mem_mul((size_t)most, (size_t)l), sizeof(int64_t));
    Replay r = {.length = l, .x = mem_alloc(letters), .next = mem_alloc(letters), .x0 = mem_alloc(letters),
                .share = mem_alloc(mem_mul((size_t)most, sizeof(float))), .left = mem_alloc(mem_mul((size_t)most, sizeof(float))), .t = mem_alloc(mem_mul((size_t)most, sizeof(float)))};
    for (int64_t i = 0; i < t->n; i++)
        for (int step = set->skip_steps; step < t->steps; step++) {
            const uint8_t *x = t->state + (i * (t->steps + 1) + step) * l, *next = x + l;
            if (!set->every_state && !fills_a_letter(x, next, l))
                continue;
            widen(r.x + r.n * l, x, l);
            widen(r.next + r.n * l, next, l);
            widen(r.x0 + r.n * l, t->x0 + (i * t->steps + step) * l, l);
            double m_t = masked_share(masked_time(k, step)), m_s = masked_share(masked_time(k, step + 1));
            r.share[r.n] = (float)((m_t - m_s) / m_t);
            r.left[r.n] = (float)(1 - m_t);
            r.t[r.n++] = (float)masked_sigma(masked_time(k, step));
        }
    return r;
}

static void replay_free(Replay *r)
{
    void *all[] = {r->x, r->next, r->x0, r->share, r->left, r->t, r->logp0};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
}

/* The pretrained model does not change: it is asked once a state, not once an epoch. */
static bool ask_prior(const MStep *s, Err *err, Masked *k, bool time_input, Replay *r)
{
    r->logp0 = mem_alloc(mem_mul((size_t)(r->n * r->length * k->letters), sizeof(float)));
    RowArg in[] = {{"x", r->x, ROW_EACH}, {"t", r->t, ROW_EACH}}, out = {"logp", r->logp0, ROW_EACH};
    k->count.p0_forwards += r->n;
    return rows_run(s->prior, err, r->n, in, time_input ? 2 : 1, &out, 1);
}

typedef struct Batch { Replay rows; float *weight, *loss, *kl; } Batch;

static void take(const Replay *from, int64_t i, Replay *to, int64_t j, int64_t letters)
{
    int64_t l = from->length;
    size_t bytes = (size_t)l * sizeof(int64_t);
    memcpy(to->x + j * l, from->x + i * l, bytes);
    memcpy(to->next + j * l, from->next + i * l, bytes);
    memcpy(to->x0 + j * l, from->x0 + i * l, bytes);
    to->share[j] = from->share[i];
    to->left[j] = from->left[i];
    to->t[j] = from->t[i];
    if (from->logp0)
        memcpy(to->logp0 + j * l * letters, from->logp0 + i * l * letters, (size_t)(l * letters) * sizeof(float));
}

static Batch batch_new(const Replay *all, int64_t n, int64_t letters)
{
    size_t rows = (size_t)n, cells = mem_mul(rows, (size_t)all->length), ids = mem_mul(cells, sizeof(int64_t));
    Batch b = {.rows = {.length = all->length, .x = mem_alloc(ids), .next = mem_alloc(ids), .x0 = mem_alloc(ids),
                        .share = mem_alloc(rows * sizeof(float)), .left = mem_alloc(rows * sizeof(float)),
                        .t = mem_alloc(rows * sizeof(float))},
               .weight = mem_alloc(rows * sizeof(float)), .loss = mem_alloc(rows * sizeof(float)),
               .kl = mem_alloc(rows * sizeof(float))};
    if (all->logp0)
        b.rows.logp0 = mem_alloc(mem_mul(cells, (size_t)letters * sizeof(float)));
    return b;
}

static void batch_free(Batch *b)
{
    replay_free(&b->rows);
    mem_free(b->weight);
    mem_free(b->loss);
    mem_free(b->kl);
}

static double mean(const float *v, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += v[i];
    return sum / (double)n;
}

/* One update on the mean loss of n states. */
static bool update(MStep *s, Err *err, Masked *k, Batch *b, int64_t n, const MStepSettings *set, ParamSet *theta, Optim *optim,
                   MStepReport *rep)
{
    float kl_weight = (float)set->kl;
    for (int64_t i = 0; i < n; i++)
        b->weight[i] = 1.0f / (float)n;
    bool with_kl = b->rows.logp0 != NULL;
    RowArg in[8] = {{"x", b->rows.x, ROW_EACH},
                    {"next", b->rows.next, ROW_EACH},
                    {"x0", b->rows.x0, ROW_EACH},
                    {"share", b->rows.share, ROW_EACH},
                    {"left", b->rows.left, ROW_EACH}};
    int nin = 5;
    if (set->time_input)
        in[nin++] = (RowArg){"t", b->rows.t, ROW_EACH};
    if (with_kl) {
        in[nin++] = (RowArg){"logp0", b->rows.logp0, ROW_EACH};
        in[nin++] = (RowArg){"kl_weight", &kl_weight, ROW_SHARED};
    }
    RowArg out[] = {{"loss", b->loss, ROW_EACH}, {"kl", b->kl, ROW_EACH}};
    double norm;
    k->count.forwards += n;
    k->count.vjps += n;
    if (!learn_rows(s->distil, err, n, in, nin, b->weight, out, with_kl ? 2 : 1) ||
        !optim_update(optim, err, theta, &set->optim, &norm))
        return false;
    rep->loss += mean(b->loss, n);
    rep->kl += with_kl ? mean(b->kl, n) : 0;
    rep->grad_norm += norm;
    rep->updates++;
    return true;
}

static bool one_epoch(MStep *s, Err *err, Masked *k, const Replay *all, Batch *b, int64_t *order, int epoch,
                      const MStepSettings *set, ParamSet *theta, Optim *optim, MStepReport *rep)
{
    for (int64_t i = 0; i < all->n; i++)
        order[i] = i;
    shuffle(order, all->n, set->seed, "mstep", set->round, (uint32_t)epoch);
    for (int64_t at = 0; at < all->n; at += set->batch) {
        int64_t n = all->n - at < set->batch ? all->n - at : set->batch;
        int64_t first = n * set->discarded_parts / (set->discarded_parts + 1);
        for (int64_t j = first; j < n; j++)
            take(all, order[at + j], &b->rows, j - first, k->letters);
        if (!update(s, err, k, b, n - first, set, theta, optim, rep))
            return false;
    }
    return true;
}

bool mstep_run(MStep *s, Err *err, Masked *k, const Trajectories *t, const MStepSettings *set, ParamSet *theta, Optim *optim,
               MStepReport *report)
{
    *report = (MStepReport){0};
    Replay all = replay_gather(k, t, set);
    bool ok = all.n == 0 || !s->prior || ask_prior(s, err, k, set->time_input, &all);
    Batch b = batch_new(&all, set->batch, k->letters);
    int64_t *order = mem_alloc(mem_mul((size_t)all.n + 1, sizeof *order));
    for (int epoch = 0; ok && epoch < set->epochs; epoch++)
        ok = one_epoch(s, err, k, &all, &b, order, epoch, set, theta, optim, report);
    report->states = all.n;
    if (report->updates) {
        report->loss /= (double)report->updates;
        report->kl /= (double)report->updates;
        report->grad_norm /= (double)report->updates;
    }
    mem_free(order);
    batch_free(&b);
    replay_free(&all);
    return ok;
}
