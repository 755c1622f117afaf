/* The inside of a Program, for program.c, execute.c and dump.c. */
#pragma once
#include "codegen/codegen.h"
#include "passes/kernel_cost.h"
#include "passes/plan.h"
#include "runtime/program.h"

typedef enum { DEVICE_CPU, DEVICE_KERNELS, DEVICE_INTERP, DEVICE_INTERP64, DEVICE_CUDA, DEVICE_PAPER } Device;

/* Pointers of one plan's buffers; every loop step has a frame of its own for its body. */
typedef struct Frame {
    const Plan *plan;
    void **ptr;           /* by buffer */
    struct Frame **inner; /* by step, NULL where it is no loop */
    void **in, **out;     /* of a loop's body: set before each iteration */
} Frame;

typedef struct StepTime { double start, end; } StepTime; /* seconds */

typedef struct HostSlot { char *name; HostFn fn; void *ctx; } HostSlot;

typedef struct Signature {
    char *name;
    Type type;
    bool param;
    float *flat; /* an input that lies in a flat array, from element `first` on; NULL: in none */
    int64_t first;
} Signature;

struct Program {
    Arena *arena;
    Device device;
    Signature *in, *out;
    int nin, nout;
    int *inplace; /* output -> input, -1: none */
    HostSlot *host; /* vec */
    const Graph *graph; /* lowered; interp: as given, gradients expanded */
    PassCx cx;
    CompileOptions options;
    CpuTarget target;
    Jit *jit;
    Buf cache_dir;
    void **overwrites; /* interp: memory for outputs that overwrite inputs */
    Plan *plan;
    Frame *frame;
    KernelCode *code; /* by kernel */
    int64_t *trip;
    bool *solo; /* too little work for more than one thread */
    void *arena_mem, *kept_mem;
    void **literal;
    void **thread_scratch;
    int max_threads;
    StepTime *times; /* of the last run, by step; NULL: not taken */
    bool learns;
    struct ProductChoice *product; /* by kernel; cuda and paper: runtime/cuda/blaslt_rule.h */
    struct CudaProgram *cuda; /* runtime/cuda/run.c */
    int cuda_index;
    struct Paper *paper; /* runtime/cuda/paper.c */
    const char *paper_target;
    uint64_t version;
    bool once_done;
    ProgramStats stats;
};

void frame_make(Program *p);
/* Sets where every buffer lies, on the host or on a device: whatever in, out, arena, p->kept_mem and p->literal name. */
void frame_bind(const Program *p, Frame *f, void *const *in, void *const *out, char *arena);
/* Where iteration `it` of a loop reads and writes: carried values alternate between two places in the working memory, begin
 * at the operands and end at the results; scanned and stacked values move on by a slice. */
void frame_bind_iteration(const Program *p, const Frame *f, const PlanStep *s, Frame *body, int64_t it, int64_t trip);
double program_clock(void); /* seconds */
bool program_execute(Program *p, Err *err, void *const *in, void *const *out, int threads, bool once);
bool host_call(Program *p, Err *err, const char *name, int nin, const Type *in_type, const void *const *in, int nout,
               const Type *out_type, void *const *out);

/* The reference interpreter behind a Program (program_interp.c). */
void interp_prepare(Program *p);
bool interp_run(Program *p, Err *err, void *const *in, void *const *out);
