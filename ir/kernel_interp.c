/* The meaning of kernel IR, one element at a time.  f32 sums are rounded after every step, in order; tiles accumulate in f32
 * with one rounding a step (as a fused multiply-add does). */
#include "ir/build.h"
#include "ir/dtype.h"
#include "ir/kernel.h"
#include <math.h>
#include <string.h>

typedef union Scalar { double f; int64_t i; } Scalar;

typedef struct Machine {
    const Graph *k;
    Scalar *val;
    float **tile;
    Val *end;
    void **mem; /* of buffers */
} Machine;

/* ---- memory ---- */
static Scalar read_element(DavDtype t, const void *at)
{
    Scalar s = {.i = 0};
    uint16_t h;
    uint32_t u;
    float f;
    switch (t) {
    case DAV_F64:
        memcpy(&s.f, at, 8);
        return s;
    case DAV_F32:
        memcpy(&f, at, 4);
        return (Scalar){.f = f};
    case DAV_BF16:
    case DAV_F16:
        memcpy(&h, at, 2);
        return (Scalar){.f = t == DAV_BF16 ? bf16_to_f32(h) : f16_to_f32(h)};
    case DAV_I64:
        memcpy(&s.i, at, 8);
        return s;
    case DAV_BOOL:
        s.i = *(const uint8_t *)at != 0;
        return s;
    default:
        memcpy(&u, at, 4);
        s.i = t == DAV_I32 ? (int32_t)u : (int64_t)u;
        return s;
    }
}

static void write_element(DavDtype t, void *at, Scalar s)
{
    float f = (float)s.f;
    uint32_t u = (uint32_t)(uint64_t)s.i;
    uint16_t h;
    switch (t) {
    case DAV_F64:
    case DAV_I64:
        memcpy(at, &s, 8);
        return;
    case DAV_F32:
        memcpy(at, &f, 4);
        return;
    case DAV_BF16:
    case DAV_F16:
        h = t == DAV_BF16 ? bf16_from_f32(f) : f16_from_f32(f);
        memcpy(at, &h, 2);
        return;
    case DAV_BOOL:
        *(uint8_t *)at = s.i != 0;
        return;
    default:
        memcpy(at, &u, 4);
    }
}

static char *element_at(const Machine *m, Val buf, int64_t off)
{
    return (char *)m->mem[buf] + off * (int64_t)dav_dtype_size((DavDtype)node_of(m->k, buf)->dtype);
}

static Scalar load(const Machine *m, Val buf, int64_t off)
{
    return read_element((DavDtype)node_of(m->k, buf)->dtype, element_at(m, buf, off));
}

/* ---- scalars ---- */
static Scalar cast(DavDtype from, DavDtype to, Scalar x)
{
    bool ff = dav_dtype_is_float(from), tf = dav_dtype_is_float(to);
    if (to == DAV_BOOL)
        return (Scalar){.i = ff ? x.f != 0 : x.i != 0};
    if (ff && tf)
        return (Scalar){.f = float_round(to, x.f)};
    if (tf)
        return (Scalar){.f = to == DAV_F64 ? (double)x.i : float_round(to, (float)x.i)};
    if (!ff)
        return (Scalar){.i = int_wrap(to, x.i)};
    double lo = to == DAV_I64 ? -0x1p63 : to == DAV_I32 ? -0x1p31 : 0;
    double top = to == DAV_I64 ? 0x1p63 : to == DAV_I32 ? 0x1p31 : 0x1p32; /* first value above the range */
    if (isnan(x.f))
        return (Scalar){.i = 0};
    if (x.f <= lo)
        return (Scalar){.i = to == DAV_I64 ? INT64_MIN : to == DAV_I32 ? INT32_MIN : 0};
    if (x.f >= top)
        return (Scalar){.i = to == DAV_I64 ? INT64_MAX : to == DAV_I32 ? INT32_MAX : UINT32_MAX};
    return (Scalar){.i = (int64_t)x.f};
}

static Scalar bitcast(DavDtype from, DavDtype to, Scalar x)
{
    char bytes[8] = {0};
    write_element(from, bytes, x);
    return read_element(to, bytes);
}

