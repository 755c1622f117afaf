/* A Program for a CUDA device that is not there: its kernels' text, what ptxas says of them, and a forecast of its time. */
#pragma once
#include "codegen/cuda/predict.h"
#include "runtime/cuda/group.h"
#include "runtime/program_impl.h"

typedef struct PaperKernel {
    Buf text; /* CUDA C */
    CudaLaunch launch;
    CudaUse use; /* of the launch that it belongs to */
    CudaForecast forecast;
} PaperKernel;

typedef struct PaperSum {
    int64_t launches;
    double bytes, seconds;        /* moved and taken by the kernels */
    /* The fused minimum: every product (contraction, attention) reads its operands and writes its result once, at the bandwidth
     * or at its peak, whichever takes longer; all else rides along; one launch. */
    double least_bytes, least_s;
} PaperSum;

typedef struct Paper {
    const CudaTarget *target;
    bool compiled;       /* by NVRTC; else registers are assumed */
    PaperKernel *kernel; /* by kernel, each as if it were launched alone */
    CudaGroup **group;   /* by kernel: what is launched at its step */
    PaperKernel *launch; /* likewise */
    PaperSum run;        /* without its `once` part */
} Paper;

/* The target's name of "paper:NAME"; NULL: no such device name. */
const char *paper_target_name(const char *device);
/* p->paper; paper_release frees it. */
bool paper_prepare(Program *p, Err *err, const char *name);
void paper_release(Program *p);
/* The kernels that take longest, and the totals, as text. */
void paper_report(const Program *p, Buf *out);
