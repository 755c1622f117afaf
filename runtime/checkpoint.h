/* Checkpoints of a run: parameters, optimiser and position, so that a run goes on bit for bit where it stopped. */
#pragma once
#include "runtime/masked.h"
#include "runtime/optim.h"
#include "runtime/state.h"

typedef struct Checkpoint {
    const char *dir;          /* the run folder */
    const char *precision;    /* "f32", "bf16" */
    const char *device;       /* "cpu": the processor's level is recorded; else the device's name is */
    StatePhase phase;
    uint32_t seed;
    int64_t round, step;
    Counters count;
    uint64_t metrics_offset, events_offset;
} Checkpoint;

/* Writes weights, then the optimiser, then the state that names them. */
bool checkpoint_save(Err *err, const Checkpoint *c, const ParamSet *theta, const Optim *optim);
/* Fills theta, optim and the position.  Another version, processor level or precision is an error unless allowed. */
bool checkpoint_load(Err *err, Checkpoint *c, ParamSet *theta, Optim *optim, bool allow_different_bits);
const char *dav_version(void);
