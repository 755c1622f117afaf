/* Scalar conversions of the 16-bit floats: to f32 exactly, from f32 by rounding to nearest, ties to even.
 * A NaN stays a (quiet) NaN of the same sign, what is too large becomes infinite, subnormal values are kept.
 * f64 goes through f32 first, as PyTorch does. */
#pragma once
#include "dav/dtype.h"
#include <stdint.h>
#include <string.h>

static inline uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float bf16_to_f32(uint16_t h)
{
    return f32_from_bits((uint32_t)h << 16);
}

static inline uint16_t bf16_from_f32(float f)
{
    uint32_t u = f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, mag = h & 0x7fffu;
    if (mag >= 0x7c00u) /* infinite or NaN */
        return f32_from_bits(sign | 0x7f800000u | (mag & 0x3ffu) << 13 | (mag > 0x7c00u ? 0x400000u : 0u));
    if (mag >= 0x400u)
        return f32_from_bits(sign | ((mag << 13) + 0x38000000u));
    float tiny = (float)mag * 0x1p-24f; /* subnormal or zero: exact */
    return f32_from_bits(sign | f32_bits(tiny));
}

static inline uint16_t f16_from_f32(float f)
{
    uint32_t u = f32_bits(f), mag = u & 0x7fffffffu;
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
    if (mag > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (mag >> 13 & 0x3ffu));
    if (mag >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (mag < 0x38800000u) /* below 2^-14: one unit of 0.5f is the subnormals' unit, so the addition rounds */
        return (uint16_t)(sign | (f32_bits(f32_from_bits(mag) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | (mag + 0xfffu + (mag >> 13 & 1u) - 0x38000000u) >> 13);
}
