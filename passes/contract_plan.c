#include "passes/contract_plan.h"
#include <string.h>

enum { MIN_ROW_EXTENT = 4 };

bool spec_uses(const ContractSpec *s, int operand, int loop)
{
    for (int d = 0; d < s->rank[operand]; d++)
        for (int i = 0; i < s->dim[operand][d].nterm; i++)
            if (s->dim[operand][d].loop[i] == loop)
                return true;
    return false;
}

/* The only dim of the operand that the loop stands in; -1: none or several. */
static int only_dim(const ContractSpec *s, int operand, int loop)
{
    int found = -1;
    for (int d = 0; d < s->rank[operand]; d++)
        for (int i = 0; i < s->dim[operand][d].nterm; i++)
            if (s->dim[operand][d].loop[i] == loop) {
                if (found >= 0)
                    return -1;
                found = d;
            }
    return found;
}

int spec_plain_dim(const ContractSpec *s, int operand, int loop, const int64_t *size)
{
    int d = only_dim(s, operand, loop);
    if (d < 0)
        return -1;
    const DimExpr *e = &s->dim[operand][d];
    bool plain = e->nterm == 1 && e->coef[0] == 1 && e->offset == 0 && e->div == 1 && s->extent[loop] == size[d];
    return plain ? d : -1;
}

/* ---- merging loops ---- */
static void drop_loop(ContractSpec *s, int gone)
{
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < s->rank[o]; d++)
            for (int i = 0; i < s->dim[o][d].nterm; i++)
                s->dim[o][d].loop[i] -= s->dim[o][d].loop[i] > gone;
    memmove(s->extent + gone, s->extent + gone + 1, (size_t)(s->nloop - gone - 1) * sizeof *s->extent);
    s->nloop--;
    s->nout -= gone < s->nout;
}

static void drop_dim(ContractPlan *p, int o, int d)
{
    size_t rest = (size_t)(p->spec.rank[o] - d - 1);
    memmove(&p->spec.dim[o][d], &p->spec.dim[o][d + 1], rest * sizeof p->spec.dim[o][d]);
    memmove(&p->size[o][d], &p->size[o][d + 1], rest * sizeof p->size[o][d]);
    p->spec.rank[o]--;
}

/* Loops a and b stand next to each other as whole axes in operand o, or not at all. */
static bool neighbours(const ContractPlan *p, int o, int a, int b)
{
    if (!spec_uses(&p->spec, o, a) && !spec_uses(&p->spec, o, b))
        return true;
    int x = spec_plain_dim(&p->spec, o, a, p->size[o]), y = spec_plain_dim(&p->spec, o, b, p->size[o]);
    return x >= 0 && y == x + 1;
}

static bool merge_pair(ContractPlan *p, int a, int b)
{
    ContractSpec *s = &p->spec;
    if (!neighbours(p, 0, a, b) || !neighbours(p, 1, a, b))
        return false;
    for (int o = 0; o < 2; o++) {
        int d = spec_plain_dim(s, o, b, p->size[o]);
        if (d < 0)
            continue;
        p->size[o][d - 1] *= p->size[o][d];
        drop_dim(p, o, d);
    }
    s->extent[a] *= s->extent[b];
    for (int i = 0; i < IR_MAX_RANK; i++)
        p->from[i] = p->from[i] == b ? a : p->from[i] - (p->from[i] > b);
    drop_loop(s, b);
    return true;
}

static void merge_loops(ContractPlan *p)
{
    ContractSpec *s = &p->spec;
    for (int a = 0; a + 1 < s->nout;)
        a += !merge_pair(p, a, a + 1);
    for (int a = s->nout; a < s->nloop; a++)
        for (int b = s->nout; b < s->nloop; b++)
            if (a != b && b > a && merge_pair(p, a, b))
                b = s->nout - 1;
}

