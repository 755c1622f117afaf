/* Contraction specs: their shape rule, text, and the count of their work. */
#include "ir/build.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

DimExpr spec_loop(int loop)
{
    return (DimExpr){.nterm = 1, .loop = {loop}, .coef = {1}, .div = 1};
}

static bool expr_equal(const DimExpr *a, const DimExpr *b)
{
    if (a->nterm != b->nterm || a->offset != b->offset || a->div != b->div)
        return false;
    for (int i = 0; i < a->nterm; i++)
        if (a->loop[i] != b->loop[i] || a->coef[i] != b->coef[i])
            return false;
    return true;
}

bool spec_equal(const ContractSpec *a, const ContractSpec *b)
{
    if (a->nloop != b->nloop || a->nout != b->nout || memcmp(a->rank, b->rank, sizeof a->rank) != 0 ||
        memcmp(a->extent, b->extent, (size_t)a->nloop * sizeof *a->extent) != 0)
        return false;
    for (int o = 0; o < 2; o++)
        for (int i = 0; i < a->rank[o]; i++)
            if (!expr_equal(&a->dim[o][i], &b->dim[o][i]))
                return false;
    return true;
}

/* ---- shape rule ---- */
static bool check_expr(const ContractSpec *s, const DimExpr *e, unsigned *used)
{
    const int64_t big = (int64_t)1 << 40;
    if (e->nterm < 0 || e->nterm > SPEC_MAX_TERMS || e->div < 1 || e->div > big || e->offset > big || e->offset < -big)
        return false;
    for (int i = 0; i < e->nterm; i++) {
        if (e->loop[i] < 0 || e->loop[i] >= s->nloop || e->coef[i] == 0 || e->coef[i] > big || e->coef[i] < -big ||
            (i && e->loop[i] <= e->loop[i - 1]))
            return false;
        *used |= 1u << e->loop[i];
    }
    return true;
}

static bool wrong(const ShapeCx *cx, const char *what)
{
    char a[160], b[160];
    Type ta = type_of(cx->g, cx->n->arg[0]), tb = type_of(cx->g, cx->n->arg[1]);
    Buf text = {0};
    spec_print(&text, attr_spec(cx->n));
    err_user(cx->err, "contract(%s, %s) \"%s\": %s", type_text(&ta, a), type_text(&tb, b), text.at, what);
    buf_free(&text);
    return false;
}

static bool is_float(DavDtype t)
{
    return t == DAV_F64 || t == DAV_F32 || t == DAV_BF16 || t == DAV_F16;
}

/* A dimension that is one loop alone must have the loop's extent. */
static bool extents_match(const ContractSpec *s, int o, const Type *t)
{
    for (int i = 0; i < s->rank[o]; i++) {
        const DimExpr *e = &s->dim[o][i];
        if (e->nterm == 1 && e->coef[0] == 1 && e->offset == 0 && e->div == 1 && s->extent[e->loop[0]] != t->dim[i])
            return false;
    }
    return true;
}

