/* Reads the text form of graphs (docs/ir.md).  The text may be hostile: memory stays linear in its length, nesting is bounded,
 * and the first mistake is a user's error "file:line:col: expected ..., found ...".  Nodes are kept exactly as they stand.
 * The result is verified.  Kernels in it are not safe to run: their offsets are not checked against their buffers. */
#pragma once
#include "ir/graph.h"

enum { PARSE_MAX_DEPTH = 32, PARSE_MAX_REGIONS = 1 << 16, PARSE_MAX_BYTES = 64 << 20 };

/* NULL with err set when the text is wrong. */
Graph *graph_parse(Arena *arena, Err *err, const char *file, const char *text, size_t len);
Graph *graph_read(Arena *arena, Err *err, const char *path);
