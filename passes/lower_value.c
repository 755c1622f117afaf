/* One element of a value of a region, as kernel instructions: the reading of every op at an index.
 *
 * Values already computed at the same index in an open scope are used again (memo).  A mask, when given, is where the
 * element is wanted: loads outside of it are not done. */
#include "passes/lower.h"
#include <string.h>

int lower_mark(const Lower *l)
{
    return l->nmemo;
}

void lower_forget(Lower *l, int mark)
{
    while (l->nmemo > mark) {
        const Memo *m = &l->memo[--l->nmemo];
        l->newest[m->v] = m->before;
    }
}

void lower_remember(Lower *l, Val v, const Val *idx, Val mask, Val val)
{
    Memo m = {.v = v, .val = val, .mask = mask, .before = l->newest[v]};
    for (int d = 0; d < node_of(l->body, v)->rank; d++)
        m.idx[d] = idx[d];
    if (l->nmemo == l->memocap) {
        l->memocap = l->memocap ? 2 * l->memocap : 64;
        Memo *wide = arena_array(l->cx->arena, Memo, l->memocap);
        if (l->nmemo)
            memcpy(wide, l->memo, (size_t)l->nmemo * sizeof *wide);
        l->memo = wide;
    }
    l->memo[l->nmemo++] = m;
    l->newest[v] = l->nmemo;
}

static bool same_index(const Graph *k, Val a, Val b)
{
    const Node *x = node_of(k, a), *y = node_of(k, b);
    return a == b || (x->op == OP_CONST && y->op == OP_CONST && attr_f(x, A_VALUE) == attr_f(y, A_VALUE));
}

static Val recall(const Lower *l, Val v, const Val *idx, Val mask)
{
    int rank = node_of(l->body, v)->rank;
    for (int i = l->newest[v]; i; i = l->memo[i - 1].before) {
        const Memo *m = &l->memo[i - 1];
        int d = 0;
        while (d < rank && same_index(l->k, m->idx[d], idx[d]))
            d++;
        if (d == rank && (m->mask == mask || !m->mask))
            return m->val;
    }
    return 0;
}

DavDtype sum_dtype(DavDtype t)
{
    return t == DAV_BF16 || t == DAV_F16 ? DAV_F32 : t;
}

Val lower_offset(Lower *l, const Type *t, const Val *idx)
{
    Val off = l->zero;
    int64_t stride = 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        if (t->dim[d] != 1)
            off = k_addmul(l->k, off, idx[d], stride);
        stride *= t->dim[d];
    }
    return off;
}

void lower_indices(Lower *l, Val linear, int n, const int64_t *dim, Val *idx)
{
    int first = 0;
    while (first < n && dim[first] == 1)
        first++;
    for (int d = n - 1; d >= 0; d--) {
        if (dim[d] == 1) {
            idx[d] = l->zero;
            continue;
        }
        idx[d] = d == first ? linear : k_op(l->k, OP_REM, linear, k_int(l->k, dim[d]), 0);
        if (d != first)
            linear = k_op(l->k, OP_DIV, linear, k_int(l->k, dim[d]), 0);
    }
}

Val lower_scratch(Lower *l, DavDtype t, int64_t n)
{
    return k_buf(l->k, "scratch", BUF_SCRATCH, l->nbuf++, type_make(t, 1, &n));
}

static Val add_int(Lower *l, Val x, int64_t c)
{
    return k_op(l->k, OP_ADD, x, k_int(l->k, c), 0);
}

/* lo <= x < hi; 0 when it always holds for x in [min, max] */
static Val inside(Lower *l, Val x, int64_t lo, int64_t hi, int64_t min, int64_t max)
{
    Val above = min >= lo ? 0 : k_op(l->k, OP_GE, x, k_int(l->k, lo), 0);
    Val below = max < hi ? 0 : k_op(l->k, OP_LT, x, k_int(l->k, hi), 0);
    return k_both(l->k, above, below);
}

static Val select_or(Lower *l, Val cond, Val x, DavDtype t, double other)
{
    return cond ? k_op(l->k, OP_SELECT, cond, x, k_num(l->k, t, other)) : x;
}

