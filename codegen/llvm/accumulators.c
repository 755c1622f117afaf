/* Accumulators: a variable each; inside of a vector loop partial ones by lane, joined at its end in a fixed tree. */
#include "codegen/llvm/emit.h"

static bool is_float(LLVMValueRef v)
{
    LLVMTypeRef t = LLVMTypeOf(v);
    if (LLVMGetTypeKind(t) == LLVMVectorTypeKind)
        t = LLVMGetElementType(t);
    return LLVMGetTypeKind(t) != LLVMIntegerTypeKind;
}

static bool never_nan(LLVMValueRef v)
{
    if (!LLVMIsConstant(v))
        return false;
    if (LLVMGetTypeKind(LLVMTypeOf(v)) == LLVMVectorTypeKind)
        v = LLVMGetAggregateElement(v, 0); /* constants here are splats */
    LLVMBool loses;
    return v && LLVMIsAConstantFP(v) && LLVMConstRealGetDouble(v, &loses) == LLVMConstRealGetDouble(v, &loses);
}

/* "y better ? y : x" is one machine instruction, and keeps x where it is NaN; a NaN in y is put in by hand. */
static LLVMValueRef extreme(const Fn *f, LLVMValueRef x, LLVMValueRef y, LLVMRealPredicate flt, LLVMIntPredicate num)
{
    if (!is_float(x))
        return ll_select(f, LLVMBuildICmp(f->b, num, y, x, ""), y, x);
    LLVMValueRef r = ll_select(f, LLVMBuildFCmp(f->b, flt, y, x, ""), y, x);
    if (never_nan(y))
        return r;
    LLVMValueRef nan = LLVMBuildFCmp(f->b, LLVMRealUNO, y, y, "");
    if (!never_nan(x)) /* x's NaN comes first */
        nan = LLVMBuildAnd(f->b, nan, LLVMBuildFCmp(f->b, LLVMRealORD, x, x, ""), "");
    return ll_select(f, nan, y, r);
}

LLVMValueRef num_max(const Fn *f, LLVMValueRef x, LLVMValueRef y, bool unsig)
{
    return extreme(f, x, y, LLVMRealOGT, unsig ? LLVMIntUGT : LLVMIntSGT);
}

LLVMValueRef num_min(const Fn *f, LLVMValueRef x, LLVMValueRef y, bool unsig)
{
    return extreme(f, x, y, LLVMRealOLT, unsig ? LLVMIntULT : LLVMIntSLT);
}

static LLVMValueRef combine(const Emit *e, Val acc, LLVMValueRef old, LLVMValueRef v)
{
    const Fn *f = &e->f;
    const Node *n = node_of(e->k, acc);
    bool unsig = n->dtype == DAV_U32 || n->dtype == DAV_BOOL;
    switch ((AccKind)attr_i(n, A_KIND)) {
    case ACC_ADD:
        if (is_float(old))
            return round_to(f, (DavDtype)n->dtype, LLVMBuildFAdd(f->b, old, v, ""));
        return LLVMBuildAdd(f->b, old, v, "");
    case ACC_MAX:
        return num_max(f, old, v, unsig);
    case ACC_MIN:
        return num_min(f, old, v, unsig);
    case ACC_SET:
        return v;
    }
    die("kernel %s: accumulator %%%d of no kind", e->k->name, acc);
}

/* What changes nothing: 0 for sums (-0 for floats: -0 + x = x for every x), the far end for max and min. */
static LLVMValueRef identity(const Emit *e, Val acc, LLVMTypeRef t)
{
    const Node *n = node_of(e->k, acc);
    AccKind kind = (AccKind)attr_i(n, A_KIND);
    bool max = kind == ACC_MAX;
    if (dav_dtype_is_float((DavDtype)n->dtype))
        return ll_num(t, kind == ACC_ADD ? -0.0 : max ? -__builtin_inf() : __builtin_inf());
    if (kind == ACC_ADD)
        return ll_int(t, 0);
    switch ((DavDtype)n->dtype) {
    case DAV_I64:
        return ll_int(t, max ? INT64_MIN : INT64_MAX);
    case DAV_I32:
        return ll_int(t, max ? INT32_MIN : INT32_MAX);
    default: /* u32, bool */
        return ll_int(t, max ? 0 : -1);
    }
}

static LLVMTypeRef lanes_type(const Emit *e, Val acc)
{
    return LLVMVectorType(elem_type(e, acc), (unsigned)e->f.width);
}

