/* Kernels and shared launches of programs as text, compiled by the real NVRTC: each text once, on all processors, and what ptxas says of
 * it is held against what is promised.
 * DAV_CUDA_TABLE=FILE writes a line for each, DAV_CUDA_CUBINS=FOLDER the machine code of products (tests/slow/sass.py). */
#pragma once
#include "codegen/cuda/cuda.h"
#include "passes/pass.h"

/* False without NVRTC: SKIPPED, and why. */
bool texts_open(void);
void texts_close(void);
const Nvrtc *texts_compiler(void);

typedef enum {
    TEXTS_F32,
    TEXTS_BF16,
    TEXTS_TF32, /* products alone: all else is as in f32 */
} TextsPrecision;
typedef enum {
    TEXTS_USUAL, /* sm_80, 90, 100, as they are launched */
    TEXTS_ALL,   /* 75 (but for tf32), 86, 89, 120, too, and kernels of shared launches alone */
} TextsLevels;

/* The options of a CUDA device. */
CompileOptions texts_options(TextsPrecision precision);
/* Adds what the graph becomes after all passes; of a lowered graph, what it is. */
void texts_of(const char *program, const Graph *g, TextsPrecision precision, TextsLevels levels);
void texts_of_lowered(const char *program, const Graph *lowered, TextsPrecision precision, TextsLevels levels);
/* The same of a graph in text form; program NULL: by its own name. */
void texts_of_ir(const char *program, const char *text, size_t len, TextsPrecision precision, TextsLevels levels);

/* The texts of a folder, of which nothing but their text is known: what the stand-in was given (DAV_STANDIN_TEXTS). */
void texts_of_folder(const char *folder);

/* Compiles what was added; fails the test where a promise is broken. */
typedef struct TextsCount { int compiled, tensor, shared; } TextsCount; /* of them with tensor cores; launches of several kernels */
TextsCount texts_compile(void);

/* Behind what is the same in all of them. */
const char *texts_kernel(const char *text);
