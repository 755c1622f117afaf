#include "support/exact_em.h"
#include <math.h>
#include <string.h>

void exact_open(ExactEm *e)
{
    e->states = e->words = 1;
    for (int l = 0; l < e->length; l++) {
        e->states *= e->letters + 1;
        e->words *= e->letters;
    }
    for (int i = 0; i < e->states; i++)
        for (int l = 0, rest = i; l < e->length; l++, rest /= e->letters + 1)
            e->symbol[i][l] = rest % (e->letters + 1);
}

static int start_state(const ExactEm *e)
{
    return e->states - 1;
}

/* The number of the word that state i is when its masks are filled by the most likely letters. */
static int fill(const ExactEm *e, ExactTable logp, int i)
{
    int word = 0;
    for (int l = e->length - 1; l >= 0; l--) {
        int letter = e->symbol[i][l];
        if (letter == e->letters) {
            letter = 0;
            for (int k = 1; k < e->letters; k++)
                if (logp[i][l][k] > logp[i][l][letter])
                    letter = k;
        }
        word = word * e->letters + letter;
    }
    return word;
}

/* ---- the network ---- */
int exact_theta_part(const ExactEm *e, const char *name, int *size)
{
    int h = e->hidden, in = e->length * (e->letters + 1), at = 0;
    const struct {
        const char *name;
        int size;
    } part[] = {{"first.weight", h * in}, {"first.bias", h},         {"time.weight", h},
                {"time.bias", h},         {"second.weight", in * h}, {"second.bias", in}};
    for (int i = 0; i < 6; at += part[i++].size)
        if (!name || strcmp(name, part[i].name) == 0) {
            *size = part[i].size;
            if (name)
                return at;
        }
    *size = 0;
    return at;
}

int exact_theta_size(const ExactEm *e)
{
    int none;
    return exact_theta_part(e, "end", &none);
}

typedef struct Layers {
    int first, first_bias, time_bias, second, second_bias, in;
} Layers;

static Layers layers_of(const ExactEm *e)
{
    int size;
    return (Layers){exact_theta_part(e, "first.weight", &size), exact_theta_part(e, "first.bias", &size),
                    exact_theta_part(e, "time.bias", &size),    exact_theta_part(e, "second.weight", &size),
                    exact_theta_part(e, "second.bias", &size),  e->length * (e->letters + 1)};
}

static void hidden_at(const ExactEm *e, const Layers *w, const double *theta, int i, double *h)
{
    for (int j = 0; j < e->hidden; j++) {
        double sum = theta[w->first_bias + j] + theta[w->time_bias + j];
        for (int l = 0; l < e->length; l++)
            sum += theta[w->first + j * w->in + l * (e->letters + 1) + e->symbol[i][l]];
        h[j] = tanh(sum);
    }
}

static void logp_at(const ExactEm *e, const Layers *w, const double *theta, const double *h,
                    double logp[EXACT_LENGTH][EXACT_LETTERS])
{
    for (int l = 0; l < e->length; l++) {
        double z = 0;
        for (int k = 0; k < e->letters; k++) {
            int out = l * (e->letters + 1) + k;
            logp[l][k] = theta[w->second_bias + out];
            for (int j = 0; j < e->hidden; j++)
                logp[l][k] += theta[w->second + out * e->hidden + j] * h[j];
            z += exp(logp[l][k]);
        }
        for (int k = 0; k < e->letters; k++)
            logp[l][k] -= log(z);
    }
}

void exact_table(const ExactEm *e, const double *theta, ExactTable logp)
{
    double h[EXACT_THETA];
    Layers w = layers_of(e);
    for (int i = 0; i < e->states; i++) {
        hidden_at(e, &w, theta, i, h);
        logp_at(e, &w, theta, h, logp[i]);
    }
}

