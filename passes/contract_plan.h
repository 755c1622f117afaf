/* How a contraction fits a register tile: which of its loops are rows, columns and the inner sum. */
#pragma once
#include "passes/pass.h"

typedef struct TileShape { int mr, nr; } TileShape;

/* A contraction with neighbouring loops made one where operands and output allow it, operands swapped if need be. */
typedef struct ContractPlan {
    ContractSpec spec;      /* of the merged loops; operand 0 gives rows, operand 1 columns */
    int64_t size[2][IR_MAX_RANK], stride[2][IR_MAX_RANK]; /* of the operands' merged dims */
    bool swapped;           /* operand 0 is the contraction's second one */
    int from[IR_MAX_RANK];  /* output axis -> merged loop */
    int row, col, inner;    /* loops; row and inner may be -1 */
    int row_dim, col_dim;   /* the dims of operands 0 and 1 that they stand in */
    int inner_dim[2];
    TileShape tile;
} ContractPlan;

/* Is the loop an index all by itself, over the whole axis, in exactly one dim of this operand?  The dim, or -1. */
int spec_plain_dim(const ContractSpec *s, int operand, int loop, const int64_t *size);
bool spec_uses(const ContractSpec *s, int operand, int loop);
/* False: no tile fits (dtype, or the last output axis is no plain column index); then it is summed element by element.
 */
bool contract_plan(const Graph *g, Val contract, const CompileOptions *options, ContractPlan *plan);
