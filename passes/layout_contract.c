/* Contractions in the layout pass: operands are read in whatever order they have, and the result is written with its
 * channels last when the contraction is one of activations with weights. */
#include "passes/layout.h"
#include "passes/specs.h"

static bool uses(const ContractSpec *s, int operand, int loop)
{
    for (int d = 0; d < s->rank[operand]; d++)
        for (int i = 0; i < s->dim[operand][d].nterm; i++)
            if (s->dim[operand][d].loop[i] == loop)
                return true;
    return false;
}

static bool is_axis(const ContractSpec *s, int operand, int loop)
{
    for (int d = 0; d < s->rank[operand]; d++)
        if (expr_is_loop(&s->dim[operand][d], loop))
            return true;
    return false;
}

/* The output loops of at least this extent that only this operand has. */
static int own_loops(const ContractSpec *s, int operand, int64_t least, int *last)
{
    int count = 0;
    for (int i = 0; i < s->nout; i++)
        if (s->extent[i] >= least && uses(s, operand, i) && !uses(s, 1 - operand, i)) {
            *last = i;
            count++;
        }
    return count;
}

/* Output channels: the one loop that the weights alone have, while the activations have several (samples, positions).
 * A batch of one sample counts like any other, so that its results have the same bits. */
static int channel_loop(const Layout *l, const Node *n)
{
    const ContractSpec *s = attr_spec(n);
    Type result = type_make(DAV_F32, n->rank, n->dim);
    for (int o = 0; o < 2; o++) {
        int channel = -1, other;
        bool like_weights = l->weights[n->arg[o]] || node_count(l->in, n->arg[o]) < type_count(&result);
        if (like_weights && own_loops(s, o, 2, &channel) == 1 && own_loops(s, 1 - o, 1, &other) > 1 &&
            is_axis(s, o, channel))
            return channel;
    }
    return -1;
}

/* Channels go last, and a group axis right before them goes along, so that the two can be seen as one. */
static Perm channels_last(const ContractSpec *s, int channel)
{
    Perm p = {{0}};
    int first = channel, k = 0;
    while (first > 1 && uses(s, 0, first - 1) && uses(s, 1, first - 1))
        first--;
    for (int i = 0; i < IR_MAX_RANK; i++)
        if (i < s->nout && (i < first || i > channel))
            p.at[k++] = i;
    for (int i = first; i <= channel; i++)
        p.at[k++] = i;
    for (int i = k; i < IR_MAX_RANK; i++)
        p.at[i] = i;
    return p;
}

void layout_contract(Layout *l, Val v)
{
    const Node *n = node_of(l->in, v);
    ContractSpec s = *attr_spec(n);
    Perm p;
    for (int i = 0; i < IR_MAX_RANK; i++)
        p.at[i] = i;
    int channel = channel_loop(l, n);
    if (channel >= 0)
        p = channels_last(&s, channel);
    for (int o = 0; o < 2; o++)
        spec_permute_operand(&s, o, l->perm[n->arg[o]].at);
    spec_permute_output(&s, p.at);
    l->map[v] = g_contract(l->out, l->map[n->arg[0]], l->map[n->arg[1]], &s, (DavDtype)n->dtype);
    l->perm[v] = p;
}
