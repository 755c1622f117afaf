/* Shape rules: what type a node has, or what is wrong with its operands.  One function a rule, named in ops.def. */
#include "ir/build.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { COUNT_LIMIT_LOG2 = 48 };

static const char *name(const ShapeCx *cx)
{
    return op_info[cx->n->op].text;
}

static Type arg_type(const ShapeCx *cx, int i)
{
    return type_of(cx->g, cx->n->arg[i]);
}

static bool bad(const ShapeCx *cx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool bad(const ShapeCx *cx, const char *fmt, ...)
{
    char text[1500];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    char types[400] = "";
    size_t len = 0;
    for (int i = 0; i < cx->n->narg && i < 4; i++) {
        char one[160];
        Type t = arg_type(cx, i);
        if (!(op_info[cx->g->node[cx->n->arg[i]].op].flags & OPF_TUPLE))
            len += (size_t)snprintf(types + len, sizeof types - len, "%s%s", i ? ", " : "", type_text(&t, one));
        if (len >= sizeof types)
            break;
    }
    return err_user(cx->err, "%s(%s): %s", name(cx), types, text);
}

/* Every result passes here: the number of elements stays far from overflow. */
static bool give(const ShapeCx *cx, Type t)
{
    int64_t count = 1;
    for (int i = 0; i < t.rank; i++) {
        if (t.dim[i] < 0)
            return bad(cx, "axis %d would have the negative size %" PRId64, i, t.dim[i]);
        if (__builtin_mul_overflow(count, t.dim[i] ? t.dim[i] : 1, &count) || count > (int64_t)1 << COUNT_LIMIT_LOG2)
            return bad(cx, "the result would have more than 2^%d elements", COUNT_LIMIT_LOG2);
    }
    *cx->out = t;
    return true;
}

static bool is_float(DavDtype t)
{
    return t == DAV_F64 || t == DAV_F32 || t == DAV_BF16 || t == DAV_F16;
}

bool ew_defined(Op op, DavDtype t)
{
    switch (op_info[op].domain) {
    case DOM_ANY:
        return true;
    case DOM_NUM:
        return t != DAV_BOOL;
    case DOM_FLT:
        return is_float(t);
    case DOM_INT:
        return !is_float(t) && t != DAV_BOOL;
    case DOM_LOG:
        return !is_float(t);
    }
    return false;
}

static const char *domain_text(Op op)
{
    static const char *const text[] = {"a number", "a float", "an integer", "a bool or an integer", "anything"};
    return text[op_info[op].domain];
}

bool shape_none(const ShapeCx *cx)
{
    return give(cx, (Type){.dtype = DAV_BOOL});
}

bool shape_given(const ShapeCx *cx)
{
    if (!cx->given)
        return bad(cx, "needs a type");
    const Node *n = cx->n;
    if (n->op == OP_LITERAL && node_attr(n, A_DATA)->n != type_count(cx->given))
        return bad(cx, "%d numbers for %" PRId64 " elements", node_attr(n, A_DATA)->n, type_count(cx->given));
    if (n->op == OP_IOTA && (attr_i(n, A_AXIS) < 0 || attr_i(n, A_AXIS) >= cx->given->rank))
        return bad(cx, "axis %" PRId64 " of a value of rank %d", attr_i(n, A_AXIS), cx->given->rank);
    return give(cx, *cx->given);
}

/* cumsum shares this rule: one operand, an axis to check */
bool shape_same(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    if (cx->n->op == OP_CUMSUM) {
        int64_t axis = attr_i(cx->n, A_AXIS);
        if (axis < 0 || axis >= t.rank)
            return bad(cx, "axis %" PRId64 " of a value of rank %d", axis, t.rank);
        return t.dtype == DAV_BOOL ? bad(cx, "expected a number") : give(cx, t);
    }
    if (!ew_defined((Op)cx->n->op, t.dtype))
        return bad(cx, "expected %s", domain_text((Op)cx->n->op));
    for (int i = 1; i < cx->n->narg; i++) {
        Type u = arg_type(cx, i);
        if (!type_same_shape(&t, &u))
            return bad(cx, "operands need equal shapes here");
        if (t.dtype != u.dtype)
            return bad(cx, "operands need one dtype; cast one of them");
    }
    return give(cx, t);
}

bool shape_compare(const ShapeCx *cx)
{
    if (!shape_same(cx))
        return false;
    cx->out->dtype = DAV_BOOL;
    return true;
}

bool shape_select(const ShapeCx *cx)
{
    Type c = arg_type(cx, 0), x = arg_type(cx, 1), y = arg_type(cx, 2);
    if (c.dtype != DAV_BOOL)
        return bad(cx, "expected a bool as first operand");
    if (!type_equal(&x, &y) || !type_same_shape(&c, &x))
        return bad(cx, "expected equal shapes, and one dtype of the two branches");
    return give(cx, x);
}

bool shape_cast(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    int64_t to = attr_i(cx->n, A_TO);
    if (to < 0 || to >= DAV_DTYPE_COUNT)
        return bad(cx, "no dtype has the number %" PRId64, to);
    t.dtype = (DavDtype)to;
    return give(cx, t);
}

bool shape_bitcast(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    int64_t to = attr_i(cx->n, A_TO);
    if (to < 0 || to >= DAV_DTYPE_COUNT || dav_dtype_size((DavDtype)to) != dav_dtype_size(t.dtype) || to == DAV_BOOL ||
        t.dtype == DAV_BOOL)
        return bad(cx, "expected a dtype of %zu bytes that is not bool", dav_dtype_size(t.dtype));
    t.dtype = (DavDtype)to;
    return give(cx, t);
}

static bool check_axes(const ShapeCx *cx, AttrName attr, int rank)
{
    int n;
    const int64_t *axes = attr_ints(cx->n, attr, &n);
    for (int i = 0; i < n; i++) {
        if (axes[i] < 0 || axes[i] >= rank)
            return bad(cx, "axis %" PRId64 " of a value of rank %d", axes[i], rank);
        if (i && axes[i] <= axes[i - 1])
            return bad(cx, "axes must ascend");
    }
    return n > 0 ? true : bad(cx, "needs at least one axis");
}

bool shape_reduce(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    if (!check_axes(cx, A_AXES, t.rank))
        return false;
    if (t.dtype == DAV_BOOL)
        return bad(cx, "expected a number");
    int n;
    const int64_t *axes = attr_ints(cx->n, A_AXES, &n);
    for (int i = 0; i < n; i++) {
        if (t.dim[axes[i]] == 0 && cx->n->op != OP_SUM)
            return bad(cx, "axis %" PRId64 " is empty", axes[i]);
        t.dim[axes[i]] = 1;
    }
    int64_t parts = attr_parts(cx->n), length = arg_type(cx, 0).dim[axes[0]];
    if (parts < 1 || length % parts || (parts > 1 && t.rank == IR_MAX_RANK))
        return bad(cx, "%" PRId64 " parts of an axis of %" PRId64, parts, length);
    t.dim[axes[0]] = parts;
    return give(cx, t);
}

static bool check_axis(const ShapeCx *cx, const Type *t, int64_t *axis)
{
    *axis = attr_i(cx->n, A_AXIS);
    return *axis >= 0 && *axis < t->rank ? true : bad(cx, "axis %" PRId64 " of a value of rank %d", *axis, t->rank);
}

bool shape_argmax(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    int64_t axis;
    if (!check_axis(cx, &t, &axis))
        return false;
    if (t.dim[axis] == 0 || t.dtype == DAV_BOOL)
        return bad(cx, "expected numbers, at least one along the axis");
    t.dtype = DAV_I32;
    t.dim[axis] = 1;
    return give(cx, t);
}

bool shape_argsort(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    int64_t axis;
    if (!check_axis(cx, &t, &axis))
        return false;
    if (t.dtype == DAV_BOOL || t.dim[axis] > INT32_MAX)
        return bad(cx, "expected numbers, fewer than 2^31 along the axis");
    t.dtype = DAV_I32;
    return give(cx, t);
}

/* The ints of an attribute as a shape or per-axis numbers of the rank asked for. */
static const int64_t *ints_of_rank(const ShapeCx *cx, AttrName attr, int rank)
{
    int n;
    const int64_t *v = attr_ints(cx->n, attr, &n);
    if (n == rank)
        return v;
    bad(cx, "'%s' has %d numbers, expected %d", attr_info[attr].text, n, rank);
    return NULL;
}

bool shape_broadcast(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    const int64_t *shape = ints_of_rank(cx, A_SHAPE, t.rank);
    if (!shape)
        return false;
    for (int i = 0; i < t.rank; i++) {
        if (t.dim[i] != 1 && t.dim[i] != shape[i])
            return bad(cx, "axis %d of size %" PRId64 " cannot become %" PRId64, i, t.dim[i], shape[i]);
        t.dim[i] = shape[i];
    }
    return give(cx, t);
}

bool shape_reshape(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    int64_t count = type_count(&t);
    int n;
    const int64_t *shape = attr_ints(cx->n, A_SHAPE, &n);
    if (n > IR_MAX_RANK)
        return bad(cx, "rank %d, at most %d", n, IR_MAX_RANK);
    Type r = type_make(t.dtype, n, shape);
    if (!give(cx, r))
        return false;
    return type_count(&r) == count ? true : bad(cx, "%" PRId64 " elements cannot become %" PRId64, count, type_count(&r));
}

bool shape_transpose(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0), r = t;
    const int64_t *perm = ints_of_rank(cx, A_PERM, t.rank);
    unsigned seen = 0;
    for (int i = 0; perm && i < t.rank; i++) {
        if (perm[i] < 0 || perm[i] >= t.rank || (seen >> perm[i] & 1))
            return bad(cx, "perm is not a permutation of the axes");
        seen |= 1u << perm[i];
        r.dim[i] = t.dim[perm[i]];
    }
    return perm && give(cx, r);
}