static LLVMValueRef load_var(const Emit *e, LLVMTypeRef t, LLVMValueRef var)
{
    return LLVMBuildLoad2(e->f.b, t, var, "");
}

void emit_acc(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    bool varying = e->vector_loop != 0;
    LLVMTypeRef t = varying ? lanes_type(e, v) : elem_type(e, v);
    Acc *a = e->acc[v];
    if (!a || a->varying != varying || LLVMGetAllocatedType(a->var) != t) { /* bodies are emitted more than once */
        a = e->acc[v] = arena_alloc(e->arena, sizeof *a);
        a->varying = varying;
        a->var = emit_variable(e, t, "acc");
    }
    bool flt = dav_dtype_is_float((DavDtype)n->dtype);
    LLVMBuildStore(e->f.b, flt ? ll_num(t, attr_f(n, A_VALUE)) : ll_int(t, k_acc_start_int(n)), a->var);
}

void emit_acc_update(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    Val acc = n->arg[0];
    Acc *a = e->acc[acc];
    const Fn *f = &e->f;
    LLVMValueRef var = a->part[0] ? a->part[e->part] : a->var;
    bool lanes = a->varying || a->part[0];
    if (e->vector_loop && !lanes)
        die("kernel %s: accumulator %%%d cannot be updated in this vector loop", e->k->name, acc);
    bool is_i64 = node_of(e->k, n->arg[1])->dtype == DAV_I64;
    LLVMValueRef x = !lanes ? as_scalar(e, n->arg[1]) : is_i64 ? as_index(e, n->arg[1], false) : as_lanes(e, n->arg[1]);
    LLVMTypeRef t = lanes ? lanes_type(e, acc) : elem_type(e, acc);
    LLVMValueRef old = load_var(e, t, var), now = combine(e, acc, old, x);
    if (a->part[0] && e->mask)
        now = ll_select(f, e->mask, now, old);
    LLVMBuildStore(f->b, now, var);
}

void emit_acc_get(Emit *e, Val v)
{
    Val acc = node_of(e->k, v)->arg[0];
    Acc *a = e->acc[acc];
    if (a->part[0])
        die("kernel %s: accumulator %%%d is read inside of the vector loop that joins it", e->k->name, acc);
    LLVMValueRef x = load_var(e, a->varying ? lanes_type(e, acc) : elem_type(e, acc), a->var);
    if (a->varying && LLVMGetElementType(LLVMTypeOf(x)) == e->f.i64 && fits_i32(e, v))
        x = LLVMBuildTrunc(e->f.b, x, LLVMVectorType(e->f.i32, (unsigned)e->f.width), "");
    e->val[v] = (Lane){.v = x, .varying = a->varying};
}

void acc_parts_open(Emit *e, Val acc, int parts)
{
    LLVMTypeRef t = lanes_type(e, acc);
    for (int i = 0; i < parts; i++) {
        e->acc[acc]->part[i] = emit_variable(e, t, "part");
        LLVMBuildStore(e->f.b, identity(e, acc, t), e->acc[acc]->part[i]);
    }
}

/* The tree: parts in pairs of neighbours, then the upper half of the lanes onto the lower one. */
void acc_parts_close(Emit *e, Val acc, int parts)
{
    Acc *a = e->acc[acc];
    const Fn *f = &e->f;
    LLVMValueRef v[MAX_UNROLL];
    for (int i = 0; i < parts; i++)
        v[i] = load_var(e, lanes_type(e, acc), a->part[i]);
    for (int n = parts / 2; n >= 1; n /= 2)
        for (int i = 0; i < n; i++)
            v[i] = combine(e, acc, v[2 * i], v[2 * i + 1]);
    LLVMValueRef all = v[0];
    for (int n = f->width / 2; n >= 1; n /= 2) {
        int low[64], high[64];
        for (int i = 0; i < n; i++)
            low[i] = i, high[i] = n + i;
        all = n == 1 ? combine(e, acc, LLVMBuildExtractElement(f->b, all, LLVMConstInt(f->i32, 0, false), ""),
                               LLVMBuildExtractElement(f->b, all, LLVMConstInt(f->i32, 1, false), ""))
                     : combine(e, acc, ll_shuffle(f, all, NULL, low, n), ll_shuffle(f, all, NULL, high, n));
    }
    for (int i = 0; i < MAX_UNROLL; i++)
        a->part[i] = NULL;
    LLVMBuildStore(f->b, combine(e, acc, load_var(e, elem_type(e, acc), a->var), all), a->var);
}
