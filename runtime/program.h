/* A compiled tensor graph that can be run: on the CPU (pass pipeline, LLVM), or by the reference interpreter.
 *
 * Shapes are static; a caller with more samples than the graph's batch runs it in a loop and pads the tail.  What depends on
 * inputs of role param and frozen alone (packed weights) is computed once per params_version, not per run. */
#pragma once
#include "ir/graph.h"
#include "passes/pass.h"

typedef struct Program Program;

typedef struct ProgramOptions {
    CompileOptions compile;
    /* "cpu" (default); "interp", the reference interpreter; "interp64", the same with every float computed and stored as f64;
     * "kernels", what cpu runs but with the kernels interpreted, for tests. */
    const char *device;
    /* Pairs input = output that share memory, as "name_in=name_out;..."; the input is overwritten. NULL: none. */
    const char *inplace;
    bool learns; /* its results are gradients, no samples: on CUDA their bits may depend on the number of rows (blaslt_rule.h) */
} ProgramOptions;

/* Is it the name of a device that programs run on: cpu, cuda, cuda:N, interp, interp64?  It need not be there. */
bool program_device_known(const char *name);
/* Compiles g, which may be freed afterwards.  NULL with err set on failure. */
Program *program_compile(Err *err, const Graph *g, const ProgramOptions *opt);
void program_free(Program *p);

int program_input_count(const Program *p);
int program_output_count(const Program *p);
int program_input(const Program *p, const char *name);  /* index, -1: none (an input without effect is still an input) */
int program_output(const Program *p, const char *name);
const char *program_input_name(const Program *p, int i);
const char *program_output_name(const Program *p, int i);
Type program_input_type(const Program *p, int i);       /* as the caller sees it: the graph's own dtype, f64 under interp64 */
Type program_output_type(const Program *p, int i);

/* in[i], out[i]: dense row-major tensors of the types above, 64-byte aligned is best.  params_version changes whenever an
 * input of role param or frozen has changed contents or address.  Runs on `threads` threads (0: all); the results do not
 * depend on how many.  Allocates nothing. */
bool program_run(Program *p, Err *err, void *const *in, void *const *out, uint64_t params_version, int threads);
/* A run in two parts, so that the caller works while a device does: `in` and `out` stay as they are until the second, of which there is
 * one after each start that succeeded. */
bool program_start(Program *p, Err *err, void *const *in, void *const *out, uint64_t params_version, int threads);
bool program_finish(Program *p, Err *err, void *const *in, void *const *out);
bool program_runs_beside(const Program *p); /* else a start does everything */

/* Input `input` lies in the flat array (runtime/flat.h) from element `first` on, a multiple of FLAT_ALIGN, and so does the output that overwrites it: a device
 * works on its own copy of the array, and a run copies neither.  in[input] of a run is flat + first all the same. */
void program_bind(Program *p, int input, float *flat, int64_t first);

/* Host functions that graphs name in `host` nodes: called between kernels with dense tensors. */
typedef bool (*HostFn)(void *ctx, Err *err, int nin, const Type *in_type, const void *const *in, int nout, const Type *out_type,
                       void *const *out);
void program_set_host(Program *p, const char *name, HostFn fn, void *ctx);

typedef struct ProgramStats {
    const char *name;        /* the graph's; the program's memory */
    const char *memory_note; /* what was computed again to stay within CompileOptions.memory_budget; NULL: nothing */
    int64_t arena_bytes, packed_bytes, unplanned_bytes; /* unplanned: the sum of all buffers without sharing */
    int kernels, unique_kernels, cached_kernels;
    int64_t launches; /* cuda: kernels and copies of a run; -1: it calls host functions */
    int captures, replays; /* cuda: graphs made, runs that were a graph's */
    double pass_ms, codegen_ms;
} ProgramStats;
ProgramStats program_stats(const Program *p);
/* Of a program for "paper:NAME" (a CUDA device that need not be there): what its run will cost, as text; bytes and seconds. */
typedef struct ProgramForecast { int64_t launches; double bytes, seconds, least_bytes, least_seconds; } ProgramForecast;
bool program_forecast(const Program *p, ProgramForecast *f, Buf *report); /* report NULL: not wanted; false: no such program */
/* Writes the dump folder of docs/design.md (manifest, passes.tsv, fusion.tsv, kernels.json, memory.tsv, ...). */
bool program_dump(const Program *p, Err *err, const char *dir);
