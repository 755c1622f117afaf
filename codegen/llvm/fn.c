/* Short names for what the emission needs of LLVM's C API. */
#include "codegen/llvm/emit.h"
#include <string.h>

int ll_lanes(LLVMValueRef v)
{
    LLVMTypeRef t = LLVMTypeOf(v);
    return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? (int)LLVMGetVectorSize(t) : 1;
}

LLVMTypeRef ll_vec(const Fn *f, LLVMTypeRef elem)
{
    return f->width > 1 ? LLVMVectorType(elem, (unsigned)f->width) : elem;
}

LLVMTypeRef ll_like(const Fn *f, LLVMTypeRef elem, LLVMValueRef v)
{
    (void)f;
    int n = ll_lanes(v);
    return n > 1 ? LLVMVectorType(elem, (unsigned)n) : elem;
}

LLVMValueRef ll_i64(const Fn *f, int64_t v)
{
    return LLVMConstInt(f->i64, (uint64_t)v, true);
}

static LLVMValueRef splat_const(LLVMTypeRef t, LLVMValueRef c)
{
    if (LLVMGetTypeKind(t) != LLVMVectorTypeKind)
        return c;
    LLVMValueRef all[64];
    unsigned n = LLVMGetVectorSize(t);
    must(n <= 64);
    for (unsigned i = 0; i < n; i++)
        all[i] = c;
    return LLVMConstVector(all, n);
}

static LLVMTypeRef elem_of(LLVMTypeRef t)
{
    return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetElementType(t) : t;
}

LLVMValueRef ll_int(LLVMTypeRef t, int64_t v)
{
    return splat_const(t, LLVMConstInt(elem_of(t), (uint64_t)v, true));
}

LLVMValueRef ll_num(LLVMTypeRef t, double v)
{
    LLVMTypeRef e = elem_of(t);
    if (LLVMGetTypeKind(e) == LLVMIntegerTypeKind)
        return ll_int(t, (int64_t)v);
    return splat_const(t, LLVMConstReal(e, v));
}

LLVMValueRef ll_splat(const Fn *f, LLVMValueRef s, int lanes)
{
    if (lanes == 1)
        return s;
    LLVMTypeRef t = LLVMVectorType(LLVMTypeOf(s), (unsigned)lanes);
    if (LLVMIsConstant(s) && !LLVMIsAConstantExpr(s) && !LLVMIsAUndefValue(s))
        return splat_const(t, s);
    LLVMValueRef one = LLVMBuildInsertElement(f->b, LLVMGetPoison(t), s, LLVMConstInt(f->i32, 0, false), "");
    return LLVMBuildShuffleVector(f->b, one, LLVMGetPoison(t), LLVMConstNull(LLVMVectorType(f->i32, (unsigned)lanes)), "");
}

LLVMValueRef ll_lane_ids(const Fn *f, LLVMTypeRef elem, int64_t stride)
{
    LLVMValueRef id[64];
    must(f->width <= 64);
    for (int i = 0; i < f->width; i++)
        id[i] = LLVMConstInt(elem, (uint64_t)(i * stride), true);
    return f->width > 1 ? LLVMConstVector(id, (unsigned)f->width) : id[0];
}

LLVMValueRef ll_intrinsic(const Fn *f, const char *name, LLVMTypeRef *over, int nover, LLVMValueRef *arg, int narg)
{
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    must(id != 0);
    LLVMValueRef fn = LLVMGetIntrinsicDeclaration(f->mod, id, over, (size_t)nover);
    return LLVMBuildCall2(f->b, LLVMIntrinsicGetType(f->cx, id, over, (size_t)nover), fn, arg, (unsigned)narg, "");
}

LLVMValueRef ll_call1(const Fn *f, const char *name, LLVMValueRef x)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    return ll_intrinsic(f, name, &t, 1, &x, 1);
}

LLVMValueRef ll_call2(const Fn *f, const char *name, LLVMValueRef x, LLVMValueRef y)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    return ll_intrinsic(f, name, &t, 1, (LLVMValueRef[]){x, y}, 2);
}

