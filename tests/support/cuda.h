/* The CUDA device of a test: the stand-in of tests/cuda_standin, unless DAV_CUDA_LIBRARY_PATH names other libraries or
 * DAV_TEST_CUDA=device asks for the machine's own (`./dev test --device cuda`). */
#pragma once
#include <stdbool.h>

/* Decides for this process and the programs that it starts; to be called before the first use of CUDA. */
void cuda_choose(void);
/* False where the machine's own device is asked for and does not open; says SKIPPED and why. */
bool cuda_is_there(void);
/* Skips the test that runs where it is not there. */
void cuda_or_skip(void);
/* Devices of the libraries in use; 0 where there are none. */
int cuda_device_count(void);
/* What the stand-in counts (dav_standin_NAME of tests/cuda_standin/driver.cc, cublaslt.cc); 0 where the device is another. */
long long cuda_standin(const char *name);
/* The function dav_standin_NAME; NULL where the device is another. */
void *cuda_standin_symbol(const char *name);
/* Skips a test of what only the stand-in counts. */
void cuda_standin_or_skip(void);