bool shape_slice(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    const int64_t *start = ints_of_rank(cx, A_START, t.rank), *limit = ints_of_rank(cx, A_LIMIT, t.rank),
                  *stride = ints_of_rank(cx, A_STRIDE, t.rank);
    if (!start || !limit || !stride)
        return false;
    for (int i = 0; i < t.rank; i++) {
        if (start[i] < 0 || start[i] > limit[i] || limit[i] > t.dim[i] || stride[i] < 1)
            return bad(cx, "axis %d: [%" PRId64 ", %" PRId64 ") by %" PRId64 " is not inside [0, %" PRId64 ")", i, start[i],
                       limit[i], stride[i], t.dim[i]);
        t.dim[i] = limit[i] == start[i] ? 0 : (limit[i] - start[i] - 1) / stride[i] + 1;
    }
    return give(cx, t);
}

bool shape_pad(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    const int64_t *lo = ints_of_rank(cx, A_LO, t.rank), *hi = ints_of_rank(cx, A_HI, t.rank);
    if (!lo || !hi)
        return false;
    for (int i = 0; i < t.rank; i++) {
        if (lo[i] < 0 || hi[i] < 0 || __builtin_add_overflow(t.dim[i], lo[i], &t.dim[i]) ||
            __builtin_add_overflow(t.dim[i], hi[i], &t.dim[i]))
            return bad(cx, "axis %d: padding must not be negative or huge", i);
    }
    return give(cx, t);
}

