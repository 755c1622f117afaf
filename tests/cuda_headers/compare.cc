// Declarations of our own beside those of the toolkit: as many parameters, of the same sizes, pointers where there are pointers.
// A difference does not compile.
#include <cublasLt.h>
#include <cuda.h>
#include <nvrtc.h>
#include <stddef.h>
#include <stdint.h>
#include <type_traits>

namespace ours {
#include "codegen/cuda/nvrtc_api.h"
#include "runtime/cuda/blaslt_api.h"
#include "runtime/cuda/driver_api.h"
}

template <class A, class B> constexpr bool alike()
{
    return sizeof(A) == sizeof(B) && std::is_pointer<A>::value == std::is_pointer<B>::value &&
           std::is_floating_point<A>::value == std::is_floating_point<B>::value;
}
template <class F, class G> struct Same { static constexpr bool value = false; };
template <class R, class... A, class S, class... B> struct Same<R (*)(A...), S (*)(B...)> {
    template <bool fits, int> struct All { static constexpr bool value = (alike<A, B>() && ...); };
    template <int x> struct All<false, x> { static constexpr bool value = false; };
    static constexpr bool value = alike<R, S>() && All<sizeof...(A) == sizeof...(B), 0>::value;
};

namespace ours {
#define DRIVER(name, parameters) static_assert(Same<int(*) parameters, decltype(&::name)>::value, "cuda.h declares " #name " otherwise");
CUDA_DRIVER(DRIVER)
#define COMPILER(result, name, parameters) static_assert(Same<result(*) parameters, decltype(&::name)>::value, "nvrtc.h declares " #name " otherwise");
NVRTC(COMPILER)
#define PRODUCTS(result, name, parameters) static_assert(Same<result(*) parameters, decltype(&::name)>::value, "cublasLt.h declares " #name " otherwise");
BLASLT(PRODUCTS)
static_assert(sizeof(BlasAlgo) == sizeof(cublasLtMatmulAlgo_t), "cublasLtMatmulAlgo_t has another size in the header");
static_assert(sizeof(BlasHeuristic) == sizeof(cublasLtMatmulHeuristicResult_t) &&
                  offsetof(BlasHeuristic, algo) == offsetof(cublasLtMatmulHeuristicResult_t, algo) &&
                  offsetof(BlasHeuristic, workspace) == offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize) &&
                  offsetof(BlasHeuristic, state) == offsetof(cublasLtMatmulHeuristicResult_t, state) &&
                  offsetof(BlasHeuristic, waves) == offsetof(cublasLtMatmulHeuristicResult_t, wavesCount),
              "cublasLtMatmulHeuristicResult_t is laid out otherwise in the header");
}

#define NUMBER(x, y) static_assert((int)(ours::x) == (int)(y), #x " is another number in the header")
NUMBER(CU_OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
NUMBER(CU_INVALID_IMAGE, CUDA_ERROR_INVALID_IMAGE);
NUMBER(CU_NO_BINARY, CUDA_ERROR_NO_BINARY_FOR_GPU);
NUMBER(CU_UNSUPPORTED_PTX, CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
NUMBER(CU_STREAM_NON_BLOCKING, ::CU_STREAM_NON_BLOCKING);
NUMBER(CU_CAPTURE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
NUMBER(CU_FUNC_MAX_DYNAMIC_SHARED, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
NUMBER(CU_DEVICE_SM_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
NUMBER(CU_DEVICE_SM_MINOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
NUMBER(CU_STUB, CUDA_ERROR_STUB_LIBRARY);
NUMBER(CU_LOST_DESTROYED, CUDA_ERROR_CONTEXT_IS_DESTROYED);
NUMBER(CU_LOST_ASSERT, CUDA_ERROR_ASSERT);
NUMBER(CU_LOST_STACK, CUDA_ERROR_HARDWARE_STACK_ERROR);
NUMBER(CU_LOST_ILLEGAL, CUDA_ERROR_ILLEGAL_INSTRUCTION);
NUMBER(CU_LOST_MISALIGNED, CUDA_ERROR_MISALIGNED_ADDRESS);
NUMBER(CU_LOST_ADDRESS_SPACE, CUDA_ERROR_INVALID_ADDRESS_SPACE);
NUMBER(CU_LOST_PC, CUDA_ERROR_INVALID_PC);
NUMBER(CU_LOST_ADDRESS, CUDA_ERROR_ILLEGAL_ADDRESS);
NUMBER(CU_LOST_TIMEOUT, CUDA_ERROR_LAUNCH_TIMEOUT);
NUMBER(CU_LOST_LAUNCH, CUDA_ERROR_LAUNCH_FAILED);
NUMBER(CU_LOST_ECC, CUDA_ERROR_ECC_UNCORRECTABLE);
NUMBER(BLAS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED);
NUMBER(BLAS_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED);
NUMBER(BLAS_R_32F, CUDA_R_32F);
NUMBER(BLAS_R_16BF, CUDA_R_16BF);
NUMBER(BLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F);
NUMBER(BLAS_COMPUTE_TF32, CUBLAS_COMPUTE_32F_FAST_TF32);
NUMBER(BLAS_OP_T, CUBLAS_OP_T);
NUMBER(BLAS_LAYOUT_BATCH_COUNT, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT);
NUMBER(BLAS_LAYOUT_BATCH_STRIDE, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET);
NUMBER(BLAS_DESC_TRANS_A, CUBLASLT_MATMUL_DESC_TRANSA);
NUMBER(BLAS_DESC_TRANS_B, CUBLASLT_MATMUL_DESC_TRANSB);
NUMBER(BLAS_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_EPILOGUE);
NUMBER(BLAS_DESC_BIAS_POINTER, CUBLASLT_MATMUL_DESC_BIAS_POINTER);
NUMBER(BLAS_DESC_BIAS_TYPE, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE);
NUMBER(BLAS_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_DEFAULT);
NUMBER(BLAS_EPILOGUE_RELU, CUBLASLT_EPILOGUE_RELU);
NUMBER(BLAS_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_BIAS);
NUMBER(BLAS_EPILOGUE_RELU | ours::BLAS_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_RELU_BIAS);
NUMBER(BLAS_EPILOGUE_GELU, CUBLASLT_EPILOGUE_GELU);
NUMBER(BLAS_EPILOGUE_GELU | ours::BLAS_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_GELU_BIAS);
NUMBER(BLAS_PREFER_WORKSPACE_BYTES, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
NUMBER(BLAS_PREFER_REDUCTIONS, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
NUMBER(BLAS_PREFER_ALIGNMENT_A, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
NUMBER(BLAS_PREFER_ALIGNMENT_A + 1, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
NUMBER(BLAS_PREFER_ALIGNMENT_A + 2, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
NUMBER(BLAS_PREFER_ALIGNMENT_A + 3, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
NUMBER(BLAS_REDUCTION_IN_F32, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
NUMBER(NVRTC_INVALID_OPTION, NVRTC_ERROR_INVALID_OPTION);
NUMBER(NVRTC_COMPILATION, NVRTC_ERROR_COMPILATION);
NUMBER(NVRTC_BUILTIN_OPERATION, NVRTC_ERROR_BUILTIN_OPERATION_FAILURE);

extern "C" int cuda_headers_compared() { return CUDA_VERSION; }
