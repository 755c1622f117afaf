#include "ir/print.h"
#include "ir/kernel.h"
#include <inttypes.h>
#include <string.h>

/* ---- words of enumerated attributes ---- */
static const char *const input_roles[] = {"data", "param", "frozen", "state"};
static const char *const buf_roles[] = {"in", "out", "inout", "scratch"};
static const char *const loop_kinds[] = {"parallel", "serial", "vector", "unroll", "row"};
static const char *const acc_kinds[] = {"add", "max", "min", "set"};
static const char *const dtypes[] = {"f64", "f32", "bf16", "f16", "i64", "i32", "u32", "bool"};
_Static_assert(sizeof dtypes / sizeof *dtypes == DAV_DTYPE_COUNT, "every dtype has its word");

static const struct { Op op; AttrName attr; const char *const *word; int n; } words[] = {
    {OP_INPUT, A_ROLE, input_roles, 4}, {OP_BUF, A_ROLE, buf_roles, 4},
    {OP_FOR, A_KIND, loop_kinds, 5},    {OP_ACC, A_KIND, acc_kinds, 4},
    {OP_CAST, A_TO, dtypes, 8},         {OP_BITCAST, A_TO, dtypes, 8},
    {OP_EXP2, A_TO, dtypes, 8},
};

const char *const *attr_words(Op op, AttrName name, int *n)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (words[i].op == op && words[i].attr == name) {
            *n = words[i].n;
            return words[i].word;
        }
    return NULL;
}

bool op_has_type(Op op)
{
    static const char *const shape[OP_COUNT] = {
#define EW(NAME, text, arity, dom, rule, ...) [OP_##NAME] = #rule,
#define OP(NAME, text, arity, level, rule, ...) [OP_##NAME] = #rule,
#include "ir/ops.def"
    };
    return strcmp(shape[op], "none") != 0;
}

/* ---- pieces ---- */
static void print_string(Buf *out, const char *s)
{
    buf_str(out, "\"");
    for (const unsigned char *p = (const unsigned char *)s; *p; p++)
        if (*p == '"' || *p == '\\')
            buf_printf(out, "\\%c", *p);
        else if (*p == '\n')
            buf_str(out, "\\n");
        else if (*p < 0x20 || *p == 0x7f)
            buf_printf(out, "\\x%02x", *p);
        else
            buf_add(out, p, 1);
    buf_str(out, "\"");
}

static bool is_word(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.");
    return n > 0 && s[n] == 0;
}

static void print_name(Buf *out, const char *s)
{
    if (is_word(s))
        buf_str(out, s);
    else
        print_string(out, s);
}

static void print_f64(Buf *out, double v)
{
    char text[32];
    text_f64(text, v);
    buf_str(out, text);
}

static void print_ints(Buf *out, const int64_t *v, int n)
{
    buf_str(out, "[");
    for (int i = 0; i < n; i++)
        buf_printf(out, "%s%" PRId64, i ? "," : "", v[i]);
    buf_str(out, "]");
}

static void print_floats(Buf *out, const double *v, int n)
{
    buf_str(out, "[");
    for (int i = 0; i < n; i++) {
        buf_str(out, i ? "," : "");
        print_f64(out, v[i]);
    }
    buf_str(out, "]");
}

static void print_spec(Buf *out, const ContractSpec *spec)
{
    buf_str(out, "\"");
    spec_print(out, spec);
    buf_str(out, "\"");
}

static void print_int(Buf *out, Op op, const Attr *a)
{
    int n = 0;
    const char *const *word = attr_words(op, a->name, &n);
    if (word && a->i >= 0 && a->i < n)
        buf_str(out, word[a->i]);
    else
        buf_printf(out, "%" PRId64, a->i);
}

/* ---- nodes ---- */

/* Regions are numbered in the order in which the text meets them. */
typedef struct Printer {
    Buf *out;
    const Graph **region;
    Arena *arena; /* of the graph: it keeps the list when memory ends and the printer is left */
    size_t n, room;
} Printer;

static size_t region_label(Printer *p, const Graph *g, bool *is_new)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->region[i] == g) {
            *is_new = false;
            return i + 1;
        }
    *is_new = true;
    if (p->n == p->room) {
        p->room = p->room ? 2 * p->room : 16;
        const Graph **wide = arena_array(p->arena, const Graph *, p->room);
        if (p->n)
            memcpy(wide, p->region, p->n * sizeof(Graph *));
        p->region = wide;
    }
    p->region[p->n++] = g;
    return p->n;
}

