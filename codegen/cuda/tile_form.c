#include "codegen/cuda/tile.h"

static int up(int x, int unit)
{
    return (x + unit - 1) / unit * unit;
}

static int larger(int a, int b)
{
    return a > b ? a : b;
}

/* Warps (threads of dav_fma_tile) as down x across, each with multiples of row and col: the least that is computed in vain, then the
 * squarest, which reads shared memory least. */
static void divide(TileForm *f, int mr, int nr, int workers, int row, int col)
{
    int64_t best = INT64_MAX;
    for (int across = 1; across <= workers; across *= 2) {
        int down = workers / across, rows = up(mr, down * row), cols = up(nr, across * col);
        int64_t cost = (int64_t)rows * cols * 1024 + rows / down + cols / across;
        if (cost >= best)
            continue;
        best = cost;
        *f = (TileForm){.down = down, .across = across, .rows = rows, .cols = cols};
    }
}

/* A stage's bytes as tiles.cu lays it out. */
static int stage_bytes(const TileForm *f, bool fma)
{
    int line = 16 / f->element, banks = f->element == 4 && !fma ? 32 : line, pad = f->element == 4 && !fma ? 8 : line;
    int along = f->rows * (f->kc + line), across = f->kc * (up(f->rows, banks) + pad);
    return (larger(along, across) + (f->near ? 0 : f->kc * (up(f->cols, banks) + pad))) * f->element;
}

TileForm tile_form(const CudaTarget *t, bool half, int mr, int nr, int64_t depth, int threads, int near, int beside)
{
    enum { MOST_STAGES = 4, RESERVED = 1024 };
    bool tensor = t->sm >= 80, fma = !tensor || (!half && !t->tf32);
    TileForm f;
    divide(&f, mr, nr, fma ? threads : threads / 32, fma ? 1 : 16, fma ? 1 : 8);
    f.near = near;
    f.kind = fma ? "dav_fma_tile" : half ? "dav_mma_tile" : "dav_tf32_tile";
    f.element = half && !fma ? 2 : 4;
    f.lines = tensor && (half == !fma || !half);
    f.count = f.rows * f.cols / threads;
    int share = (t->shared_bytes + RESERVED) / 2 - RESERVED - beside; /* two blocks fit on a multiprocessor */
    bool little = f.count <= 64;                             /* work in a step: longer ones pay for the barrier */
    f.kc = fma ? 16 : (half ? 32 : 16) * (little && depth >= 128 ? 2 : 1);
    if (3 * stage_bytes(&f, fma) > share)
        f.kc = half && !fma ? 32 : 16;
    if (depth <= 16)
        f.kc = 16;
    int64_t steps = (depth - 1) / f.kc + 1;
    f.stages = MOST_STAGES;
    while (f.stages > 2 && (f.stages * stage_bytes(&f, fma) > share || f.stages > steps + 1))
        f.stages--;
    f.room = f.stages * stage_bytes(&f, fma);
    return f;
}