static Scalar elementwise(const Machine *m, const Node *n)
{
    Scalar x = m->val[n->arg[0]], y = n->narg > 1 ? m->val[n->arg[1]] : x, z = n->narg > 2 ? m->val[n->arg[2]] : x;
    if (n->op == OP_SELECT)
        return x.i ? y : z;
    DavDtype t = (DavDtype)node_of(m->k, n->arg[0])->dtype, out = (DavDtype)n->dtype;
    if (!dav_dtype_is_float(t))
        return (Scalar){.i = ew_int((Op)n->op, out == DAV_BOOL && t != DAV_BOOL ? DAV_I64 : t, x.i, y.i, z.i)};
    double r = ew_float((Op)n->op, x.f, y.f, z.f);
    return out == DAV_BOOL ? (Scalar){.i = r != 0} : (Scalar){.f = float_round(out, r)};
}

static Scalar philox(const Machine *m, const Node *n)
{
    uint32_t w[6];
    for (int i = 0; i < 6; i++)
        w[i] = (uint32_t)m->val[n->arg[i]].i;
    uint32_t *key = w, *c = w + 2;
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)c[0] * 0xD2511F53u, p1 = (uint64_t)c[2] * 0xCD9E8D57u;
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ key[0], (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ key[1],
                            (uint32_t)p0};
        memcpy(c, next, sizeof next);
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return (Scalar){.i = c[attr_i(n, A_INDEX)]};
}

static Scalar constant(const Node *n)
{
    DavDtype t = (DavDtype)n->dtype;
    double v = attr_f(n, A_VALUE);
    return dav_dtype_is_float(t) ? (Scalar){.f = float_round(t, v)} : (Scalar){.i = int_wrap(t, (int64_t)v)};
}

static Scalar start_of(const Node *n)
{
    return dav_dtype_is_float((DavDtype)n->dtype) ? (Scalar){.f = attr_f(n, A_VALUE)} : (Scalar){.i = k_acc_start_int(n)};
}

static void update(Machine *m, const Node *n)
{
    static const Op op_of[] = {[ACC_ADD] = OP_ADD, [ACC_MAX] = OP_MAX, [ACC_MIN] = OP_MIN};
    const Node *acc = node_of(m->k, n->arg[0]);
    DavDtype t = (DavDtype)acc->dtype;
    AccKind kind = (AccKind)attr_i(acc, A_KIND);
    Scalar *a = &m->val[n->arg[0]], v = m->val[n->arg[1]];
    if (kind == ACC_SET)
        *a = v;
    else if (dav_dtype_is_float(t))
        a->f = float_round(t, ew_float(op_of[kind], a->f, v.f, 0));
    else
        a->i = ew_int(op_of[kind], t, a->i, v.i, 0);
}

/* ---- tiles ---- */
/* Of a u32 panel half a word: a bf16 is the upper half of an f32. */
static float panel_element(const Machine *m, Val buf, int64_t off, int64_t k, int64_t stride)
{
    if (node_of(m->k, buf)->dtype != DAV_U32)
        return (float)load(m, buf, off + k * stride).f;
    uint32_t word = (uint32_t)load(m, buf, off + k / 2 * stride).i;
    return bf16_to_f32((uint16_t)(k % 2 ? word >> 16 : word & 0xffff));
}

static float tile_a(const Machine *m, const TileContract *c, int64_t r, int64_t k)
{
    int64_t num = m->val[c->row0].i + r * c->a_row_step;
    if (num % c->a_div != 0)
        return 0;
    int64_t i = num / c->a_div;
    if (c->a_ext > 0 && (i < 0 || i >= c->a_ext))
        return 0;
    return panel_element(m, c->a, m->val[c->a_off].i + i * c->a_row_stride, k, c->a_k_stride);
}

static float tile_b(const Machine *m, const TileContract *c, int64_t nr, int64_t k, int64_t j)
{
    int64_t off = m->val[c->b_off].i;
    if (!c->b_packed)
        return c->cols && j >= m->val[c->cols].i ? 0 : panel_element(m, c->b, off + j * c->b_col_stride, k, c->b_k_stride);
    DavDtype t = (DavDtype)node_of(m->k, c->b)->dtype;
    bool pairs = t == DAV_BF16;
    if (t == DAV_U32)
        return panel_element(m, c->b, off + j, k, nr);
    return (float)load(m, c->b, off + (pairs ? (k / 2 * nr + j) * 2 + k % 2 : k * nr + j)).f;
}

static void contract(Machine *m, Val v)
{
    TileContract c = k_tile_contract_of(m->k, v);
    const Node *tile = node_of(m->k, c.tile);
    int64_t mr = attr_i(tile, A_MR), nr = attr_i(tile, A_NR), rows = m->val[c.rows].i, depth = m->val[c.k].i;
    float *acc = m->tile[c.tile];
    for (int64_t r = 0; r < mr && r < rows; r++)
        for (int64_t k = 0; k < depth; k++) {
            double a = tile_a(m, &c, r, k);
            for (int64_t j = 0; j < nr; j++)
                acc[r * nr + j] = (float)(a * (double)tile_b(m, &c, nr, k, j) + (double)acc[r * nr + j]);
        }
}

