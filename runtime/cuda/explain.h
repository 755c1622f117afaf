/* What an error on a CUDA device says of the program. */
#pragma once
#include "runtime/program_impl.h"

/* Puts the kernel, the lines of source that it was made from, and the device before the error's text; false. */
bool explain_kernel(const Program *p, Err *err, int kernel, const char *device);
