/* One tile_contract while it is emitted: tile.c for vector registers, amx.c for tile registers. */
#pragma once
#include "codegen/llvm/emit.h"

typedef struct Panel {
    Emit *e;
    const Fn *f;
    const Tile *t;
    TileContract c;
    DavDtype a_type, b_type;
    int rows;
    LLVMValueRef row[MAX_TILE_ROWS];  /* where row r starts; only row[0] is set when all are a constant apart */
    LLVMValueRef step[MAX_TILE_ROWS]; /* all ones, or 0 for a row that stays at its zero; NULL: not needed */
    bool apart;                       /* rows are a constant apart */
    LLVMValueRef b;
    LLVMValueRef ring; /* of A's pairs; NULL: not needed */
    LLVMValueRef col_on[MAX_TILE_VECS]; /* columns to read; NULL: all */
} Panel;

/* Where row r of A is read at k. */
LLVMValueRef panel_a(const Panel *p, int r, LLVMValueRef k);

/* ---- amx.c ---- */
bool amx_takes(const Panel *p);
/* Multiplies whole blocks of 16 pairs of k by tile products; gives the number of pairs done. */
LLVMValueRef amx_blocks(const Panel *p, LLVMValueRef pairs);
