/* How a block works at one tile. */
#pragma once
#include "codegen/cuda/cuda.h"

typedef struct TileForm {
    const char *kind;  /* of tiles.cu: dav_mma_tile, dav_tf32_tile, dav_fma_tile */
    int down, across;  /* warps, or threads of dav_fma_tile, over the rows and over the columns */
    int kc, stages;    /* of the sum in a stage; stages */
    int rows, cols;    /* mr and nr rounded up to whole fragments */
    int count;         /* elements a thread owns */
    int near;          /* B lies in shared memory already, in rows of so many elements; 0: it does not */
    int element, room; /* bytes: of an operand's element in shared memory; of all stages */
    bool lines;        /* copies of 16 bytes may go straight from memory to a stage */
} TileForm;

/* half: operands of 16 bits; depth: the sum's length where it is known, else INT64_MAX; beside: bytes of shared memory that
 * the block wants besides.  Bits depend on none of these choices: an element is summed in the same order in all of them. */
TileForm tile_form(const CudaTarget *t, bool half, int mr, int nr, int64_t depth, int threads, int near, int beside);
