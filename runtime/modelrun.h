/* One forward pass, or vector-Jacobian product, of a model on the tensors of a file: what `dav run` does. */
#pragma once
#include "runtime/modeldir.h"
#include "runtime/program.h"

typedef struct ModelRun {
    const ModelDir *dir;
    const char *in, *out; /* safetensors files; out is written whole or not at all */
    bool vjp; /* gradients of sum over outputs of <output, grad.output>, for floating inputs and trainable parameters */
    DavDtype dtype;     /* computed in: DAV_F32, DAV_BF16 (storage), DAV_F64 (by the interpreter) */
    bool tf32;          /* f32 whose products round their operands, on CUDA devices */
    const char *device; /* as ProgramOptions */
    int threads;
} ModelRun;

bool model_run(Err *err, const ModelRun *run);
