/* The devices that code is made for. */
#include "codegen/cuda/cuda.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* Makers' data sheets, dense rates. */
static const CudaTarget targets[] = {
    {"t4", 75, 65536, 65536, 40, 4 << 20, 320e9, 8.1e12, 0, 0},
    {"a100", 80, 166912, 65536, 108, 40 << 20, 1555e9, 19.5e12, 312e12, 156e12},
    {"a10", 86, 101376, 65536, 72, 6 << 20, 600e9, 31.2e12, 125e12, 62.5e12},
    {"rtx4090", 89, 101376, 65536, 128, 72 << 20, 1008e9, 82.6e12, 165e12, 82.6e12},
    {"h100", 90, 232448, 65536, 132, 50 << 20, 3350e9, 67e12, 989e12, 495e12},
    {"h200", 90, 232448, 65536, 132, 50 << 20, 4800e9, 67e12, 989e12, 495e12},
    {"b200", 100, 232448, 65536, 148, 126 << 20, 8000e9, 75e12, 2250e12, 1125e12},
    {"rtx5090", 120, 101376, 65536, 170, 96 << 20, 1792e9, 104.8e12, 209.5e12, 104.8e12},
};
enum { TARGETS = sizeof targets / sizeof *targets };

/* "sm_90", "sm_90a": the first device of that capability; NULL: not such a name, or none is known. */
static const CudaTarget *target_of_level(const char *name)
{
    int sm = 0, end = 0;
    if (sscanf(name, "sm_%d%n", &sm, &end) != 1 || (strcmp(name + end, "") != 0 && strcmp(name + end, "a") != 0))
        return NULL;
    for (int i = 0; i < TARGETS; i++)
        if (targets[i].sm == sm)
            return &targets[i];
    return NULL;
}

const CudaTarget *cuda_target(Err *err, const char *name)
{
    const char *names[TARGETS];
    const CudaTarget *level = target_of_level(name);
    if (level)
        return level;
    for (int i = 0; i < TARGETS; i++) {
        names[i] = targets[i].name;
        if (strcmp(name, names[i]) == 0)
            return &targets[i];
    }
    const char *near = err_nearest(name, names, TARGETS);
    err_user(err, "no CUDA device is called '%s': expected t4, a100, a10, rtx4090, h100, h200, b200, rtx5090 or a level such as sm_90%s%s", name,
             near ? "; nearest: " : "", near ? near : "");
    return NULL;
}

/* Does the maker's name of a device ("NVIDIA GeForce RTX 4090") hold ours ("rtx4090")? */
static bool holds(const char *device, const char *name)
{
    for (; *device; device++) {
        const char *d = device, *n = name;
        while (*d && *n && (*d == ' ' || tolower((unsigned char)*d) == *n))
            n += *d++ != ' ';
        if (!*n && !isalnum((unsigned char)*d)) /* a T400 is no T4 */
            return true;
    }
    return false;
}

bool cuda_target_of_device(const char *device, int sm, CudaTarget *out)
{
    for (int i = 0; i < TARGETS; i++)
        if (targets[i].sm == sm && holds(device, targets[i].name)) {
            *out = targets[i];
            return true;
        }
    return cuda_target_of_sm(sm, out);
}

bool cuda_target_of_sm(int sm, CudaTarget *out)
{
    const CudaTarget *best = NULL;
    for (int i = 0; i < TARGETS; i++)
        if (targets[i].sm <= sm && (!best || targets[i].sm > best->sm))
            best = &targets[i];
    if (!best)
        return false;
    *out = *best;
    out->ptx = sm / 10 != best->sm / 10;
    return true;
}
