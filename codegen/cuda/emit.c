/* Kernel IR to CUDA C.  An iteration of the parallel loop is run by a team of T threads: the lanes of vector loops are
 * spread over them, everything else they do alike, and the first one alone stores.  Tiles belong to a whole block. */
#include "codegen/cuda/emit.h"
#include "codegen/cuda_text.h"
#include "codegen/ranges.h"
#include <stdio.h>
#include <string.h>

enum { BLOCK_THREADS = 128, MOST_TEAM = 256, UNKNOWN_EXTENT = 512, SHARED_SCRATCH = 24 << 10 };

/* ---- types: 16-bit floats are computed in f32 ---- */
const char *cuda_value_type(DavDtype t)
{
    return t == DAV_F64 ? "double" : dav_dtype_is_float(t) ? "float" : t == DAV_I64 ? "i64" : t == DAV_I32 ? "int"
           : t == DAV_U32 ? "unsigned" : "bool";
}

const char *cuda_memory_type(DavDtype t)
{
    return t == DAV_BF16 || t == DAV_F16 ? "u16" : t == DAV_BOOL ? "u8" : cuda_value_type(t);
}

/* The function around a value that comes from memory, goes to it, or is rounded to its dtype; a variable of bf16 always is. */
const char *cuda_widen(DavDtype t)
{
    return t == DAV_BF16 ? "dav_from_bf16" : t == DAV_F16 ? "dav_from_f16" : "";
}

const char *cuda_narrow(DavDtype t)
{
    return t == DAV_BF16 ? "dav_upper_half" : t == DAV_F16 ? "dav_to_f16" : "";
}

static const char *rounded(DavDtype t)
{
    return t == DAV_BF16 ? "dav_round_bf16" : t == DAV_F16 ? "dav_round_f16" : "";
}

DavDtype operand_dtype(const Emit *e, Val v)
{
    return (DavDtype)node_of(e->k, v)->dtype;
}

/* ---- text ---- */
void put_line(Emit *e, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    buf_printf(e->out, "%*s%s\n", 4 * e->depth, "", text);
}

static void number(char out[64], DavDtype t, double v, int64_t i)
{
    if (t == DAV_F64 || dav_dtype_is_float(t)) {
        float f = (float)v;
        uint32_t low;
        uint64_t bits;
        memcpy(&bits, &v, sizeof bits);
        memcpy(&low, &f, sizeof low);
        if (t == DAV_F64)
            snprintf(out, 64, "dav_double(0x%llxull)", (unsigned long long)bits);
        else
            snprintf(out, 64, "%s(dav_float(0x%xu))", rounded(t), low);
    } else if (i == INT64_MIN) {
        snprintf(out, 64, "(-0x7fffffffffffffffll - 1)");
    } else {
        snprintf(out, 64, "(%s)%lldll", cuda_value_type(t), (long long)i);
    }
}

/* ---- values ---- */
/* Ops that C++ has an operator for; the others are functions dav_<name>. */
static const char *operator_of(Op op)
{
    static const struct { Op op; const char *sign; } table[] = {{OP_AND, "&"}, {OP_OR, "|"},  {OP_XOR, "^"}, {OP_EQ, "=="}, {OP_NE, "!="},
                                                                {OP_LT, "<"},  {OP_LE, "<="}, {OP_GT, ">"},  {OP_GE, ">="}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].op == op)
            return table[i].sign;
    return NULL;
}

/* 64-bit arithmetic, divisions above all, costs a device several times as much. */
static bool *narrow_values(const Graph *k)
{
    const int64_t most = INT64_C(1) << 30; /* a loop's variable may go past its end by a step of its team */
    bool *narrow = mem_alloc((size_t)k->n);
    Range *range = mem_alloc(mem_mul((size_t)k->n, sizeof *range));
    kernel_ranges(k, range);
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        bool index = n->op == OP_FOR || n->op == OP_CONST || n->op == OP_CAST || (op_info[n->op].flags & OPF_ELEMENTWISE);
        narrow[v] = index && (n->op == OP_FOR || n->dtype == DAV_I64) && range[v].lo >= -most && range[v].hi <= most;
    }
    mem_free(range);
    return narrow;
}

const char *type_of_value(const Emit *e, Val v)
{
    return e->narrow[v] ? "int" : cuda_value_type(node_of(e->k, v)->op == OP_FOR ? DAV_I64 : (DavDtype)node_of(e->k, v)->dtype);
}

