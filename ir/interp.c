/* Runs graphs node by node; regions by recursion.  A value is freed after its last use. */
#include "ir/interp.h"
#include "ir/interp_ops.h"
#include "ir/kernel.h"
#include <string.h>

/* Every block is in a list, so that a failure in the middle leaves nothing behind. */
typedef struct Block { struct Block *next, **link; } Block;

typedef struct Interp {
    Err *err;
    bool f64;
    const InterpHost *host;
    Block *blocks;
    const Graph *g;
    const void *const *in;
    void *const *out;
} Interp;

static void *block_new(Interp *it, size_t bytes)
{
    Block *b = mem_alloc(bytes + sizeof *b);
    b->next = it->blocks;
    b->link = &it->blocks;
    if (b->next)
        b->next->link = &b->next;
    it->blocks = b;
    return b + 1;
}

static void block_free(void *data)
{
    if (!data)
        return;
    Block *b = (Block *)data - 1;
    *b->link = b->next;
    if (b->next)
        b->next->link = b->link;
    mem_free(b);
}

/* ---- values ---- */
static Type stored(const Interp *it, Type t)
{
    if (it->f64 && dav_dtype_is_float(t.dtype))
        t.dtype = DAV_F64;
    return t;
}

static size_t bytes_of(const Type *t)
{
    return mem_mul((size_t)type_count(t), dav_dtype_size(t->dtype));
}

typedef struct Frame {
    const Graph *g;
    void **val;   /* a tensor's elements; of a tuple an array of those of its results */
    Val *last;    /* last use; g->n: an output, 0: none */
} Frame;

static bool run_graph(Interp *it, const Graph *g, const void *const *in, void *const *out);

static Tensor tensor_of(const Interp *it, const Frame *f, Val v)
{
    return (Tensor){stored(it, type_of(f->g, v)), f->val[v]};
}

static void find_last_uses(Frame *f)
{
    const Graph *g = f->g;
    for (int i = 0; i < g->nout; i++)
        f->last[g->out[i].val] = g->n;
    for (Val v = g->n - 1; v > 0; v--) {
        const Node *n = &g->node[v];
        if (!f->last[v] && !(op_info[n->op].flags & OPF_EFFECT))
            continue;
        for (int i = 0; i < n->narg; i++)
            if (!f->last[n->arg[i]])
                f->last[n->arg[i]] = v;
    }
}

static void value_free(Frame *f, Val v)
{
    const Node *n = &f->g->node[v];
    if (n->op == OP_INPUT || !f->val[v])
        return;
    if (op_info[n->op].flags & OPF_TUPLE)
        for (int k = 0; k < tuple_count(f->g, v); k++)
            block_free(((void **)f->val[v])[k]);
    block_free(f->val[v]);
    f->val[v] = NULL;
}

/* ---- regions ---- */
static void **tuple_new(Interp *it, Frame *f, Val v)
{
    int count = tuple_count(f->g, v);
    void **result = block_new(it, (size_t)count * sizeof *result);
    f->val[v] = result;
    for (int k = 0; k < count; k++) {
        Type t;
        must(tuple_type(f->g, v, k, &t));
        t = stored(it, t);
        result[k] = block_new(it, bytes_of(&t));
    }
    return result;
}

