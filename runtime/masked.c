#include "runtime/masked.h"
#include <math.h>

/* Log-linear noise: sigma(t) = -log(1 - (1 - eps) t), so m(t) = (1 - eps) t. */
static const double NOISE_EPS = 1e-3, LAST_TIME = 1e-5;

double masked_time(const Masked *k, int i)
{
    return 1 + (LAST_TIME - 1) * i / k->steps;
}

double masked_share(double t)
{
    return (1 - NOISE_EPS) * t;
}

double masked_sigma(double t)
{
    return -log1p(-(1 - NOISE_EPS) * t);
}

States states_new(const Masked *k, int64_t n)
{
    size_t letters = mem_mul((size_t)n, (size_t)k->length);
    return (States){.n = n,
                    .x = mem_alloc(mem_mul(letters, sizeof(int64_t))),
                    .logp = mem_alloc(mem_mul(mem_mul(letters, (size_t)k->letters), sizeof(float))),
                    .x0 = mem_alloc(mem_mul(letters, sizeof(int64_t))),
                    .r = mem_alloc(mem_mul((size_t)n, sizeof(float)))};
}

void states_free(States *s)
{
    mem_free(s->x);
    mem_free(s->logp);
    mem_free(s->x0);
    mem_free(s->r);
    *s = (States){0};
}

static bool denoise(Masked *k, Err *err, States *s, double t, RowsThen then, void *ctx)
{
    float sigma = (float)(k->time_input ? masked_sigma(t) : 0);
    RowArg in[] = {{"x", s->x, ROW_EACH}, {"t", &sigma, ROW_SHARED}};
    RowArg out[] = {{"logp", s->logp, ROW_EACH}, {"x0", s->x0, ROW_EACH}};
    k->count.forwards += s->n;
    return masked_need_steps(k, err) && rows_run_then(k->denoise, err, s->n, in, k->time_input ? 2 : 1, out, 2, then, ctx);
}

bool states_denoise(Masked *k, Err *err, States *s, double t)
{
    return denoise(k, err, s, t, NULL, NULL);
}

bool masked_score(Masked *k, Err *err, int64_t n, const int64_t *x0, float *r)
{
    k->count.reward_forwards += n;
    if (!masked_need_value(k, err))
        return false;
    if (!k->value)
        return k->reward ? reward_batch(k->reward, err, n, k->length, x0, r)
                         : err_user(err, "a reward is needed here and none is configured");
    RowArg in = {"x0", (void *)x0, ROW_EACH}, out = {"r", r, ROW_EACH};
    return rows_run(k->value, err, n, &in, 1, &out, 1);
}

typedef struct Scored { Masked *k; States *s; } Scored;

static bool score_part(void *ctx, Err *err, int64_t first, int64_t n)
{
    const Scored *c = ctx;
    return masked_score(c->k, err, n, c->s->x0 + first * c->k->length, c->s->r + first);
}

bool states_evaluate(Masked *k, Err *err, States *s, double t)
{
    if (k->phi)
        return states_denoise(k, err, s, t) && masked_score(k, err, s->n, s->x0, s->r);
    return denoise(k, err, s, t, score_part, &(Scored){k, s});
}
