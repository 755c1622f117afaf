/* What a kernel is called in dumps and errors. */
#pragma once
#include "ir/kernel.h"

/* "contract_1a2b3c4d": what it mostly does, and the start of its hash; equal kernels have one name. */
const char *kernel_name(Arena *arena, const Graph *kernel);
