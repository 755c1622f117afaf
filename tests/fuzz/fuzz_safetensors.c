/* Any bytes: an error, or tensors that can be read from end to end. */
#include "runtime/safetensors.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Err err = {0};
    SafeTensors *s = safetensors_from_memory(&err, "fuzz", bytes, n);
    if ((s != NULL) != (err.kind == ERR_NONE))
        abort();
    unsigned sum = 0;
    for (size_t i = 0; s && i < s->n; i++) {
        const SafeTensor *t = &s->tensor[i];
        for (size_t b = 0; b < t->bytes; b++)
            sum += ((const uint8_t *)t->data)[b];
        if (safetensors_find(s, t->name) != t || safetensor_count(t) < 0)
            abort();
        if (dav_dtype_is_float(t->dtype)) {
            float *f = malloc((size_t)safetensor_count(t) * sizeof *f + 1);
            if (!safetensor_to_f32(&err, s, t, f))
                abort();
            free(f);
        }
    }
    safetensors_close(s);
    return sum == 1 && n == 0; /* keeps the sum */
}
