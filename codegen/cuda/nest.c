/* A serial loop whose body is one vector loop, and whose iterations no memory connects, is run as one loop over both: all threads of
 * the team have work however short the vector loop is, and they meet once instead of in each iteration. */
#include "codegen/cuda/emit.h"
#include <stdlib.h>

typedef struct Nest { Val row, column, end; int64_t rows, width; } Nest;

static bool is_pure(const Node *n)
{
    return n->op == OP_CONST || n->op == OP_CAST || n->op == OP_BITCAST || n->op == OP_EXP2 || (op_info[n->op].flags & OPF_ELEMENTWISE);
}

/* Does every iteration of both loops store to a place of its own? */
static bool stores_apart(const Emit *e, const Nest *s, Val store)
{
    int64_t row, column;
    Val off = node_of(e->k, store)->arg[1];
    if (!index_slope(e->k, off, s->row, &row) || !index_slope(e->k, off, s->column, &column) || !row || !column)
        return false;
    return llabs(row) >= llabs(column) * s->width || llabs(column) >= llabs(row) * s->rows;
}

static bool touched(const Emit *e, const Nest *s, Val buf, Val but)
{
    for (Val v = s->row; v < s->end; v++) {
        const Node *n = node_of(e->k, v);
        if (v != but && (n->op == OP_LOAD || n->op == OP_STORE) && n->arg[0] == buf)
            return true;
    }
    return false;
}

static bool find_nest(const Emit *e, Val loop, Nest *s)
{
    *s = (Nest){.row = loop};
    if (node_of(e->k, loop)->narg)
        return false;
    for (Val v = loop + 1; v < e->k->n; v++) {
        const Node *n = node_of(e->k, v);
        if (n->op == OP_END && n->arg[0] == loop) {
            s->end = v;
            break;
        }
        if (n->op == OP_FOR) {
            if (s->column || attr_i(n, A_KIND) != LOOP_VECTOR || n->narg)
                return false;
            s->column = v;
        } else if (n->op != OP_END && !is_pure(n) && !(s->column && (n->op == OP_LOAD || n->op == OP_STORE || n->op == OP_PHILOX))) {
            return false;
        } else if (n->op == OP_END && !(node_of(e->k, v + 1)->op == OP_END && node_of(e->k, v + 1)->arg[0] == loop)) {
            return false;
        }
    }
    if (!s->column || !s->end)
        return false;
    const int64_t *rows = attr_ints(node_of(e->k, loop), A_NUMS, NULL), *columns = attr_ints(node_of(e->k, s->column), A_NUMS, NULL);
    s->rows = rows[1] - rows[0];
    s->width = columns[1] - columns[0];
    for (Val v = s->column; v < s->end; v++)
        if (node_of(e->k, v)->op == OP_STORE && (!stores_apart(e, s, v) || touched(e, s, node_of(e->k, v)->arg[0], v)))
            return false;
    return s->rows > 0 && s->width > 0 && s->width < e->team && s->rows < INT32_MAX / s->width && rows[2] == 1;
}

bool put_nest(Emit *e, Val loop)
{
    const Node *n = node_of(e->k, loop);
    Nest s;
    if (e->nest && loop == e->vector)
        return true;
    if (e->team == 1 || e->vector || attr_i(n, A_KIND) != LOOP_SERIAL || !find_nest(e, loop, &s))
        return false;
    put_meeting(e, loop);
    put_line(e, "for (int e%d = lane; e%d < %lld; e%d += %d) {", loop, loop, (long long)(s.rows * s.width), loop, e->team);
    e->depth++;
    put_line(e, "const %s v%d = %lld + e%d / %lld;", type_of_value(e, loop), loop, (long long)attr_ints(n, A_NUMS, NULL)[0], loop,
             (long long)s.width);
    put_line(e, "const %s v%d = %lld + e%d %% %lld;", type_of_value(e, s.column), s.column,
             (long long)attr_ints(node_of(e->k, s.column), A_NUMS, NULL)[0], loop, (long long)s.width);
    e->nest = loop;
    e->vector = s.column;
    return true;
}

bool put_nest_end(Emit *e, Val loop)
{
    if (!e->nest || (loop != e->nest && loop != e->vector))
        return false;
    if (loop == e->vector)
        return true;
    e->depth--;
    put_line(e, "}");
    e->vector = e->nest = 0;
    put_meeting(e, loop);
    return true;
}