/* ---- choice of the tile's loops ---- */
static int64_t stride_of(const ContractPlan *p, int o, int loop)
{
    int d = only_dim(&p->spec, o, loop);
    const DimExpr *e = &p->spec.dim[o][d];
    for (int i = 0; i < e->nterm; i++)
        if (e->loop[i] == loop)
            return (e->coef[i] < 0 ? -e->coef[i] : e->coef[i]) * p->stride[o][d];
    return 0;
}

static void choose_rows(ContractPlan *p)
{
    const ContractSpec *s = &p->spec;
    p->row = -1;
    for (int i = 0; i < s->nout; i++) {
        int dim = only_dim(s, 0, i);
        if (i == p->col || spec_uses(s, 1, i) || dim < 0 || s->extent[i] == 1 ||
            (p->inner >= 0 && dim == p->inner_dim[0]))
            continue;
        bool long_enough = s->extent[i] >= MIN_ROW_EXTENT, had = p->row >= 0 && s->extent[p->row] >= MIN_ROW_EXTENT;
        bool better = p->row < 0 || (long_enough && !had) ||
                      (long_enough == had &&
                       (had ? stride_of(p, 0, i) < stride_of(p, 0, p->row) : s->extent[i] > s->extent[p->row]));
        if (better)
            p->row = i;
    }
    p->row_dim = p->row < 0 ? -1 : only_dim(s, 0, p->row);
}

/* The summed loop whose steps are nearest in memory; for blocks of threads one that is long enough for a step of theirs, where there is.
 * It decides the order of summation, so it is chosen before the rows are and by nothing that a batch could change: a row's result is the
 * same alone and among others. */
static void choose_inner(ContractPlan *p, bool blocks)
{
    enum { STEP = 16 };
    const ContractSpec *s = &p->spec;
    p->inner = -1;
    for (int i = s->nout; i < s->nloop; i++) {
        int a = only_dim(s, 0, i), b = only_dim(s, 1, i), had = p->inner;
        if (a < 0 || b < 0 || s->dim[0][a].div != 1 || s->dim[1][b].div != 1)
            continue;
        bool lengthens = blocks && had >= 0 && s->extent[i] >= STEP && s->extent[had] < STEP;
        bool shortens = blocks && had >= 0 && s->extent[i] < STEP && s->extent[had] >= STEP;
        bool better = had < 0 || s->extent[had] == 1 || lengthens ||
                      (!shortens && s->extent[i] > 1 &&
                       stride_of(p, 0, i) + stride_of(p, 1, i) < stride_of(p, 0, had) + stride_of(p, 1, had));
        if (!better)
            continue;
        p->inner = i;
        p->inner_dim[0] = a;
        p->inner_dim[1] = b;
    }
}

/* Widths that keep the accumulators within what the target's best tile takes; the one that wastes the fewest columns.
 */
static void choose_tile(ContractPlan *p, TileShape best)
{
    int64_t columns = p->spec.extent[p->col], rows = p->row < 0 ? 1 : p->spec.extent[p->row];
    int unit = best.nr % 4 == 0 && best.nr >= 16 ? best.nr / 4 : best.nr;
    if (best.nr < 32)
        unit = best.nr / 2 > 0 ? best.nr / 2 : 1;
    int width = best.nr;
    bool rows_are_near = p->row >= 0 && p->inner >= 0 && stride_of(p, 0, p->row) < stride_of(p, 0, p->inner);
    if (best.nr >= 64 && rows_are_near)
        width = best.nr / 2; /* every step reads a new row of B: narrow and tall reads less */
    int64_t waste = (columns + width - 1) / width * width;
    for (int w = width - unit; w >= unit; w -= unit) {
        int64_t all = (columns + w - 1) / w * w;
        if (all < waste) {
            waste = all;
            width = w;
        }
    }
    int tall = best.mr * best.nr / width + (width < best.nr ? 1 : 0);
    tall = tall > 2 * best.mr + 2 ? 2 * best.mr + 2 : tall;
    if (2 * width == best.nr && best.nr >= 64)
        tall = 2 * best.mr + 1;
    int64_t tiles = (rows + tall - 1) / tall;
    p->tile = (TileShape){(int)((rows + tiles - 1) / tiles), width};
}