static bool run_loop(Interp *it, Frame *f, Val v, const void **arg)
{
    const Node *n = &f->g->node[v];
    const Graph *body = attr_graph(n, A_GRAPH);
    int carry = (int)attr_i(n, A_CARRY), scan = (int)attr_i(n, A_SCAN);
    int64_t trip = attr_i(n, A_TRIP);
    void **result = tuple_new(it, f, v);
    const void **in = block_new(it, (size_t)n->narg * sizeof *in);
    void **out = block_new(it, (size_t)body->nout * sizeof *out);
    size_t *bytes = block_new(it, (size_t)(body->nout + n->narg) * sizeof *bytes), *slice = bytes + body->nout;
    for (int k = 0; k < body->nout; k++) {
        Type t = stored(it, type_of(body, body->out[k].val));
        bytes[k] = bytes_of(&t);
        out[k] = k < carry ? block_new(it, bytes[k]) : result[k];
    }
    for (int k = 0; k < n->narg; k++) {
        Type t = stored(it, type_of(f->g, n->arg[k]));
        slice[k] = k >= carry && k < carry + scan && trip > 0 ? bytes_of(&t) / (size_t)trip : 0;
        if (k < carry)
            memcpy(result[k], arg[k], bytes[k]);
    }
    bool ok = true;
    for (int64_t step = 0; ok && step < trip; step++) {
        for (int k = 0; k < n->narg; k++)
            in[k] = k < carry ? result[k] : (const char *)arg[k] + (size_t)step * slice[k];
        for (int k = carry; k < body->nout; k++)
            out[k] = (char *)result[k] + (size_t)step * bytes[k];
        ok = run_graph(it, body, in, out);
        for (int k = 0; k < carry; k++)
            memcpy(result[k], out[k], bytes[k]);
    }
    for (int k = 0; k < carry; k++)
        block_free(out[k]);
    block_free(in);
    block_free(out);
    block_free(bytes);
    return ok;
}

static bool run_kernel(Interp *it, Frame *f, Val v, const void **arg)
{
    const Node *n = &f->g->node[v];
    const Graph *k = attr_graph(n, A_GRAPH);
    if (it->f64)
        return err_user(it->err, "a kernel has fixed dtypes, it cannot be interpreted in f64");
    void **result = tuple_new(it, f, v);
    int64_t slots = 0;
    for (Val b = 1; b < k->n; b++)
        if (k->node[b].op == OP_BUF && attr_i(&k->node[b], A_INDEX) >= slots)
            slots = attr_i(&k->node[b], A_INDEX) + 1;
    void **bufs = block_new(it, mem_mul((size_t)slots, sizeof *bufs));
    for (Val b = 1, read = 0, made = 0; b < k->n; b++) {
        const Node *buf = &k->node[b];
        if (buf->op != OP_BUF || attr_i(buf, A_ROLE) == BUF_SCRATCH || k_buf_is_view(k, b))
            continue;
        int64_t role = attr_i(buf, A_ROLE), index = attr_i(buf, A_INDEX);
        Type t = type_of(k, b);
        const void *from = role == BUF_OUT ? NULL : arg[read++];
        bufs[index] = role == BUF_IN ? (void *)(uintptr_t)from : result[made++];
        if (role == BUF_INOUT)
            memcpy(bufs[index], from, bytes_of(&t));
    }
    kernel_interpret(k, bufs);
    block_free(bufs);
    return true;
}

static bool run_host(Interp *it, Frame *f, Val v, const void **arg)
{
    const Node *n = &f->g->node[v];
    const char *name = attr_s(n, A_NAME);
    if (!it->host || !it->host->call)
        return err_user(it->err, "no host function '%s' was given", name);
    Type out_type = stored(it, type_of(f->g, v)), *in_type = block_new(it, (size_t)n->narg * sizeof *in_type);
    for (int i = 0; i < n->narg; i++)
        in_type[i] = stored(it, type_of(f->g, n->arg[i]));
    f->val[v] = block_new(it, bytes_of(&out_type));
    bool ok = it->host->call(it->host->ctx, it->err, name, n->narg, in_type, arg, 1, &out_type, &f->val[v]);
    block_free(in_type);
    return ok;
}

static bool run_attention(Interp *it, Frame *f, Val v)
{
    const Node *n = &f->g->node[v];
    void **result = tuple_new(it, f, v);
    Tensor x[8], out[3];
    must(n->narg <= 8);
    for (int i = 0; i < n->narg; i++)
        x[i] = tensor_of(it, f, n->arg[i]);
    for (int k = 0; k < tuple_count(f->g, v); k++) {
        tuple_type(f->g, v, k, &out[k].t);
        out[k] = (Tensor){stored(it, out[k].t), result[k]};
    }
    void *work = block_new(it, interp_attention_bytes(n, x));
    memset(work, 0, interp_attention_bytes(n, x));
    interp_attention(n, x, out, work);
    block_free(work);
    return true;
}