/* ---- ops that read their operand elsewhere ---- */
static Val value_view(Lower *l, const Node *n, const Val *idx, Val mask)
{
    const Node *x = node_of(l->body, n->arg[0]);
    Val at[IR_MAX_RANK];
    switch ((Op)n->op) {
    case OP_BROADCAST:
        for (int d = 0; d < n->rank; d++)
            at[d] = x->dim[d] == 1 ? l->zero : idx[d];
        break;
    case OP_TRANSPOSE:
        for (int d = 0; d < n->rank; d++)
            at[attr_ints(n, A_PERM, NULL)[d]] = idx[d];
        break;
    case OP_SLICE:
        for (int d = 0; d < n->rank; d++) {
            Val step = k_op(l->k, OP_MUL, idx[d], k_int(l->k, attr_ints(n, A_STRIDE, NULL)[d]), 0);
            at[d] = add_int(l, step, attr_ints(n, A_START, NULL)[d]);
        }
        break;
    default: { /* reverse */
        int count;
        const int64_t *axes = attr_ints(n, A_AXES, &count);
        memcpy(at, idx, (size_t)n->rank * sizeof *at);
        for (int i = 0; i < count; i++)
            at[axes[i]] = k_op(l->k, OP_SUB, k_int(l->k, n->dim[axes[i]] - 1), idx[axes[i]], 0);
    }
    }
    return lower_value(l, n->arg[0], at, mask);
}

static Val value_reshape(Lower *l, Val v, const Node *n, const Val *idx, Val mask)
{
    const Node *x = node_of(l->body, n->arg[0]);
    Val at[IR_MAX_RANK];
    if (reshape_is_unit(l->body, v)) {
        for (int d = 0, from = 0; d < x->rank; d++) {
            while (from < n->rank && n->dim[from] == 1)
                from++;
            at[d] = x->dim[d] == 1 ? l->zero : idx[from++];
        }
    } else {
        Type t = type_of(l->body, v);
        lower_indices(l, lower_offset(l, &t, idx), x->rank, x->dim, at);
    }
    return lower_value(l, n->arg[0], at, mask);
}

static Val value_pad(Lower *l, const Node *n, const Val *idx, Val mask)
{
    const Node *x = node_of(l->body, n->arg[0]);
    const int64_t *lo = attr_ints(n, A_LO, NULL);
    Val at[IR_MAX_RANK], cond = 0;
    for (int d = 0; d < n->rank; d++) {
        at[d] = add_int(l, idx[d], -lo[d]);
        cond = k_both(l->k, cond, inside(l, at[d], 0, x->dim[d], -lo[d], n->dim[d] - 1 - lo[d]));
    }
    Val val = lower_value(l, n->arg[0], at, k_both(l->k, mask, cond));
    return select_or(l, cond, val, (DavDtype)n->dtype, attr_f(n, A_FILL));
}

static Val value_concat(Lower *l, const Node *n, const Val *idx, Val mask)
{
    int axis = (int)attr_i(n, A_AXIS);
    int64_t end = n->dim[axis];
    Val result = 0, at[IR_MAX_RANK];
    memcpy(at, idx, (size_t)n->rank * sizeof *at);
    for (int i = n->narg - 1; i >= 0; i--) {
        int64_t size = node_of(l->body, n->arg[i])->dim[axis], start = end - size;
        if (size) {
            at[axis] = add_int(l, idx[axis], -start);
            Val cond = inside(l, idx[axis], start, end, 0, n->dim[axis] - 1);
            Val val = lower_value(l, n->arg[i], at, k_both(l->k, mask, cond));
            result =
                result ? k_op(l->k, OP_SELECT, k_op(l->k, OP_LT, idx[axis], k_int(l->k, end), 0), val, result) : val;
        }
        end = start;
    }
    return result ? result : k_num(l->k, (DavDtype)n->dtype, 0);
}

