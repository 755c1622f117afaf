#include "ir/verify_kernel.h"
#include "ir/kernel.h"
#include <string.h>

enum { MAX_DEPTH = 64, NO_KIND = -1 };

typedef struct Scope {
    Err *err;
    const Graph *k;
    Val open[MAX_DEPTH]; /* for and if nodes whose body we are in */
    int depth;
    int parallel; /* how many parallel loops were met */
    KernelNote *note;
} Scope;

/* What operand 0 of an instruction must be. */
static const struct { Op op, first; } owner[] = {
    {OP_LOAD, OP_BUF}, {OP_STORE, OP_BUF},          {OP_ACC_UPDATE, OP_ACC}, {OP_ACC_GET, OP_ACC},
    {OP_TILE_GET, OP_TILE}, {OP_TILE_CONTRACT, OP_TILE},
};

bool kernel_takes_op(Op op)
{
    return (op_info[op].flags & OPF_KERNEL) || op == OP_CONST || op == OP_CAST || op == OP_BITCAST;
}

static int loop_kind(const Graph *k, Val v)
{
    return k->node[v].op == OP_FOR ? (int)attr_i(&k->node[v], A_KIND) : NO_KIND;
}

/* The open vector loop, 0: none. */
static Val vector_loop(const Scope *s)
{
    for (int i = 0; i < s->depth; i++)
        if (loop_kind(s->k, s->open[i]) == LOOP_VECTOR)
            return s->open[i];
    return 0;
}

static bool is_scalar(const Graph *k, Val v, DavDtype t)
{
    return k->node[v].rank == 0 && k->node[v].dtype == t;
}

static bool check_owner(Scope *s, Val v)
{
    const Graph *k = s->k;
    const Node *n = &k->node[v];
    for (size_t i = 0; i < sizeof owner / sizeof *owner; i++)
        if (n->op == owner[i].op && (n->narg == 0 || k->node[n->arg[0]].op != owner[i].first))
            return verify_fault(s->err, k, v, "expected a %s as first operand", op_info[owner[i].first].text);
    for (int i = 0; i < n->narg; i++) {
        Op made = (Op)k->node[n->arg[i]].op;
        bool place = made == OP_BUF || made == OP_ACC || made == OP_TILE;
        bool panel = n->op == OP_TILE_CONTRACT && (i == 1 || i == 2);
        if (panel ? made != OP_BUF : place && i > 0)
            return verify_fault(s->err, k, v, "operand %%%d: expected a %s", n->arg[i], panel ? "buf" : "scalar");
    }
    return true;
}

static bool check_memory(Scope *s, Val v)
{
    const Graph *k = s->k;
    const Node *n = &k->node[v];
    bool store = n->op == OP_STORE;
    int mask = store ? 3 : 2;
    if (n->narg != mask && n->narg != mask + 1)
        return verify_fault(s->err, k, v, "expected %d or %d operands, found %d", mask, mask + 1, n->narg);
    if (!is_scalar(k, n->arg[1], DAV_I64))
        return verify_fault(s->err, k, v, "the offset %%%d is not an i64", n->arg[1]);
    if (n->narg > mask && !is_scalar(k, n->arg[mask], DAV_BOOL))
        return verify_fault(s->err, k, v, "the mask %%%d is not a bool", n->arg[mask]);
    const Node *buf = &k->node[n->arg[0]];
    if (store && attr_i(buf, A_ROLE) == BUF_IN)
        return verify_fault(s->err, k, v, "the buffer %%%d is only read", n->arg[0]);
    if (store && k->node[n->arg[2]].dtype != buf->dtype)
        return verify_fault(s->err, k, v, "expected a value of dtype %s", dav_dtype_name((DavDtype)buf->dtype));
    return true;
}

static bool check_tile_contract(Scope *s, Val v)
{
    const Node *n = &s->k->node[v];
    int nums = 0;
    attr_ints(n, A_NUMS, &nums);
    if ((n->narg != 8 && n->narg != 9) || nums != 8)
        return verify_fault(s->err, s->k, v, "expected 8 or 9 operands and 8 nums, found %d and %d", n->narg, nums);
    for (int i = 3; i < n->narg; i++)
        if (!is_scalar(s->k, n->arg[i], DAV_I64))
            return verify_fault(s->err, s->k, v, "operand %%%d is not an i64", n->arg[i]);
    return true;
}

