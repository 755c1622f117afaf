/* A contraction on its way to a kernel of tiles: what its ways of lowering share. */
#pragma once
#include "passes/contract_plan.h"
#include "passes/lower.h"

typedef struct Contractor {
    Lower *l;
    ContractPlan plan;
    Val contract, operand[2]; /* kernel buffers */
    Val loop[SPEC_MAX_LOOPS]; /* values of the loops that are open */
    Val row0, col0;           /* first row and column of this tile */
    Val columns;              /* valid ones, 0: all */
} Contractor;

/* Rounds, finishes (epilogue) and stores the tile that starts at row0, col0. */
void contract_store(Contractor *c, Val tile, int rows);
/* Lowers a sum over positions of bf16 operands whose rows and columns are channels; false: it is not one. */
bool contract_pairs(Contractor *c);
