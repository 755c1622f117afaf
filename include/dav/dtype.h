/* Types of a tensor's elements.  The order is part of the plugin ABI. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef enum {
    DAV_F64,
    DAV_F32,
    DAV_BF16,
    DAV_F16,
    DAV_I64,
    DAV_I32,
    DAV_U32,
    DAV_BOOL, /* one byte, 0 or 1 */
    DAV_DTYPE_COUNT
} DavDtype;

size_t dav_dtype_size(DavDtype t);      /* bytes of one element; 0 for an invalid type */
const char *dav_dtype_name(DavDtype t); /* "f32", "bool", ...; "invalid" for an invalid type */
bool dav_dtype_from_name(const char *name, DavDtype *t); /* false: unknown name, *t untouched */
bool dav_dtype_is_float(DavDtype t);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
