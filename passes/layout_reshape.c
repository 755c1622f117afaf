/* Reshapes in the layout pass.  The axes before and after fall into segments of equal size, each as short as can be; a
 * reshape inside of a segment does not care where the segment stands, as long as its own axes stay together and in
 * order. */
#include "passes/layout.h"

typedef struct Segments {
    int n, of_old[IR_MAX_RANK], of_new[IR_MAX_RANK];
} Segments; /* axis -> segment */

static Segments cut(const Node *was, const Node *is)
{
    Segments s = {0};
    int i = 0, j = 0;
    while (i < was->rank || j < is->rank) {
        int64_t a = 1, b = 1;
        do { /* the side that is behind takes an axis more */
            if (j >= is->rank || (i < was->rank && a <= b)) {
                a *= was->dim[i];
                s.of_old[i++] = s.n;
            } else {
                b *= is->dim[j];
                s.of_new[j++] = s.n;
            }
        } while (a != b && (i < was->rank || j < is->rank));
        while (i < was->rank && was->dim[i] == 1)
            s.of_old[i++] = s.n;
        while (j < is->rank && is->dim[j] == 1)
            s.of_new[j++] = s.n;
        s.n++;
    }
    return s;
}

bool layout_reshape(Layout *l, Val v)
{
    const Node *n = node_of(l->in, v), *x = node_of(l->in, n->arg[0]);
    const Perm *p = &l->perm[n->arg[0]];
    for (int i = 0; i < x->rank; i++)
        if (x->dim[i] == 0)
            return false;
    Segments s = cut(x, n);
    int order[2 * IR_MAX_RANK], count = 0;
    bool seen[2 * IR_MAX_RANK] = {false};
    int64_t last_axis = -1;
    for (int i = 0; i < x->rank; i++) {
        int64_t axis = p->at[i];
        if (x->dim[axis] == 1)
            continue;
        int segment = s.of_old[axis];
        bool goes_on = count && order[count - 1] == segment;
        if (goes_on ? axis < last_axis : seen[segment])
            return false;
        if (!goes_on)
            order[count++] = segment;
        seen[segment] = true;
        last_axis = axis;
    }
    for (int k = 0; k < s.n; k++) /* segments of size 1 stand anywhere */
        if (!seen[k])
            order[count++] = k;
    int64_t dim[IR_MAX_RANK];
    Perm q;
    int at = 0;
    for (int k = 0; k < count; k++)
        for (int j = 0; j < n->rank; j++)
            if (s.of_new[j] == order[k]) {
                dim[at] = n->dim[j];
                q.at[at++] = j;
            }
    for (; at < IR_MAX_RANK; at++)
        q.at[at] = at;
    l->map[v] = g_reshape(l->out, l->map[n->arg[0]], n->rank, dim);
    l->perm[v] = q;
    return true;
}
