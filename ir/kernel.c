/* Builders of kernel IR. */
#include "ir/kernel.h"
#include "ir/build.h"
#include <string.h>

static const int64_t no_dims[1] = {0};

static Type scalar(DavDtype t)
{
    return type_make(t, 0, no_dims);
}

Graph *kernel_new(Arena *arena, Err *err, const char *name)
{
    Graph *k = graph_new(arena, err, name);
    k->no_fold = true;
    return k;
}

Val k_buf(Graph *k, const char *name, BufRole role, int index, Type t)
{
    Attr a[] = {{.name = A_NAME, .s = name}, {.name = A_ROLE, .i = role}, {.name = A_INDEX, .i = index}};
    return graph_node(k, OP_BUF, NULL, 0, a, 3, &t);
}

bool k_buf_is_view(const Graph *k, Val buf)
{
    for (Val v = 1; v < buf; v++)
        if (node_of(k, v)->op == OP_BUF && attr_i(node_of(k, v), A_INDEX) == attr_i(node_of(k, buf), A_INDEX))
            return true;
    return false;
}

static Val loop_node(Graph *k, LoopKind kind, const Val *bound, int nbound, const int64_t nums[3])
{
    Attr a[] = {{.name = A_KIND, .i = kind}, {.name = A_NUMS, .n = 3, .ints = nums}};
    return graph_node(k, OP_FOR, bound, nbound, a, 2, NULL);
}

Val k_for(Graph *k, LoopKind kind, int64_t lo, int64_t hi, int64_t step)
{
    return loop_node(k, kind, NULL, 0, (int64_t[]){lo, hi, step});
}

Val k_for_dyn(Graph *k, LoopKind kind, Val lo, Val hi, int64_t step)
{
    return loop_node(k, kind, (Val[]){lo, hi}, 2, (int64_t[]){0, 0, step});
}

void k_end(Graph *k, Val loop_or_if)
{
    graph_node(k, OP_END, &loop_or_if, 1, NULL, 0, NULL);
}

Val k_if(Graph *k, Val cond)
{
    return graph_node(k, OP_IF, &cond, 1, NULL, 0, NULL);
}

Val k_num(Graph *k, DavDtype t, double v)
{
    Type type = scalar(t);
    return graph_node(k, OP_CONST, NULL, 0, (Attr[]){{.name = A_VALUE, .f = v}}, 1, &type);
}

Val k_int(Graph *k, int64_t v)
{
    must(v >= -(INT64_C(1) << 53) && v <= INT64_C(1) << 53); /* constants are kept as doubles */
    return k_num(k, DAV_I64, (double)v);
}

static bool is_i64_const(const Graph *k, Val v, int64_t *value)
{
    const Node *n = node_of(k, v);
    if (n->op != OP_CONST || n->dtype != DAV_I64)
        return false;
    *value = (int64_t)attr_f(n, A_VALUE);
    return true;
}

/* Offsets are sums of products with many constants in them: folding keeps kernels short and easy to read. */
static Val fold_i64(Graph *k, Op op, Val x, Val y)
{
    int64_t a = 0, b = 0;
    bool ca = is_i64_const(k, x, &a), cb = is_i64_const(k, y, &b);
    if (ca && cb && ew_defined(op, DAV_I64) && op <= OP_SHR)
        return k_int(k, ew_int(op, DAV_I64, a, b, 0));
    if (cb && ((b == 0 && (op == OP_ADD || op == OP_SUB)) || (b == 1 && (op == OP_MUL || op == OP_DIV))))
        return x;
    if (ca && ((a == 0 && op == OP_ADD) || (a == 1 && op == OP_MUL)))
        return y;
    if ((ca && a == 0 && op == OP_MUL) || (cb && b == 0 && op == OP_MUL))
        return k_int(k, 0);
    return 0;
}

Val k_op(Graph *k, Op op, Val x, Val y, Val z)
{
    if (op_info[op].arity == 2 && x && y && node_of(k, x)->dtype == DAV_I64) {
        Val folded = fold_i64(k, op, x, y);
        if (folded)
            return folded;
    }
    return g_ew(k, op, x, y, z);
}

Val k_cast(Graph *k, Val x, DavDtype to)
{
    if (x && node_of(k, x)->dtype == to)
        return x;
    return g_cast(k, x, to);
}

Val k_bitcast(Graph *k, Val x, DavDtype to)
{
    return graph_node(k, OP_BITCAST, &x, 1, (Attr[]){{.name = A_TO, .i = to}}, 1, NULL);
}

Val k_exp2(Graph *k, Val x, DavDtype precision)
{
    return graph_node(k, OP_EXP2, &x, 1, (Attr[]){{.name = A_TO, .i = precision}}, 1, NULL);
}

