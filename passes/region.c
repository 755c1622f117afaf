#include "passes/region.h"

Val region_copy_node(Graph *g, const Graph *from, Val v, const Val *map, const Graph *body)
{
    const Node *n = node_of(from, v);
    Val *arg = arena_array(g->arena, Val, n->narg + 1);
    for (int i = 0; i < n->narg; i++)
        arg[i] = map[n->arg[i]];
    Attr attr[ATTR_COUNT];
    for (int i = 0; i < n->nattr; i++) {
        attr[i] = n->attr[i];
        if (attr[i].name == A_GRAPH)
            attr[i].graph = body;
    }
    graph_at_node(g, from, v);
    return graph_node(g, (Op)n->op, arg, n->narg, attr, n->nattr, NULL);
}

bool *graph_live(Arena *arena, const Graph *from)
{
    bool *live = arena_array(arena, bool, from->n);
    for (int i = 0; i < from->nout; i++)
        live[from->out[i].val] = true;
    for (Val v = from->n - 1; v > 0; v--) {
        const Node *n = node_of(from, v);
        live[v] |= n->op == OP_INPUT || (op_info[n->op].flags & OPF_EFFECT) != 0;
        for (int i = 0; live[v] && i < n->narg; i++)
            live[n->arg[i]] = true;
    }
    return live;
}
