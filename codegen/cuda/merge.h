/* One launch for several kernels that do not touch each other's memory. */
#pragma once
#include "codegen/cuda/cuda.h"

enum { CUDA_MOST_POINTERS = 500, CUDA_MOST_PARTS = 8 }; /* of a launch: parameters take 4 KB at most; different kernels */

typedef struct CudaPart { const Graph *kernel; int count; } CudaPart; /* launches of one kernel */

/* Kernels of one class may share a launch; 0: this one has its launch alone. */
uint64_t cuda_launch_class(const Graph *kernel);
/* Pointers that a launch of the kernel takes. */
int cuda_buffer_count(const Graph *kernel);
/* The whole text of one kernel, extern "C" void symbol(table of pointers): the buffers of each launch of the first part, then of the
 * next; blocks likewise.  The parts are of one class, which is not 0. */
void cuda_group_source(const CudaTarget *t, const CudaPart *part, int n, const char *symbol, Buf *text, CudaLaunch *launch);
