/* Kernel IR to CUDA C.  An iteration of the parallel loop is run by a team of T threads: the lanes of vector loops are
 * spread over them, everything else they do alike, and the first one alone stores.  Tiles belong to a whole block. */
#include "codegen/cuda/emit.h"
#include "codegen/cuda_text.h"
#include <stdio.h>
#include <string.h>

enum { BLOCK_THREADS = 128, MOST_TEAM = 256, UNKNOWN_EXTENT = 512, SHARED_SCRATCH = 24 << 10 };

/* ---- loops ---- */
/* What a vector loop's body does to values outside of it. */
static bool stores_reread(const Emit *e, Val loop)
{
    for (Val v = loop + 1, end = index_end(e->k, loop); v < end; v++)
        if (node_of(e->k, v)->op == OP_STORE && e->reread[node_of(e->k, v)->arg[0]])
            return true;
    return false;
}

/* The n-th accumulator from outside that the loop takes in; 0: no more. */
static Val joined(const Emit *e, Val loop, int n)
{
    Val end = index_end(e->k, loop);
    for (Val acc = 1; acc < loop; acc++) {
        bool found = false;
        if (node_of(e->k, acc)->op != OP_ACC)
            continue;
        for (Val v = loop + 1; v < end && !found; v++)
            found = node_of(e->k, v)->op == OP_ACC_UPDATE && node_of(e->k, v)->arg[0] == acc;
        if (found && n-- == 0)
            return acc;
    }
    return 0;
}

void put_meeting(Emit *e, Val loop)
{
    if (stores_reread(e, loop))
        put_line(e, "dav_sync<%d>();", e->team);
}

/* Sums start anew in each lane; extremes may start from what was there. */
static void open_lanes(Emit *e, Val v)
{
    put_meeting(e, v);
    for (int i = 0; joined(e, v, i); i++) {
        Val acc = joined(e, v, i);
        const Node *n = node_of(e->k, acc);
        if (attr_i(n, A_KIND) == ACC_ADD) {
            put_line(e, "const %s before%d_%d = v%d;", cuda_value_type((DavDtype)n->dtype), v, acc, acc);
            put_line(e, "v%d = 0;", acc);
        }
    }
}

static const char *join_of(const Node *acc)
{
    if (attr_i(acc, A_KIND) != ACC_ADD)
        return attr_i(acc, A_KIND) == ACC_MAX ? "dav_join_max" : "dav_join_min";
    return acc->dtype == DAV_BF16 ? "dav_join_add_bf16" : acc->dtype == DAV_F16 ? "dav_join_add_f16" : "dav_join_add";
}

static void close_lanes(Emit *e, Val loop)
{
    for (int i = 0; joined(e, loop, i); i++) {
        Val acc = joined(e, loop, i);
        const Node *n = node_of(e->k, acc);
        put_line(e, "v%d = dav_join<%d, %s>(v%d, room);", acc, e->team, join_of(n), acc);
        if (attr_i(n, A_KIND) == ACC_ADD)
            put_line(e, "v%d = %s(dav_add(before%d_%d, v%d));", acc, cuda_rounded((DavDtype)n->dtype), loop, acc, acc);
    }
    put_meeting(e, loop);
}

static void open_loop(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    const int64_t *nums = attr_ints(n, A_NUMS, NULL);
    const char *type = type_of_value(e, v), *ll = e->narrow[v] ? "" : "ll";
    char lo[40], hi[40];
    snprintf(lo, sizeof lo, n->narg ? "(%s)v%lld" : "(%s)%lld", type, n->narg ? (long long)n->arg[0] : (long long)nums[0]);
    snprintf(hi, sizeof hi, n->narg ? "v%lld" : "%lld", n->narg ? (long long)n->arg[1] : (long long)nums[1]);
    if (attr_i(n, A_KIND) == LOOP_PARALLEL) {
        put_line(e, "if (task < %lldll) {", (long long)kernel_trip(e->k));
        put_line(e, "    const %s v%d = (%s)%lld + (%s)task * %lld;", type, v, type, (long long)nums[0], type, (long long)nums[2]);
    } else if (attr_i(n, A_KIND) == LOOP_VECTOR && e->team > 1) {
        open_lanes(e, v);
        e->vector = v;
        if (put_lines(e, v, type, lo, hi))
            return;
        put_line(e, "for (%s v%d = %s + lane; v%d < %s; v%d += %d) {", type, v, lo, v, hi, v, e->team);
    } else {
        put_line(e, "for (%s v%d = %s; v%d < %s; v%d += %lld%s) {", type, v, lo, v, hi, v, (long long)nums[2], ll);
    }
    e->depth++;
}

