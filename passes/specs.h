/* Contraction specs with their loops or axes in another order; what simplify, layout and pack do to contractions. */
#pragma once
#include "ir/graph.h"

/* Output loop perm[i] becomes loop i. */
void spec_permute_output(ContractSpec *s, const int64_t *perm);
/* Axis perm[i] of the operand becomes axis i. */
void spec_permute_operand(ContractSpec *s, int operand, const int64_t *perm);
bool expr_is_loop(const DimExpr *e, int loop);
