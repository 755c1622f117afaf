/* Where the CUDA libraries are looked for. */
#include "codegen/cuda/cuda.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *cuda_library(const char *name)
{
    const char *folder = getenv("DAV_CUDA_LIBRARY_PATH");
    void *so = NULL;
    for (bool more = true; more && !so;) {
        const char *end = folder ? strchr(folder, ':') : NULL;
        int length = (int)(!folder ? 0 : end ? end - folder : (ptrdiff_t)strlen(folder));
        char path[4096];
        snprintf(path, sizeof path, "%.*s%s%s", length, folder ? folder : "", length ? "/" : "", name);
        so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        more = end != NULL;
        folder = more ? end + 1 : folder;
    }
    return so;
}
