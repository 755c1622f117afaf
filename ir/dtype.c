#include "ir/dtype.h"

static const struct { const char *name; size_t size; bool is_float; } dtypes[DAV_DTYPE_COUNT] = {
    [DAV_F64] = {"f64", 8, true},   [DAV_F32] = {"f32", 4, true},  [DAV_BF16] = {"bf16", 2, true},
    [DAV_F16] = {"f16", 2, true},   [DAV_I64] = {"i64", 8, false}, [DAV_I32] = {"i32", 4, false},
    [DAV_U32] = {"u32", 4, false},  [DAV_BOOL] = {"bool", 1, false},
};

static bool is_valid(DavDtype t)
{
    return (unsigned)t < DAV_DTYPE_COUNT;
}

size_t dav_dtype_size(DavDtype t)
{
    return is_valid(t) ? dtypes[t].size : 0;
}

const char *dav_dtype_name(DavDtype t)
{
    return is_valid(t) ? dtypes[t].name : "invalid";
}

bool dav_dtype_is_float(DavDtype t)
{
    return is_valid(t) && dtypes[t].is_float;
}

bool dav_dtype_from_name(const char *name, DavDtype *t)
{
    for (int i = 0; name && i < DAV_DTYPE_COUNT; i++)
        if (strcmp(name, dtypes[i].name) == 0) {
            *t = (DavDtype)i;
            return true;
        }
    return false;
}
