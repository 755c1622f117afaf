/* Elements and indices of the interpreter's tensors. */
#include "ir/build.h"
#include "ir/dtype.h"
#include "ir/interp_ops.h"
#include <string.h>

double get_f64(const Tensor *t, int64_t i)
{
    switch (t->t.dtype) {
    case DAV_F64:
        return ((const double *)t->data)[i];
    case DAV_F32:
        return ((const float *)t->data)[i];
    case DAV_BF16:
        return bf16_to_f32(((const uint16_t *)t->data)[i]);
    case DAV_F16:
        return f16_to_f32(((const uint16_t *)t->data)[i]);
    default:
        return (double)get_i64(t, i);
    }
}

int64_t get_i64(const Tensor *t, int64_t i)
{
    switch (t->t.dtype) {
    case DAV_I64:
        return ((const int64_t *)t->data)[i];
    case DAV_I32:
        return ((const int32_t *)t->data)[i];
    case DAV_U32:
        return ((const uint32_t *)t->data)[i];
    case DAV_BOOL:
        return ((const uint8_t *)t->data)[i] != 0;
    default:
        die("a float tensor read as integers");
    }
}

void put_f64(Tensor *t, int64_t i, double v)
{
    switch (t->t.dtype) {
    case DAV_F64:
        ((double *)t->data)[i] = v;
        break;
    case DAV_F32:
        ((float *)t->data)[i] = (float)v;
        break;
    case DAV_BF16:
        ((uint16_t *)t->data)[i] = bf16_from_f32((float)v);
        break;
    case DAV_F16:
        ((uint16_t *)t->data)[i] = f16_from_f32((float)v);
        break;
    case DAV_BOOL:
        ((uint8_t *)t->data)[i] = v != 0;
        break;
    default:
        put_i64(t, i, int_saturate(t->t.dtype, v));
    }
}

void put_i64(Tensor *t, int64_t i, int64_t v)
{
    int64_t w = int_wrap(t->t.dtype, v);
    switch (t->t.dtype) {
    case DAV_I64:
        ((int64_t *)t->data)[i] = w;
        break;
    case DAV_I32:
        ((int32_t *)t->data)[i] = (int32_t)w;
        break;
    case DAV_U32:
        ((uint32_t *)t->data)[i] = (uint32_t)w;
        break;
    case DAV_BOOL:
        ((uint8_t *)t->data)[i] = (uint8_t)w;
        break;
    default:
        put_f64(t, i, t->t.dtype == DAV_F64 ? (double)v : (double)(float)v); /* one rounding to f32, as for the others */
    }
}

int64_t int_saturate(DavDtype t, double v)
{
    double lo = t == DAV_I64 ? -0x1p63 : t == DAV_I32 ? -0x1p31 : 0, hi = t == DAV_I64 ? 0x1p63 : t == DAV_I32 ? 0x1p31 : 0x1p32;
    int64_t largest = t == DAV_I64 ? INT64_MAX : t == DAV_I32 ? INT32_MAX : UINT32_MAX;
    if (v != v)
        return 0;
    return v <= lo ? (t == DAV_I64 ? INT64_MIN : (int64_t)lo) : v >= hi ? largest : (int64_t)v;
}

int64_t count_of(const Tensor *t)
{
    return type_count(&t->t);
}

void strides_of(const Type *t, int64_t stride[IR_MAX_RANK])
{
    int64_t n = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        stride[i] = n;
        n *= t->dim[i];
    }
}

bool next_index(int64_t at[IR_MAX_RANK], const Type *t)
{
    for (int i = t->rank - 1; i >= 0; i--) {
        if (++at[i] < t->dim[i])
            return true;
        at[i] = 0;
    }
    return false;
}
