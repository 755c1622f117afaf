/* Kernel IR to CUDA C, and CUDA C to machine code through NVRTC, which is opened when it is first wanted. */
#pragma once
#include "base/err.h"
#include "base/text.h"
#include "ir/kernel.h"

/* A device as the code generator sees it: makers' data sheets, dense rates without sparsity, per second. */
typedef struct CudaTarget {
    const char *name;
    int sm;                      /* compute capability: 10 major + minor */
    int shared_bytes, regs, sms; /* shared memory one block may have; registers of a multiprocessor; multiprocessors */
    int64_t l2_bytes;
    double bytes_s, f32_s, bf16_s, tf32_s;
    bool tf32; /* asked for: products of f32 by tensor cores, operands rounded */
    bool ptx;  /* the device is of a later generation than sm: it compiles PTX for sm itself when the kernel is loaded */
} CudaTarget;

/* By name (t4 a100 a10 rtx4090 h100 h200 b200 rtx5090) or capability (sm_90, sm_90a); an unknown one is a user's error. */
const CudaTarget *cuda_target(Err *err, const char *name);
/* The description whose capability is the largest not above sm: machine code for it runs on the device when both are of one
 * generation (sm / 10), else *ptx is set.  False below 75. */
bool cuda_target_of_sm(int sm, CudaTarget *out);
/* The same, of several of that capability the one that the device's name tells. */
bool cuda_target_of_device(const char *device, int sm, CudaTarget *out);

typedef struct CudaLaunch {
    int threads;         /* of a block */
    int64_t blocks;      /* 0: the kernel has nothing to do and must not be launched */
    int shared_bytes;    /* dynamic */
    int64_t scratch_bytes; /* of device scratch in all, 0: none; else its address is the kernel's last parameter */
} CudaLaunch;

/* The whole text of one kernel: machine.cu, prelude.cu, extern "C" void symbol(buffers in the order of their index, then scratch).
 * Deterministic.  False with err set: the kernel asks for what this backend has not (named). */
bool cuda_source(const CudaTarget *t, Err *err, const Graph *kernel, const char *symbol, Buf *text, CudaLaunch *launch);

/* dlopen in the folders of DAV_CUDA_LIBRARY_PATH, joined by ':', an empty one being where the system looks; there alone when it is not
 * set.  NULL: dlerror says why the last one failed. */
void *cuda_library(const char *name);

typedef struct Nvrtc Nvrtc;
/* libnvrtc of CUDA 13, else of 12, in DAV_CUDA_LIBRARY_PATH when that is set; NULL with err set.  Lives as long as the process. */
const Nvrtc *nvrtc_open(Err *err);
/* "13.0" of the library that would be used; size of out: 64. */
bool nvrtc_version(Err *err, char out[64]);
/* The same by way of the cache folder (NULL: none); *miss: why the cubin had to be compiled, NULL when it came from there. */
bool cuda_compile_cached(const Nvrtc *nvrtc, Err *err, const char *dir, const CudaTarget *t, const char *text, Buf *cubin,
                         const char **miss);
/* Text to what the driver loads: a cubin for t->sm, or PTX where t->ptx says so; log: NVRTC's, with ptxas' registers and spills.
 * Text that does not compile is our bug: it dies and leaves the kernel as a file that nvcc compiles alone. */
bool cuda_compile(const Nvrtc *nvrtc, Err *err, const CudaTarget *t, const char *text, Buf *cubin, Buf *log);
