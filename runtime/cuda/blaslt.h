/* cuBLASLt, opened when it is first wanted, and a program's products that it runs. */
#pragma once
#include "runtime/cuda/blaslt_api.h"
#include "runtime/cuda/driver.h"
#include "runtime/program_impl.h"

typedef struct BlasLt {
#define BLASLT_MEMBER(result, name, parameters) result(*name) parameters;
    BLASLT(BLASLT_MEMBER)
#undef BLASLT_MEMBER
} BlasLt;

/* libcublasLt of CUDA 13 or 12; NULL with err set.  Lives as long as the process.  That it is missing is no failure. */
const BlasLt *blaslt_open(Err *err);
/* "13.1.0" */
bool blaslt_version(Err *err, char out[64]);

/* The products of one program that cuBLASLt runs. */
typedef struct Blaslt Blaslt;
/* Decides for each product of p (p->product) and finds algorithms, from the cache folder or by cuBLASLt's heuristics.  *b is set
 * also when something failed, to be released. */
bool blaslt_prepare(Program *p, Err *err, const CudaDevice *device, Blaslt **b);
/* Device memory that its algorithms want; 0: none. */
int64_t blaslt_workspace(const Blaslt *b);
bool blaslt_any(const Blaslt *b);
/* Puts product `kernel` on the stream; buf: of its kernel, by index. */
bool blaslt_launch(const Blaslt *b, Err *err, int kernel, void *const *buf, CuPtr workspace, CuStream stream);
void blaslt_release(Blaslt *b);
