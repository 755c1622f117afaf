/* Values by lane: representations, ranges of indices, variables. */
#include "codegen/llvm/emit.h"

bool emit_const_i64(const Graph *k, Val v, int64_t *value)
{
    const Node *n = node_of(k, v);
    if (n->op != OP_CONST || n->dtype != DAV_I64)
        return false;
    *value = (int64_t)attr_f(n, A_VALUE);
    return true;
}

LLVMValueRef emit_variable(Emit *e, LLVMTypeRef t, const char *name)
{
    LLVMBasicBlockRef at = LLVMGetInsertBlock(e->f.b);
    LLVMValueRef first = LLVMGetFirstInstruction(e->entry);
    if (first)
        LLVMPositionBuilderBefore(e->f.b, first);
    else
        LLVMPositionBuilderAtEnd(e->f.b, e->entry);
    LLVMValueRef var = LLVMBuildAlloca(e->f.b, t, name);
    LLVMPositionBuilderAtEnd(e->f.b, at);
    return var;
}

/* ---- ranges of i64 values: which indices fit 32 bits ---- */
static const Range unknown = {INT64_MIN, INT64_MAX};

static Range hull(const int64_t *p, int n)
{
    Range r = {p[0], p[0]};
    for (int i = 1; i < n; i++) {
        r.lo = p[i] < r.lo ? p[i] : r.lo;
        r.hi = p[i] > r.hi ? p[i] : r.hi;
    }
    return r;
}

static Range range_product(Range x, Range y)
{
    int64_t p[4];
    if (__builtin_mul_overflow(x.lo, y.lo, &p[0]) || __builtin_mul_overflow(x.lo, y.hi, &p[1]) ||
        __builtin_mul_overflow(x.hi, y.lo, &p[2]) || __builtin_mul_overflow(x.hi, y.hi, &p[3]))
        return unknown;
    return hull(p, 4);
}

static Range range_op(Op op, Range x, Range y)
{
    Range r = unknown;
    switch (op) {
    case OP_ADD:
        return __builtin_add_overflow(x.lo, y.lo, &r.lo) || __builtin_add_overflow(x.hi, y.hi, &r.hi) ? unknown : r;
    case OP_SUB:
        return __builtin_sub_overflow(x.lo, y.hi, &r.lo) || __builtin_sub_overflow(x.hi, y.lo, &r.hi) ? unknown : r;
    case OP_NEG:
        return x.lo == INT64_MIN ? unknown : (Range){-x.hi, -x.lo};
    case OP_MUL:
        return range_product(x, y);
    case OP_DIV:
        if (y.lo != y.hi || y.lo < 1 || x.lo == INT64_MIN)
            return unknown;
        return (Range){x.lo / y.lo, x.hi / y.lo};
    case OP_REM:
        if (y.lo != y.hi || y.lo < 1)
            return unknown;
        return (Range){x.lo < 0 ? 1 - y.lo : 0, x.hi > 0 ? y.lo - 1 : 0};
    case OP_MAX:
        return (Range){x.lo > y.lo ? x.lo : y.lo, x.hi > y.hi ? x.hi : y.hi};
    case OP_MIN:
        return (Range){x.lo < y.lo ? x.lo : y.lo, x.hi < y.hi ? x.hi : y.hi};
    case OP_STOP:
        return x;
    default:
        return unknown;
    }
}

static Range range_of(const Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    int64_t c;
    if (n->op == OP_FOR) {
        const int64_t *nums = attr_ints(n, A_NUMS, NULL);
        int64_t lo = n->narg ? e->range[n->arg[0]].lo : nums[0], hi = n->narg ? e->range[n->arg[1]].hi : nums[1];
        return (Range){lo, hi > lo ? hi - 1 : lo};
    }
    if (n->dtype == DAV_BOOL)
        return (Range){0, 1};
    if (n->dtype == DAV_I32 || n->dtype == DAV_U32)
        return n->dtype == DAV_I32 ? (Range){INT32_MIN, INT32_MAX} : (Range){0, UINT32_MAX};
    if (n->dtype != DAV_I64)
        return unknown;
    if (emit_const_i64(e->k, v, &c))
        return (Range){c, c};
    if (n->op == OP_CAST) {
        DavDtype from = (DavDtype)node_of(e->k, n->arg[0])->dtype;
        return dav_dtype_is_float(from) ? unknown : e->range[n->arg[0]];
    }
    if (n->op == OP_SELECT) {
        Range y = e->range[n->arg[1]], z = e->range[n->arg[2]];
        return (Range){y.lo < z.lo ? y.lo : z.lo, y.hi > z.hi ? y.hi : z.hi};
    }
    if (!(op_info[n->op].flags & OPF_ELEMENTWISE))
        return unknown;
    return range_op((Op)n->op, e->range[n->arg[0]], n->narg > 1 ? e->range[n->arg[1]] : unknown);
}

void ranges_compute(Emit *e)
{
    for (Val v = 1; v < e->k->n; v++)
        e->range[v] = range_of(e, v);
}

bool fits_i32(const Emit *e, Val v)
{
    return e->range[v].lo >= INT32_MIN && e->range[v].hi <= INT32_MAX;
}

/* ---- representations ---- */
LLVMTypeRef elem_type(const Emit *e, Val v)
{
    const Fn *f = &e->f;
    switch ((DavDtype)node_of(e->k, v)->dtype) {
    case DAV_F64:
        return f->f64;
    case DAV_I64:
        return f->i64;
    case DAV_I32:
    case DAV_U32:
        return f->i32;
    case DAV_BOOL:
        return f->i1;
    default:
        return f->f32;
    }
}

bool is_uniform(const Emit *e, Val v)
{
    return !e->val[v].varying && e->val[v].stride == 0;
}

LLVMValueRef as_scalar(Emit *e, Val v)
{
    if (!is_uniform(e, v))
        die("kernel %s: value %%%d must not depend on the vector loop", e->k->name, v);
    return e->val[v].v;
}

LLVMValueRef as_index(Emit *e, Val v, bool narrow)
{
    const Fn *f = &e->f;
    Lane l = e->val[v];
    LLVMTypeRef elem = narrow ? f->i32 : f->i64;
    if (l.varying) {
        bool is_narrow = LLVMGetElementType(LLVMTypeOf(l.v)) == f->i32;
        if (is_narrow == narrow)
            return l.v;
        LLVMTypeRef t = LLVMVectorType(elem, (unsigned)f->width);
        return narrow ? LLVMBuildTrunc(f->b, l.v, t, "") : LLVMBuildSExt(f->b, l.v, t, "");
    }
    LLVMValueRef base = narrow ? LLVMBuildTrunc(f->b, l.v, f->i32, "") : l.v;
    if (!e->vector_loop)
        return base;
    LLVMValueRef all = ll_splat(f, base, f->width);
    return l.stride ? LLVMBuildAdd(f->b, all, ll_lane_ids(f, elem, l.stride), "") : all;
}

LLVMValueRef as_lanes(Emit *e, Val v)
{
    if (node_of(e->k, v)->dtype == DAV_I64)
        return as_index(e, v, e->vector_loop && fits_i32(e, v));
    Lane l = e->val[v];
    return l.varying || !e->vector_loop ? l.v : ll_splat(&e->f, l.v, e->f.width);
}
