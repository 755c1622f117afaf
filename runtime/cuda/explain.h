/* What an error on a CUDA device says of the program. */
#pragma once
#include "runtime/cuda/group.h"
#include "runtime/program_impl.h"

/* Puts the kernel, the lines of source that it was made from, and the device before the error's text; false. */
bool explain_launch(const Program *p, Err *err, const CudaGroup *group, const char *device);
