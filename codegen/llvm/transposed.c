/* A serial loop around a vector loop whose lanes read a stride apart, and each turn of the serial loop the next
 * elements: a copy that turns columns into rows.  Instead of gathering, 16 lanes read 16 turns' elements each at once,
 * and the squares are transposed in registers; what is done with an element stays as it is. */
#include "codegen/llvm/emit.h"

enum { SQUARE = 16, MOST_STRIDE = 1 << 20 };

typedef struct Copy {
    Val turn, lane, load;
    int64_t turns, lanes, valid;
} Copy;

static int64_t length_of(const Emit *e, Val loop, LoopKind kind) /* of one from 0 to a constant in ones; else 0 */
{
    const Node *n = node_of(e->k, loop);
    if (n->op != OP_FOR || (LoopKind)attr_i(n, A_KIND) != kind || n->narg)
        return 0;
    const int64_t *nums = attr_ints(n, A_NUMS, NULL);
    return nums[0] == 0 && nums[2] == 1 ? nums[1] : 0;
}

/* Lanes below a constant: how many; 0: another condition. */
static int64_t lanes_below(const Emit *e, Val mask, Val lane)
{
    const Node *n = node_of(e->k, mask);
    int64_t c;
    return n->op == OP_LT && n->arg[0] == lane && kernel_const_i64(e->k, n->arg[1], &c) && c > 0 ? c : 0;
}

static bool reads_across(const Emit *e, Copy *c, Val v)
{
    const Node *n = node_of(e->k, v);
    int64_t across, along;
    if (c->load || n->dtype == DAV_I64 || dav_dtype_size((DavDtype)n->dtype) != 4 ||
        !index_slope(e->k, n->arg[1], c->lane, &across) || !index_slope(e->k, n->arg[1], c->turn, &along) ||
        along != 1 || across < 1 || across > MOST_STRIDE)
        return false;
    c->load = v;
    c->valid = n->narg > 2 ? lanes_below(e, n->arg[2], c->lane) : c->lanes;
    return c->valid > 0;
}

static bool writes_rows(const Emit *e, const Copy *c, Val v)
{
    const Node *n = node_of(e->k, v), *to = node_of(e->k, n->arg[0]);
    int64_t across;
    return attr_i(to, A_ROLE) == BUF_SCRATCH && c->load && node_of(e->k, c->load)->arg[0] != n->arg[0] &&
           index_slope(e->k, n->arg[1], c->lane, &across) && across == 1;
}

static bool is_value(const Node *n)
{
    return n->op == OP_END || n->op == OP_CONST || n->op == OP_BITCAST || (n->op == OP_CAST && n->dtype != DAV_I64) ||
           (op_info[n->op].flags & OPF_ELEMENTWISE);
}

static bool is_copy(const Emit *e, Val loop, Copy *c)
{
    int stores = 0;
    *c = (Copy){.turn = loop, .turns = length_of(e, loop, LOOP_SERIAL)};
    if (c->turns < SQUARE || !e->f.target->avx512)
        return false;
    for (Val v = loop + 1; v < e->end[loop]; v++) {
        const Node *n = node_of(e->k, v);
        if (n->op == OP_FOR && !c->lane && (c->lanes = length_of(e, v, LOOP_VECTOR)) > 0 && c->lanes % SQUARE == 0)
            c->lane = v;
        else if (n->op == OP_LOAD    ? !c->lane || !reads_across(e, c, v)
                 : n->op == OP_STORE ? stores++ || !writes_rows(e, c, v)
                                     : !is_value(n))
            return false;
    }
    return c->load && stores;
}

/* Rows of the square: a lane's elements of turns from `turn` on, n of them. */
static void read_square(Emit *e, const Copy *c, LLVMValueRef turn, int64_t lane, int64_t n, LLVMValueRef *row)
{
    const Fn *f = &e->f;
    const Node *load = node_of(e->k, c->load);
    LLVMTypeRef elem = memory_type(f, (DavDtype)load->dtype), vec = LLVMVectorType(elem, SQUARE);
    LLVMValueRef on[SQUARE];
    for (int i = 0; i < SQUARE; i++)
        on[i] = LLVMConstInt(f->i1, i < n, false);
    for (int i = 0; i < SQUARE; i++) {
        row[i] = LLVMConstNull(vec);
        if (lane + i >= c->valid)
            continue;
        e->val[c->turn] = (Lane){.v = turn};
        e->val[c->lane] = (Lane){.v = ll_i64(f, lane + i)};
        for (Val v = c->turn + 1; v < c->load; v++)
            if (v != c->lane && node_of(e->k, v)->dtype == DAV_I64)
                emit_range(e, v, v + 1);
        LLVMValueRef at = element_ptr(f, elem, e->buf[load->arg[0]], as_scalar(e, load->arg[1]));
        row[i] = load_masked(f, vec, at, n < SQUARE ? LLVMConstVector(on, SQUARE) : NULL, 4);
    }
    ll_transpose(f, row);
}

static void write_square(Emit *e, const Copy *c, LLVMValueRef turn, int64_t lane, int64_t n, const LLVMValueRef *column)
{
    int width = e->f.width;
    e->f.width = SQUARE;
    e->vector_loop = c->lane;
    for (int i = 0; i < n; i++) {
        e->val[c->turn] = (Lane){.v = LLVMBuildAdd(e->f.b, turn, ll_i64(&e->f, i), "")};
        emit_range(e, c->turn + 1, c->lane);
        e->val[c->lane] = (Lane){.v = ll_i64(&e->f, lane), .stride = 1};
        emit_range(e, c->lane + 1, c->load);
        e->val[c->load] = (Lane){.v = column[i], .varying = true};
        emit_range(e, c->load + 1, e->end[c->lane]);
    }
    e->vector_loop = 0;
    e->f.width = width;
}

static void squares(Emit *e, const Copy *c, LLVMValueRef turn, int64_t n)
{
    LLVMValueRef square[SQUARE];
    for (int64_t lane = 0; lane < c->lanes; lane += SQUARE) {
        read_square(e, c, turn, lane, n, square);
        write_square(e, c, turn, lane, n, square);
    }
}

bool emit_transposed(Emit *e, Val loop)
{
    Copy c;
    if (!is_copy(e, loop, &c))
        return false;
    int64_t whole = c.turns / SQUARE * SQUARE;
    Loop l = ll_loop(&e->f, ll_i64(&e->f, 0), ll_i64(&e->f, whole), SQUARE);
    squares(e, &c, l.iv, SQUARE);
    ll_loop_end(&e->f, &l);
    if (c.turns % SQUARE)
        squares(e, &c, ll_i64(&e->f, whole), c.turns % SQUARE);
    return true;
}