bool shape_contract(const ShapeCx *cx)
{
    const ContractSpec *s = attr_spec(cx->n);
    Type t[2] = {type_of(cx->g, cx->n->arg[0]), type_of(cx->g, cx->n->arg[1])};
    if (s->nloop < 0 || s->nloop > SPEC_MAX_LOOPS || s->nout < 0 || s->nout > s->nloop || s->nout > IR_MAX_RANK)
        return err_user(cx->err, "contract: %d loops, %d of them of the output, are too many", s->nloop, s->nout);
    if (s->rank[0] != t[0].rank || s->rank[1] != t[1].rank)
        return err_user(cx->err, "contract: the spec is for ranks %d and %d, the operands have %d and %d", s->rank[0], s->rank[1],
                        t[0].rank, t[1].rank);
    if (t[0].dtype != t[1].dtype || !is_float(t[0].dtype))
        return wrong(cx, "operands must be floats of one dtype");
    unsigned used[2] = {0, 0};
    for (int o = 0; o < 2; o++)
        for (int i = 0; i < s->rank[o]; i++)
            if (!check_expr(s, &s->dim[o][i], &used[o]))
                return err_user(cx->err, "contract: broken index expression for axis %d of operand %d", i, o);
    for (int l = 0; l < s->nloop; l++) {
        bool in_a = used[0] >> l & 1, in_b = used[1] >> l & 1;
        if (l < s->nout ? !(in_a || in_b) : !(in_a && in_b))
            return wrong(cx, "an output loop must appear in an operand, a summed loop in both");
        if (s->extent[l] < 0 || s->extent[l] > (int64_t)1 << 40)
            return wrong(cx, "loop extents must be positive");
    }
    if (!extents_match(s, 0, &t[0]) || !extents_match(s, 1, &t[1]))
        return wrong(cx, "an axis differs from its loop's extent");
    if (!cx->given || cx->given->rank != s->nout || memcmp(cx->given->dim, s->extent, (size_t)s->nout * sizeof *s->extent) != 0)
        return wrong(cx, "the result's shape is not the output loops' extents");
    if (cx->given->dtype != t[0].dtype && cx->given->dtype != DAV_F32)
        return wrong(cx, "the result must have the operands' dtype or f32");
    int64_t count = 1;
    for (int i = 0; i < s->nout; i++)
        if (__builtin_mul_overflow(count, s->extent[i] ? s->extent[i] : 1, &count) || count > (int64_t)1 << 48)
            return wrong(cx, "the result would have more than 2^48 elements");
    *cx->out = *cx->given;
    return true;
}

/* ---- text:  a 2*b+4*d-8 e, d e c -> a b c | d=9 e=128 ---- */
static void print_expr(Buf *b, const DimExpr *e)
{
    if (e->div != 1)
        buf_str(b, "(");
    for (int i = 0; i < e->nterm; i++) {
        if (e->coef[i] < 0)
            buf_str(b, "-");
        else if (i)
            buf_str(b, "+");
        if (e->coef[i] != 1 && e->coef[i] != -1)
            buf_printf(b, "%" PRId64 "*", e->coef[i] < 0 ? -e->coef[i] : e->coef[i]);
        buf_printf(b, "%c", 'a' + e->loop[i]);
    }
    if (e->offset || !e->nterm)
        buf_printf(b, e->nterm ? "%+" PRId64 : "%" PRId64, e->offset);
    if (e->div != 1)
        buf_printf(b, ")/%" PRId64, e->div);
}

void spec_print(Buf *b, const ContractSpec *s)
{
    for (int o = 0; o < 2; o++) {
        for (int i = 0; i < s->rank[o]; i++) {
            buf_str(b, i ? " " : "");
            print_expr(b, &s->dim[o][i]);
        }
        buf_str(b, o ? " ->" : ", ");
    }
    for (int l = 0; l < s->nout; l++)
        buf_printf(b, " %c", 'a' + l);
    for (int l = s->nout; l < s->nloop; l++)
        buf_printf(b, "%s %c=%" PRId64, l == s->nout ? " |" : "", 'a' + l, s->extent[l]);
}

typedef struct Scan { const char *p; } Scan;

static bool scan_int(Scan *s, int64_t *v)
{
    if (*s->p < '0' || *s->p > '9')
        return false;
    *v = 0;
    while (*s->p >= '0' && *s->p <= '9')
        if (__builtin_mul_overflow(*v, (int64_t)10, v) || __builtin_add_overflow(*v, (int64_t)(*s->p++ - '0'), v))
            return false;
    return true;
}

static bool is_loop(char c)
{
    return c >= 'a' && c < 'a' + SPEC_MAX_LOOPS;
}

/* One signed term: loop, number, or number*loop. */
static bool scan_term(Scan *s, bool first, DimExpr *e)
{
    int64_t sign = 1, v = 1;
    if (*s->p == '+' || *s->p == '-')
        sign = *s->p++ == '-' ? -1 : 1;
    else if (!first)
        return false;
    if (!is_loop(*s->p)) {
        if (!scan_int(s, &v))
            return false;
        if (*s->p != '*')
            return !__builtin_add_overflow(e->offset, sign * v, &e->offset);
        s->p++;
        if (!is_loop(*s->p))
            return false;
    }
    if (e->nterm == SPEC_MAX_TERMS)
        return false;
    e->loop[e->nterm] = *s->p++ - 'a';
    e->coef[e->nterm++] = sign * v;
    return true;
}