bool shape_concat(const ShapeCx *cx)
{
    if (cx->n->narg < 1)
        return bad(cx, "needs at least one operand");
    Type t = arg_type(cx, 0);
    int64_t axis;
    if (!check_axis(cx, &t, &axis))
        return false;
    for (int i = 1; i < cx->n->narg; i++) {
        Type u = arg_type(cx, i), v = u;
        if (u.rank == t.rank)
            v.dim[axis] = t.dim[axis];
        if (!type_equal(&v, &t))
            return bad(cx, "operand %d differs in dtype or outside of axis %" PRId64, i, axis);
        if (__builtin_add_overflow(t.dim[axis], u.dim[axis], &t.dim[axis]))
            return bad(cx, "axis %" PRId64 " would overflow", axis);
    }
    return give(cx, t);
}

bool shape_reverse(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    return check_axes(cx, A_AXES, t.rank) && give(cx, t);
}

/* What window and fold share: sane numbers, below 2^31 so that index sums cannot overflow. */
static bool check_window(const ShapeCx *cx, int64_t size)
{
    const int64_t v[] = {size, attr_i(cx->n, A_STEP), attr_i(cx->n, A_DILATION), attr_i(cx->n, A_COUNT),
                         attr_i(cx->n, A_PAD) + 1};
    for (int i = 0; i < 5; i++)
        if (v[i] < 1 || v[i] > INT32_MAX)
            return bad(cx, "size, step, dilation, count must be positive and pad not negative");
    return true;
}

