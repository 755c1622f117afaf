/* The gradient of a contraction is a contraction.
 *
 *   out[l_0 .. l_nout-1] = sum over the other loops of a[ea(l)] * b[eb(l)]
 *   da[x] = sum over all l with ea(l) = x of dout[l_0 .. l_nout-1] * b[eb(l)]
 *
 * For every axis j of a the equation (sum of coef * l + offset) / div = x_j is solved for one loop m, which gives m = E
 * / D, and m is replaced by that everywhere; the axes of a become the output loops, the loops that are left are summed.
 * Replacing drops the check that m is whole and in its range, unless m was an axis by itself in dout or b: reading that
 * axis at E / D checks both.  So m is chosen among the loops that are (they all are, in matrix products and
 * convolutions of any order of derivative), and among those the longest, which leaves the least to sum.  Otherwise b is
 * repeated along a new axis m. */
#include "passes/autodiff.h"
#include <string.h>

/* Loops 0..11 are those of the forward spec, FIRST_X + j is the new output loop of axis j. */
enum { FIRST_X = SPEC_MAX_LOOPS, NVAR = SPEC_MAX_LOOPS + IR_MAX_RANK };
typedef struct Affine {
    int64_t coef[NVAR], offset, div;
} Affine; /* (sum of coef * variable + offset) / div */
typedef struct Factor {
    Val val;
    int rank;
    Affine dim[IR_MAX_RANK];
} Factor;

typedef struct Solve {
    Graph *g;
    const ContractSpec *spec;
    Factor out, other;           /* dout and the operand that is not differentiated for */
    Affine want[IR_MAX_RANK];    /* what must equal x_j */
    bool solved[SPEC_MAX_LOOPS]; /* loops replaced */
    bool too_large;              /* coefficients that no real network has */
    bool fixed[IR_MAX_RANK];     /* axes whose equation has no loop left: the gradient is 0 where it does not hold */
} Solve;

static Affine affine_of(const DimExpr *e)
{
    Affine a = {.offset = e->offset, .div = e->div};
    for (int i = 0; i < e->nterm; i++)
        a.coef[e->loop[i]] = e->coef[i];
    return a;
}

static Affine affine_var(int var)
{
    Affine a = {.div = 1};
    a.coef[var] = 1;
    return a;
}

static int64_t gcd(int64_t a, int64_t b)
{
    while (b) {
        int64_t r = a % b;
        a = b;
        b = r;
    }
    return a < 0 ? -a : a;
}

static void reduce(Affine *a)
{
    int64_t k = gcd(a->div, a->offset);
    for (int i = 0; i < NVAR; i++)
        k = gcd(k, a->coef[i]);
    for (int i = 0; i < NVAR; i++)
        a->coef[i] /= k;
    a->offset /= k;
    a->div /= k;
}

static bool uses(const Affine *a, int var)
{
    return a->coef[var] != 0;
}

/* Is it the variable alone? */
static bool is_var(const Affine *a, int var)
{
    for (int i = 0; i < NVAR; i++)
        if (a->coef[i] != (i == var))
            return false;
    return a->offset == 0 && a->div == 1;
}

static bool factor_uses(const Factor *f, int var)
{
    for (int i = 0; i < f->rank; i++)
        if (uses(&f->dim[i], var))
            return true;
    return false;
}

static bool factor_checks(const Factor *f, int var)
{
    for (int i = 0; i < f->rank; i++)
        if (is_var(&f->dim[i], var))
            return true;
    return false;
}

/* Repeats the factor along a new last axis that is the loop. */
static void factor_add_axis(Solve *s, Factor *f, int loop)
{
    Type t = type_of(s->g, f->val);
    if (t.rank == IR_MAX_RANK) {
        err_user_at(s->g->err, s->g->file, s->g->line, "the gradient of this contraction needs more than %d axes",
                    IR_MAX_RANK);
        return;
    }
    t.dim[t.rank++] = 1;
    f->val = g_reshape(s->g, f->val, t.rank, t.dim);
    t.dim[t.rank - 1] = s->spec->extent[loop];
    f->val = g_broadcast(s->g, f->val, t.dim);
    f->dim[f->rank++] = affine_var(loop);
}

/* ---- solving ---- */
/* Small enough for products of two, and sums of those, to fit. */
static bool is_small(const Affine *a)
{
    const int64_t most = (int64_t)1 << 28;
    for (int i = 0; i < NVAR; i++)
        if (a->coef[i] > most || a->coef[i] < -most)
            return false;
    return a->offset <= most && a->offset >= -most && a->div <= most;
}

