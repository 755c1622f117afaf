/* The state of a run on disk: RUN/checkpoints/run.state (runtime/state.fbs) and the tensor files that it names.
 *
 * Saving, so that a kill at any moment leaves either the previous checkpoint or this one, whole:
 *
 *     state_begin(&s);                                        the next serial number, no files yet
 *     state_file_path(path, dir, &s, "weights");              a name that no earlier checkpoint has
 *     ... write the file, whole or not at all ...
 *     state_add_file(arena, err, dir, &s, "weights");         hashes it
 *     ... the same for "optimiser" ...
 *     state_commit(err, dir, &s);                             makes it the checkpoint, removes files of older ones
 *
 * Loading checks everything: bounds, the buffer's structure and hash, each file's size and hash. */
#pragma once
#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    STATE_FORMAT = 1,
    STATE_MAX_FILES = 8,
    STATE_MAX_ARRAYS = 64,
    STATE_MAX_BYTES = 1 << 30, /* of run.state */
    STATE_PATH = 4096,         /* room for a path */
};

typedef enum { STATE_PRETRAIN, STATE_ALIGN } StatePhase;

typedef struct StateFile {
    const char *role, *name; /* name: without a folder */
    uint64_t bytes, hash;
} StateFile;

typedef struct StateArray {
    const char *name;
    const void *data;
    size_t bytes;
} StateArray;

typedef struct RunState {
    const char *dav_version, *cpu_level, *precision;
    uint64_t seed;
    StatePhase phase;
    int64_t round, step, inner_epoch; /* complete rounds; steps and epochs within the next one */
    int64_t forwards, vjps, reward_forwards, reward_vjps, p0_forwards;
    int64_t ema_step;
    uint64_t serial;                         /* kept by state_begin */
    uint64_t metrics_offset, events_offset; /* from runlog_sync */
    int n_files, n_arrays;
    StateFile files[STATE_MAX_FILES];
    StateArray arrays[STATE_MAX_ARRAYS]; /* data belong to the caller, or after loading to the arena */
} RunState;

bool state_exists(const char *run_dir); /* is there a checkpoint to resume from? */
void state_begin(RunState *s);
/* RUN/checkpoints/ROLE-rROUND-SERIAL.safetensors */
bool state_file_path(Err *err, char path[STATE_PATH], const char *run_dir, const RunState *s, const char *role);
bool state_add_file(Arena *a, Err *err, const char *run_dir, RunState *s, const char *role);
void state_add_array(RunState *s, const char *name, const void *data, size_t bytes);
bool state_commit(Err *err, const char *run_dir, const RunState *s);

bool state_load(Arena *a, Err *err, const char *run_dir, RunState *s);
const StateFile *state_file(const RunState *s, const char *role);    /* NULL: none */
const StateArray *state_array(const RunState *s, const char *name); /* NULL: none */

/* The same bits are promised only for the same version, CPU level and precision: anything else is an error, unless
 * allowed. */
bool state_same_machine(Err *err, const RunState *s, const char *dav_version, const char *cpu_level,
                        const char *precision, bool allow_different_bits);

/* The codec (C++).  state_decode copies into the arena; `place` is the file's name in errors. */
bool state_encode(Err *err, const RunState *s, bool (*sink)(void *arg, Err *err, const void *bytes, size_t n),
                  void *arg);
bool state_decode(Arena *a, Err *err, const char *place, const void *bytes, size_t n, RunState *s);

#ifdef __cplusplus
}
#endif