static void close(Emit *e, Val opened)
{
    put_lines_end(e, opened);
    e->depth--;
    put_line(e, "}");
    if (e->vector && e->vector == opened) {
        e->vector = 0;
        close_lanes(e, opened);
    }
}

static void emit(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    switch ((Op)n->op) {
    case OP_BUF:
        break;
    case OP_FOR:
        if (!put_tile_loop(e, v) && !put_nest(e, v))
            open_loop(e, v);
        break;
    case OP_IF:
        put_line(e, "if (v%d) {", n->arg[0]);
        e->depth++;
        break;
    case OP_END:
        if (!put_tile_end(e, n->arg[0]) && !put_nest_end(e, n->arg[0])) {
            close(e, n->arg[0]);
            put_finish_after(e, n->arg[0]);
        }
        break;
    case OP_TILE:
        put_tile(e, v);
        break;
    case OP_TILE_CONTRACT:
        put_contract(e, v);
        break;
    case OP_TILE_GET:
        put_tile_get(e, v);
        break;
    default:
        put_value(e, v);
    }
}

/* ---- the kernel ---- */
static int power_of_two(int64_t at_least)
{
    int p = 1;
    while (p < at_least)
        p *= 2;
    return p;
}

/* Threads of a team, from the longest vector loop; nothing that depends on the number of rows.  Up to a warp's threads each lane has one:
 * short rows want many threads, and those of a warp read what lies together also where they belong to several rows. */
static int team_of(const Graph *k)
{
    enum { LANES = 4 /* that a thread takes of a long loop */ };
    int64_t widest = 1;
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        if (n->op == OP_TILE_CONTRACT)
            return BLOCK_THREADS;
        if (n->op != OP_FOR || attr_i(n, A_KIND) != LOOP_VECTOR)
            continue;
        const int64_t *nums = attr_ints(n, A_NUMS, NULL);
        int64_t extent = n->narg ? UNKNOWN_EXTENT : nums[1] - nums[0];
        for (Val inner = v + 1, end = index_end(k, v); inner < end; inner++)
            if (node_of(k, inner)->op == OP_FOR) { /* a lane is long: it wants a thread of its own */
                extent *= LANES;
                break;
            }
        widest = extent > widest ? extent : widest;
    }
    if (widest <= 32)
        return power_of_two(widest);
    int team = power_of_two((widest + LANES - 1) / LANES);
    return team < 32 ? 32 : team > MOST_TEAM ? MOST_TEAM : team;
}

/* Buffers through which threads hand values to each other. */
static bool *reread_buffers(const Graph *k, int team)
{
    bool *loaded = mem_alloc((size_t)k->n), *both = mem_alloc((size_t)k->n);
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        if (n->op == OP_LOAD)
            loaded[n->arg[0]] = true;
        if (n->op == OP_TILE_CONTRACT)
            loaded[n->arg[1]] = loaded[n->arg[2]] = true;
    }
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == OP_STORE)
            both[node_of(k, v)->arg[0]] = loaded[node_of(k, v)->arg[0]];
    for (Val v = 1; v < k->n; v++)
        both[v] = both[v] && !stays_with_its_thread(k, v, team);
    mem_free(loaded);
    return both;
}

/* The buffer of that index, 0: no more. */
static Val buffer_of(const Graph *k, int index)
{
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        if (n->op == OP_BUF && attr_i(n, A_ROLE) != BUF_SCRATCH && attr_i(n, A_INDEX) == index)
            return v;
    }
    return 0;
}

/* Buffers by index, then scratch; a part finds them in a table. */
static void parameters(Emit *e, const char *symbol, bool scratch)
{
    if (e->part)
        buf_printf(e->out, "DAV_FN void %s(const unsigned block, void *const *all)\n{\n", symbol);
    else
        buf_printf(e->out, "DAV_KERNEL(%d) %s(", e->threads, symbol);
    int i = 0;
    for (Val v; (v = buffer_of(e->k, i)); i++) {
        const Node *n = node_of(e->k, v);
        const char *in = attr_i(n, A_ROLE) == BUF_IN ? "const " : "", *type = cuda_memory_type((DavDtype)n->dtype);
        if (e->part)
            buf_printf(e->out, "    %s%s *const p%d = (%s%s *)all[%d];\n", in, type, v, in, type, i);
        else
            buf_printf(e->out, "%s%s%s *p%d", i ? ", " : "", in, type, v);
    }
    if (!e->part)
        buf_printf(e->out, "%s)\n{\n    const unsigned block = dav_block();\n", !scratch ? "" : i ? ", u8 *scratch" : "u8 *scratch");
}

