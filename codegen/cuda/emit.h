/* Between the files that write a kernel's text. */
#pragma once
#include "codegen/cuda/cuda.h"
#include "codegen/cuda/index.h"

typedef struct Emit {
    const Graph *k;
    Buf *out;
    const CudaTarget *target;
    int depth;
    bool part;           /* of a launch (merge.c) */
    int team, threads;   /* of an iteration of the parallel loop, of a block */
    int64_t scratch;     /* bytes of an iteration */
    bool shared_scratch; /* in shared memory */
    bool *reread;        /* by value: a buffer of which a thread loads what another one stored */
    bool *narrow;        /* by value: an i64 that 32 bits hold, and is declared so */
    Val vector;          /* the vector loop that is open, 0: none */
    int line;            /* lanes of it that a thread takes at once; 0, 1: one */
    unsigned char *way;  /* by value, in that loop: lines.c */
    bool ahead;          /* what is written stands before or behind a line's lanes */
    Val flat;            /* the row loop that was made one with its vector loop */
    Val nest;            /* the serial loop that was made one with its vector loop */
    bool direct;         /* and runs over the elements that a thread owns */
} Emit;

void put_line(Emit *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *cuda_value_type(DavDtype t);  /* of a variable */
const char *type_of_value(const Emit *e, Val v); /* the same, int for integers that are known to be small */
const char *cuda_memory_type(DavDtype t); /* of an element in memory */
const char *cuda_widen(DavDtype t);       /* the function from memory to variable, "" for none; narrow: back */
const char *cuda_narrow(DavDtype t);
const char *cuda_rounded(DavDtype t);
DavDtype operand_dtype(const Emit *e, Val v);
/* Which integers are known to be small, by value. */
bool *narrow_values(const Graph *k);
/* Constants, arithmetic, casts, loads, stores, accumulators. */
void put_value(Emit *e, Val v);

typedef struct KernelShape {
    int team, threads; /* of an iteration of the parallel loop, of a block */
    int64_t scratch;   /* bytes of a block */
    bool shared;       /* little enough to lie in shared memory whatever the kernel; more does only beside tiles */
} KernelShape;
KernelShape kernel_shape(const Graph *k);
/* What stands before every kernel. */
void cuda_prologue(Buf *text);
/* The kernel as a function: for a launch, or as the part of one, which is given its block and a table of its buffers. */
void cuda_function(const CudaTarget *t, const Graph *kernel, const char *symbol, bool part, Buf *text, CudaLaunch *launch);

void put_meeting(Emit *e, Val loop); /* the team's, where the loop stores what the kernel also reads */

/* lines.c; false: the loop has no lines, and is not written. */
bool put_lines(Emit *e, Val loop, const char *type, const char *lo, const char *hi);
void put_lines_end(Emit *e, Val loop);
/* Is it scratch of which each thread reads what it has written itself? */
bool stays_with_its_thread(const Graph *k, Val buf, int team);
/* False: it is none of a line. */
bool put_line_load(Emit *e, Val v);
bool put_line_store(Emit *e, Val v);

/* nest.c: true when `loop` (or what closes it) was one of two that are run as one and has been written. */
bool put_nest(Emit *e, Val loop);
bool put_nest_end(Emit *e, Val loop);

/* tile.c */
int room_bytes(const Emit *e); /* of shared memory, for joins and tiles */
void put_tile_types(Emit *e);
void put_tile(Emit *e, Val v);
void put_contract(Emit *e, Val v);
void put_finish_after(Emit *e, Val closed); /* what the loop or condition that was closed has left to be done */
void put_tile_get(Emit *e, Val v);
/* The loops around tile_get: true when `loop` (or what closes it) was one of them and has been written. */
bool put_tile_loop(Emit *e, Val loop);
bool put_tile_end(Emit *e, Val loop);