bool shape_window(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    int64_t axis;
    if (!check_axis(cx, &t, &axis) || !check_window(cx, attr_i(cx->n, A_SIZE)))
        return false;
    if (t.rank == IR_MAX_RANK)
        return bad(cx, "rank would exceed %d", IR_MAX_RANK);
    t.dim[axis] = attr_i(cx->n, A_COUNT);
    t.dim[t.rank++] = attr_i(cx->n, A_SIZE);
    return give(cx, t);
}

bool shape_fold(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    int64_t axis;
    if (!check_axis(cx, &t, &axis))
        return false;
    if (t.rank < 2 || axis == t.rank - 1 || t.dtype == DAV_BOOL)
        return bad(cx, "expected numbers with the window as last axis, after the folded one");
    if (!check_window(cx, t.dim[t.rank - 1] ? t.dim[t.rank - 1] : 1))
        return false;
    t.dim[axis] = attr_i(cx->n, A_COUNT);
    t.rank--;
    t.dim[t.rank] = 0;
    return give(cx, t);
}

static bool is_scalar_i32(const ShapeCx *cx, int i)
{
    Type t = arg_type(cx, i);
    return t.dtype == DAV_I32 && t.rank == 0 ? true : bad(cx, "operand %d must be i32[]", i);
}

bool shape_dyn_slice(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0);
    int64_t axis, size = attr_i(cx->n, A_SIZE);
    if (!check_axis(cx, &t, &axis) || !is_scalar_i32(cx, 1))
        return false;
    if (size < 0 || size > t.dim[axis])
        return bad(cx, "size %" PRId64 " along axis %" PRId64, size, axis);
    t.dim[axis] = size;
    return give(cx, t);
}

bool shape_dyn_update(const ShapeCx *cx)
{
    Type t = arg_type(cx, 0), u = arg_type(cx, 1), v = u;
    int64_t axis;
    if (!check_axis(cx, &t, &axis) || !is_scalar_i32(cx, 2))
        return false;
    if (u.rank == t.rank)
        v.dim[axis] = t.dim[axis];
    if (!type_equal(&v, &t) || u.dim[axis] > t.dim[axis])
        return bad(cx, "the update must equal the operand outside of axis %" PRId64 " and fit along it", axis);
    return give(cx, t);
}

