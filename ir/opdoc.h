/* docs/ops.md, made from the op table: `dav list ops --markdown`. */
#pragma once
#include "ir/graph.h"

void ops_markdown(Buf *out);
