/* attention and its gradient by their definition: the scores of one query at a time, in double. */
#include "ir/interp_ops.h"
#include <math.h>

typedef struct Scores {
    const Node *n;
    const Tensor *x, *bias; /* operands; bias NULL: none */
    int64_t queries, keys, width, value;
} Scores;

static double dot(const Tensor *a, int64_t i, const Tensor *b, int64_t j, int64_t n)
{
    double sum = 0;
    for (int64_t d = 0; d < n; d++)
        sum += get_f64(a, i * n + d) * get_f64(b, j * n + d);
    return sum;
}

static double score(const Scores *s, int64_t b, int64_t i, int64_t j)
{
    double x = attr_f(s->n, A_SCALE) * dot(&s->x[0], b * s->queries + i, &s->x[1], b * s->keys + j, s->width);
    if (s->bias)
        x = fmax(x + get_f64(s->bias, ((s->bias->t.dim[0] == 1 ? 0 : b) * s->queries + i) * s->keys + j), -1e38); /* all -inf: an average */
    return attr_i(s->n, A_CAUSAL) && j > i ? -1e9 : x;
}

static Scores scores_of(const Node *n, const Tensor *x, int bias)
{
    return (Scores){n, x, n->narg > bias ? &x[bias] : NULL, x[0].t.dim[1], x[1].t.dim[1], x[0].t.dim[2], x[2].t.dim[2]};
}

static void forward(const Scores *s, int64_t b, int64_t i, Tensor *out, double *p)
{
    double most = -INFINITY, total = 0;
    for (int64_t j = 0; j < s->keys; j++)
        most = fmax(most, p[j] = score(s, b, i, j));
    for (int64_t j = 0; j < s->keys; j++)
        total += p[j] = exp(p[j] - most);
    put_f64(&out[1], b * s->queries + i, most + log(total));
    for (int64_t e = 0; e < s->value; e++) {
        double sum = 0;
        for (int64_t j = 0; j < s->keys; j++)
            sum += p[j] * get_f64(&s->x[2], (b * s->keys + j) * s->value + e);
        put_f64(&out[0], node_attr(s->n, A_ROWS) ? (b * s->queries + i) * s->value + e : (b * s->value + e) * s->queries + i, sum / total);
    }
}

/* sum[at] += v, at the places of a row of `width` */
static void add_row(double *sum, double factor, const Tensor *x, int64_t row, int64_t width, int64_t stride)
{
    for (int64_t d = 0; d < width; d++)
        sum[d * stride] += factor * get_f64(x, row * width + d);
}

static void backward(const Scores *s, int64_t b, double *dq, double *dk, double *dv)
{
    const Tensor *x = s->x;
    for (int64_t i = 0; i < s->queries; i++)
        for (int64_t j = 0; j < s->keys; j++) {
            int64_t row = b * s->queries + i, key = b * s->keys + j;
            double p = exp(score(s, b, i, j) - get_f64(&x[3], row));
            double ds = p * (dot(&x[5], row, &x[2], key, s->value) - get_f64(&x[4], row)) * attr_f(s->n, A_SCALE);
            add_row(dq + i * s->width, ds, &x[1], key, s->width, 1);
            add_row(dk + j, ds, &x[0], row, s->width, s->keys);
            add_row(dv + j, p, &x[5], row, s->value, s->keys);
        }
}

static void put_sums(Tensor *t, int64_t b, double *sum)
{
    int64_t n = t->t.dim[1] * t->t.dim[2];
    for (int64_t i = 0; i < n; i++) {
        put_f64(t, b * n + i, sum[i]);
        sum[i] = 0;
    }
}

size_t interp_attention_bytes(const Node *n, const Tensor *x)
{
    int64_t l = x[0].t.dim[1], d = x[0].t.dim[2], s = x[1].t.dim[1], e = x[2].t.dim[2];
    return mem_mul((size_t)(n->op == OP_ATTENTION ? s : l * d + s * d + s * e), sizeof(double));
}

void interp_attention(const Node *n, const Tensor *x, Tensor *out, void *work)
{
    Scores s = scores_of(n, x, n->op == OP_ATTENTION ? 3 : 6);
    double *room = work, *dk = room + s.queries * s.width, *dv = dk + s.keys * s.width;
    for (int64_t b = 0; b < x[0].t.dim[0]; b++) {
        for (int64_t i = 0; n->op == OP_ATTENTION && i < s.queries; i++)
            forward(&s, b, i, out, room);
        if (n->op == OP_ATTENTION)
            continue;
        backward(&s, b, room, dk, dv);
        put_sums(&out[0], b, room);
        put_sums(&out[1], b, dk);
        put_sums(&out[2], b, dv);
    }
}