/* x [B.., N, R..], idx [B.., I..] -> [B.., I.., R..] */
static bool gather_shape(const ShapeCx *cx, Type x, Type idx, Type *out)
{
    int64_t b = attr_i(cx->n, A_BATCH);
    if (b < 0 || b >= x.rank || b > idx.rank)
        return bad(cx, "batch %" PRId64 " does not fit the ranks", b);
    if (idx.dtype != DAV_I32 && idx.dtype != DAV_I64)
        return bad(cx, "indices must be i32 or i64");
    for (int i = 0; i < b; i++)
        if (x.dim[i] != idx.dim[i])
            return bad(cx, "shared axis %d differs", i);
    if (idx.rank + x.rank - b - 1 > IR_MAX_RANK)
        return bad(cx, "rank would exceed %d", IR_MAX_RANK);
    *out = idx;
    out->dtype = x.dtype;
    for (int i = (int)b + 1; i < x.rank; i++)
        out->dim[out->rank++] = x.dim[i];
    return true;
}

bool shape_gather(const ShapeCx *cx)
{
    Type t;
    return gather_shape(cx, arg_type(cx, 0), arg_type(cx, 1), &t) && give(cx, t);
}

bool shape_scatter_add(const ShapeCx *cx)
{
    Type t, base = arg_type(cx, 0), upd = arg_type(cx, 2);
    if (!gather_shape(cx, base, arg_type(cx, 1), &t))
        return false;
    if (!type_equal(&t, &upd) || base.dtype == DAV_BOOL)
        return bad(cx, "the update must be numbers of the shape that gather would give");
    return give(cx, base);
}

bool shape_random(const ShapeCx *cx)
{
    Type key = arg_type(cx, 0), ctr = arg_type(cx, 1);
    int n;
    const int64_t *shape = attr_ints(cx->n, A_SHAPE, &n);
    if (key.dtype != DAV_U32 || key.rank != 1 || key.dim[0] != 2 || ctr.dtype != DAV_U32 || ctr.rank != 2 || ctr.dim[1] != 3)
        return bad(cx, "expected key u32[2] and counters u32[N,3]");
    if (n < 1 || n > IR_MAX_RANK || shape[0] != ctr.dim[0])
        return bad(cx, "the first axis of the result must have one row a counter");
    return give(cx, type_make(DAV_U32, n, shape));
}

/* ---- regions ---- */
static bool region_inputs_match(const ShapeCx *cx, const Graph *body)
{
    const Node *n = cx->n;
    int carry = n->op == OP_LOOP ? (int)attr_i(n, A_CARRY) : 0, scan = n->op == OP_LOOP ? (int)attr_i(n, A_SCAN) : 0, k = 0;
    for (Val v = 1; v < body->n; v++) {
        if (body->node[v].op != OP_INPUT)
            continue;
        if (k >= n->narg)
            return bad(cx, "the region has more inputs than the %d operands", n->narg);
        Type want = type_of(body, v), have = arg_type(cx, k);
        if (n->op == OP_LOOP && k >= carry && k < carry + scan) {
            if (have.rank == 0 || have.dim[0] != attr_i(n, A_TRIP))
                return bad(cx, "scanned operand %d needs a leading axis of %" PRId64, k, attr_i(n, A_TRIP));
            memmove(have.dim, have.dim + 1, (size_t)(have.rank - 1) * sizeof *have.dim);
            have.rank--;
        }
        char a[160], b[160];
        if (!type_equal(&want, &have))
            return bad(cx, "operand %d is %s, the region's input '%s' is %s", k, type_text(&have, a),
                       attr_s(&body->node[v], A_NAME), type_text(&want, b));
        k++;
    }
    return k == n->narg ? true : bad(cx, "the region has %d inputs for %d operands", k, n->narg);
}

static bool check_loop(const ShapeCx *cx, const Graph *body)
{
    const Node *n = cx->n;
    int64_t carry = attr_i(n, A_CARRY), scan = attr_i(n, A_SCAN), trip = attr_i(n, A_TRIP);
    if (carry < 0 || scan < 0 || carry + scan > n->narg || carry > body->nout || trip < 0 || trip > INT32_MAX)
        return bad(cx, "carry %" PRId64 ", scan %" PRId64 ", trip %" PRId64 " do not fit %d operands and %d outputs", carry, scan,
                   trip, n->narg, body->nout);
    for (int i = 0; i < carry; i++) {
        Type out = type_of(body, body->out[i].val), in = arg_type(cx, i);
        if (!type_equal(&in, &out))
            return bad(cx, "carried value %d changes its type", i);
    }
    return true;
}

