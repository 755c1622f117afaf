/* What is used of cuBLASLt, declared without its header; tests/cuda_headers compares it with that. Also read as C++. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef int BlasStatus;
typedef void *BlasHandle, *BlasDesc, *BlasLayout, *BlasPreference, *BlasStream;
typedef struct BlasAlgo { uint64_t data[8]; } BlasAlgo;
typedef struct BlasHeuristic {
    BlasAlgo algo;
    size_t workspace;
    BlasStatus state;
    float waves;
    int reserved[4];
} BlasHeuristic;

/* result, name in the library, parameters */
#define BLASLT(F)                                                                                                      \
    F(BlasStatus, cublasLtCreate, (BlasHandle * handle))                                                               \
    F(BlasStatus, cublasLtDestroy, (BlasHandle handle))                                                                \
    F(size_t, cublasLtGetVersion, (void))                                                                              \
    F(const char *, cublasLtGetStatusName, (BlasStatus status))                                                        \
    F(BlasStatus, cublasLtMatmulDescCreate, (BlasDesc * desc, int compute, int scale_type))                            \
    F(BlasStatus, cublasLtMatmulDescDestroy, (BlasDesc desc))                                                          \
    F(BlasStatus, cublasLtMatmulDescSetAttribute, (BlasDesc desc, int which, const void *value, size_t bytes))         \
    F(BlasStatus, cublasLtMatrixLayoutCreate, (BlasLayout * layout, int type, uint64_t rows, uint64_t cols, int64_t ld)) \
    F(BlasStatus, cublasLtMatrixLayoutDestroy, (BlasLayout layout))                                                    \
    F(BlasStatus, cublasLtMatrixLayoutSetAttribute, (BlasLayout layout, int which, const void *value, size_t bytes))   \
    F(BlasStatus, cublasLtMatmulPreferenceCreate, (BlasPreference * preference))                                       \
    F(BlasStatus, cublasLtMatmulPreferenceDestroy, (BlasPreference preference))                                        \
    F(BlasStatus, cublasLtMatmulPreferenceSetAttribute,                                                                \
      (BlasPreference preference, int which, const void *value, size_t bytes))                                         \
    F(BlasStatus, cublasLtMatmulAlgoGetHeuristic,                                                                      \
      (BlasHandle handle, BlasDesc desc, BlasLayout a, BlasLayout b, BlasLayout c, BlasLayout d,                       \
       BlasPreference preference, int asked, BlasHeuristic *found, int *count))                                        \
    F(BlasStatus, cublasLtMatmulAlgoCheck,                                                                             \
      (BlasHandle handle, BlasDesc desc, BlasLayout a, BlasLayout b, BlasLayout c, BlasLayout d, const BlasAlgo *algo, \
       BlasHeuristic *found))                                                                                          \
    F(BlasStatus, cublasLtMatmul,                                                                                      \
      (BlasHandle handle, BlasDesc desc, const void *alpha, const void *a, BlasLayout a_layout, const void *b,         \
       BlasLayout b_layout, const void *beta, const void *c, BlasLayout c_layout, void *d, BlasLayout d_layout,        \
       const BlasAlgo *algo, void *workspace, size_t workspace_bytes, BlasStream stream))

enum {
    BLAS_ALLOC_FAILED = 3,
    BLAS_NOT_SUPPORTED = 15,
    BLAS_R_32F = 0,
    BLAS_R_16BF = 14,
    BLAS_COMPUTE_32F = 68,
    BLAS_COMPUTE_TF32 = 77,
    BLAS_OP_T = 1,
    BLAS_LAYOUT_BATCH_COUNT = 5,
    BLAS_LAYOUT_BATCH_STRIDE = 6,
    BLAS_DESC_TRANS_A = 3,
    BLAS_DESC_TRANS_B = 4,
    BLAS_DESC_EPILOGUE = 7,
    BLAS_DESC_BIAS_POINTER = 8,
    BLAS_DESC_BIAS_TYPE = 26,
    BLAS_EPILOGUE_DEFAULT = 1,
    BLAS_EPILOGUE_RELU = 2,
    BLAS_EPILOGUE_BIAS = 4,
    BLAS_EPILOGUE_GELU = 32,
    BLAS_PREFER_WORKSPACE_BYTES = 1,
    BLAS_PREFER_REDUCTIONS = 3,
    BLAS_PREFER_ALIGNMENT_A = 5, /* B, C and D follow */
    BLAS_REDUCTION_IN_F32 = 2    /* parts of a sum are kept and added in the compute type */
};
