/* simplify: contractions. */
#include "passes/simplify.h"
#include "passes/specs.h"
#include <string.h>

/* A transposed operand is read in its own order. */
static Val contract_untransposed(Graph *g, const Node *n)
{
    ContractSpec spec = *attr_spec(n);
    Val arg[2] = {n->arg[0], n->arg[1]};
    for (int o = 0; o < 2; o++) {
        const Node *x = node_of(g, n->arg[o]);
        if (x->op != OP_TRANSPOSE)
            continue;
        const int64_t *perm = attr_ints(x, A_PERM, NULL); /* axis i of the operand is axis perm[i] of x's own */
        int64_t back[IR_MAX_RANK];
        for (int i = 0; i < x->rank; i++)
            back[perm[i]] = i;
        spec_permute_operand(&spec, o, back);
        arg[o] = x->arg[0];
    }
    return arg[0] != n->arg[0] || arg[1] != n->arg[1] ? g_contract(g, arg[0], arg[1], &spec, (DavDtype)n->dtype) : 0;
}

/* Loop `gone`, which runs once, leaves every expression; axes that were this loop leave their operand. */
static Val contract_without(Graph *g, const Node *n, int gone)
{
    ContractSpec s = *attr_spec(n);
    Val arg[2];
    for (int o = 0; o < 2; o++) {
        int64_t dim[IR_MAX_RANK];
        int rank = 0;
        for (int d = 0; d < s.rank[o]; d++) {
            DimExpr e = s.dim[o][d];
            if (expr_is_loop(&e, gone))
                continue;
            int terms = 0;
            for (int i = 0; i < e.nterm; i++) {
                if (e.loop[i] == gone)
                    continue;
                e.loop[terms] = e.loop[i] - (e.loop[i] > gone);
                e.coef[terms++] = e.coef[i];
            }
            e.nterm = terms;
            dim[rank] = node_of(g, n->arg[o])->dim[d];
            s.dim[o][rank++] = e;
        }
        arg[o] = g_reshape(g, n->arg[o], rank, dim);
        s.rank[o] = rank;
    }
    memmove(s.extent + gone, s.extent + gone + 1, (size_t)(s.nloop - gone - 1) * sizeof *s.extent);
    s.nloop--;
    s.nout -= gone < s.nout;
    return g_reshape(g, g_contract(g, arg[0], arg[1], &s, (DavDtype)n->dtype), n->rank, n->dim);
}

/* Is every axis that is one loop alone still as long as the loop when `gone` has left the expressions? */
static bool can_drop(const Graph *g, const Node *n, int gone)
{
    const ContractSpec *s = attr_spec(n);
    bool inside_sum = false;
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < s->rank[o]; d++) {
            const DimExpr *e = &s->dim[o][d];
            int rest = -1;
            bool has = false, plain = e->offset == 0 && e->div == 1;
            for (int i = 0; i < e->nterm; i++) {
                has |= e->loop[i] == gone;
                if (e->loop[i] != gone) {
                    rest = e->loop[i];
                    plain &= e->coef[i] == 1;
                }
            }
            if (!has || expr_is_loop(e, gone))
                continue;
            if (e->nterm != 2)
                return false;
            inside_sum = true;
            if (plain && s->extent[rest] != node_of(g, n->arg[o])->dim[d])
                return false;
        }
    return inside_sum || gone >= s->nout;
}

/* Kernels of size 1 are matrix products. */
static Val contract_unit_loop(Graph *g, const Node *n)
{
    const ContractSpec *s = attr_spec(n);
    for (int l = 0; l < s->nloop; l++)
        if (s->extent[l] == 1 && can_drop(g, n, l))
            return contract_without(g, n, l);
    return 0;
}

Val simplify_contract(Graph *g, const Node *n)
{
    Val v = contract_untransposed(g, n);
    return v ? v : contract_unit_loop(g, n);
}

/* A contraction that only this transpose reads is made in the transposed order. */
Val transposed_contract(Graph *g, Val contract, const Node *transpose)
{
    const Node *n = node_of(g, contract);
    if (n->op != OP_CONTRACT)
        return 0;
    ContractSpec s = *attr_spec(n);
    spec_permute_output(&s, attr_ints(transpose, A_PERM, NULL));
    return g_contract(g, n->arg[0], n->arg[1], &s, (DavDtype)n->dtype);
}
