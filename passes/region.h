/* What passes share about nodes that hold a region. */
#pragma once
#include "ir/graph.h"

/* graph_copy_node for a node with a region, which `body` replaces. */
Val region_copy_node(Graph *g, const Graph *from, Val v, const Val *map, const Graph *body);

/* Nodes that the outputs need, inputs and effects included; arena memory of from->n entries. */
bool *graph_live(Arena *arena, const Graph *from);