static bool run_region(Interp *it, Frame *f, Val v)
{
    const Node *n = &f->g->node[v];
    if (n->op == OP_GRAD)
        return err_user_at(it->err, n->file, n->line, "a gradient has to be expanded (autodiff) before it can be interpreted");
    if (op_is_attention((Op)n->op))
        return run_attention(it, f, v);
    const void **arg = block_new(it, (size_t)n->narg * sizeof *arg);
    for (int i = 0; i < n->narg; i++)
        arg[i] = f->val[n->arg[i]];
    bool ok;
    if (n->op == OP_LOOP)
        ok = run_loop(it, f, v, arg);
    else if (n->op == OP_KERNEL)
        ok = run_kernel(it, f, v, arg);
    else if (n->op == OP_HOST)
        ok = run_host(it, f, v, arg);
    else
        ok = run_graph(it, attr_graph(n, A_GRAPH), arg, tuple_new(it, f, v));
    block_free(arg);
    return ok;
}

/* ---- nodes ---- */
static bool run_node(Interp *it, Frame *f, Val v)
{
    const Node *n = &f->g->node[v];
    if ((op_info[n->op].flags & OPF_TUPLE) || n->op == OP_HOST)
        return run_region(it, f, v);
    Tensor out = tensor_of(it, f, v);
    f->val[v] = out.data = block_new(it, bytes_of(&out.t));
    if (n->op == OP_PICK) {
        memcpy(out.data, ((void **)f->val[n->arg[0]])[attr_i(n, A_INDEX)], bytes_of(&out.t));
        return true;
    }
    Tensor small[4], *x = n->narg <= 4 ? small : block_new(it, (size_t)n->narg * sizeof *x);
    for (int i = 0; i < n->narg; i++)
        x[i] = tensor_of(it, f, n->arg[i]);
    void *work = block_new(it, interp_work_bytes(n, x, &out));
    interp_op(f->g, n, x, &out, work);
    block_free(work);
    if (x != small)
        block_free(x);
    return true;
}

/* An output may share the memory of an input: inputs that are outputs themselves are put aside first. */
static void copy_outputs(Interp *it, Frame *f, void *const *out)
{
    const Graph *g = f->g;
    void **aside = block_new(it, (size_t)g->nout * sizeof *aside);
    for (int i = 0; i < g->nout; i++) {
        Tensor t = tensor_of(it, f, g->out[i].val);
        if (g->node[g->out[i].val].op == OP_INPUT)
            aside[i] = memcpy(block_new(it, bytes_of(&t.t)), t.data, bytes_of(&t.t));
    }
    for (int i = 0; i < g->nout; i++) {
        Tensor t = tensor_of(it, f, g->out[i].val);
        memcpy(out[i], aside[i] ? aside[i] : t.data, bytes_of(&t.t));
        block_free(aside[i]);
    }
    block_free(aside);
}

static bool run_graph(Interp *it, const Graph *g, const void *const *in, void *const *out)
{
    Frame f = {.g = g};
    f.val = block_new(it, (size_t)g->n * sizeof *f.val);
    f.last = block_new(it, (size_t)g->n * sizeof *f.last);
    find_last_uses(&f);
    bool ok = true;
    int k = 0;
    for (Val v = 1; ok && v < g->n; v++) {
        const Node *n = &g->node[v];
        if (n->op == OP_INPUT) {
            f.val[v] = (void *)(uintptr_t)in[k++];
            continue;
        }
        if (!f.last[v] && !(op_info[n->op].flags & OPF_EFFECT))
            continue;
        ok = run_node(it, &f, v);
        for (int i = 0; i < n->narg; i++)
            if (f.last[n->arg[i]] == v)
                value_free(&f, n->arg[i]);
    }
    if (ok)
        copy_outputs(it, &f, out);
    for (Val v = 1; v < g->n; v++)
        value_free(&f, v);
    block_free(f.val);
    block_free(f.last);
    return ok;
}

static bool run_protected(void *arg)
{
    Interp *it = arg;
    return run_graph(it, it->g, it->in, it->out);
}

bool graph_interpret(Err *err, const Graph *g, bool f64, const void *const *in, void *const *out, const InterpHost *host)
{
    Interp it = {.err = err, .f64 = f64, .host = host, .g = g, .in = in, .out = out};
    bool ok = mem_protect(err, run_protected, &it);
    while (it.blocks)
        block_free(it.blocks + 1);
    return ok;
}
