/* safetensors files (https://github.com/huggingface/safetensors): an 8-byte little-endian header length, a JSON header
 * {"name": {"dtype", "shape", "data_offsets"}, ..., "__metadata__": {"key": "value"}}, then the tensors' bytes.
 *
 * Reading maps the file and checks everything before it hands out a pointer: lengths, JSON without duplicate names,
 * dtype names, shapes (rank <= 8, product without overflow), offsets that cover the data without hole or overlap.
 * What a file with a dimension of size 0 means is the caller's business: such a tensor has bytes == 0.
 * The mapping follows the file: nobody may shorten it while it is open (writers that replace it whole, as ours, do no harm). */
#pragma once
#include "base/text.h"
#include "dav/dtype.h"

enum { SAFETENSOR_MAX_RANK = 8 };

typedef struct SafeTensor {
    const char *name;
    const char *file_dtype; /* as in the file: "F32", "BF16", "U8", ...; ignored when writing */
    DavDtype dtype;         /* DAV_DTYPE_COUNT: a type of the format that this program does not compute with */
    int rank;
    int64_t dim[SAFETENSOR_MAX_RANK];
    const void *data; /* row-major, aligned to its element; owned by the SafeTensors */
    size_t bytes;
} SafeTensor;

typedef struct SafeMeta { const char *key, *value; } SafeMeta;

typedef struct SafeTensors {
    const char *path;
    SafeTensor *tensor; /* in the order of their data */
    size_t n;
    SafeMeta *meta; /* __metadata__, in the order of the file */
    size_t n_meta;
    struct SafeStore *store; /* the mapping and the memory behind all of the above */
} SafeTensors;

/* NULL with an error that names the file, the tensor, what was expected and what was found. */
SafeTensors *safetensors_open(Err *err, const char *path);
/* The same over bytes that the caller keeps; `label` stands for the file's name in errors. */
SafeTensors *safetensors_from_memory(Err *err, const char *label, const void *bytes, size_t n);
void safetensors_close(SafeTensors *s); /* NULL is fine */

const SafeTensor *safetensors_find(const SafeTensors *s, const char *name); /* NULL: none of that name */
const char *safetensors_meta(const SafeTensors *s, const char *key);        /* NULL: none */
int64_t safetensor_count(const SafeTensor *t);                              /* elements */

/* Converts a floating-point tensor to f32 (f64 by rounding); out holds safetensor_count(t).  Integers are an error. */
bool safetensor_to_f32(Err *err, const SafeTensors *s, const SafeTensor *t, float *out);

/* Writes path whole or not at all.  Of a tensor name, dtype, rank, dim and data are read.  Equal content gives equal
 * bytes whatever the order of the arguments: wide types first (so that all data is aligned), then by name. */
bool safetensors_write(Err *err, const char *path, const SafeTensor *tensor, size_t n, const SafeMeta *meta, size_t n_meta);