static Val value_window(Lower *l, const Node *n, const Val *idx, Val mask)
{
    const Node *x = node_of(l->body, n->arg[0]);
    int axis = (int)attr_i(n, A_AXIS);
    int64_t step = attr_i(n, A_STEP), dilation = attr_i(n, A_DILATION), pad = attr_i(n, A_PAD);
    Val at[IR_MAX_RANK];
    memcpy(at, idx, (size_t)x->rank * sizeof *at);
    Val pos = k_op(l->k, OP_MUL, idx[axis], k_int(l->k, step), 0);
    at[axis] = add_int(l, k_addmul(l->k, pos, idx[n->rank - 1], dilation), -pad);
    int64_t max = (n->dim[axis] - 1) * step + (n->dim[n->rank - 1] - 1) * dilation - pad;
    Val cond = inside(l, at[axis], 0, x->dim[axis], -pad, max);
    return select_or(l, cond, lower_value(l, n->arg[0], at, k_both(l->k, mask, cond)), (DavDtype)n->dtype,
                     attr_f(n, A_FILL));
}

static Val value_fold(Lower *l, const Node *n, const Val *idx, Val mask)
{
    const Node *x = node_of(l->body, n->arg[0]);
    int axis = (int)attr_i(n, A_AXIS), last = x->rank - 1;
    int64_t step = attr_i(n, A_STEP);
    DavDtype t = sum_dtype((DavDtype)n->dtype);
    Val acc = k_acc(l->k, t, ACC_ADD, 0), loop = k_for(l->k, LOOP_SERIAL, 0, x->dim[last], 1), at[IR_MAX_RANK];
    int mark = lower_mark(l);
    memcpy(at, idx, (size_t)n->rank * sizeof *at);
    Val num = add_int(l, k_addmul(l->k, idx[axis], loop, -attr_i(n, A_DILATION)), attr_i(n, A_PAD));
    at[axis] = k_op(l->k, OP_DIV, num, k_int(l->k, step), 0);
    at[last] = loop;
    Val cond = k_both(l->k, k_op(l->k, OP_GE, num, l->zero, 0), k_op(l->k, OP_LT, at[axis], k_int(l->k, x->dim[axis]), 0));
    if (step > 1)
        cond = k_both(l->k, cond, k_op(l->k, OP_EQ, k_op(l->k, OP_REM, num, k_int(l->k, step), 0), l->zero, 0));
    Val val = lower_value(l, n->arg[0], at, k_both(l->k, mask, cond));
    k_acc_update(l->k, acc, select_or(l, cond, k_cast(l->k, val, t), t, 0));
    lower_forget(l, mark);
    k_end(l->k, loop);
    return k_cast(l->k, k_acc_get(l->k, acc), (DavDtype)n->dtype);
}

/* ---- indices known only when it runs ---- */
static Val dyn_start(Lower *l, Val v, int64_t max)
{
    Val start = k_cast(l->k, lower_value(l, v, NULL, 0), DAV_I64);
    start = k_op(l->k, OP_MIN, start, k_int(l->k, max), 0);
    return k_op(l->k, OP_MAX, start, l->zero, 0);
}

static Val value_dyn_slice(Lower *l, const Node *n, const Val *idx, Val mask)
{
    int axis = (int)attr_i(n, A_AXIS);
    Val at[IR_MAX_RANK];
    memcpy(at, idx, (size_t)n->rank * sizeof *at);
    Val start = dyn_start(l, n->arg[1], node_of(l->body, n->arg[0])->dim[axis] - n->dim[axis]);
    at[axis] = k_op(l->k, OP_ADD, idx[axis], start, 0);
    return lower_value(l, n->arg[0], at, mask);
}

static Val value_dyn_update(Lower *l, const Node *n, const Val *idx, Val mask)
{
    int axis = (int)attr_i(n, A_AXIS);
    int64_t size = node_of(l->body, n->arg[1])->dim[axis];
    Val at[IR_MAX_RANK];
    memcpy(at, idx, (size_t)n->rank * sizeof *at);
    at[axis] = k_op(l->k, OP_SUB, idx[axis], dyn_start(l, n->arg[2], n->dim[axis] - size), 0);
    Val cond = inside(l, at[axis], 0, size, -1, size);
    Val fresh = lower_value(l, n->arg[1], at, k_both(l->k, mask, cond));
    return k_op(l->k, OP_SELECT, cond, fresh, lower_value(l, n->arg[0], idx, mask));
}

