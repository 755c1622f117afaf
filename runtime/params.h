/* The parameters of one network, in one flat array of f32: trainable ones first, frozen ones after them, each padded to 64
 * bytes.  Gradients, moments and the average use the same layout, so the optimiser is a program over flat arrays. */
#pragma once
#include "runtime/flat.h"
#include "runtime/program.h"
#include "runtime/safetensors.h"

typedef struct ParamEntry {
    const char *name; /* as in the weights file */
    Type type;
    bool frozen;
    int64_t offset, count; /* in elements of the flat array */
} ParamEntry;

typedef struct ParamSet {
    ParamEntry *entry;
    int n;
    int64_t size, trainable; /* elements of the flat array, and of its trainable part, which is a multiple of four leaves */
    float *value;            /* [size], of runtime/flat.h */
    uint64_t version;        /* changes whenever value does; unique in the process */
} ParamSet;

/* Elements of a leaf in the optimiser's tree of sums over n trainable ones, which are padded to four of them: a power of two, at least
 * 1024, of which there are at most 8192. */
int64_t param_leaf(int64_t n);

/* The inputs of role param and frozen of g whose names begin with prefix (which is taken off).  Values are zero.
 * Owned by the caller: params_free. */
ParamSet *params_from_graph(const Graph *g, const char *prefix);
void params_free(ParamSet *p);
void params_touch(ParamSet *p); /* value has changed: gives it a new version */
float *params_flat(const ParamSet *p); /* a zeroed array of the same layout; flat_free */

/* Points the inputs (or outputs) of the program that are named prefix + parameter at their places in flat; inputs are bound to it. */
void params_bind_inputs(const ParamSet *p, Program *prog, const char *prefix, float *flat, void **in);
void params_bind_outputs(const ParamSet *p, Program *prog, const char *prefix, float *flat, void **out);

/* Fills flat from the tensors of a file: every parameter present, of its shape, nothing unknown. */
bool params_load(const ParamSet *p, Err *err, const char *path, float *flat);
/* Writes flat as path (all parameters, frozen ones from p->value), whole or not at all. */
bool params_save(const ParamSet *p, Err *err, const char *path, const float *flat);
