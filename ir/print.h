/* The text form of graphs; docs/ir.md has its grammar.  What is printed here, ir/parse.h reads back to an equal graph. */
#pragma once
#include "ir/graph.h"

/* The whole graph, its regions nested below the node that uses them first. */
void graph_print(Buf *out, const Graph *g);
/* One node on one line without its end: "%5 = add %3, %4 : f32[2,3]  # model.c:12"; regions are named "@?". */
void node_print(Buf *out, const Graph *g, Val v);

/* The words for the values 0..n-1 of an integer attribute (role, kind, to); NULL: it is a plain number. */
const char *const *attr_words(Op op, AttrName name, int *n);
/* Does a node of this op have a type in the text?  (not: end, if, store, ...) */
bool op_has_type(Op op);