/* ---- control ---- */
static void run(Machine *m, Val from, Val to);

static void run_loop(Machine *m, Val loop)
{
    const Node *n = node_of(m->k, loop);
    const int64_t *nums = attr_ints(n, A_NUMS, NULL);
    int64_t lo = n->narg ? m->val[n->arg[0]].i : nums[0], hi = n->narg ? m->val[n->arg[1]].i : nums[1];
    for (int64_t i = lo; i < hi; i += nums[2]) {
        m->val[loop].i = i;
        run(m, loop + 1, m->end[loop]);
    }
}

static void step(Machine *m, Val v)
{
    const Node *n = node_of(m->k, v);
    const Scalar *arg = m->val;
    int64_t nr;
    switch ((Op)n->op) {
    case OP_CONST:
        m->val[v] = constant(n);
        break;
    case OP_CAST:
        m->val[v] = cast((DavDtype)node_of(m->k, n->arg[0])->dtype, (DavDtype)n->dtype, arg[n->arg[0]]);
        break;
    case OP_BITCAST:
        m->val[v] = bitcast((DavDtype)node_of(m->k, n->arg[0])->dtype, (DavDtype)n->dtype, arg[n->arg[0]]);
        break;
    case OP_LOAD:
        m->val[v] = (Scalar){.i = 0};
        if (n->narg < 3 || arg[n->arg[2]].i)
            m->val[v] = load(m, n->arg[0], arg[n->arg[1]].i);
        break;
    case OP_STORE:
        if (n->narg < 4 || arg[n->arg[3]].i)
            write_element((DavDtype)node_of(m->k, n->arg[0])->dtype, element_at(m, n->arg[0], arg[n->arg[1]].i), arg[n->arg[2]]);
        break;
    case OP_ACC:
        m->val[v] = start_of(n);
        break;
    case OP_ACC_UPDATE:
        update(m, n);
        break;
    case OP_ACC_GET:
        m->val[v] = arg[n->arg[0]];
        break;
    case OP_PHILOX:
        m->val[v] = philox(m, n);
        break;
    case OP_EXP2:
        m->val[v].f = float_round(DAV_F32, exp2(arg[n->arg[0]].f));
        break;
    case OP_TILE:
        memset(m->tile[v], 0, (size_t)(attr_i(n, A_MR) * attr_i(n, A_NR)) * sizeof(float));
        break;
    case OP_TILE_CONTRACT:
        contract(m, v);
        break;
    case OP_TILE_GET:
        nr = attr_i(node_of(m->k, n->arg[0]), A_NR);
        m->val[v].f = m->tile[n->arg[0]][arg[n->arg[1]].i * nr + arg[n->arg[2]].i];
        break;
    case OP_BUF:
        break;
    default:
        m->val[v] = elementwise(m, n);
    }
}

static void run(Machine *m, Val from, Val to)
{
    for (Val v = from; v < to; v++) {
        Op op = (Op)node_of(m->k, v)->op;
        if (op != OP_FOR && op != OP_IF) {
            step(m, v);
            continue;
        }
        if (op == OP_FOR)
            run_loop(m, v);
        else if (m->val[node_of(m->k, v)->arg[0]].i)
            run(m, v + 1, m->end[v]);
        v = m->end[v];
    }
}

void kernel_interpret(const Graph *k, void *const *bufs)
{
    Arena *arena = arena_new();
    Machine m = {.k = k, .val = arena_array(arena, Scalar, k->n), .tile = arena_array(arena, float *, k->n),
                 .end = arena_array(arena, Val, k->n), .mem = arena_array(arena, void *, k->n)};
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        if (n->op == OP_END)
            m.end[n->arg[0]] = v;
        else if (n->op == OP_TILE)
            m.tile[v] = arena_array(arena, float, attr_i(n, A_MR) * attr_i(n, A_NR));
        else if (n->op == OP_BUF && attr_i(n, A_ROLE) == BUF_SCRATCH)
            m.mem[v] = arena_alloc(arena, mem_mul((size_t)node_count(k, v), dav_dtype_size((DavDtype)n->dtype)));
        else if (n->op == OP_BUF)
            m.mem[v] = bufs[attr_i(n, A_INDEX)];
    }
    run(&m, 1, k->n);
    arena_free(arena);
}
