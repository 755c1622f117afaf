/* Is a graph what the tables say?  Run after parsing and, in debug builds, after every pass. */
#pragma once
#include "ir/graph.h"

/* Checks every node and every region: operands are values made before their use, attributes are those of the table, the
 * type is what the table's rule infers, tuples are only picked from, regions take what they are given, names of inputs and
 * outputs are unique, kernels are well nested.  `refused` (may be NULL): refused[op] forbids that op anywhere, as autodiff
 * does with grad.  On the first fault err gets the node's place and text, and false comes back. */
bool graph_verify(Err *err, const Graph *g, const bool refused[OP_COUNT]);
