/* Timed works: the DNA denoiser's forward pass and full training step (loss, backward, clip, AdamW), on random weights. */
#pragma once
#include "runtime/pretrainer.h"

typedef struct BenchWork { const char *name; bool train; int64_t batch, length; } BenchWork;
/* "dna-fwd-b64-L200", "dna-train-b256-L80": any batch and length. */
bool bench_work_parse(Err *err, const char *name, BenchWork *out);

typedef struct BenchSettings {
    DavDtype precision;
    bool tf32; /* f32 whose products round their operands, on CUDA devices */
    const char *device;
    const char *paper; /* also forecast for this device ("paper:h100"); NULL: no forecast */
    int threads;
    int64_t rows;      /* of a micro-batch; 0: the batch */
    int repeats;
    double min_seconds;
} BenchSettings;

typedef struct BenchResult {
    double *second; /* vec: each repeat */
    double compile_s, first_s; /* building and compiling; the first run (packing, page faults) */
    double gflop, useful_gflop; /* of one unit of work: all multiply-adds of contractions times two; those that meet data */
    int64_t arena_bytes;
    int kernels, cached;
    int64_t launches;   /* on a CUDA device: of a micro-batch */
    double forecast_s;  /* of a unit of work, by BenchSettings.paper, without the optimiser; 0: none */
} BenchResult;
bool bench_run(Err *err, const DavModel *dna_conv, const BenchWork *w, const BenchSettings *s, BenchResult *out);