/* grad += that of the loss's part at one state by the chain rule, from its gradient by the logits there */
static void backward(const ExactEm *e, const Layers *w, const double *theta, int i, const double *h,
                     double d[EXACT_LENGTH][EXACT_LETTERS], double *grad)
{
    for (int j = 0; j < e->hidden; j++) {
        double dh = 0;
        for (int l = 0; l < e->length; l++)
            for (int k = 0; k < e->letters; k++) {
                int out = l * (e->letters + 1) + k;
                grad[w->second + out * e->hidden + j] += d[l][k] * h[j];
                dh += d[l][k] * theta[w->second + out * e->hidden + j];
            }
        double da = dh * (1 - h[j] * h[j]);
        grad[w->first_bias + j] += da;
        grad[w->time_bias + j] += da;
        for (int l = 0; l < e->length; l++)
            grad[w->first + j * w->in + l * (e->letters + 1) + e->symbol[i][l]] += da;
    }
    for (int l = 0; l < e->length; l++)
        for (int k = 0; k < e->letters; k++)
            grad[w->second_bias + l * (e->letters + 1) + k] += d[l][k];
}

/* ---- the chain ---- */
/* m(t_s) on the grid t_s = 1 + (1e-5 - 1) s / T, log-linear noise of eps 1e-3 */
static double masked_chance(const ExactEm *e, int s)
{
    return (1 - 1e-3) * (1 + (1e-5 - 1) * s / e->steps);
}

static double fill_chance(const ExactEm *e, int s)
{
    return 1 - masked_chance(e, s + 1) / masked_chance(e, s);
}

/* p of going from state i to j in step s */
static double transition(const ExactEm *e, ExactTable logp, int i, int j, int s)
{
    double p = 1, chance = fill_chance(e, s);
    for (int l = 0; l < e->length; l++) {
        int a = e->symbol[i][l], b = e->symbol[j][l];
        p *= a != e->letters ? a == b : b == e->letters ? 1 - chance : chance * exp(logp[i][l][b]);
    }
    return p;
}

/* eta*(. | i) in step s */
static void target(const ExactEm *e, ExactTable logp, int i, int s, double eta[EXACT_STATES])
{
    double z = 0, scale = pow(e->gamma, e->reversed ? s : e->steps - s - 1) / e->alpha;
    for (int j = 0; j < e->states; j++)
        z += eta[j] = transition(e, logp, i, j, s) * exp(scale * e->reward[fill(e, logp, j)]);
    for (int j = 0; j < e->states; j++)
        eta[j] /= z;
}

void exact_law(const ExactEm *e, ExactTable logp, double law[EXACT_WORDS])
{
    double p[EXACT_STATES] = {0};
    p[start_state(e)] = 1;
    for (int s = 0; s < e->steps; s++) {
        double next[EXACT_STATES] = {0};
        for (int i = 0; i < e->states; i++)
            for (int j = 0; p[i] > 0 && j < e->states; j++)
                next[j] += p[i] * transition(e, logp, i, j, s);
        memcpy(p, next, sizeof p);
    }
    memset(law, 0, EXACT_WORDS * sizeof *law);
    for (int i = 0; i < e->states; i++)
        law[fill(e, logp, i)] += p[i];
}

double exact_mean_reward(const ExactEm *e, const double law[EXACT_WORDS])
{
    double sum = 0;
    for (int w = 0; w < e->words; w++)
        sum += law[w] * e->reward[w];
    return sum;
}

double exact_distance(const double *a, const double *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += fabs(a[i] - b[i]);
    return sum / 2;
}

/* ---- the E-step ---- */
static void count_step(const ExactEm *e, int i, int j, int s, double times, ExactReplay *r)
{
    bool fills = false;
    for (int l = 0; l < e->length; l++)
        if (e->symbol[i][l] == e->letters && e->symbol[j][l] != e->letters) {
            r->filled[i][l][e->symbol[j][l]] += times;
            fills = true;
        }
    r->occupied[i] += times * fill_chance(e, s);
    r->transitions += fills ? times : 0;
}

void exact_replay(const ExactEm *e, ExactTable logp, ExactReplay *out)
{
    double p[EXACT_STATES] = {0}, eta[EXACT_STATES];
    memset(out, 0, sizeof *out);
    p[start_state(e)] = 1;
    for (int s = 0; s < e->steps; s++) {
        double next[EXACT_STATES] = {0};
        for (int i = 0; i < e->states; i++) {
            if (p[i] > 0)
                target(e, logp, i, s, eta);
            for (int j = 0; p[i] > 0 && j < e->states; j++) {
                next[j] += p[i] * eta[j];
                count_step(e, i, j, s, p[i] * eta[j], out);
            }
        }
        memcpy(p, next, sizeof p);
    }
}

