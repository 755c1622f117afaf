/* Passes: each reads one graph and builds another; passes.def is the pipeline.  A pass does not print, dump, time or verify:
 * the runner does, and refuses an order in which a pass's needs were not given. */
#pragma once
#include "ir/graph.h"

/* What the graph has become; a pass needs some and gives some. */
typedef enum {
    HAS_NO_GRAD = 1,   /* no grad node is left */
    HAS_NO_CALL = 2,   /* calls are inlined (loops stay) */
    HAS_PRECISION = 4, /* dtypes are those that will be computed in */
    HAS_LAYOUT = 8,    /* contractions are channels-last inside */
    HAS_FUSED = 16,    /* every value that is not a leaf is made by fuse, host, loop or pick */
    HAS_KERNELS = 32,  /* every fuse has become a kernel */
} GraphState;

typedef struct CompileOptions {
    DavDtype precision;    /* DAV_F32 or DAV_BF16 (bf16 storage and products, f32 accumulation and masters) */
    int64_t memory_budget; /* bytes for values that live across the program; 0: no bound */
    const char *dump;      /* folder for dumps; NULL: none */
    const char *cpu;       /* forced level (DAV_CPU); NULL: this machine's */
    int threads;           /* 0: all */
    int tile_rows, tile_columns; /* best register tile of the target in f32; 0: 6 x 16 */
    int pair_rows;               /* rows of a tile of attention's bf16 products; 0: as tile_rows */
    bool tf32;                   /* products of f32 may round their operands to tf32, where the target has units for that */
    int processors; /* of a target that works at a tile with a block of threads: sizes are chosen so that all have work; 0: one tile fits all */
    bool sums_of_any_stride;     /* the target's tiles gather pairs of bf16 themselves: no copies with neighbours along the sum */
} CompileOptions;

/* One row of fusion.tsv: an edge that was looked at. */
typedef struct FusionNote { const char *from, *to, *reason; bool fused; const char *file; int line; } FusionNote;

typedef struct PassTime { const char *name; double ms; int nodes_in, nodes_out; bool changed; } PassTime;

typedef struct PassCx {
    Arena *arena; /* lives as long as the compilation */
    Err *err;
    const CompileOptions *options;
    FusionNote *notes; /* vec */
    PassTime *times;   /* vec */
    unsigned state;    /* GraphState reached */
    const char *memory_note; /* what rematerialisation did to meet the budget; NULL: nothing was needed */
} PassCx;

typedef bool (*PassFn)(PassCx *cx, const Graph *in, Graph *out);
typedef struct PassInfo { const char *name; PassFn run; unsigned needs, gives; const char *doc; } PassInfo;
extern const PassInfo pass_info[];
extern const int pass_count;

/* Runs the passes from the first up to and including `last` (NULL: all).  Verifies after each one in debug builds, dumps
 * NN-name.ir when asked.  NULL on a user's mistake or a failure of the environment (in cx->err). */
const Graph *passes_run(PassCx *cx, const Graph *g, const char *last);
/* Runs one pass as the number-th; dies when what it needs was not given before. */
const Graph *pass_run(PassCx *cx, const PassInfo *p, int number, const Graph *in);