static void substitute(Solve *s, Affine *a, int loop, const Affine *value)
{
    int64_t c = a->coef[loop];
    if (!c)
        return;
    a->coef[loop] = 0;
    for (int i = 0; i < NVAR; i++)
        a->coef[i] = a->coef[i] * value->div + c * value->coef[i];
    a->offset = a->offset * value->div + c * value->offset;
    a->div *= value->div;
    reduce(a);
    s->too_large |= !is_small(a);
}

static void replace_loop(Solve *s, int loop, const Affine *value, int naxis)
{
    s->solved[loop] = true;
    s->too_large |= !is_small(value);
    if (s->too_large)
        return;
    for (int i = 0; i < s->out.rank; i++)
        substitute(s, &s->out.dim[i], loop, value);
    for (int i = 0; i < s->other.rank; i++)
        substitute(s, &s->other.dim[i], loop, value);
    for (int j = 0; j < naxis; j++)
        substitute(s, &s->want[j], loop, value);
}

/* The loop to solve equation j for; -1: it has none. */
static int choose_loop(const Solve *s, int j)
{
    int best = -1;
    bool best_checked = false;
    for (int l = 0; l < s->spec->nloop; l++) {
        if (!uses(&s->want[j], l))
            continue;
        bool checked = factor_checks(&s->out, l) || factor_checks(&s->other, l);
        if (best < 0 || checked > best_checked ||
            (checked == best_checked && s->spec->extent[l] > s->spec->extent[best])) {
            best = l;
            best_checked = checked;
        }
    }
    return best;
}

/* (sum + c*m + offset) / div = x_j   gives   m = (div*x_j - sum - offset) / c */
static void solve_axis(Solve *s, int j, int naxis)
{
    int m = choose_loop(s, j);
    if (m < 0) {
        s->fixed[j] = true;
        return;
    }
    if (!is_var(&s->want[j], m) && !factor_checks(&s->out, m) && !factor_checks(&s->other, m)) /* m = x_j is in range */
        factor_add_axis(s, &s->other, m);
    Affine value = s->want[j];
    int64_t c = value.coef[m];
    value.coef[m] = 0;
    for (int i = 0; i < NVAR; i++)
        value.coef[i] = c < 0 ? value.coef[i] : -value.coef[i];
    value.coef[FIRST_X + j] += c < 0 ? -value.div : value.div;
    value.offset = c < 0 ? value.offset : -value.offset;
    value.div = c < 0 ? -c : c;
    reduce(&value);
    s->want[j].coef[m] = 0; /* this equation holds by construction */
    replace_loop(s, m, &value, naxis);
}

/* ---- the result ---- */
static bool emit_expr(const Affine *a, const int *number, DimExpr *e)
{
    *e = (DimExpr){.offset = a->offset, .div = a->div};
    for (int n = 0; n < SPEC_MAX_LOOPS; n++)
        for (int i = 0; i < NVAR; i++)
            if (a->coef[i] && number[i] == n) {
                if (e->nterm == SPEC_MAX_TERMS)
                    return false;
                e->loop[e->nterm] = n;
                e->coef[e->nterm++] = a->coef[i];
            }
    return true;
}

/* An axis that is one loop must have its extent: cuts it, or adds the zeros that reading past its end would have given.
 */
static void fit_axes(Graph *g, Factor *f, const int64_t *extent_of)
{
    int64_t zero[IR_MAX_RANK] = {0}, limit[IR_MAX_RANK], more[IR_MAX_RANK] = {0};
    bool cut = false, grow = false;
    for (int i = 0; i < f->rank; i++) {
        int64_t have = node_of(g, f->val)->dim[i], want = have;
        for (int var = 0; var < NVAR; var++)
            if (is_var(&f->dim[i], var))
                want = extent_of[var];
        limit[i] = want < have ? want : have;
        more[i] = want - limit[i];
        cut |= limit[i] < have;
        grow |= more[i] > 0;
    }
    if (cut)
        f->val = g_slice(g, f->val, zero, limit, NULL);
    if (grow)
        f->val = g_pad(g, f->val, zero, more, 0);
}