/* Tuples have no shape of their own: []; pick gives one. */
bool shape_tuple(const ShapeCx *cx)
{
    const Node *n = cx->n;
    if (n->op == OP_GRAD) {
        if (n->narg < 1)
            return bad(cx, "needs the value to differentiate");
        Type y = arg_type(cx, 0);
        if (!is_float(y.dtype) || type_count(&y) != 1)
            return bad(cx, "the value to differentiate must be one float");
        for (int i = 1; i < n->narg; i++) {
            Type x = arg_type(cx, i);
            if (!is_float(x.dtype))
                return bad(cx, "operand %d is no float: it has no gradient", i);
        }
        return give(cx, (Type){.dtype = DAV_BOOL});
    }
    const Graph *body = attr_graph(n, A_GRAPH);
    if (n->op == OP_KERNEL)
        return give(cx, (Type){.dtype = DAV_BOOL});
    return region_inputs_match(cx, body) && (n->op != OP_LOOP || check_loop(cx, body)) &&
           give(cx, (Type){.dtype = DAV_BOOL});
}

bool shape_pick(const ShapeCx *cx)
{
    Type t;
    int64_t k = attr_i(cx->n, A_INDEX);
    if (k < 0 || k > INT32_MAX || !(op_info[cx->g->node[cx->n->arg[0]].op].flags & OPF_TUPLE) ||
        !tuple_type(cx->g, cx->n->arg[0], (int)k, &t))
        return bad(cx, "%s has no result %" PRId64, op_info[cx->g->node[cx->n->arg[0]].op].text, k);
    return give(cx, t);
}

/* ---- kernel level ---- */
bool shape_index(const ShapeCx *cx)
{
    int n;
    const int64_t *nums = attr_ints(cx->n, A_NUMS, &n);
    if (n != 3 || nums[2] < 1 || (cx->n->narg != 0 && cx->n->narg != 2))
        return bad(cx, "expected nums = [lo, hi, step > 0] and 0 or 2 operands");
    return give(cx, (Type){.dtype = DAV_I64});
}

static bool element_of(const ShapeCx *cx, Op holder, Type *t)
{
    const Node *h = cx->n->narg ? &cx->g->node[cx->n->arg[0]] : NULL;
    if (!h || h->op != holder)
        return bad(cx, "operand 0 must be a %s", op_info[holder].text);
    *t = (Type){.dtype = (DavDtype)h->dtype};
    return true;
}

bool shape_load(const ShapeCx *cx)
{
    Type t;
    return element_of(cx, OP_BUF, &t) && give(cx, t);
}

bool shape_acc(const ShapeCx *cx)
{
    Type t;
    return element_of(cx, OP_ACC, &t) && give(cx, t);
}

bool shape_tile(const ShapeCx *cx)
{
    Type t;
    return element_of(cx, OP_TILE, &t) && give(cx, t);
}

bool shape_exp2(const ShapeCx *cx)
{
    int64_t to = attr_i(cx->n, A_TO);
    if (arg_type(cx, 0).dtype != DAV_F32 || (to != DAV_F32 && to != DAV_BF16))
        return bad(cx, "expected an f32, and to f32 or bf16");
    return give(cx, arg_type(cx, 0));
}

bool shape_philox(const ShapeCx *cx)
{
    for (int i = 0; i < 6; i++)
        if (arg_type(cx, i).dtype != DAV_U32)
            return bad(cx, "operand %d must be u32", i);
    return give(cx, (Type){.dtype = DAV_U32});
}
