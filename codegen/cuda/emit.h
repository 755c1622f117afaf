/* Between the files that write a kernel's text. */
#pragma once
#include "codegen/cuda/cuda.h"

typedef struct Emit {
    const Graph *k;
    Buf *out;
    const CudaTarget *target;
    int depth;
    int team, threads;   /* of an iteration of the parallel loop, of a block */
    int64_t scratch;     /* bytes of an iteration */
    bool *reread;   /* by value: a buffer that the kernel stores to and loads from */
    bool *narrow;        /* by value: an i64 that 32 bits hold, and is declared so */
    Val vector;          /* the vector loop that is open, 0: none */
    Val flat;            /* the row loop that was made one with its vector loop */
} Emit;

void put_line(Emit *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *cuda_value_type(DavDtype t);  /* of a variable */
const char *type_of_value(const Emit *e, Val v); /* the same, int for integers that are known to be small */
const char *cuda_memory_type(DavDtype t); /* of an element in memory */
const char *cuda_widen(DavDtype t);       /* the function from memory to variable, "" for none; narrow: back */
const char *cuda_narrow(DavDtype t);
DavDtype operand_dtype(const Emit *e, Val v);

/* tile.c */
void put_room(Emit *e); /* shared memory of the block, for joins and tiles */
void put_tile(Emit *e, Val v);
void put_contract(Emit *e, Val v);
void put_tile_get(Emit *e, Val v);
/* The loops around tile_get: true when `loop` (or what closes it) was one of them and has been written. */
bool put_tile_loop(Emit *e, Val loop);
bool put_tile_end(Emit *e, Val loop);
