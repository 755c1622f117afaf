/* A Program on a CUDA device: its kernels loaded, its memory, its steps put on a stream.
 *
 * Parameters are copied to the device when params_version changes and stay there; the other inputs go, and the outputs
 * come back, through pinned memory, with one copy each way a run.  Nothing waits for the device before the end of a run
 * but a host function. */
#pragma once
#include "runtime/program_impl.h"

/* What a block of attention works at together, and the processors that products are cut for; not the device's, so that a program is
 * the same on all of them. */
enum { CUDA_TILE_ROWS = 64, CUDA_TILE_COLUMNS = 64, CUDA_PROCESSORS = 128 };

/* DAV_CUDA_SYNC=1: kernels one by one, the host waiting after each. */
bool cuda_by_steps(void);
/* Device index of "cuda" (0) or "cuda:N"; -1: the name is of no CUDA device. */
int cuda_device_index(const char *name);
/* Compiles and loads the plan's kernels and takes the device's memory; p->cuda holds them. */
bool cuda_prepare(Program *p, Err *err, int index);
/* Puts a run on the stream; `in` is read before it returns, but for parameters that were sent. */
bool cuda_start(Program *p, Err *err, void *const *in, bool once);
/* Waits for its end; a start that failed has none. */
bool cuda_finish(Program *p, Err *err, void *const *in, void *const *out);
void cuda_release(Program *p);