static double uniform(uint64_t *rng)
{
    uint64_t z = *rng += 0x9E3779B97F4A7C15; /* splitmix64 */
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static int draw(const double *p, int n, uint64_t *rng)
{
    double u = uniform(rng);
    int i = 0;
    while (i < n - 1 && u >= p[i])
        u -= p[i++];
    return i;
}

void exact_draw_replay(const ExactEm *e, ExactTable logp, int n, uint64_t *rng, ExactReplay *out)
{
    double eta[EXACT_STEPS][EXACT_STATES][EXACT_STATES];
    memset(out, 0, sizeof *out);
    for (int s = 0; s < e->steps; s++)
        for (int i = 0; i < e->states; i++)
            target(e, logp, i, s, eta[s][i]);
    for (int k = 0; k < n; k++)
        for (int s = 0, i = start_state(e), j; s < e->steps; s++, i = j) {
            j = draw(eta[s][i], e->states, rng);
            count_step(e, i, j, s, 1.0 / n, out);
        }
}

/* ---- the M-step ---- */
void exact_tabular_step(const ExactEm *e, const ExactReplay *r, ExactTable logp)
{
    for (int i = 0; i < e->states; i++)
        for (int l = 0; l < e->length; l++) {
            double sum = 0;
            for (int k = 0; k < e->letters; k++)
                sum += r->filled[i][l][k];
            for (int k = 0; sum > 0 && k < e->letters; k++)
                logp[i][l][k] = log(r->filled[i][l][k] / sum);
        }
}

static void gradient(const ExactEm *e, const ExactReplay *r, ExactTable logp0, const double *theta, double *grad)
{
    double h[EXACT_THETA], logp[EXACT_LENGTH][EXACT_LETTERS], d[EXACT_LENGTH][EXACT_LETTERS];
    Layers w = layers_of(e);
    memset(grad, 0, (size_t)exact_theta_size(e) * sizeof *grad);
    for (int i = 0; i < e->states; i++) {
        hidden_at(e, &w, theta, i, h);
        logp_at(e, &w, theta, h, logp);
        memset(d, 0, sizeof d);
        for (int l = 0; l < e->length; l++) {
            double sum = 0, kl = 0, pull = e->symbol[i][l] == e->letters ? e->lambda * r->occupied[i] : 0;
            for (int k = 0; k < e->letters; k++) {
                sum += r->filled[i][l][k];
                kl += exp(logp[l][k]) * (logp[l][k] - logp0[i][l][k]);
            }
            for (int k = 0; k < e->letters; k++)
                d[l][k] = exp(logp[l][k]) * (sum + pull * (logp[l][k] - logp0[i][l][k] - kl)) - r->filled[i][l][k];
        }
        backward(e, &w, theta, i, h, d, grad);
    }
}

static void adam_update(ExactAdam *a, const double *grad, int n, double *theta)
{
    double norm = 0;
    for (int i = 0; i < n; i++)
        norm += grad[i] * grad[i];
    double clip = a->clip > 0 ? fmin(1, a->clip / (sqrt(norm) + 1e-6)) : 1;
    a->step++;
    for (int i = 0; i < n; i++) {
        double g = grad[i] * clip;
        a->m[i] = a->beta1 * a->m[i] + (1 - a->beta1) * g;
        a->v[i] = a->beta2 * a->v[i] + (1 - a->beta2) * g * g;
        double m = a->m[i] / (1 - pow(a->beta1, a->step)), v = a->v[i] / (1 - pow(a->beta2, a->step));
        theta[i] -= a->lr * m / (sqrt(v) + a->eps);
    }
}

void exact_mstep(const ExactEm *e, const ExactReplay *r, ExactTable logp0, int updates, ExactAdam *a, double *theta)
{
    double grad[EXACT_THETA], rows = e->lambda > 0 ? e->steps : r->transitions;
    int n = exact_theta_size(e);
    for (int u = 0; u < updates; u++) {
        gradient(e, r, logp0, theta, grad);
        for (int i = 0; i < n; i++)
            grad[i] /= rows;
        adam_update(a, grad, n, theta);
    }
}