/* Shared memory of a block: room for joins and tiles, then scratch where it fits.  Bytes that the launch must give. */
static int put_shared(Emit *e, int teams)
{
    enum { STATIC = 40 << 10, LINE = 128 };
    int room = e->team > 32 ? (room_bytes(e) + LINE - 1) / LINE * LINE : 0, all = room + (e->shared_scratch ? (int)e->scratch * teams : 0);
    if (all > STATIC)
        put_line(e, "DAV_SHARED_BY_LAUNCH(shared);");
    else if (all)
        put_line(e, "DAV_SHARED(shared, %d);", all);
    put_line(e, "u8 *const room = %s;", room ? "shared" : "0");
    put_line(e, "(void)room;");
    if (e->shared_scratch)
        put_line(e, "u8 *const scratch = shared + %d;", room);
    return all > STATIC ? all : 0;
}

/* Attention lives on scratch: a block with tiles may have all that the device allows. */
static void place_scratch(Emit *e)
{
    int64_t bytes = e->scratch * (e->threads / e->team);
    e->shared_scratch = bytes > 0 && bytes <= e->target->shared_bytes; /* what tiles want depends on it */
    if (e->shared_scratch && bytes > SHARED_SCRATCH)
        e->shared_scratch = index_has_tiles(e->k) && bytes + room_bytes(e) + 128 <= e->target->shared_bytes;
}

/* Bytes of shared memory that the launch must give. */
static int signature(Emit *e, const char *symbol, const int64_t *offset)
{
    int teams = e->threads / e->team;
    parameters(e, symbol, e->scratch && !e->shared_scratch);
    const char *task = kernel_trip(e->k) < INT64_C(1) << 30 ? "int" : "i64"; /* a block's teams may go past the end */
    buf_printf(e->out, "    const %s task = (%s)block * %d + (int)dav_thread() / %d;\n", task, task, teams, e->team);
    buf_printf(e->out, "    const int lane = (int)(dav_thread() %% %d);\n    (void)lane;\n", e->team);
    if (e->team > 32)
        put_tile_types(e);
    int by_launch = put_shared(e, teams);
    char team_number[40];
    snprintf(team_number, sizeof team_number, "(dav_thread() / %d)", e->team);
    for (Val v = 1; v < e->k->n; v++) {
        const Node *n = node_of(e->k, v);
        const char *type = cuda_memory_type((DavDtype)n->dtype);
        if (n->op == OP_BUF && attr_i(n, A_ROLE) == BUF_SCRATCH)
            buf_printf(e->out, "    %s *p%d = (%s *)(scratch + %s * %lldll + %lldll);\n", type, v, type, e->shared_scratch ? team_number : "task",
                       (long long)e->scratch, (long long)offset[v]);
    }
    return by_launch;
}

/* A team of several warps meets at the block's barrier, so it has the block for itself. */
KernelShape kernel_shape(const Graph *k)
{
    int team = team_of(k), threads = team <= 32 ? BLOCK_THREADS : team;
    int64_t scratch = kernel_scratch(k, NULL) * (threads / team);
    return (KernelShape){team, threads, scratch, scratch && scratch <= SHARED_SCRATCH};
}

void cuda_prologue(Buf *text)
{
    buf_str(text, cuda_machine);
    buf_str(text, cuda_prelude);
    buf_str(text, cuda_tiles);
    buf_str(text, "\n");
}

void cuda_function(const CudaTarget *t, const Graph *kernel, const char *symbol, bool part, Buf *text, CudaLaunch *launch)
{
    KernelShape shape = kernel_shape(kernel);
    int64_t *offset = mem_alloc(mem_mul((size_t)kernel->n, sizeof *offset));
    Emit e = {.k = kernel, .out = text, .target = t, .part = part, .depth = 1, .team = shape.team, .threads = shape.threads,
              .reread = reread_buffers(kernel, shape.team), .narrow = narrow_values(kernel), .way = mem_alloc((size_t)kernel->n), .scratch = kernel_scratch(kernel, offset)};
    place_scratch(&e);
    int by_launch = signature(&e, symbol, offset);
    mem_free(offset);
    for (Val v = 1; v < kernel->n; v++)
        emit(&e, v);
    buf_str(text, "}\n");
    mem_free(e.reread);
    mem_free(e.narrow);
    mem_free(e.way);
    int64_t teams = shape.threads / shape.team, blocks = (kernel_trip(kernel) + teams - 1) / teams;
    *launch = (CudaLaunch){.threads = shape.threads, .blocks = blocks, .shared_bytes = by_launch,
                           .scratch_bytes = e.shared_scratch ? 0 : shape.scratch * blocks};
}

bool cuda_source(const CudaTarget *t, Err *err, const Graph *kernel, const char *symbol, Buf *text, CudaLaunch *launch)
{
    (void)err;
    cuda_prologue(text);
    cuda_function(t, kernel, symbol, false, text, launch);
    return true;
}
