/* Kernel IR to CUDA C: an iteration of the parallel loop is one thread, whose other loops run in order. */
#include "codegen/cuda/cuda.h"
#include "codegen/cuda_text.h"
#include <stdio.h>
#include <string.h>

enum { THREADS = 64 };

typedef struct Emit {
    const Graph *k;
    Buf *out;
    int depth;
} Emit;

/* Makers' data sheets, dense rates. */
static const CudaTarget targets[] = {
    {"t4", 75, 65536, 65536, 40, 4 << 20, 320e9, 8.1e12, 0, 0},
    {"a100", 80, 166912, 65536, 108, 40 << 20, 1555e9, 19.5e12, 312e12, 156e12},
    {"a10", 86, 101376, 65536, 72, 6 << 20, 600e9, 31.2e12, 125e12, 62.5e12},
    {"rtx4090", 89, 101376, 65536, 128, 72 << 20, 1008e9, 82.6e12, 165e12, 82.6e12},
    {"h100", 90, 232448, 65536, 132, 50 << 20, 3350e9, 67e12, 989e12, 495e12},
    {"h200", 90, 232448, 65536, 132, 50 << 20, 4800e9, 67e12, 989e12, 495e12},
    {"b200", 100, 232448, 65536, 148, 126 << 20, 8000e9, 75e12, 2250e12, 1125e12},
    {"rtx5090", 120, 101376, 65536, 170, 96 << 20, 1792e9, 104.8e12, 209.5e12, 104.8e12},
};
enum { TARGETS = sizeof targets / sizeof *targets };

const CudaTarget *cuda_target(Err *err, const char *name)
{
    const char *names[TARGETS];
    for (int i = 0; i < TARGETS; i++) {
        names[i] = targets[i].name;
        if (strcmp(name, names[i]) == 0)
            return &targets[i];
    }
    const char *near = err_nearest(name, names, TARGETS);
    err_user(err, "no CUDA device is called '%s'%s%s", name, near ? "; nearest: " : "", near ? near : "");
    return NULL;
}

const CudaTarget *cuda_target_of_sm(int sm)
{
    const CudaTarget *best = NULL;
    for (int i = 0; i < TARGETS; i++)
        if (targets[i].sm <= sm && (!best || targets[i].sm > best->sm))
            best = &targets[i];
    return best;
}

/* ---- types: 16-bit floats are computed in f32 ---- */
static const char *value_type(DavDtype t)
{
    return t == DAV_F64 ? "double" : dav_dtype_is_float(t) ? "float" : t == DAV_I64 ? "i64" : t == DAV_I32 ? "int"
           : t == DAV_U32 ? "unsigned" : "bool";
}

static const char *memory_type(DavDtype t)
{
    return t == DAV_BF16 || t == DAV_F16 ? "u16" : t == DAV_BOOL ? "u8" : value_type(t);
}

/* The function around a value that comes from memory, goes to it, or is rounded to its dtype. */
static const char *widen(DavDtype t)
{
    return t == DAV_BF16 ? "dav_from_bf16" : t == DAV_F16 ? "dav_from_f16" : "";
}

static const char *narrow(DavDtype t)
{
    return t == DAV_BF16 ? "dav_to_bf16" : t == DAV_F16 ? "dav_to_f16" : "";
}

static const char *rounded(DavDtype t)
{
    return t == DAV_BF16 ? "dav_round_bf16" : t == DAV_F16 ? "dav_round_f16" : "";
}

static DavDtype dtype_at(const Emit *e, Val v)
{
    return (DavDtype)node_of(e->k, v)->dtype;
}