LLVMValueRef ll_fma(const Fn *f, LLVMValueRef x, LLVMValueRef y, LLVMValueRef z)
{
    if (!f->target->fma)
        return LLVMBuildFAdd(f->b, LLVMBuildFMul(f->b, x, y, ""), z, "");
    LLVMTypeRef t = LLVMTypeOf(x);
    return ll_intrinsic(f, "llvm.fma", &t, 1, (LLVMValueRef[]){x, y, z}, 3);
}

LLVMValueRef ll_select(const Fn *f, LLVMValueRef c, LLVMValueRef x, LLVMValueRef y)
{
    return LLVMBuildSelect(f->b, c, x, y, "");
}

LLVMValueRef ll_shuffle(const Fn *f, LLVMValueRef x, LLVMValueRef y, const int *index, int n)
{
    LLVMValueRef id[128];
    must(n <= 128);
    for (int i = 0; i < n; i++)
        id[i] = LLVMConstInt(f->i32, (unsigned)index[i], false);
    return LLVMBuildShuffleVector(f->b, x, y ? y : LLVMGetPoison(LLVMTypeOf(x)), LLVMConstVector(id, (unsigned)n), "");
}

void ll_transpose(const Fn *f, LLVMValueRef *v)
{
    enum { N = 16 };
    for (int bit = 1; bit < N; bit *= 2)
        for (int r = 0; r < N; r++) {
            int low[N], high[N];
            if (r & bit)
                continue;
            for (int i = 0; i < N; i++) {
                low[i] = i & bit ? i - bit + N : i;
                high[i] = i & bit ? i + N : i + bit;
            }
            LLVMValueRef x = v[r], y = v[r + bit];
            v[r] = ll_shuffle(f, x, y, low, N);
            v[r + bit] = ll_shuffle(f, x, y, high, N);
        }
}

LLVMBasicBlockRef ll_block(const Fn *f, const char *name)
{
    return LLVMAppendBasicBlockInContext(f->cx, f->fn, name);
}

void ll_enter(const Fn *f, LLVMBasicBlockRef bb)
{
    LLVMPositionBuilderAtEnd(f->b, bb);
}

LLVMBasicBlockRef ll_if(const Fn *f, LLVMValueRef cond)
{
    LLVMBasicBlockRef then = ll_block(f, "then"), done = ll_block(f, "endif");
    LLVMBuildCondBr(f->b, cond, then, done);
    ll_enter(f, then);
    return done;
}

void ll_endif(const Fn *f, LLVMBasicBlockRef done)
{
    LLVMBuildBr(f->b, done);
    ll_enter(f, done);
}

/* The loop is rotated: tested once before it is entered, then at its bottom. */
Loop ll_loop(const Fn *f, LLVMValueRef lo, LLVMValueRef hi, int64_t step)
{
    Loop l = {.body = ll_block(f, "loop"), .done = ll_block(f, "done"), .step = ll_i64(f, step), .hi = hi};
    LLVMBasicBlockRef from = LLVMGetInsertBlock(f->b);
    LLVMBuildCondBr(f->b, LLVMBuildICmp(f->b, LLVMIntSLT, lo, hi, ""), l.body, l.done);
    ll_enter(f, l.body);
    l.iv = LLVMBuildPhi(f->b, f->i64, "i");
    LLVMAddIncoming(l.iv, &lo, &from, 1);
    return l;
}

void ll_loop_end(const Fn *f, Loop *l)
{
    LLVMValueRef next = LLVMBuildNSWAdd(f->b, l->iv, l->step, "");
    LLVMBasicBlockRef at = LLVMGetInsertBlock(f->b);
    LLVMAddIncoming(l->iv, &next, &at, 1);
    LLVMBuildCondBr(f->b, LLVMBuildICmp(f->b, LLVMIntSLT, next, l->hi, ""), l->body, l->done);
    ll_enter(f, l->done);
}
