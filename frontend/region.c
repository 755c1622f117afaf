/* Gradients, calls, loops, host functions. */
#include "frontend/net.h"
#include <inttypes.h>
#include <string.h>
#undef DAV_HERE
#define DAV_HERE at

void dav_grads_(DavPlace at, DavVal y, const DavVal *xs, int nx, DavVal *out)
{
    DavNet *n;
    for (int i = 0; i < nx; i++)
        out[i] = (DavVal){y.net, 0};
    if (nx < 1 || !net_operands(at, "grad", &y, 1, &n) || !net_operands(at, "grad", xs, nx, &n) || n != y.net)
        return;
    Val *arg = arena_array(n->arena, Val, nx + 1);
    arg[0] = y.id;
    for (int i = 0; i < nx; i++)
        arg[i + 1] = xs[i].id;
    Val tuple = graph_node(n->g, OP_GRAD, arg, nx + 1, NULL, 0, NULL);
    for (int i = 0; i < nx && tuple; i++)
        out[i] = net_val(n, g_pick(n->g, tuple, i));
}

DavVal dav_grad_(DavPlace at, DavVal y, DavVal x)
{
    DavVal g;
    dav_grads_(at, y, &x, 1, &g);
    return g;
}

DavVal dav_host_(DavPlace at, DavNet *n, const char *name, const char *vjp, DavDtype t, int rank, const int64_t *dim,
                 int nin, const DavVal *in)
{
    Type type;
    DavNet *net = n;
    if (!net_type(at, n, "host", t, rank, dim, &type) || (nin && !net_operands(at, "host", in, nin, &net)) || net != n)
        return net_val(n, 0);
    if (!name || !*name)
        return net_bad(at, n, "a host function needs a name");
    Val *arg = arena_array(n->arena, Val, nin);
    for (int i = 0; i < nin; i++)
        arg[i] = in[i].id;
    Attr attr[] = {{.name = A_NAME, .s = name}, {.name = A_VJP, .s = vjp}};
    return net_val(n, graph_node(n->g, OP_HOST, arg, nin, attr, vjp ? 2 : 1, &type));
}

/* ---- regions ---- */
static bool region_operands(DavPlace at, DavNet *n, const char *what, const DavVal *in, int nin, int nout,
                            const DavLoop *loop)
{
    DavNet *net;
    if (!n || nin < 0 || nout < 0 || (nin && !net_operands(at, what, in, nin, &net)))
        return false;
    if (nin && net != n) {
        net_bad(at, n, "%s: the operands belong to another graph", what);
        return false;
    }
    if (!loop)
        return true;
    if (loop->trip < 0 || loop->trip > INT32_MAX || loop->carry < 0 || loop->scan < 0 || loop->carry > nin ||
        loop->scan > nin - loop->carry || loop->carry > nout) {
        net_bad(at, n, "loop: trip %" PRId64 ", carry %d, scan %d do not fit %d operands and %d results", loop->trip,
                loop->carry, loop->scan, nin, nout);
        return false;
    }
    for (int i = loop->carry; i < loop->carry + loop->scan; i++)
        if (!net_node(in[i])->rank || net_node(in[i])->dim[0] != loop->trip) {
            char t[160];
            net_bad(at, n, "loop: scanned operand %d is %s, expected a first axis of %" PRId64, i + 1,
                    net_type_text(in[i], t), loop->trip);
            return false;
        }
    return true;
}

static void body_inputs(DavNet *body, const DavVal *in, int nin, const DavLoop *loop, DavVal *arg)
{
    for (int i = 0; i < nin; i++) {
        Type t = type_of(in[i].net->g, in[i].id);
        if (loop && i >= loop->carry && i < loop->carry + loop->scan) {
            memmove(t.dim, t.dim + 1, (size_t)(t.rank - 1) * sizeof *t.dim);
            t.dim[--t.rank] = 0;
        }
        arg[i] = net_val(body, g_input(body->g, arena_printf(body->arena, "arg%d", i), ROLE_DATA, t));
    }
}

