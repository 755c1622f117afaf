/* The one node type of dav and the graph that holds it.
 *
 * A Graph is a sequence of nodes in topological order; a Val is the index of a node.  Node 0 is the invalid value: every
 * builder that is given it returns it, so a mistake is reported once.  Nodes are canonicalised, folded and hash-consed
 * while they are built (ir/build.c, ir/fold.c).  Everything lives in the graph's arena.
 *
 * The same nodes serve two levels (the level column of ops.def): tensor graphs, where a value is a whole tensor, and kernel
 * graphs (ir/kernel.h), a structured sequence of loops in which a value is one element. */
#pragma once
#include "base/mem.h"
#include "base/text.h"
#include "dav/dtype.h"

enum { IR_MAX_RANK = 8 };
typedef int32_t Val;

typedef enum {
#define EW(NAME, ...) OP_##NAME,
#define OP(NAME, ...) OP_##NAME,
#include "ir/ops.def"
    OP_COUNT
} Op;

typedef enum {
#define ATTR(NAME, ...) A_##NAME,
#include "ir/attrs.def"
#undef ATTR
    ATTR_COUNT
} AttrName;

typedef enum { ATTR_INT, ATTR_FLOAT, ATTR_STR, ATTR_INTS, ATTR_FLOATS, ATTR_GRAPH, ATTR_SPEC } AttrKind;

typedef struct Type {
    DavDtype dtype;
    int rank;
    int64_t dim[IR_MAX_RANK];
} Type;

/* One index of an operand of a contraction: (sum of coef * loop + offset) / div.  Where the division leaves a remainder, or
 * the index lies outside of the operand, the operand reads as 0. */
enum { SPEC_MAX_LOOPS = 12, SPEC_MAX_TERMS = 4 };
typedef struct DimExpr {
    int nterm;
    int loop[SPEC_MAX_TERMS]; /* ascending */
    int64_t coef[SPEC_MAX_TERMS]; /* never 0 */
    int64_t offset, div; /* div >= 1 */
} DimExpr;

/* A contraction: loops 0..nout-1 are the axes of the output in order, the others are summed.  Every summed loop appears in both
 * operands, every output loop in at least one.  Text: "a 2*b+4*d-8 e, d e c -> a b c | d=9 e=128" (out extents come from the shape).
 *   matmul        a c, c b -> a b            batched  a b d, a d c -> a b c
 *   conv 1d (NLC) a s*b+d*t-p i, t i c -> a b c;  groups are an axis of their own: a s*b+d*t-p c i, t c i d -> a b c d
 * Gradients of a contraction are contractions (the index expression is solved for one loop). */
typedef struct ContractSpec {
    int nloop, nout;
    int64_t extent[SPEC_MAX_LOOPS];
    int rank[2];
    DimExpr dim[2][IR_MAX_RANK]; /* dim[0]: operand a, dim[1]: operand b */
} ContractSpec;

struct Graph;
typedef struct Attr {
    AttrName name;
    int n; /* length of ints, floats */
    union {
        int64_t i;
        double f;
        const char *s;
        const int64_t *ints;
        const double *floats;
        const struct Graph *graph;
        const ContractSpec *spec;
    };
} Attr;

typedef enum { ROLE_DATA, ROLE_PARAM, ROLE_FROZEN, ROLE_STATE, ROLE_COUNT } InputRole;

typedef struct Node {
    uint8_t op, dtype, rank, nattr;
    int narg;
    int64_t dim[IR_MAX_RANK];
    const Val *arg;
    const Attr *attr; /* in the order of AttrName */
    const char *file; /* the user's source that made it; NULL: unknown */
    int line;
} Node;

typedef struct Output { const char *name; Val val; } Output;

typedef struct Graph {
    Arena *arena;
    Err *err;
    const char *name;
    Node *node; /* node[0] is OP_INVALID */
    int n, cap;
    Output *out;
    int nout, outcap;
    int *table; /* hash-consing */
    int tablecap;
    bool no_fold; /* nodes are kept exactly as asked for (parser, kernel level) */
    const char *file; /* given to nodes made from now on */
    int line;
} Graph;

Graph *graph_new(Arena *arena, Err *err, const char *name);
void graph_at(Graph *g, const char *file, int line);       /* file is copied when it is new */
void graph_at_node(Graph *g, const Graph *from, Val v);    /* take over the place of another graph's node */
void graph_output(Graph *g, const char *name, Val v);      /* names are unique; a second one is a user's error */
Val graph_find_input(const Graph *g, const char *name);    /* 0 when there is none */
Val graph_find_output(const Graph *g, const char *name);

static inline const Node *node_of(const Graph *g, Val v) { return &g->node[v]; }
Type type_of(const Graph *g, Val v);
Type type_make(DavDtype dtype, int rank, const int64_t *dim);
bool type_same_shape(const Type *a, const Type *b);
bool type_equal(const Type *a, const Type *b);
int64_t type_count(const Type *t);      /* elements; shapes whose count overflows 2^48 are refused when built */
int64_t node_count(const Graph *g, Val v);
const char *type_text(const Type *t, char buf[160]); /* f32[2,3] */