/* Tiles of blocks of threads, at most 128 x 128: rounds of all processors times a block's work, its products and the panels that it
 * reads for them.  An element's sum is the same in every tile. */
static void choose_block_tile(ContractPlan *p, int processors, int most)
{
    enum { UNIT = 16, READ = 48 /* products in the time of one element of a panel */ };
    const ContractSpec *s = &p->spec;
    int64_t rows = p->row < 0 ? 1 : s->extent[p->row], columns = s->extent[p->col], others = 1, least = INT64_MAX;
    bool rows_are_near = p->row >= 0 && p->inner >= 0 && stride_of(p, 0, p->row) < stride_of(p, 0, p->inner);
    for (int i = 0; i < s->nout; i++)
        others *= i == p->row || i == p->col ? 1 : s->extent[i];
    for (int width = 128; width >= 8; width -= width > 64 ? 64 : width > 16 ? UNIT : 8)
        for (int height = 128; height >= UNIT; height -= height > 64 ? 32 : UNIT) {
            if ((width >= columns + UNIT && width > 8) || (height >= rows + UNIT && height > UNIT) || width * height > most)
                continue;
            int64_t down = (rows + height - 1) / height, across = (columns + width - 1) / width, mr = (rows + down - 1) / down;
            if (rows_are_near && down > 1)
                mr = (mr + 7) / 8 * 8;
            int64_t padded = (mr + UNIT - 1) / UNIT * UNIT, rounds = (others * down * across + processors - 1) / processors;
            int64_t work = rounds * (padded * width + READ * (padded + width));
            if (work >= least)
                continue;
            least = work;
            p->tile = (TileShape){(int)mr, width};
        }
}

static bool tile_dtypes(const Graph *g, const Node *n)
{
    int a = node_of(g, n->arg[0])->dtype, b = node_of(g, n->arg[1])->dtype;
    return a == b && (a == DAV_F32 || a == DAV_BF16) && (n->dtype == DAV_F32 || n->dtype == DAV_BF16);
}

bool contract_plan(const Graph *g, Val contract, const CompileOptions *options, ContractPlan *p)
{
    const Node *n = node_of(g, contract);
    memset(p, 0, sizeof *p);
    p->spec = *attr_spec(n);
    if (!tile_dtypes(g, n) || node_count(g, contract) == 0)
        return false;
    for (int o = 0; o < 2; o++)
        memcpy(p->size[o], node_of(g, n->arg[o])->dim, sizeof p->size[o]);
    for (int i = 0; i < IR_MAX_RANK; i++)
        p->from[i] = i;
    merge_loops(p);
    ContractSpec *s = &p->spec;
    p->col = s->nout - 1; /* also where it is short: another axis could be the batch */
    if (p->col < 0)
        return false;
    p->swapped = spec_uses(s, 0, p->col);
    if (p->swapped) {
        ContractPlan t = *p;
        for (int o = 0; o < 2; o++) {
            s->rank[o] = t.spec.rank[1 - o];
            memcpy(s->dim[o], t.spec.dim[1 - o], sizeof s->dim[o]);
            memcpy(p->size[o], t.size[1 - o], sizeof p->size[o]);
        }
    }
    for (int o = 0; o < 2; o++) {
        int64_t stride = 1;
        for (int d = s->rank[o] - 1; d >= 0; d--) {
            p->stride[o][d] = stride;
            stride *= p->size[o][d];
        }
    }
    p->col_dim = spec_plain_dim(s, 1, p->col, p->size[1]);
    if (spec_uses(s, 0, p->col) || p->col_dim < 0)
        return false;
    choose_inner(p, options && options->processors);
    choose_rows(p);
    TileShape best = {options && options->tile_rows ? options->tile_rows : 6,
                      options && options->tile_columns ? options->tile_columns : 16};
    if (options && options->processors)
        choose_block_tile(p, options->processors, node_of(g, n->arg[0])->dtype == DAV_F32 && !options->tf32 ? 128 * 64 : 128 * 128);
    else
        choose_tile(p, best);
    return true;
}
