/* Any text: an error, or a graph that prints, reads back and prints equally, passes the verifier again, and, when it is small
 * and holds no kernel, runs in the interpreter. */
#include "ir/interp.h"
#include "ir/parse.h"
#include "ir/print.h"
#include "ir/verify.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static Buf once, twice;

/* Takes the work of running g from the budget; false: there is too much. */
static bool affordable(const Graph *g, double *budget)
{
    for (Val v = 1; v < g->n && *budget > 0; v++) {
        const Node *n = &g->node[v];
        Type t = type_of(g, v);
        double work = 1 + (double)type_count(&t), trip = 1;
        for (int k = 0; (op_info[n->op].flags & OPF_TUPLE) && k < tuple_count(g, v) && tuple_type(g, v, k, &t); k++)
            work += (double)type_count(&t);
        if (n->op == OP_KERNEL)
            return false;
        if (n->op == OP_CONTRACT)
            for (int l = attr_spec(n)->nout; l < attr_spec(n)->nloop; l++)
                work *= 1 + (double)attr_spec(n)->extent[l];
        if (n->op == OP_LOOP)
            trip = (double)attr_i(n, A_TRIP);
        *budget -= work;
        const Attr *region = node_attr(n, A_GRAPH);
        if (region) {
            double before = *budget, after = before;
            if (!affordable(region->graph, &after))
                return false;
            *budget -= (before - after) * trip;
        }
    }
    return *budget > 0;
}

static void interpret(Arena *a, const Graph *g, bool f64)
{
    int n;
    Err err = {0};
    Val *in = graph_inputs(g, a, &n);
    const void **from = arena_array(a, const void *, n);
    void **to = arena_array(a, void *, g->nout);
    for (int i = 0; i < n; i++)
        from[i] = arena_alloc(a, (size_t)node_count(g, in[i]) * 8);
    for (int i = 0; i < g->nout; i++)
        to[i] = arena_alloc(a, (size_t)node_count(g, g->out[i].val) * 8);
    if (!graph_interpret(&err, g, f64, from, to, NULL) && err.kind != ERR_USER)
        abort();
}

static bool try_text(void *text)
{
    const Buf *in = text;
    Err err = {0};
    Arena *a = arena_new();
    Graph *g = graph_parse(a, &err, "fuzz", in->at, in->len);
    if ((g != NULL) != (err.kind == ERR_NONE))
        abort();
    if (g) {
        once.len = twice.len = 0;
        graph_print(&once, g);
        Graph *again = graph_parse(a, &err, "printed", once.at, once.len);
        if (!again || !graph_verify(&err, again, NULL))
            abort();
        graph_print(&twice, again);
        if (strcmp(once.at, twice.at) != 0)
            abort();
        double budget = 3e4;
        if (affordable(g, &budget)) {
            interpret(a, g, false);
            interpret(a, g, true);
        }
    }
    arena_free(a);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Buf text = {.at = (char *)(uintptr_t)bytes, .len = n};
    Err err = {0};
    if (!mem_protect(&err, try_text, &text))
        abort();
    return 0;
}
