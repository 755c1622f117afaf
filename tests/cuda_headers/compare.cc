// Declarations of our own beside those of the toolkit: as many parameters, of the same sizes, pointers where there are pointers.
// A difference does not compile.
#include <cuda.h>
#include <nvrtc.h>
#include <stddef.h>
#include <stdint.h>
#include <type_traits>

namespace ours {
#include "codegen/cuda/nvrtc_api.h"
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
NUMBER(CU_LOST_ADDRESS, CUDA_ERROR_ILLEGAL_ADDRESS);
NUMBER(CU_LOST_TIMEOUT, CUDA_ERROR_LAUNCH_TIMEOUT);
NUMBER(CU_LOST_LAUNCH, CUDA_ERROR_LAUNCH_FAILED);
NUMBER(CU_LOST_ECC, CUDA_ERROR_ECC_UNCORRECTABLE);
NUMBER(NVRTC_INVALID_OPTION, NVRTC_ERROR_INVALID_OPTION);
NUMBER(NVRTC_COMPILATION, NVRTC_ERROR_COMPILATION);
NUMBER(NVRTC_BUILTIN_OPERATION, NVRTC_ERROR_BUILTIN_OPERATION_FAILURE);

extern "C" int cuda_headers_compared() { return CUDA_VERSION; }
