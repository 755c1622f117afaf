#include "ir/verify.h"
#include "ir/build.h"
#include "ir/print.h"
#include "ir/verify_kernel.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_REGION_DEPTH = 64 };

typedef struct Verify {
    Err *err;
    const bool *refused;
    const Graph **seen; /* vec: regions that are known to be right */
    Map names[2];       /* of inputs, of outputs, of the graph being checked */
    KernelNote *note;   /* verify_kernel's */
    const Graph *g;
    int depth;
} Verify;

/* ---- faults ---- */
bool verify_fault(Err *err, const Graph *g, Val v, const char *fmt, ...)
{
    char why[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    const Node *n = &g->node[v];
    Buf text = {0};
    node_print(&text, g, v);
    char *place = text.at ? strstr(text.at, "  # ") : NULL;
    if (place)
        *place = 0;
    if (n->file)
        err_user_at(err, n->file, n->line, "%s; in: %.1000s", why, text.at);
    else
        err_user(err, "%s; in: %.1000s", why, text.at);
    buf_free(&text);
    return false;
}

/* For a node too broken to be printed. */
static bool broken(Verify *c, const Graph *g, Val v, const char *what)
{
    return err_user(c->err, "graph '%s': node %%%d: %s", g->name ? g->name : "", v, what);
}

/* ---- one node by the tables ---- */
static bool check_attr_value(Verify *c, const Graph *g, Val v, const Attr *a)
{
    Op op = (Op)g->node[v].op;
    AttrKind kind = attr_info[a->name].kind;
    int n = 0;
    const char *const *word = attr_words(op, a->name, &n);
    if (word && (a->i < 0 || a->i >= n))
        return broken(c, g, v, "an attribute that names a kind, role or dtype is out of range");
    bool is_array = kind == ATTR_INTS || kind == ATTR_FLOATS;
    if ((is_array && (a->n < 0 || (a->n > 0 && !a->ints))) || (kind == ATTR_STR && !a->s) || (kind == ATTR_GRAPH && !a->graph) ||
        (kind == ATTR_SPEC && !a->spec))
        return broken(c, g, v, "an attribute has no value");
    return true;
}

static bool check_attrs(Verify *c, const Graph *g, Val v)
{
    const Node *n = &g->node[v];
    for (int i = 0; i < n->nattr; i++) {
        if ((unsigned)n->attr[i].name >= ATTR_COUNT || !op_allows_attr((Op)n->op, n->attr[i].name, NULL))
            return broken(c, g, v, "an attribute that its op does not take");
        if (i > 0 && n->attr[i].name <= n->attr[i - 1].name)
            return broken(c, g, v, "attributes are not in the order of the table");
        if (!check_attr_value(c, g, v, &n->attr[i]))
            return false;
    }
    for (int a = 0; a < ATTR_COUNT; a++) {
        bool required = false;
        if (op_allows_attr((Op)n->op, (AttrName)a, &required) && required && !node_attr(n, (AttrName)a)) {
            char what[100];
            snprintf(what, sizeof what, "%s lacks the attribute '%s'", op_info[n->op].text, attr_info[a].text);
            return broken(c, g, v, what);
        }
    }
    return true;
}

static bool check_form(Verify *c, const Graph *g, Val v)
{
    const Node *n = &g->node[v];
    if (n->op == OP_INVALID || n->op >= OP_COUNT)
        return broken(c, g, v, "the op is not in the table");
    if (n->rank > IR_MAX_RANK || n->narg < 0 || (n->narg > 0 && !n->arg))
        return broken(c, g, v, "rank or operands out of range");
    for (int i = 0; i < n->narg; i++)
        if (n->arg[i] <= 0 || n->arg[i] >= v)
            return broken(c, g, v, "an operand is not a value made before");
    return check_attrs(c, g, v);
}

static bool check_operands(Verify *c, const Graph *g, Val v)
{
    const Node *n = &g->node[v];
    int arity = op_info[n->op].arity;
    if (arity >= 0 && n->narg != arity)
        return verify_fault(c->err, g, v, "expected %d operands, found %d", arity, n->narg);
    for (int i = 0; i < n->narg; i++) {
        const Node *x = &g->node[n->arg[i]];
        bool is_tuple = (op_info[x->op].flags & OPF_TUPLE) != 0;
        if (is_tuple && n->op != OP_PICK)
            return verify_fault(c->err, g, v, "operand %%%d is a tuple, only pick takes one", n->arg[i]);
        if (!is_tuple && n->op == OP_PICK)
            return verify_fault(c->err, g, v, "expected a tuple, found %%%d (%s)", n->arg[i], op_info[x->op].text);
        if (!op_has_type((Op)x->op) && n->op != OP_END)
            return verify_fault(c->err, g, v, "operand %%%d (%s) has no value", n->arg[i], op_info[x->op].text);
    }
    return true;
}

static bool check_type(Verify *c, const Graph *g, Val v)
{
    Type have = type_of(g, v), want = {0};
    char text[2][160];
    Err why = {0};
    if (!infer_type(g, &g->node[v], &have, &want, &why))
        return verify_fault(c->err, g, v, "%s", why.text);
    if (op_has_type((Op)g->node[v].op) && !type_equal(&have, &want))
        return verify_fault(c->err, g, v, "expected type %s, found %s", type_text(&want, text[0]), type_text(&have, text[1]));
    return true;
}

/* ---- regions: that operands match their inputs is part of the types' rules ---- */
static bool verify_graph(Verify *c, const Graph *g);

static bool check_region(Verify *c, const Graph *g, Val v)
{
    const Node *n = &g->node[v];
    const Attr *a = node_attr(n, A_GRAPH);
    if (!a)
        return true;
    if (!verify_graph(c, a->graph))
        return false;
    return n->op != OP_KERNEL || verify_kernel_operands(c->err, g, v, a->graph);
}

/* ---- graphs ---- */
static bool check_names(Verify *c, const Graph *g)
{
    const char *title = g->name ? g->name : "";
    map_free(&c->names[0]);
    map_free(&c->names[1]);
    for (Val v = 1; v < g->n; v++)
        if (g->node[v].op == OP_INPUT && !map_put(&c->names[0], attr_s(&g->node[v], A_NAME), v))
            return verify_fault(c->err, g, v, "a second input of this name");
    for (int i = 0; i < g->nout; i++) {
        const Output *o = &g->out[i];
        if (o->val <= 0 || o->val >= g->n || (op_info[g->node[o->val].op].flags & OPF_TUPLE) ||
            !op_has_type((Op)g->node[o->val].op))
            return err_user(c->err, "graph '%s': output '%s' is %%%d, which is not a tensor", title, o->name, o->val);
        if (!map_put(&c->names[1], o->name, i))
            return err_user(c->err, "graph '%s': a second output '%s'", title, o->name);
    }
    return true;
}

static bool check_kernel(Verify *c, const Graph *k)
{
    mem_free(c->note);
    c->note = NULL;
    c->note = mem_alloc(mem_mul((size_t)k->n, sizeof *c->note));
    return verify_kernel(c->err, k, c->note);
}

static bool is_kernel_graph(const Graph *g)
{
    for (Val v = 1; v < g->n; v++)
        if (g->node[v].op < OP_COUNT && !(op_info[g->node[v].op].flags & OPF_TENSOR))
            return true;
    return false;
}

static bool verify_nodes(Verify *c, const Graph *g)
{
    bool kernel = is_kernel_graph(g);
    for (Val v = 1; v < g->n; v++) {
        if (!check_form(c, g, v))
            return false;
        const Node *n = &g->node[v];
        if (kernel && !kernel_takes_op((Op)n->op))
            return broken(c, g, v, "an op of tensor level in a kernel");
        if (!check_region(c, g, v) || !check_operands(c, g, v) || !check_type(c, g, v))
            return false;
        if (c->refused && c->refused[n->op])
            return verify_fault(c->err, g, v, "%s is not allowed any more at this point", op_info[n->op].text);
    }
    return check_names(c, g) && (!kernel || check_kernel(c, g));
}

static bool verify_graph(Verify *c, const Graph *g)
{
    for (size_t i = 0; i < vec_len(c->seen); i++)
        if (c->seen[i] == g)
            return true;
    if (c->depth >= MAX_REGION_DEPTH)
        return err_user(c->err, "regions nested deeper than %d", MAX_REGION_DEPTH);
    c->depth++;
    bool ok = verify_nodes(c, g);
    c->depth--;
    if (ok)
        vec_push(c->seen, g);
    return ok;
}

static bool verify_protected(void *arg)
{
    Verify *c = arg;
    return verify_graph(c, c->g);
}

bool graph_verify(Err *err, const Graph *g, const bool refused[OP_COUNT])
{
    Verify c = {.err = err, .refused = refused, .g = g};
    bool ok = mem_protect(err, verify_protected, &c);
    vec_free(c.seen);
    map_free(&c.names[0]);
    map_free(&c.names[1]);
    mem_free(c.note);
    return ok;
}
