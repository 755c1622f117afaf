/* What is used of NVRTC, declared without its header; tests/cuda_headers compares it with that.  Also read as C++. */
#pragma once
#include <stddef.h>

typedef void *NvrtcProgram;
enum { NVRTC_INVALID_OPTION = 5, NVRTC_COMPILATION = 6, NVRTC_BUILTIN_OPERATION = 7 };

#define NVRTC(F)                                                                                                       \
    F(int, nvrtcVersion, (int *major, int *minor))                                                                     \
    F(int, nvrtcCreateProgram, (NvrtcProgram * p, const char *text, const char *name, int headers,                     \
                                const char *const *header, const char *const *include_name))                           \
    F(int, nvrtcDestroyProgram, (NvrtcProgram * p))                                                                    \
    F(int, nvrtcCompileProgram, (NvrtcProgram p, int options, const char *const *option))                              \
    F(int, nvrtcGetCUBINSize, (NvrtcProgram p, size_t * bytes))                                                        \
    F(int, nvrtcGetCUBIN, (NvrtcProgram p, char *to))                                                                  \
    F(int, nvrtcGetPTXSize, (NvrtcProgram p, size_t * bytes))                                                          \
    F(int, nvrtcGetPTX, (NvrtcProgram p, char *to))                                                                    \
    F(int, nvrtcGetProgramLogSize, (NvrtcProgram p, size_t * bytes))                                                   \
    F(int, nvrtcGetProgramLog, (NvrtcProgram p, char *to))                                                             \
    F(const char *, nvrtcGetErrorString, (int status))
