/* Contractions by their definition: for every output element and every value of the summed loops, both operands are read at
 * their index expressions.  Index expressions are sums, so what the output's loops add and what the summed loops add are
 * tabled apart, and axes that can never fall outside are merged into one offset. */
#include "ir/interp_ops.h"
#include <string.h>

enum { CHUNK = 1024 }; /* values of the summed loops that are tabled at once */

typedef struct Reader {
    const Tensor *t;
    const ContractSpec *s;
    const DimExpr *dim;
    int64_t stride[IR_MAX_RANK];
    int rank;
    int checked[IR_MAX_RANK], nchecked;         /* axes that may fall outside */
    int64_t base, part[IR_MAX_RANK];            /* what the output loops add: to the offset, to each checked axis */
    int64_t off[CHUNK], num[IR_MAX_RANK][CHUNK]; /* what the summed loops add */
} Reader;

static bool stays_inside(const ContractSpec *s, const DimExpr *e, int64_t size)
{
    int64_t lo = e->offset, hi = e->offset;
    for (int i = 0; i < e->nterm; i++) {
        int64_t reach, *side;
        if (__builtin_mul_overflow(e->coef[i], s->extent[e->loop[i]] - 1, &reach))
            return false;
        side = reach < 0 ? &lo : &hi;
        if (__builtin_add_overflow(*side, reach, side))
            return false;
    }
    return e->div == 1 && lo >= 0 && hi < size;
}

static void reader_init(Reader *r, const ContractSpec *s, const Tensor *t, const DimExpr *dim)
{
    r->t = t;
    r->s = s;
    r->dim = dim;
    r->rank = t->t.rank;
    strides_of(&t->t, r->stride);
    r->nchecked = 0;
    for (int i = 0; i < r->rank; i++)
        if (!stays_inside(s, &dim[i], t->t.dim[i]))
            r->checked[r->nchecked++] = i;
}

/* The part of axis i's numerator that loops first..last-1 add. */
static int64_t part_of(const DimExpr *e, const int64_t *loop, int first, int last)
{
    int64_t sum = 0;
    for (int k = 0; k < e->nterm; k++)
        if (e->loop[k] >= first && e->loop[k] < last)
            sum += e->coef[k] * loop[e->loop[k]];
    return sum;
}

/* Splits loops first..last-1 into the merged offset and the numerators of checked axes. */
static void split(const Reader *r, const int64_t *loop, int first, int last, int64_t *off, int64_t num[IR_MAX_RANK])
{
    int c = 0;
    *off = 0;
    for (int i = 0; i < r->rank; i++) {
        int64_t part = part_of(&r->dim[i], loop, first, last) + (first == 0 ? r->dim[i].offset : 0);
        if (c < r->nchecked && r->checked[c] == i)
            num[c++] = part;
        else
            *off += part * r->stride[i];
    }
}

static void table_summed(Reader *r, const int64_t *loop, int at)
{
    int64_t num[IR_MAX_RANK];
    split(r, loop, r->s->nout, r->s->nloop, &r->off[at], num);
    for (int c = 0; c < r->nchecked; c++)
        r->num[c][at] = num[c];
}

/* The operand's element for entry k of the table; false: outside. */
static bool locate(const Reader *r, int k, int64_t *at)
{
    *at = r->base + r->off[k];
    for (int c = 0; c < r->nchecked; c++) {
        int i = r->checked[c];
        int64_t v = r->part[c] + r->num[c][k];
        if (v < 0 || v % r->dim[i].div != 0 || v / r->dim[i].div >= r->t->t.dim[i])
            return false;
        *at += v / r->dim[i].div * r->stride[i];
    }
    return true;
}

static bool next_loop(int64_t *loop, const int64_t *extent, int first, int last)
{
    for (int l = last - 1; l >= first; l--) {
        if (++loop[l] < extent[l])
            return true;
        loop[l] = 0;
    }
    return false;
}

/* Every output element takes in the tabled values; a and b are the operands as doubles. */
static void add_chunk(Reader *ra, Reader *rb, const double *a, const double *b, int n, double *sum)
{
    const ContractSpec *s = ra->s;
    int64_t loop[SPEC_MAX_LOOPS] = {0}, at = 0, ia, ib;
    do {
        split(ra, loop, 0, s->nout, &ra->base, ra->part);
        split(rb, loop, 0, s->nout, &rb->base, rb->part);
        for (int k = 0; k < n; k++)
            if (locate(ra, k, &ia) && locate(rb, k, &ib))
                sum[at] += a[ia] * b[ib];
        at++;
    } while (next_loop(loop, s->extent, 0, s->nout));
}

size_t interp_contract_bytes(const Tensor *a, const Tensor *b, const Tensor *out)
{
    return mem_mul((size_t)(count_of(a) + count_of(b) + count_of(out)), sizeof(double)) + 2 * sizeof(Reader);
}

void interp_contract(const ContractSpec *s, const Tensor *a, const Tensor *b, Tensor *out, void *work)
{
    int64_t na = count_of(a), nb = count_of(b), nout = count_of(out);
    double *av = work, *bv = av + na, *sum = bv + nb;
    Reader *r = (Reader *)(sum + nout);
    for (int64_t i = 0; i < na; i++)
        av[i] = get_f64(a, i);
    for (int64_t i = 0; i < nb; i++)
        bv[i] = get_f64(b, i);
    reader_init(&r[0], s, a, s->dim[0]);
    reader_init(&r[1], s, b, s->dim[1]);
    bool empty = nout == 0;
    for (int l = s->nout; l < s->nloop; l++)
        empty |= s->extent[l] == 0;
    int64_t loop[SPEC_MAX_LOOPS] = {0};
    for (bool more = !empty; more;) {
        int n = 0;
        do {
            table_summed(&r[0], loop, n);
            table_summed(&r[1], loop, n++);
            more = next_loop(loop, s->extent, s->nout, s->nloop);
        } while (more && n < CHUNK);
        add_chunk(&r[0], &r[1], av, bv, n, sum);
    }
    for (int64_t i = 0; i < nout; i++)
        put_f64(out, i, sum[i]);
}
