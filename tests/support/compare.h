/* Tensors of two files compared: max|a-b| / (max|b| + 1e-6). */
#pragma once
#include "runtime/safetensors.h"

/* The worst disagreement of the tensors of `want` (f32 or f64) with those of the same name in `out`; *name: where.
 * Infinite where a tensor is missing, of another size, or not a number.  Names that contain `skip` (NULL: none) are
 * left out. */
double compare_files(const SafeTensors *out, const SafeTensors *want, const char *skip, const char **name);