static bool check_tile_get(Scope *s, Val v)
{
    const Node *n = &s->k->node[v];
    if (loop_kind(s->k, n->arg[1]) != LOOP_ROW && s->k->node[n->arg[1]].op != OP_CONST)
        return verify_fault(s->err, s->k, v, "the row %%%d is neither the variable of a row loop nor a constant", n->arg[1]);
    if (loop_kind(s->k, n->arg[2]) != LOOP_VECTOR)
        return verify_fault(s->err, s->k, v, "the column %%%d is not the variable of a vector loop", n->arg[2]);
    return true;
}

/* An accumulator from outside of a vector loop has one part a lane while the loop runs: it cannot be read then, and none of them
 * is "the last one set". */
static bool check_acc(Scope *s, Val v)
{
    const Node *n = &s->k->node[v];
    KernelNote *acc = &s->note[n->arg[0]];
    Val loop = vector_loop(s);
    if (!loop || acc->made == loop)
        return true;
    bool update = n->op == OP_ACC_UPDATE;
    if (update && attr_i(&s->k->node[n->arg[0]], A_KIND) == ACC_SET)
        return verify_fault(s->err, s->k, v, "%%%d is set in a vector loop that it was not made in", n->arg[0]);
    *(update ? &acc->updated : &acc->read) = loop;
    if (acc->updated == loop && acc->read == loop)
        return verify_fault(s->err, s->k, v, "%%%d is read and updated in a vector loop that it was not made in", n->arg[0]);
    return true;
}

static bool check_uniform(Scope *s, Val v)
{
    const Node *n = &s->k->node[v];
    for (int i = 0; i < n->narg; i++)
        if (s->note[n->arg[i]].varying)
            return verify_fault(s->err, s->k, v, "%%%d differs from lane to lane", n->arg[i]);
    return true;
}

static void take_note(Scope *s, Val v)
{
    const Node *n = &s->k->node[v];
    s->note[v].made = vector_loop(s);
    s->note[v].varying = loop_kind(s->k, v) == LOOP_VECTOR || (n->op == OP_ACC && s->note[v].made);
    for (int i = 0; i < n->narg; i++)
        s->note[v].varying |= s->note[n->arg[i]].varying;
}

static bool open_body(Scope *s, Val v)
{
    const Graph *k = s->k;
    const Node *n = &k->node[v];
    int kind = loop_kind(k, v);
    if (s->depth == MAX_DEPTH)
        return verify_fault(s->err, k, v, "loops nested deeper than %d", MAX_DEPTH);
    if ((kind == LOOP_PARALLEL) != (s->depth == 0))
        return verify_fault(s->err, k, v, "the outermost loop, and no other, is parallel");
    if (kind == LOOP_PARALLEL && s->parallel++)
        return verify_fault(s->err, k, v, "a second parallel loop");
    if (kind == LOOP_VECTOR && vector_loop(s))
        return verify_fault(s->err, k, v, "a vector loop inside of a vector loop");
    if (n->op == OP_IF && !is_scalar(k, n->arg[0], DAV_BOOL))
        return verify_fault(s->err, k, v, "the condition %%%d is not a bool", n->arg[0]);
    if (n->op == OP_FOR) {
        int nums = 0;
        const int64_t *num = attr_ints(n, A_NUMS, &nums);
        if (nums != 3 || num[2] < 1 || (kind == LOOP_VECTOR && num[2] != 1))
            return verify_fault(s->err, k, v, "expected nums = [lo, hi, step] with a step of at least 1, in a vector loop 1");
        if (n->narg != 0 && (n->narg != 2 || !is_scalar(k, n->arg[0], DAV_I64) || !is_scalar(k, n->arg[1], DAV_I64)))
            return verify_fault(s->err, k, v, "expected no operands or two i64 bounds");
    }
    if (!check_uniform(s, v))
        return false;
    s->open[s->depth++] = v;
    return true;
}