/* ---- tables made from ops.def, attrs.def ---- */
typedef enum { OPF_LEAF = 1, OPF_PURE = 2, OPF_TUPLE = 4, OPF_EFFECT = 8, OPF_ELEMENTWISE = 16, OPF_KERNEL = 32, OPF_TENSOR = 64 } OpFlag;
typedef enum { DOM_NUM, DOM_FLT, DOM_INT, DOM_LOG, DOM_ANY } OpDomain;
typedef struct OpInfo {
    const char *text;
    int arity;
    unsigned flags;
    OpDomain domain;
    const char *attrs;
    double test_lo, test_hi;
    const char *doc;
} OpInfo;
extern const OpInfo op_info[OP_COUNT];
typedef struct AttrInfo { const char *text; AttrKind kind; const char *meaning; } AttrInfo;
extern const AttrInfo attr_info[ATTR_COUNT];
bool op_allows_attr(Op op, AttrName name, bool *required);
int op_from_text(const char *text);   /* -1: none */
int attr_from_text(const char *text); /* -1: none */

/* ---- attributes of a node ---- */
const Attr *node_attr(const Node *n, AttrName name); /* NULL when absent */
int64_t attr_i(const Node *n, AttrName name);        /* dies when absent */
double attr_f(const Node *n, AttrName name);
const char *attr_s(const Node *n, AttrName name);
const int64_t *attr_ints(const Node *n, AttrName name, int *count); /* count may be NULL */
const Graph *attr_graph(const Node *n, AttrName name);
const ContractSpec *attr_spec(const Node *n);
int64_t attr_parts(const Node *n); /* of a sum; 1 when absent */

/* ---- building: the only way nodes come to be ----
 * Checks operands, attributes and types by the table's rules.  A mistake is recorded with err_user_at at the graph's
 * current place, and 0 comes back.  `given` is the type for ops whose shape rule is `given` (NULL otherwise).
 * Attributes are copied; order does not matter. */
Val graph_node(Graph *g, Op op, const Val *arg, int narg, const Attr *attr, int nattr, const Type *given);

/* Short forms for passes (same checks). */
Val g_input(Graph *g, const char *name, InputRole role, Type t);
Val g_const(Graph *g, Type t, double value);
Val g_const_like(Graph *g, Val v, double value); /* same type */
Val g_iota(Graph *g, Type t, int axis);
Val g_ew(Graph *g, Op op, Val x, Val y, Val z); /* elementwise by its arity; unused operands 0 */
Val g_un(Graph *g, Op op, Val x);
Val g_bin(Graph *g, Op op, Val x, Val y);
Val g_cast(Graph *g, Val x, DavDtype to);
Val g_reduce(Graph *g, Op op, Val x, const int64_t *axes, int n);
Val g_reduce_mask(Graph *g, Op op, Val x, unsigned axis_mask); /* no axis: x */
Val g_sum_parts(Graph *g, Val x, unsigned axis_mask, int64_t parts);
Val g_broadcast(Graph *g, Val x, const int64_t *shape);        /* shape has x's rank; nothing to do: x */
Val g_broadcast_like(Graph *g, Val x, Val like);
Val g_reshape(Graph *g, Val x, int rank, const int64_t *shape);
Val g_transpose(Graph *g, Val x, const int64_t *perm);
Val g_slice(Graph *g, Val x, const int64_t *start, const int64_t *limit, const int64_t *stride); /* stride NULL: ones */
Val g_pad(Graph *g, Val x, const int64_t *lo, const int64_t *hi, double fill);
Val g_concat(Graph *g, const Val *x, int n, int axis);
Val g_contract(Graph *g, Val a, Val b, const ContractSpec *spec, DavDtype out); /* out: f32 for bf16 operands allowed */
Val g_gather(Graph *g, Val x, Val idx, int batch);
Val g_scatter_add(Graph *g, Val base, Val idx, Val upd, int batch);
Val g_pick(Graph *g, Val tuple, int index);
/* attention (bias 0: none); what its results are stands in ops.def. */
Val g_attention(Graph *g, Val q, Val k, Val v, Val bias, double scale, bool causal, bool rows);
Val g_region(Graph *g, Op op, const Graph *body, const Val *arg, int narg, const Attr *extra, int nextra);

/* Copies node v of `from` into g with operands renamed by map (map[old] = new); region graphs are shared.  Inputs are copied
 * as inputs.  Returns the new value. */
Val graph_copy_node(Graph *g, const Graph *from, Val v, const Val *map);
/* Copies everything reachable from outputs; map (may be NULL) has from->n entries, entries already non-zero are used as they are. */
void graph_copy_live(Graph *g, const Graph *from, Val *map);
/* Inlines a region: values of its outputs for these arguments (as many as it has inputs, in their order). */
void graph_inline(Graph *g, const Graph *body, const Val *args, Val *outs);
Val *graph_inputs(const Graph *g, Arena *arena, int *n); /* input nodes in order */
uint64_t graph_hash(const Graph *g); /* of meaning: ops, types, attributes, names of inputs and outputs; not of places */

/* Type of result k of a tuple-valued node (call, loop, grad, fuse, kernel). */
bool tuple_type(const Graph *g, Val v, int k, Type *t);
int tuple_count(const Graph *g, Val v);
bool op_is_attention(Op op); /* attention and attention_grad: tuples without a region */

/* ---- contraction specs ---- */
bool spec_parse(Err *err, const char *text, ContractSpec *spec); /* extents of output loops are left 0 */
void spec_print(Buf *b, const ContractSpec *spec);
bool spec_equal(const ContractSpec *a, const ContractSpec *b);
DimExpr spec_loop(int loop);                                     /* the expression that is just this loop */
/* Multiply-adds that meet data, and all of them. */
void spec_work(const ContractSpec *spec, const Type *a, const Type *b, double *useful, double *all);