/* Returns the region that has to be printed below this node, NULL when there is none. */
static const Graph *print_attrs(Printer *p, Buf *out, const Node *n)
{
    const Graph *below = NULL;
    for (int i = 0; i < n->nattr; i++) {
        const Attr *a = &n->attr[i];
        buf_printf(out, "%s%s=", i ? " " : " {", attr_info[a->name].text);
        switch (attr_info[a->name].kind) {
        case ATTR_INT: print_int(out, (Op)n->op, a); break;
        case ATTR_FLOAT: print_f64(out, a->f); break;
        case ATTR_STR: print_string(out, a->s); break;
        case ATTR_INTS: print_ints(out, a->ints, a->n); break;
        case ATTR_FLOATS: print_floats(out, a->floats, a->n); break;
        case ATTR_SPEC: print_spec(out, a->spec); break;
        case ATTR_GRAPH: {
            bool is_new = false;
            if (p)
                buf_printf(out, "@%zu", region_label(p, a->graph, &is_new));
            else
                buf_str(out, "@?");
            below = is_new ? a->graph : below;
            break;
        }
        }
    }
    if (n->nattr)
        buf_str(out, "}");
    return below;
}

static void print_type(Buf *out, const Graph *g, Val v)
{
    Op op = (Op)g->node[v].op;
    char text[160];
    Type t = type_of(g, v);
    if (!op_has_type(op))
        return;
    if (!(op_info[op].flags & OPF_TUPLE)) {
        buf_printf(out, " : %s", type_text(&t, text));
        return;
    }
    buf_str(out, " : (");
    for (int k = 0; k < tuple_count(g, v); k++)
        if (tuple_type(g, v, k, &t))
            buf_printf(out, "%s%s", k ? ", " : "", type_text(&t, text));
    buf_str(out, ")");
}

static bool is_visible(const char *s)
{
    for (const unsigned char *p = (const unsigned char *)s; *p; p++)
        if (*p <= ' ' || *p == 0x7f || *p == '"')
            return false;
    return *s != 0;
}

static void print_place(Buf *out, const char *file, int line)
{
    if (!file)
        return;
    buf_str(out, "  # ");
    if (is_visible(file))
        buf_str(out, file);
    else
        print_string(out, file);
    buf_printf(out, ":%d", line);
}

static const Graph *print_line(Printer *p, Buf *out, const Graph *g, Val v)
{
    const Node *n = &g->node[v];
    buf_printf(out, "%%%d = %s", v, op_info[n->op].text);
    for (int i = 0; i < n->narg; i++)
        buf_printf(out, "%s%%%d", i ? ", " : " ", n->arg[i]);
    const Graph *below = print_attrs(p, out, n);
    print_type(out, g, v);
    print_place(out, n->file, n->line);
    return below;
}

void node_print(Buf *out, const Graph *g, Val v)
{
    print_line(NULL, out, g, v);
}

/* ---- graphs ---- */
static void indent(Buf *out, int depth)
{
    for (int i = 0; i < depth; i++)
        buf_str(out, "  ");
}

static void print_outputs(Buf *out, const Graph *g, int depth)
{
    if (!g->nout)
        return;
    indent(out, depth);
    for (int i = 0; i < g->nout; i++) {
        buf_str(out, i ? ", " : "return ");
        print_name(out, g->out[i].name);
        buf_printf(out, "=%%%d", g->out[i].val);
    }
    buf_str(out, "\n");
}

static void print_body(Printer *p, const Graph *g, int depth)
{
    if (g->name) {
        buf_str(p->out, " ");
        print_string(p->out, g->name);
    }
    buf_str(p->out, " {\n");
    int inner = depth + 1;
    for (Val v = 1; v < g->n; v++) {
        Op op = (Op)g->node[v].op;
        inner -= op == OP_END && inner > depth + 1;
        indent(p->out, inner);
        const Graph *below = print_line(p, p->out, g, v);
        buf_str(p->out, "\n");
        if (below) {
            indent(p->out, inner + 1);
            buf_printf(p->out, "@%zu", p->n);
            print_body(p, below, inner + 1);
        }
        inner += op == OP_FOR || op == OP_IF;
    }
    print_outputs(p->out, g, depth + 1);
    indent(p->out, depth);
    buf_str(p->out, "}\n");
}

void graph_print(Buf *out, const Graph *g)
{
    Printer p = {.out = out, .arena = g->arena};
    buf_str(out, "graph");
    print_body(&p, g, 0);
}