static bool close_body(Scope *s, Val v)
{
    const Node *n = &s->k->node[v];
    if (s->depth == 0 || s->open[s->depth - 1] != n->arg[0])
        return verify_fault(s->err, s->k, v, "%%%d is not the innermost open for or if", n->arg[0]);
    for (Val i = s->open[--s->depth]; i < v; i++)
        s->note[i].gone = true;
    return true;
}

static bool check_instruction(Scope *s, Val v)
{
    const Graph *k = s->k;
    const Node *n = &k->node[v];
    for (int i = 0; i < n->narg; i++)
        if (s->note[n->arg[i]].gone)
            return verify_fault(s->err, k, v, "%%%d is used after the body it was made in", n->arg[i]);
    if (!check_owner(s, v))
        return false;
    take_note(s, v);
    bool effect = (op_info[n->op].flags & OPF_EFFECT) != 0;
    if (effect && s->depth == 0 && n->op != OP_FOR && n->op != OP_END)
        return verify_fault(s->err, k, v, "%s outside of the parallel loop", op_info[n->op].text);
    if (n->op == OP_BUF && s->depth > 0)
        return verify_fault(s->err, k, v, "a buffer inside of a loop");
    switch ((Op)n->op) {
    case OP_FOR:
    case OP_IF:
        return open_body(s, v);
    case OP_END:
        return close_body(s, v);
    case OP_LOAD:
    case OP_STORE:
        return check_memory(s, v);
    case OP_TILE_CONTRACT:
        return check_tile_contract(s, v);
    case OP_TILE_GET:
        return check_tile_get(s, v);
    case OP_ACC_UPDATE:
    case OP_ACC_GET:
        return check_acc(s, v);
    default:
        return true;
    }
}

static bool check_buffer_indices(Err *err, const Graph *k)
{
    for (Val v = 1; v < k->n; v++) {
        if (k->node[v].op != OP_BUF)
            continue;
        int64_t index = attr_i(&k->node[v], A_INDEX);
        if (index < 0)
            return verify_fault(err, k, v, "expected an index of at least 0");
        for (Val w = 1; w < v; w++)
            if (k->node[w].op == OP_BUF && attr_i(&k->node[w], A_INDEX) == index &&
                (attr_i(&k->node[v], A_ROLE) != BUF_IN || attr_i(&k->node[w], A_ROLE) != BUF_IN || k->node[v].dtype == k->node[w].dtype))
                return verify_fault(err, k, v, "%%%d has this index too", w);
    }
    return true;
}

bool verify_kernel(Err *err, const Graph *k, KernelNote *note)
{
    Scope s = {.err = err, .k = k, .note = note};
    bool ok = check_buffer_indices(err, k);
    for (Val v = 1; ok && v < k->n; v++)
        ok = check_instruction(&s, v);
    if (ok && s.depth)
        return verify_fault(err, k, s.open[s.depth - 1], "has no end");
    if (ok && s.parallel != 1)
        return err_user(err, "kernel '%s' has no parallel loop", k->name ? k->name : "");
    return ok;
}

bool verify_kernel_operands(Err *err, const Graph *g, Val v, const Graph *k)
{
    const Node *n = &g->node[v];
    int read = 0;
    char text[2][160];
    for (Val b = 1; b < k->n; b++) {
        const Node *buf = &k->node[b];
        if (buf->op != OP_BUF || (attr_i(buf, A_ROLE) != BUF_IN && attr_i(buf, A_ROLE) != BUF_INOUT) || k_buf_is_view(k, b))
            continue;
        if (read < n->narg) {
            Type want = type_of(k, b), have = type_of(g, n->arg[read]);
            if (want.dtype != have.dtype || type_count(&want) != type_count(&have))
                return verify_fault(err, g, v, "buffer %d: expected %s, found %s", read, type_text(&want, text[0]),
                                    type_text(&have, text[1]));
        }
        read++;
    }
    if (read != n->narg)
        return verify_fault(err, g, v, "expected %d operands, as many as buffers are read, found %d", read, n->narg);
    return true;
}