/* The body as a graph of its own; NULL after a mistake. */
static DavNet *build_body(DavPlace at, DavNet *n, const char *scope, DavBody fn, const void *context, const DavVal *in,
                          int nin, int nout, const DavLoop *loop)
{
    DavNet *body = net_new(n->arena, n->err, "body");
    NetBody keep = {.net = body};
    vec_push(n->body, keep);
    body->parent = n;
    graph_at(body->g, at.file, at.line);
    DavVal *arg = arena_array(n->arena, DavVal, nin + 1), *out = arena_array(n->arena, DavVal, nout + 1);
    body_inputs(body, in, nin, loop, arg);
    for (int i = 0; i < nout; i++)
        out[i] = net_val(body, 0);
    int before = n->err->count;
    fn(body, context, arg, out);
    for (int i = 0; i < nout; i++)
        dav_output_(at, body, arena_printf(n->arena, "out%d", i), out[i]);
    if (n->err->count == before && body->g->nout != nout)
        net_bad(at, n, "the body of '%s' gave an invalid result", scope ? scope : "");
    return n->err->count == before && body->g->nout == nout ? body : NULL;
}

/* An equal body that was built before stands for this one. */
static const Graph *shared_body(DavNet *n, const DavNet *body)
{
    const char *key = arena_printf(n->arena, "%016" PRIx64 "/%d", graph_hash(body->g), body->g->n);
    for (size_t i = 0; i < vec_len(n->body); i++)
        if (n->body[i].key && strcmp(n->body[i].key, key) == 0)
            return n->body[i].graph;
    NetBody *last = &n->body[vec_len(n->body) - 1];
    last->key = key;
    last->graph = body->g;
    return body->g;
}

static void region(DavPlace at, Op op, DavNet *n, const char *scope, DavBody fn, const void *context, const DavVal *in,
                   int nin, DavVal *out, int nout, const DavLoop *loop)
{
    for (int i = 0; i < nout; i++)
        out[i] = (DavVal){n, 0};
    if (!fn || !region_operands(at, n, op_info[op].text, in, nin, nout, loop))
        return;
    DavNet *body = build_body(at, n, scope, fn, context, in, nin, nout, loop);
    if (!body)
        return;
    int np = net_param_count(body);
    Val *arg = arena_array(n->arena, Val, nin + np);
    for (int i = 0; i < nin; i++)
        arg[i] = in[i].id;
    dav_enter_(at, n, "%s", scope ? scope : "");
    for (int i = 0; i < np; i++) { /* each parameter of the body becomes one of ours, with its full name */
        const NetParam *p = net_param(body, i);
        const Node *node = node_of(body->g, p->val);
        arg[nin + i] = dav_param_(at, n, p->name, p->init, p->frozen, node->rank, node->dim).id;
    }
    dav_leave_(at, n);
    graph_at(n->g, at.file, at.line);
    Attr extra[3];
    int nextra = 0;
    if (loop) {
        extra[nextra++] = (Attr){.name = A_TRIP, .i = loop->trip};
        extra[nextra++] = (Attr){.name = A_CARRY, .i = loop->carry};
        extra[nextra++] = (Attr){.name = A_SCAN, .i = loop->scan};
    }
    Val tuple = g_region(n->g, op, shared_body(n, body), arg, nin + np, extra, nextra);
    for (int i = 0; i < nout && tuple; i++)
        out[i] = net_val(n, g_pick(n->g, tuple, i));
}

void dav_call_(DavPlace at, DavNet *n, const char *scope, DavBody body, const void *context, const DavVal *in, int nin,
               DavVal *out, int nout)
{
    region(at, OP_CALL, n, scope, body, context, in, nin, out, nout, NULL);
}

void dav_loop_(DavPlace at, DavNet *n, const char *scope, DavBody body, const void *context, const DavVal *in, int nin,
               DavVal *out, int nout, DavLoop o)
{
    region(at, OP_LOOP, n, scope, body, context, in, nin, out, nout, &o);
}
