/* Programs on the tensors of safetensors files. */
#pragma once
#include "runtime/program.h"

/* An input's elements, in the program's dtype, or a narrower float where the program computes in f64. */
typedef struct InputData { const void *data; DavDtype dtype; } InputData;
typedef InputData (*InputSource)(void *ctx, const char *name);

/* Runs p once and writes its outputs to a file, whole or not at all; memory comes from arena. */
bool program_run_to_file(Err *err, Arena *arena, Program *p, InputSource source, void *ctx, const char *out, int threads);

/* Runs the graph of an IR text file (docs/ir.md) on the tensors of `in`, which must be its inputs, no more and no fewer.  A graph
 * that holds kernels is refused: nothing checks what they read and write. */
bool graph_run_file(Err *err, const char *graph, const char *in, const char *out, const ProgramOptions *options);
