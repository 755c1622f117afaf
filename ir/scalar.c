/* The meaning of one element of every elementwise op, made from ops.def; folding, the interpreters and tests share it. */
#include "ir/build.h"
#include "ir/dtype.h"
#include <math.h>

#define NOT_DEFINED 0
#define nan_or(x, y, v) (isnan(x) ? (x) : isnan(y) ? (y) : (v))

double ew_float(Op op, double x, double y, double z)
{
    (void)y, (void)z;
    switch (op) {
#define EW(NAME, text, arity, dom, shape, grad, float_expr, int_expr, ...)                                             \
    case OP_##NAME:                                                                                                    \
        return (double)(float_expr);
#define int_div(a, b) 0
#define int_rem(a, b) 0
#define int_shl(a, b) 0
#define int_shr(a, b) 0
#include "ir/ops.def"
#undef int_div
#undef int_rem
#undef int_shl
#undef int_shr
    default:
        die("%s is not elementwise", op_info[op].text);
    }
}
#undef nan_or

static int64_t int_div(int64_t x, int64_t y)
{
    return y == 0 ? 0 : y == -1 ? (int64_t)(0 - (uint64_t)x) : x / y;
}

static int64_t int_rem(int64_t x, int64_t y)
{
    return y == 0 || y == -1 ? 0 : x % y;
}

static int int_width(DavDtype t)
{
    return t == DAV_BOOL ? 1 : (int)dav_dtype_size(t) * 8;
}

static int64_t shift_left(DavDtype t, int64_t x, int64_t y)
{
    return y < 0 || y >= int_width(t) ? 0 : (int64_t)((uint64_t)x << y);
}

static int64_t shift_right(DavDtype t, int64_t x, int64_t y)
{
    return y < 0 || y >= int_width(t) ? (x < 0 ? -1 : 0) : x >> y; /* u32 is held non-negative */
}

int64_t int_wrap(DavDtype t, int64_t x)
{
    switch (t) {
    case DAV_I32:
        return (int32_t)(uint32_t)(uint64_t)x;
    case DAV_U32:
        return (int64_t)((uint64_t)x & 0xffffffffu);
    case DAV_BOOL:
        return x & 1;
    default:
        return x;
    }
}

int64_t ew_int(Op op, DavDtype t, int64_t x, int64_t y, int64_t z)
{
    (void)y, (void)z;
#define nan_or(a, b, v) (v)
#define int_shl(a, b) shift_left(t, a, b)
#define int_shr(a, b) shift_right(t, a, b)
    switch (op) {
#define EW(NAME, text, arity, dom, shape, grad, float_expr, int_expr, ...)                                             \
    case OP_##NAME:                                                                                                    \
        return int_wrap(t, (int64_t)(int_expr));
#include "ir/ops.def"
    default:
        die("%s is not elementwise", op_info[op].text);
    }
}

double float_round(DavDtype t, double x)
{
    switch (t) {
    case DAV_F32:
        return (float)x;
    case DAV_BF16:
        return bf16_to_f32(bf16_from_f32((float)x));
    case DAV_F16:
        return f16_to_f32(f16_from_f32((float)x));
    default:
        return x;
    }
}