Val k_philox(Graph *k, const Val key[2], const Val counter[4], int index)
{
    Val arg[] = {key[0], key[1], counter[0], counter[1], counter[2], counter[3]};
    return graph_node(k, OP_PHILOX, arg, 6, (Attr[]){{.name = A_INDEX, .i = index}}, 1, NULL);
}

Val k_load(Graph *k, Val buf, Val off, Val mask)
{
    return graph_node(k, OP_LOAD, (Val[]){buf, off, mask}, mask ? 3 : 2, NULL, 0, NULL);
}

void k_store(Graph *k, Val buf, Val off, Val v, Val mask)
{
    graph_node(k, OP_STORE, (Val[]){buf, off, v, mask}, mask ? 4 : 3, NULL, 0, NULL);
}

Val k_acc(Graph *k, DavDtype t, AccKind kind, double start)
{
    Type type = scalar(t);
    Attr a[] = {{.name = A_KIND, .i = kind}, {.name = A_VALUE, .f = start}};
    return graph_node(k, OP_ACC, NULL, 0, a, 2, &type);
}

void k_acc_update(Graph *k, Val acc, Val v)
{
    graph_node(k, OP_ACC_UPDATE, (Val[]){acc, v}, 2, NULL, 0, NULL);
}

Val k_acc_get(Graph *k, Val acc)
{
    return graph_node(k, OP_ACC_GET, &acc, 1, NULL, 0, NULL);
}

int64_t k_acc_start_int(const Node *acc)
{
    static const struct { int64_t lo, hi; } range[DAV_DTYPE_COUNT] = {
        [DAV_I64] = {INT64_MIN, INT64_MAX}, [DAV_I32] = {INT32_MIN, INT32_MAX}, [DAV_U32] = {0, UINT32_MAX}, [DAV_BOOL] = {0, 1}};
    double v = attr_f(acc, A_VALUE);
    int64_t lo = range[acc->dtype].lo, hi = range[acc->dtype].hi;
    return v <= (double)lo ? lo : v >= (double)hi ? hi : (int64_t)v;
}

Val k_tile(Graph *k, int mr, int nr)
{
    Type t = type_make(DAV_F32, 2, (int64_t[]){mr, nr});
    return graph_node(k, OP_TILE, NULL, 0, (Attr[]){{.name = A_MR, .i = mr}, {.name = A_NR, .i = nr}}, 2, &t);
}

void k_tile_contract(Graph *k, const TileContract *t)
{
    Val arg[] = {t->tile, t->a, t->b, t->a_off, t->row0, t->b_off, t->rows, t->k, t->cols};
    int64_t nums[] = {t->a_row_step, t->a_div,      t->a_ext,        t->a_row_stride,
                      t->a_k_stride, t->b_k_stride, t->b_col_stride, t->b_packed};
    graph_node(k, OP_TILE_CONTRACT, arg, t->cols ? 9 : 8, (Attr[]){{.name = A_NUMS, .n = 8, .ints = nums}}, 1, NULL);
}

TileContract k_tile_contract_of(const Graph *k, Val v)
{
    const Node *n = node_of(k, v);
    const int64_t *nums = attr_ints(n, A_NUMS, NULL);
    TileContract t = {.tile = n->arg[0], .a = n->arg[1], .b = n->arg[2], .a_off = n->arg[3], .row0 = n->arg[4],
                      .b_off = n->arg[5], .rows = n->arg[6], .k = n->arg[7], .cols = n->narg > 8 ? n->arg[8] : 0,
                      .a_row_step = nums[0], .a_div = nums[1], .a_ext = nums[2], .a_row_stride = nums[3],
                      .a_k_stride = nums[4], .b_k_stride = nums[5], .b_col_stride = nums[6], .b_packed = nums[7]};
    return t;
}

Val k_tile_get(Graph *k, Val tile, Val row, Val col)
{
    return graph_node(k, OP_TILE_GET, (Val[]){tile, row, col}, 3, NULL, 0, NULL);
}

int64_t kernel_trip(const Graph *k)
{
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        if (n->op != OP_FOR || attr_i(n, A_KIND) != LOOP_PARALLEL)
            continue;
        const int64_t *nums = attr_ints(n, A_NUMS, NULL);
        return nums[1] <= nums[0] ? 0 : (nums[1] - nums[0] + nums[2] - 1) / nums[2];
    }
    return 0;
}

int64_t kernel_scratch(const Graph *k, int64_t *offset)
{
    int64_t bytes = 0;
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        if (n->op != OP_BUF || attr_i(n, A_ROLE) != BUF_SCRATCH)
            continue;
        if (offset)
            offset[v] = bytes;
        int64_t size = node_count(k, v) * (int64_t)dav_dtype_size((DavDtype)n->dtype);
        bytes += (size + 63) / 64 * 64;
    }
    return bytes;
}