static bool scan_expr(Scan *s, DimExpr *e)
{
    *e = (DimExpr){.div = 1};
    bool group = *s->p == '(';
    s->p += group;
    if (!scan_term(s, true, e))
        return false;
    while (*s->p == '+' || *s->p == '-')
        if (!scan_term(s, false, e))
            return false;
    if (group) {
        if (s->p[0] != ')' || s->p[1] != '/')
            return false;
        s->p += 2;
        return scan_int(s, &e->div);
    }
    return true;
}

static void skip_blanks(Scan *s)
{
    while (*s->p == ' ')
        s->p++;
}

static bool scan_operand(Scan *s, ContractSpec *spec, int o)
{
    for (skip_blanks(s); *s->p && *s->p != ',' && !(s->p[0] == '-' && s->p[1] == '>'); skip_blanks(s))
        if (spec->rank[o] == IR_MAX_RANK || !scan_expr(s, &spec->dim[o][spec->rank[o]++]))
            return false;
    return true;
}

static bool scan_spec(Scan *s, ContractSpec *spec)
{
    if (!scan_operand(s, spec, 0) || *s->p++ != ',' || !scan_operand(s, spec, 1) || s->p[0] != '-' || s->p[1] != '>')
        return false;
    s->p += 2;
    for (skip_blanks(s); is_loop(*s->p); skip_blanks(s))
        if (*s->p++ != 'a' + spec->nout++ || spec->nout > IR_MAX_RANK)
            return false;
    spec->nloop = spec->nout;
    if (*s->p == '|') {
        s->p++;
        for (skip_blanks(s); is_loop(*s->p); skip_blanks(s)) {
            if (spec->nloop == SPEC_MAX_LOOPS || *s->p++ != 'a' + spec->nloop || *s->p++ != '=' ||
                !scan_int(s, &spec->extent[spec->nloop]))
                return false;
            spec->nloop++;
        }
    }
    return *s->p == 0;
}

bool spec_parse(Err *err, const char *text, ContractSpec *spec)
{
    *spec = (ContractSpec){0};
    Scan s = {text};
    if (scan_spec(&s, spec))
        return true;
    return err_user(err, "contraction spec \"%.200s\": expected like \"a c, c b -> a b | c=8\", stopped at \"%.20s\"", text, s.p);
}

/* ---- work ---- */
/* Whether every operand axis is inside for the given loop values, for the axes whose loops are all fixed in `mask`. */
static bool inside(const ContractSpec *s, const Type *t, const int64_t *at, int o, int axis)
{
    const DimExpr *e = &s->dim[o][axis];
    int64_t v = e->offset;
    for (int i = 0; i < e->nterm; i++)
        v += e->coef[i] * at[e->loop[i]];
    return v % e->div == 0 && v / e->div >= 0 && v / e->div < t->dim[axis];
}

/* Axes with one plain loop never fail; each other axis is counted by enumerating its own loops.  Axes are independent when
 * they share no loop, which holds for convolutions; shared loops make the estimate an upper bound. */
void spec_work(const ContractSpec *s, const Type *a, const Type *b, double *useful, double *all)
{
    const Type *t[2] = {a, b};
    double n = 1, share = 1;
    for (int l = 0; l < s->nloop; l++)
        n *= (double)s->extent[l];
    for (int o = 0; o < 2; o++)
        for (int i = 0; i < s->rank[o]; i++) {
            const DimExpr *e = &s->dim[o][i];
            double total = 1;
            for (int k = 0; k < e->nterm; k++)
                total *= (double)s->extent[e->loop[k]];
            if ((e->nterm == 1 && e->coef[0] == 1 && e->offset == 0 && e->div == 1) || total > 1e7 || total == 0)
                continue;
            int64_t at[SPEC_MAX_LOOPS] = {0}, hit = 0;
            for (int64_t c = 0; c < (int64_t)total; c++) {
                int64_t rest = c;
                for (int k = 0; k < e->nterm; k++) {
                    at[e->loop[k]] = rest % s->extent[e->loop[k]];
                    rest /= s->extent[e->loop[k]];
                }
                hit += inside(s, t[o], at, o, i);
            }
            share *= (double)hit / total;
        }
    *all = n;
    *useful = n * share;
}
