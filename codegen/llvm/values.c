/* Values by lane: representations, ranges of indices, variables. */
#include "codegen/llvm/emit.h"

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

/* ---- indices that fit 32 bits ---- */
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