/* The call of the function of an op: on ints where operands and result are, else small operands are widened first. */
static void call_function(Emit *e, Val v, char out[200])
{
    const Node *n = node_of(e->k, v);
    bool narrow = e->narrow[v];
    int at = 0;
    for (int i = 0; i < n->narg; i++)
        narrow = narrow && e->narrow[n->arg[i]];
    at += snprintf(out, 200, "dav_%s(", op_info[n->op].text);
    for (int i = 0; i < n->narg; i++)
        at += snprintf(out + at, (size_t)(200 - at), "%s%sv%d", i ? ", " : "", e->narrow[n->arg[i]] && !narrow ? "(i64)" : "", n->arg[i]);
    snprintf(out + at, (size_t)(200 - at), ")");
}

static void elementwise(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    const char *type = type_of_value(e, v), *round = e->narrow[v] ? "(int)" : rounded((DavDtype)n->dtype), *sign = operator_of((Op)n->op);
    const Val *a = n->arg;
    char call[200];
    if (n->op == OP_SELECT)
        put_line(e, "%s v%d = v%d ? v%d : v%d;", type, v, a[0], a[1], a[2]);
    else if (n->op == OP_STOP)
        put_line(e, "%s v%d = v%d;", type, v, a[0]);
    else if (sign)
        put_line(e, "%s v%d = v%d %s v%d;", type, v, a[0], sign, a[1]);
    else {
        call_function(e, v, call);
        put_line(e, "%s v%d = %s(%s);", type, v, round, call);
    }
}

static void cast(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    DavDtype from = operand_dtype(e, n->arg[0]), to = (DavDtype)n->dtype;
    const char *type = type_of_value(e, v);
    if (to == DAV_BOOL)
        put_line(e, "bool v%d = v%d != 0;", v, n->arg[0]);
    else if (dav_dtype_is_float(from) && !dav_dtype_is_float(to))
        put_line(e, "%s v%d = dav_to_%s(v%d);", type, v, dav_dtype_name(to), n->arg[0]);
    else
        put_line(e, "%s v%d = %s((%s)v%d);", type, v, rounded(to), type, n->arg[0]);
}

static void bitcast(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    DavDtype from = operand_dtype(e, n->arg[0]), to = (DavDtype)n->dtype;
    bool ff = dav_dtype_is_float(from), tf = dav_dtype_is_float(to);
    bool wide = dav_dtype_size(to) == 8;
    if (dav_dtype_size(to) == 2)
        put_line(e, "float v%d = %s(%s(v%d));", v, cuda_widen(to), cuda_narrow(from), n->arg[0]);
    else if (tf && !ff)
        put_line(e, "%s v%d = %s((%s)v%d);", cuda_value_type(to), v, wide ? "dav_double" : "dav_float", wide ? "u64" : "unsigned", n->arg[0]);
    else
        put_line(e, "%s v%d = (%s)%s(v%d);", cuda_value_type(to), v, cuda_value_type(to), ff && !tf ? "dav_bits" : "", n->arg[0]);
}

static void load(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    DavDtype t = (DavDtype)n->dtype;
    const char *type = cuda_value_type(t), *test = t == DAV_BOOL ? " != 0" : "";
    if (n->narg > 2)
        put_line(e, "%s v%d = v%d ? %s(p%d[v%d]%s) : (%s)0;", type, v, n->arg[2], cuda_widen(t), n->arg[0], n->arg[1], test, type);
    else
        put_line(e, "%s v%d = %s(p%d[v%d]%s);", type, v, cuda_widen(t), n->arg[0], n->arg[1], test);
}

/* Outside of vector loops the whole team has the value: one thread stores it, and where the kernel also reads that
 * buffer nobody may be late reading the old value or early reading the new one. */
static void store(Emit *e, const Node *n)
{
    DavDtype t = operand_dtype(e, n->arg[0]);
    bool alone = e->team > 1 && !e->vector, meet = alone && e->reread[n->arg[0]];
    if (meet)
        put_line(e, "dav_sync<%d>();", e->team);
    if (alone)
        put_line(e, "if (lane == 0)");
    if (n->narg > 3)
        put_line(e, "if (v%d)", n->arg[3]);
    put_line(e, "p%d[v%d] = %s(v%d);", n->arg[0], n->arg[1], cuda_narrow(t), n->arg[2]);
    if (meet)
        put_line(e, "dav_sync<%d>();", e->team);
}

static void update(Emit *e, const Node *n)
{
    static const char *const join[] = {[ACC_ADD] = "add", [ACC_MAX] = "max", [ACC_MIN] = "min"};
    const Node *acc = node_of(e->k, n->arg[0]);
    AccKind kind = (AccKind)attr_i(acc, A_KIND);
    if (kind == ACC_SET)
        put_line(e, "v%d = v%d;", n->arg[0], n->arg[1]);
    else
        put_line(e, "v%d = %s(dav_%s(v%d, %sv%d));", n->arg[0], rounded((DavDtype)acc->dtype), join[kind], n->arg[0],
                 e->narrow[n->arg[1]] ? "(i64)" : "", n->arg[1]);
}

