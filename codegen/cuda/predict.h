/* What a kernel will cost on a device, on paper: occupancy by the device's limits, time by a roofline with a launch cost. */
#pragma once
#include "codegen/cuda/merge.h"
#include "passes/kernel_cost.h"

typedef struct CudaUse {
    int regs, spill_bytes, shared_bytes; /* a thread's registers and spills, a block's static shared memory */
    bool known;                          /* by ptxas; else assumed */
} CudaUse;
/* From NVRTC's log with --ptxas-options=-v; false when it tells no registers. */
bool cuda_use_of_log(const char *log, CudaUse *use);
/* What is assumed without a compiler. */
CudaUse cuda_use_assumed(void);

typedef struct CudaForecast {
    int blocks_per_sm;
    double occupancy;  /* active warps of the most that a multiprocessor holds */
    double waves;      /* of blocks over the whole device */
    double memory_s, compute_s, launch_s, seconds; /* seconds: launch + the larger of the other two */
    const char *bound; /* memory, compute, launch: the largest of the three */
} CudaForecast;

/* Threads by which a multiprocessor's blocks are limited: warps, registers (in units of 256 a warp), shared memory, blocks. */
int cuda_blocks_per_sm(const CudaTarget *t, int threads, int regs, int shared_bytes);
CudaForecast cuda_forecast(const CudaTarget *t, const CudaLaunch *l, const CudaUse *use, const Graph *kernel);
/* Of a launch of several kernels (merge.h); of[i]: what part i alone would be launched as. */
CudaForecast cuda_forecast_group(const CudaTarget *t, const CudaLaunch *l, const CudaUse *use, const CudaPart *part, const CudaLaunch *of,
                                 int n);
/* The same of a product that cuBLASLt runs. */
CudaForecast cuda_forecast_library(const CudaTarget *t, const Graph *kernel);
/* Operations a second at most of what the kernel's products are made of. */
double cuda_peak_of(const CudaTarget *t, const Graph *kernel);
/* Seconds that moving `bytes` once and `seconds_at_peak` of arithmetic take at least, in one launch. */
double cuda_floor(const CudaTarget *t, double bytes, double seconds_at_peak);
