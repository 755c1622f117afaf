/* A network being written, seen from inside: what the runtime makes, builds into and takes the graph from. */
#pragma once
#include "dav/dav.h"
#include "ir/graph.h"

typedef struct NetParam {
    const char *name; /* full name, as in the weights' file; also the name of the graph's input */
    Val val;
    bool frozen;
    DavInit init; /* never DAV_INIT_DEFAULT */
} NetParam;

typedef struct NetBody {
    const char *key;
    const Graph *graph;
    DavNet *net;
} NetBody;

struct DavNet {
    Arena *arena;
    Err *err;
    Graph *g;
    DavNet *parent;     /* the net around a region's body; NULL outside */
    const char *prefix; /* open scopes, each with its dot */
    const char **outer; /* vec: the prefixes around it */
    NetParam *param;    /* vec */
    Map names;          /* full name of a parameter -> its index */
    NetBody *body;      /* vec: bodies of calls, to be found again */
};

/* Everything belongs to the arena and to the net; mistakes go to err.  Building inside mem_protect is the caller's
 * business. */
DavNet *net_new(Arena *arena, Err *err, const char *name);
void net_free(DavNet *n); /* what is not in the arena; NULL is fine */
int net_param_count(const DavNet *n);
const NetParam *net_param(const DavNet *n, int i);
const NetParam *net_param_named(const DavNet *n, const char *name); /* NULL: none */

/* ---- for the files of frontend/ ---- */
/* Points the net at `at` and checks that the operands are values of one net.  False: *net is where an invalid result
 * belongs (NULL when there is none), and what was to be said has been said. */
bool net_operands(DavPlace at, const char *what, const DavVal *v, int n, DavNet **net);
DavVal net_bad(DavPlace at, DavNet *n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool net_axis(DavPlace at, const char *what, DavVal x, int64_t axis, int *out); /* NumPy's rule; x is valid */
const char *net_type_text(DavVal x, char buf[160]);
/* dim must be of rank 0..IR_MAX_RANK and not negative. */
bool net_type(DavPlace at, DavNet *n, const char *what, DavDtype t, int rank, const int64_t *dim, Type *out);
static inline const Node *net_node(DavVal v)
{
    return node_of(v.net->g, v.id);
}
static inline DavVal net_val(DavNet *n, Val v)
{
    return (DavVal){n, v};
}
DavVal net_broadcast_to(DavNet *n, DavVal x, int rank, const int64_t *dim); /* shapes are known to fit */