/* ---- text ---- */
static void line(Emit *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line(Emit *e, const char *fmt, ...)
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
        snprintf(out, 64, "(%s)%lldll", value_type(t), (long long)i);
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

static void elementwise(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    const char *type = value_type((DavDtype)n->dtype), *round = rounded((DavDtype)n->dtype), *sign = operator_of((Op)n->op);
    const Val *a = n->arg;
    if (n->op == OP_SELECT)
        line(e, "%s v%d = v%d ? v%d : v%d;", type, v, a[0], a[1], a[2]);
    else if (n->op == OP_STOP)
        line(e, "%s v%d = v%d;", type, v, a[0]);
    else if (sign)
        line(e, "%s v%d = v%d %s v%d;", type, v, a[0], sign, a[1]);
    else if (n->narg == 1)
        line(e, "%s v%d = %s(dav_%s(v%d));", type, v, round, op_info[n->op].text, a[0]);
    else if (n->narg == 2)
        line(e, "%s v%d = %s(dav_%s(v%d, v%d));", type, v, round, op_info[n->op].text, a[0], a[1]);
    else
        line(e, "%s v%d = %s(dav_%s(v%d, v%d, v%d));", type, v, round, op_info[n->op].text, a[0], a[1], a[2]);
}

static void cast(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    DavDtype from = dtype_at(e, n->arg[0]), to = (DavDtype)n->dtype;
    const char *type = value_type(to);
    if (to == DAV_BOOL)
        line(e, "bool v%d = v%d != 0;", v, n->arg[0]);
    else if (dav_dtype_is_float(from) && !dav_dtype_is_float(to))
        line(e, "%s v%d = dav_to_%s(v%d);", type, v, dav_dtype_name(to), n->arg[0]);
    else
        line(e, "%s v%d = %s((%s)v%d);", type, v, rounded(to), type, n->arg[0]);
}

static void bitcast(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    DavDtype from = dtype_at(e, n->arg[0]), to = (DavDtype)n->dtype;
    bool ff = dav_dtype_is_float(from), tf = dav_dtype_is_float(to);
    bool wide = dav_dtype_size(to) == 8;
    if (dav_dtype_size(to) == 2)
        line(e, "float v%d = %s(%s(v%d));", v, widen(to), narrow(from), n->arg[0]);
    else if (tf && !ff)
        line(e, "%s v%d = %s((%s)v%d);", value_type(to), v, wide ? "dav_double" : "dav_float", wide ? "u64" : "unsigned", n->arg[0]);
    else
        line(e, "%s v%d = (%s)%s(v%d);", value_type(to), v, value_type(to), ff && !tf ? "dav_bits" : "", n->arg[0]);
}

static void load(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    DavDtype t = (DavDtype)n->dtype;
    const char *type = value_type(t), *test = t == DAV_BOOL ? " != 0" : "";
    if (n->narg > 2)
        line(e, "%s v%d = v%d ? %s(p%d[v%d]%s) : (%s)0;", type, v, n->arg[2], widen(t), n->arg[0], n->arg[1], test, type);
    else
        line(e, "%s v%d = %s(p%d[v%d]%s);", type, v, widen(t), n->arg[0], n->arg[1], test);
}

static void store(Emit *e, const Node *n)
{
    DavDtype t = dtype_at(e, n->arg[0]);
    if (n->narg > 3)
        line(e, "if (v%d)", n->arg[3]);
    line(e, "p%d[v%d] = %s(v%d);", n->arg[0], n->arg[1], narrow(t), n->arg[2]);
}

static void update(Emit *e, const Node *n)
{
    static const char *const join[] = {[ACC_ADD] = "add", [ACC_MAX] = "max", [ACC_MIN] = "min"};
    const Node *acc = node_of(e->k, n->arg[0]);
    AccKind kind = (AccKind)attr_i(acc, A_KIND);
    if (kind == ACC_SET)
        line(e, "v%d = v%d;", n->arg[0], n->arg[1]);
    else
        line(e, "v%d = %s(dav_%s(v%d, v%d));", n->arg[0], rounded((DavDtype)acc->dtype), join[kind], n->arg[0], n->arg[1]);
}

/* ---- tiles ---- */
/* Element k of a panel; of u32 panels half a word. */
static void panel(const Emit *e, char out[200], Val buf, const char *at, int64_t stride)
{
    DavDtype t = dtype_at(e, buf);
    if (t == DAV_U32)
        snprintf(out, 200, "dav_from_bf16((u16)(p%d[%s + k / 2 * %lldll] >> 16 * (k & 1)))", buf, at, (long long)stride);
    else
        snprintf(out, 200, "%s(p%d[%s + k * %lldll])", widen(t), buf, at, (long long)stride);
}

static void contract(Emit *e, Val v)
{
    TileContract c = k_tile_contract_of(e->k, v);
    const Node *tile = node_of(e->k, c.tile);
    int mr = (int)attr_i(tile, A_MR), nr = (int)attr_i(tile, A_NR);
    char a[200], b[200], at[80], cols[32];
    snprintf(at, sizeof at, "v%d + i * %lldll", c.a_off, (long long)c.a_row_stride);
    panel(e, a, c.a, at, c.a_k_stride);
    snprintf(at, sizeof at, "v%d + j * %lldll", c.b_off, (long long)c.b_col_stride);
    panel(e, b, c.b, at, c.b_k_stride);
    DavDtype bt = dtype_at(e, c.b);
    if (c.b_packed && bt == DAV_BF16)
        snprintf(b, sizeof b, "dav_from_bf16(p%d[v%d + (k / 2 * %d + j) * 2 + k %% 2])", c.b, c.b_off, nr);
    else if (c.b_packed)
        snprintf(b, sizeof b, "%s(p%d[v%d + k * %d + j])", widen(bt), c.b, c.b_off, nr);
    snprintf(cols, sizeof cols, c.cols && !c.b_packed ? "v%d" : "%d", c.cols && !c.b_packed ? c.cols : nr);
    line(e, "for (int r = 0; r < %d && r < v%d; r++) {", mr, c.rows);
    line(e, "    i64 n = v%d + r * %lldll, i = n / %lldll;", c.row0, (long long)c.a_row_step, (long long)c.a_div);
    if (c.a_ext > 0)
        line(e, "    if (i * %lldll != n || i < 0 || i >= %lldll) continue;", (long long)c.a_div, (long long)c.a_ext);
    else
        line(e, "    if (i * %lldll != n) continue;", (long long)c.a_div);
    line(e, "    for (i64 k = 0; k < v%d; k++) {", c.k);
    line(e, "        float a = %s;", a);
    line(e, "        for (i64 j = 0; j < %s; j++)", cols);
    line(e, "            v%d[r * %d + j] = dav_fma(a, %s, v%d[r * %d + j]);", c.tile, nr, b, c.tile, nr);
    line(e, "    }");
    line(e, "}");
}

/* ---- control ---- */
static void open_loop(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    const int64_t *nums = attr_ints(n, A_NUMS, NULL);
    if (attr_i(n, A_KIND) == LOOP_PARALLEL) {
        line(e, "if (task < %lldll) {", (long long)kernel_trip(e->k));
        line(e, "    i64 v%d = %lldll + task * %lldll;", v, (long long)nums[0], (long long)nums[2]);
    } else if (n->narg) {
        line(e, "for (i64 v%d = v%d; v%d < v%d; v%d += %lldll) {", v, n->arg[0], v, n->arg[1], v, (long long)nums[2]);
    } else {
        line(e, "for (i64 v%d = %lldll; v%d < %lldll; v%d += %lldll) {", v, (long long)nums[0], v, (long long)nums[1], v, (long long)nums[2]);
    }
    e->depth++;
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
        open_loop(e, v);
        break;
    case OP_IF:
        line(e, "if (v%d) {", n->arg[0]);
        e->depth++;
        break;
    case OP_END:
        e->depth--;
        line(e, "}");
        break;
    case OP_CONST:
        number(text, t, attr_f(n, A_VALUE), dav_dtype_is_float(t) ? 0 : (int64_t)attr_f(n, A_VALUE));
        line(e, "const %s v%d = %s;", value_type(t), v, text);
        break;
    case OP_ACC:
        number(text, t, attr_f(n, A_VALUE), dav_dtype_is_float(t) ? 0 : k_acc_start_int(n));
        line(e, "%s v%d = %s;", value_type(t), v, text);
        break;
    case OP_ACC_UPDATE:
        update(e, n);
        break;
    case OP_ACC_GET:
        line(e, "%s v%d = v%d;", value_type(t), v, n->arg[0]);
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
        line(e, "unsigned v%d = dav_philox(v%d, v%d, v%d, v%d, v%d, v%d, %d);", v, n->arg[0], n->arg[1], n->arg[2], n->arg[3],
             n->arg[4], n->arg[5], (int)attr_i(n, A_INDEX));
        break;
    case OP_TILE:
        line(e, "float v%d[%d] = {0};", v, (int)(attr_i(n, A_MR) * attr_i(n, A_NR)));
        break;
    case OP_TILE_CONTRACT:
        contract(e, v);
        break;
    case OP_TILE_GET:
        line(e, "float v%d = v%d[v%d * %d + v%d];", v, n->arg[0], n->arg[1], (int)attr_i(node_of(e->k, n->arg[0]), A_NR), n->arg[2]);
        break;
    default:
        elementwise(e, v);
    }
}