static Val value_gather(Lower *l, const Node *n, const Val *idx, Val mask)
{
    const Node *x = node_of(l->body, n->arg[0]), *i = node_of(l->body, n->arg[1]);
    int batch = (int)attr_i(n, A_BATCH);
    Val at[IR_MAX_RANK];
    memcpy(at, idx, (size_t)batch * sizeof *at);
    at[batch] = k_cast(l->k, lower_value(l, n->arg[1], idx, mask), DAV_I64);
    for (int d = batch + 1; d < x->rank; d++)
        at[d] = idx[i->rank + d - batch - 1];
    Val cond = inside(l, at[batch], 0, x->dim[batch], -1, x->dim[batch]);
    return select_or(l, cond, lower_value(l, n->arg[0], at, k_both(l->k, mask, cond)), (DavDtype)n->dtype, 0);
}

static Val value_random(Lower *l, const Node *n, const Val *idx, Val mask)
{
    Type t = type_make((DavDtype)n->dtype, n->rank, n->dim);
    t.dim[0] = 1;
    Val e = lower_offset(l, &t, idx), key[2], counter[4];
    for (int i = 0; i < 2; i++) {
        Val at = k_int(l->k, i);
        key[i] = lower_value(l, n->arg[0], &at, mask);
    }
    counter[0] = k_cast(l->k, k_op(l->k, OP_DIV, e, k_int(l->k, 4), 0), DAV_U32);
    for (int i = 0; i < 3; i++)
        counter[i + 1] = lower_value(l, n->arg[1], (Val[]){idx[0], k_int(l->k, i)}, mask);
    Val word = k_op(l->k, OP_REM, e, k_int(l->k, 4), 0), result = k_philox(l->k, key, counter, 3);
    for (int i = 2; i >= 0; i--)
        result =
            k_op(l->k, OP_SELECT, k_op(l->k, OP_EQ, word, k_int(l->k, i), 0), k_philox(l->k, key, counter, i), result);
    return result;
}

/* ---- a contraction element by element: the lowering for shapes that no tile fits ---- */
static Val contract_operand(Lower *l, const Node *n, int which, const Val *loop, Val *cond)
{
    const ContractSpec *s = attr_spec(n);
    const Node *x = node_of(l->body, n->arg[which]);
    Val at[IR_MAX_RANK];
    *cond = 0;
    for (int d = 0; d < s->rank[which]; d++) {
        const DimExpr *e = &s->dim[which][d];
        int64_t min = e->offset, max = e->offset;
        Val num = k_int(l->k, e->offset);
        for (int i = 0; i < e->nterm; i++) {
            int64_t reach = e->coef[i] * (s->extent[e->loop[i]] - 1);
            num = k_addmul(l->k, num, loop[e->loop[i]], e->coef[i]);
            min += reach < 0 ? reach : 0;
            max += reach > 0 ? reach : 0;
        }
        *cond = k_both(l->k, *cond, inside(l, num, 0, x->dim[d] * e->div, min, max));
        if (e->div > 1) {
            Val rest = k_op(l->k, OP_REM, num, k_int(l->k, e->div), 0);
            *cond = k_both(l->k, *cond, k_op(l->k, OP_EQ, rest, l->zero, 0));
        }
        at[d] = k_op(l->k, OP_DIV, num, k_int(l->k, e->div), 0);
    }
    return lower_value(l, n->arg[which], at, *cond);
}

static Val value_contract(Lower *l, const Node *n, const Val *idx)
{
    const ContractSpec *s = attr_spec(n);
    DavDtype t = sum_dtype((DavDtype)n->dtype);
    Val loop[SPEC_MAX_LOOPS], acc = k_acc(l->k, t, ACC_ADD, 0);
    for (int i = 0; i < s->nloop; i++)
        loop[i] = i < s->nout ? idx[i] : k_for(l->k, LOOP_SERIAL, 0, s->extent[i], 1);
    int mark = lower_mark(l);
    Val cond[2], x = k_cast(l->k, contract_operand(l, n, 0, loop, &cond[0]), t);
    Val y = k_cast(l->k, contract_operand(l, n, 1, loop, &cond[1]), t);
    Val product = k_op(l->k, OP_MUL, x, y, 0);
    k_acc_update(l->k, acc, select_or(l, k_both(l->k, cond[0], cond[1]), product, t, 0));
    lower_forget(l, mark);
    for (int i = s->nloop - 1; i >= s->nout; i--)
        k_end(l->k, loop[i]);
    return k_cast(l->k, k_acc_get(l->k, acc), (DavDtype)n->dtype);
}

