/* A Program on a CUDA device, from the inside: for run.c, load.c, memory.c and steps.c. */
#pragma once
#include "codegen/cuda/cuda.h"
#include "runtime/cuda/blaslt.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/group.h"
#include "runtime/cuda/run.h"

enum { CUDA_ALIGN = 256 };

typedef struct LoadedKernel {
    CuModule module; /* NULL: equal to an earlier one */
    CuFunction function;
    CudaLaunch launch;
    uint64_t text; /* hash */
} LoadedKernel;

typedef struct CudaProgram {
    CudaDevice device;
    CuStream stream;
    CuPtr arena, kept, scratch, params, inputs, outputs, literals;
    char *in_pinned, *out_pinned, *host_pinned; /* host_pinned: operands and results of host functions */
    int64_t *in_at, *out_at; /* offsets: of params in params, else in inputs; of outputs in outputs */
    int64_t params_bytes, in_bytes, out_bytes;
    bool *resident;          /* a parameter that no output overwrites */
    bool params_among_inputs; /* one that an output overwrites: the once part finds it with the other inputs */
    bool ends_ready;         /* memory for inputs and outputs is there */
    CudaGroup **group;       /* by kernel: what is launched at its step */
    LoadedKernel *kernel;    /* likewise */
    void **in_ptr, **out_ptr;
    void **captured_in;      /* what in_ptr was when the graph was made */
    bool captures;           /* its runs can be replayed: no host function, not too long */
    Blaslt *blaslt;          /* NULL: it runs none of the products */
    CuPtr workspace;         /* of cuBLASLt's algorithms, which follow each other */
    bool warm;               /* a run has been launched step by step */
    bool by_steps;           /* DAV_CUDA_SYNC=1: waits after each kernel, so that the one that fails is named */
    CuGraphExec graph;       /* a run from its inputs to its outputs; NULL: not captured yet */
} CudaProgram;

static inline int64_t cuda_padded(int64_t bytes)
{
    return (bytes + CUDA_ALIGN - 1) / CUDA_ALIGN * CUDA_ALIGN;
}

static inline int64_t cuda_bytes_of(const Type *t)
{
    return type_count(t) * (int64_t)dav_dtype_size(t->dtype);
}

static inline void *device_pointer(CuPtr at)
{
    return (void *)(uintptr_t)at;
}

/* load.c: the kernels of all groups, compiled or from the cache. */
bool cuda_load_kernels(Program *p, Err *err, const CudaTarget *target);

/* memory.c: what does not depend on flat arrays; p->literal names the device's memory from here on. */
bool cuda_take_memory(Program *p, Err *err);
/* Inputs and outputs, at the first run, when it is known which of them lie in flat arrays. */
bool cuda_take_ends(Program *p, Err *err);
/* Does an output overwrite an input that lies in a flat array? */
bool cuda_in_flat(const Program *p, int o);
/* Where inputs and outputs go; those in flat arrays have their places already. */
void cuda_lay_out(Program *p);
void cuda_free_memory(const CudaProgram *c);

/* steps.c: puts the program's steps on its stream, once or in every run. */
bool cuda_run_steps(Program *p, Err *err, Frame *f, bool once);
/* Pinned memory that the host function with the largest operands and result needs. */
int64_t cuda_host_bytes(const Plan *plan);
bool cuda_copy_within(Program *p, Err *err, void *to, const void *from, int64_t bytes);