/* Numbers the new loops: free axes first, then what is left to sum.  False when there are too many. */
static bool number_loops(Solve *s, const Type *x, ContractSpec *out, int *number, int64_t *extent_of)
{
    for (int i = 0; i < NVAR; i++)
        number[i] = -1;
    for (int j = 0; j < x->rank; j++)
        if (!s->fixed[j]) {
            number[FIRST_X + j] = out->nloop;
            extent_of[FIRST_X + j] = out->extent[out->nloop++] = x->dim[j];
        }
    out->nout = out->nloop;
    for (int l = 0; l < s->spec->nloop; l++) {
        if (s->solved[l])
            continue;
        if (out->nloop == SPEC_MAX_LOOPS)
            return false;
        number[l] = out->nloop;
        extent_of[l] = out->extent[out->nloop++] = s->spec->extent[l];
        if (!factor_uses(&s->out, l)) /* a summed loop must appear in both factors */
            factor_add_axis(s, &s->out, l);
        if (!factor_uses(&s->other, l))
            factor_add_axis(s, &s->other, l);
    }
    return true;
}

/* Puts the axes that no loop reaches back: the gradient stands where (sum of x) = x_j, all else is 0. */
static Val restore_fixed(Solve *s, Val grad, const Type *x)
{
    Graph *g = s->g;
    Type shape = *x, index = type_make(DAV_I64, x->rank, x->dim);
    bool any = false;
    for (int j = 0; j < x->rank; j++)
        if (s->fixed[j]) {
            shape.dim[j] = 1;
            any = true;
        }
    if (!any)
        return grad;
    grad = g_broadcast(g, g_reshape(g, grad, shape.rank, shape.dim), x->dim);
    for (int j = 0; j < x->rank; j++) {
        if (!s->fixed[j])
            continue;
        Val sum = g_const(g, index, (double)s->want[j].offset);
        for (int i = 0; i < x->rank; i++) {
            int64_t c = s->want[j].coef[FIRST_X + i] - (i == j ? s->want[j].div : 0);
            Val at = c ? g_iota(g, index, i) : 0;
            if (c)
                sum = g_bin(g, OP_ADD, sum, g_bin(g, OP_MUL, at, g_const(g, index, (double)c)));
        }
        Val holds = g_bin(g, OP_EQ, sum, g_const(g, index, 0));
        grad = g_ew(g, OP_SELECT, holds, grad, g_const_like(g, grad, 0));
    }
    return grad;
}

static Factor factor_of(Val val, int rank)
{
    return (Factor){.val = val, .rank = rank};
}

Val contract_grad(Graph *g, Val v, int o, Val ct)
{
    const Node *n = node_of(g, v);
    const ContractSpec *spec = attr_spec(n);
    Type x = type_of(g, n->arg[o]);
    Solve s = {.g = g,
               .spec = spec,
               .out = factor_of(g_cast(g, ct, x.dtype), spec->nout),
               .other = factor_of(n->arg[1 - o], spec->rank[1 - o])};
    for (int i = 0; i < spec->nout; i++)
        s.out.dim[i] = affine_var(i);
    for (int i = 0; i < s.other.rank; i++)
        s.other.dim[i] = affine_of(&spec->dim[1 - o][i]);
    for (int i = 0; i < s.other.rank; i++)
        s.too_large |= !is_small(&s.other.dim[i]);
    bool plain[IR_MAX_RANK];
    for (int j = 0; j < x.rank; j++) {
        const DimExpr *e = &spec->dim[o][j];
        s.want[j] = affine_of(e);
        s.too_large |= !is_small(&s.want[j]);
        plain[j] = e->nterm == 1 && is_var(&s.want[j], e->loop[0]);
    }
    for (int first = 1; first >= 0; first--) /* axes that are a loop leave no choice: they go first */
        for (int j = 0; j < x.rank; j++)
            if (plain[j] == first && !s.too_large)
                solve_axis(&s, j, x.rank);
    if (s.too_large) {
        err_user_at(g->err, g->file, g->line,
                    "the index expressions of this contraction have numbers too large for a gradient");
        return 0;
    }
    ContractSpec out = {0};
    int number[NVAR];
    int64_t extent_of[NVAR] = {0};
    bool ok = number_loops(&s, &x, &out, number, extent_of);
    fit_axes(g, &s.out, extent_of);
    fit_axes(g, &s.other, extent_of);
    const Factor *f[2] = {o ? &s.other : &s.out, o ? &s.out : &s.other}; /* a's gradient: dout, b; b's: a, dout */
    for (int k = 0; k < 2 && ok; k++) {
        out.rank[k] = f[k]->rank;
        for (int i = 0; i < f[k]->rank; i++)
            ok &= emit_expr(&f[k]->dim[i], number, &out.dim[k][i]);
    }
    if (!ok) {
        err_user_at(g->err, g->file, g->line, "the gradient of this contraction has too many loops");
        return 0;
    }
    return restore_fixed(&s, g_contract(g, f[0]->val, f[1]->val, &out, x.dtype), &x);
}
