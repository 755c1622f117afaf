/* One tile_contract while it is emitted: tile.c for vector registers, amx.c for tile registers. */
#pragma once
#include "codegen/llvm/emit.h"

typedef struct Panel {
    Emit *e;
    const Fn *f;
    const Tile *t;
    Val contract;
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

/* Where the tile's row r, columns of vector c, are kept. */
LLVMValueRef tile_slot(const Fn *f, const Tile *t, int r, int c);

/* ---- amx.c ---- */
/* Whether all products into the tile are for AMX; it is in memory then, 16 rows of it. */
bool amx_takes(const Emit *e, Val tile, const Tile *t);
/* The product that always comes first after the tile was made, so that nothing need be stored before it; 0: none. */
Val amx_first(const Emit *e, Val tile);
/* fresh: the tile holds nothing yet. */
void amx_product(const Panel *p, bool fresh);

/* ---- amx_store.c ---- */
enum { TILE_REGISTER_ROWS = 16 };
/* The row loop right after a tile's only product that stores it as it is, and runs the product itself; 0: none. */
Val amx_stored(const Emit *e, Val contract);
