#include "passes/specs.h"

void spec_permute_output(ContractSpec *s, const int64_t *perm)
{
    int to[SPEC_MAX_LOOPS];
    ContractSpec was = *s;
    for (int i = 0; i < s->nloop; i++) {
        int from = i < s->nout ? (int)perm[i] : i;
        to[from] = i;
        s->extent[i] = was.extent[from];
    }
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < s->rank[o]; d++) {
            DimExpr *e = &s->dim[o][d];
            for (int i = 0; i < e->nterm; i++) { /* insertion: loops ascend */
                int loop = to[e->loop[i]], j = i;
                int64_t coef = e->coef[i];
                for (; j > 0 && e->loop[j - 1] > loop; j--) {
                    e->loop[j] = e->loop[j - 1];
                    e->coef[j] = e->coef[j - 1];
                }
                e->loop[j] = loop;
                e->coef[j] = coef;
            }
        }
}

void spec_permute_operand(ContractSpec *s, int operand, const int64_t *perm)
{
    ContractSpec was = *s;
    for (int d = 0; d < s->rank[operand]; d++)
        s->dim[operand][d] = was.dim[operand][perm[d]];
}

bool expr_is_loop(const DimExpr *e, int loop)
{
    return e->nterm == 1 && e->loop[0] == loop && e->coef[0] == 1 && e->offset == 0 && e->div == 1;
}