/* ---- all ops ---- */
static Val value_elementwise(Lower *l, const Node *n, const Val *idx, Val mask)
{
    Val x[3] = {0};
    for (int i = 0; i < n->narg; i++)
        x[i] = lower_value(l, n->arg[i], idx, mask);
    return n->op == OP_STOP ? x[0] : k_op(l->k, (Op)n->op, x[0], x[1], x[2]);
}

static Val value_reduced(Lower *l, Val v, const Node *n, const Val *idx, Val mask)
{
    if (!reduced_axes(l->body, v)) /* all reduced axes have size 1 */
        return lower_value(l, n->arg[0], idx, mask);
    if (l->row_value && l->row_value[v])
        return l->row_value[v];
    must(l->row_scratch && l->row_scratch[v]);
    return k_cast(l->k, k_load(l->k, l->row_scratch[v], l->scratch_at, 0), (DavDtype)n->dtype);
}

static Val compute(Lower *l, Val v, const Node *n, const Val *idx, Val mask)
{
    if (op_info[n->op].flags & OPF_ELEMENTWISE)
        return value_elementwise(l, n, idx, mask);
    switch ((Op)n->op) {
    case OP_INPUT: {
        Type t = type_of(l->body, v);
        return k_load(l->k, l->buf[v], lower_offset(l, &t, idx), mask);
    }
    case OP_CONST:
        return k_num(l->k, (DavDtype)n->dtype, attr_f(n, A_VALUE));
    case OP_IOTA:
        return k_cast(l->k, idx[attr_i(n, A_AXIS)], (DavDtype)n->dtype);
    case OP_CAST:
        return k_cast(l->k, lower_value(l, n->arg[0], idx, mask), (DavDtype)n->dtype);
    case OP_BITCAST:
        return k_bitcast(l->k, lower_value(l, n->arg[0], idx, mask), (DavDtype)n->dtype);
    case OP_SUM:
    case OP_RMAX:
    case OP_RMIN:
        return value_reduced(l, v, n, idx, mask);
    case OP_BROADCAST:
    case OP_TRANSPOSE:
    case OP_SLICE:
    case OP_REVERSE:
        return value_view(l, n, idx, mask);
    case OP_RESHAPE:
        return value_reshape(l, v, n, idx, mask);
    case OP_PADDING:
        return value_pad(l, n, idx, mask);
    case OP_CONCAT:
        return value_concat(l, n, idx, mask);
    case OP_WINDOW:
        return value_window(l, n, idx, mask);
    case OP_FOLD:
        return value_fold(l, n, idx, mask);
    case OP_DYN_SLICE:
        return value_dyn_slice(l, n, idx, mask);
    case OP_DYN_UPDATE:
        return value_dyn_update(l, n, idx, mask);
    case OP_GATHER:
        return value_gather(l, n, idx, mask);
    case OP_RANDOM:
        return value_random(l, n, idx, mask);
    case OP_CONTRACT:
        return value_contract(l, n, idx);
    default:
        die("%s inside of a fused region", op_info[n->op].text);
    }
}

Val lower_value(Lower *l, Val v, const Val *idx, Val mask)
{
    Val known = recall(l, v, idx, mask);
    if (known)
        return known;
    const Node *n = node_of(l->body, v);
    graph_at_node(l->k, l->body, v);
    Val val = l->full_scratch && l->full_scratch[v] ? k_load(l->k, l->full_scratch[v], l->full_at, mask)
                                                    : compute(l, v, n, idx, mask);
    lower_remember(l, v, idx, mask, val);
    return val;
}

void lower_store(Lower *l, int output, const Val *idx, Val mask)
{
    Val v = l->body->out[output].val;
    Type t = type_of(l->body, v);
    Val val = lower_value(l, v, idx, mask);
    k_store(l->k, l->out[output], lower_offset(l, &t, idx), val, mask);
}