/* ---- loops ---- */
/* What a vector loop's body does to values outside of it. */
static Val end_of(const Emit *e, Val loop)
{
    Val v = loop + 1;
    while (v < e->k->n && !(node_of(e->k, v)->op == OP_END && node_of(e->k, v)->arg[0] == loop))
        v++;
    return v;
}

static bool stores_reread(const Emit *e, Val loop)
{
    for (Val v = loop + 1, end = end_of(e, loop); v < end; v++)
        if (node_of(e->k, v)->op == OP_STORE && e->reread[node_of(e->k, v)->arg[0]])
            return true;
    return false;
}

/* The n-th accumulator from outside that the loop takes in; 0: no more. */
static Val joined(const Emit *e, Val loop, int n)
{
    Val end = end_of(e, loop);
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
            put_line(e, "v%d = %s(dav_add(before%d_%d, v%d));", acc, rounded((DavDtype)n->dtype), loop, acc, acc);
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
        put_line(e, "for (%s v%d = %s + lane; v%d < %s; v%d += %d) {", type, v, lo, v, hi, v, e->team);
    } else {
        put_line(e, "for (%s v%d = %s; v%d < %s; v%d += %lld%s) {", type, v, lo, v, hi, v, (long long)nums[2], ll);
    }
    e->depth++;
}

static void close(Emit *e, Val opened)
{
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
    DavDtype t = (DavDtype)n->dtype;
    char text[64];
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
    case OP_CONST:
        number(text, t, attr_f(n, A_VALUE), dav_dtype_is_float(t) ? 0 : (int64_t)attr_f(n, A_VALUE));
        if (e->narrow[v])
            put_line(e, "const int v%d = %d;", v, (int)attr_f(n, A_VALUE));
        else
            put_line(e, "const %s v%d = %s;", cuda_value_type(t), v, text);
        break;
    case OP_ACC:
        number(text, t, attr_f(n, A_VALUE), dav_dtype_is_float(t) ? 0 : k_acc_start_int(n));
        put_line(e, "%s v%d = %s;", cuda_value_type(t), v, text);
        break;
    case OP_ACC_UPDATE:
        update(e, n);
        break;
    case OP_ACC_GET:
        put_line(e, "%s v%d = v%d;", cuda_value_type(t), v, n->arg[0]);
        break;
    case OP_CAST:
        cast(e, v);
        break;
    case OP_BITCAST:
        bitcast(e, v);
        break;
    case OP_LOAD:
        load(e, v);
        break;
    case OP_STORE:
        store(e, n);
        break;
    case OP_PHILOX:
        put_line(e, "unsigned v%d = dav_philox(v%d, v%d, v%d, v%d, v%d, v%d, %d);", v, n->arg[0], n->arg[1], n->arg[2], n->arg[3],
             n->arg[4], n->arg[5], (int)attr_i(n, A_INDEX));
        break;
    case OP_EXP2:
        put_line(e, "float v%d = exp2f(v%d);", v, n->arg[0]);
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
        elementwise(e, v);
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

/* Threads of a team, from the longest vector loop; nothing that depends on the number of rows. */
static int team_of(const Graph *k)
{
    int64_t widest = 1;
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        if (n->op == OP_TILE_CONTRACT)
            return BLOCK_THREADS;
        if (n->op != OP_FOR || attr_i(n, A_KIND) != LOOP_VECTOR)
            continue;
        const int64_t *nums = attr_ints(n, A_NUMS, NULL);
        int64_t extent = n->narg ? UNKNOWN_EXTENT : nums[1] - nums[0];
        widest = extent > widest ? extent : widest;
    }
    if (widest <= 32)
        return power_of_two(widest);
    int team = power_of_two((widest + 3) / 4);
    return team < 32 ? 32 : team > MOST_TEAM ? MOST_TEAM : team;
}

static bool has_tiles(const Graph *k)
{
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == OP_TILE)
            return true;
    return false;
}

static bool *reread_buffers(const Graph *k)
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
        e->shared_scratch = has_tiles(e->k) && bytes + room_bytes(e) + 128 <= e->target->shared_bytes;
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
              .reread = reread_buffers(kernel), .narrow = narrow_values(kernel), .scratch = kernel_scratch(kernel, offset)};
    place_scratch(&e);
    int by_launch = signature(&e, symbol, offset);
    mem_free(offset);
    for (Val v = 1; v < kernel->n; v++)
        emit(&e, v);
    buf_str(text, "}\n");
    mem_free(e.reread);
    mem_free(e.narrow);
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