/* Parameters by index, then pointers into scratch. */
static void signature(Emit *e, const char *symbol, const int64_t *offset, int64_t scratch)
{
    int count = 0;
    buf_printf(e->out, "DAV_KERNEL(%d) %s(", THREADS, symbol);
    for (bool found = true; found;) {
        found = false;
        for (Val v = 1; v < e->k->n && !found; v++) {
            const Node *n = node_of(e->k, v);
            if (n->op != OP_BUF || attr_i(n, A_ROLE) == BUF_SCRATCH || attr_i(n, A_INDEX) != count)
                continue;
            buf_printf(e->out, "%s%s%s *p%d", count ? ", " : "", attr_i(n, A_ROLE) == BUF_IN ? "const " : "", memory_type((DavDtype)n->dtype), v);
            found = true;
            count++;
        }
    }
    buf_printf(e->out, "%s)\n{\n    i64 task = (i64)dav_block() * %d + dav_thread();\n",
               scratch ? count ? ", u8 *scratch" : "u8 *scratch" : "", THREADS);
    for (Val v = 1; v < e->k->n; v++) {
        const Node *n = node_of(e->k, v);
        const char *type = memory_type((DavDtype)n->dtype);
        if (n->op == OP_BUF && attr_i(n, A_ROLE) == BUF_SCRATCH)
            buf_printf(e->out, "    %s *p%d = (%s *)(scratch + task * %lldll + %lldll);\n", type, v, type, (long long)scratch, (long long)offset[v]);
    }
}

bool cuda_source(const CudaTarget *t, Err *err, const Graph *kernel, const char *symbol, Buf *text, CudaLaunch *launch)
{
    (void)t, (void)err;
    Emit e = {.k = kernel, .out = text, .depth = 1};
    int64_t *offset = mem_alloc(mem_mul((size_t)kernel->n, sizeof *offset)), scratch = kernel_scratch(kernel, offset);
    buf_str(text, cuda_machine);
    buf_str(text, cuda_prelude);
    buf_str(text, "\n");
    signature(&e, symbol, offset, scratch);
    mem_free(offset);
    for (Val v = 1; v < kernel->n; v++)
        emit(&e, v);
    buf_str(text, "}\n");
    int64_t blocks = (kernel_trip(kernel) + THREADS - 1) / THREADS;
    *launch = (CudaLaunch){.threads = THREADS, .blocks = blocks, .scratch_bytes = scratch * blocks * THREADS};
    return true;
}
