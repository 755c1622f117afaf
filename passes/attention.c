/* attention: softmax(scale * q k + bias) v, written as two contractions with a softmax between them, becomes one op, which never
 * holds the matrix of scores.  Stands before autodiff, so that the gradient is one op, too.
 *
 *     %4 = contract %1, %2 {spec="a b d, a c d -> a b c | d=40"} : f32[8,64,64]
 *     %5 = mul %4, %scale : f32[8,64,64]
 *     ... %6 = softmax of %5 along the last axis
 *     %7 = contract %6, %3 {spec="a b c, a c d -> a b d | c=64"} : f32[8,64,40]
 *  ->
 *     %4 = attention %1, %2, %3 {scale=0.158114 causal=0} : (f32[8,40,64], f32[8,64])
 *     %5 = pick %4 {index=0} : f32[8,40,64]
 *     %6 = transpose %5 {perm=[0,2,1]} : f32[8,64,40]
 *
 * Every value in between must be read by the pattern alone: what somebody else reads, or differentiates for, stays. */
#include "passes/contract_plan.h"
#include "passes/region.h"
#include <string.h>

bool pass_attention(PassCx *cx, const Graph *in, Graph *out);

enum { LEAST_LENGTH = 8, MOST_WIDTH = 256 };
static const double never = -1e4; /* a place of at most this counts as none */

typedef struct Match {
    const Graph *g;
    const int *uses;
    Val score;           /* the contraction of queries and keys */
    double scale;
    bool causal;
    Val bias, allowed;   /* full or broadcast: added; or a condition, `instead` where it is false; 0: none */
    double instead;
    bool rows;           /* the op gives a row for each query */
    int query, value;    /* operand of score that is the queries; of the last contraction that is the values */
    int64_t perm[3][IR_MAX_RANK]; /* of queries, keys, values: batch axes, length, width */
    int64_t back[IR_MAX_RANK];    /* of the result */
} Match;

static Val without_views(const Graph *g, Val v)
{
    while (node_of(g, v)->op == OP_BROADCAST || node_of(g, v)->op == OP_STOP)
        v = node_of(g, v)->arg[0];
    return v;
}

static bool number_of(const Graph *g, Val v, double *value)
{
    v = without_views(g, v);
    if (node_of(g, v)->op != OP_CONST)
        return false;
    *value = attr_f(node_of(g, v), A_VALUE);
    return true;
}

static bool reduces_last(const Graph *g, Val v, Op op, Val of)
{
    const Node *n = node_of(g, v);
    int count = 0;
    if (n->op != op || n->arg[0] != of)
        return false;
    const int64_t *axes = attr_ints(n, A_AXES, &count);
    return count == 1 && axes[0] == n->rank - 1;
}

/* query index >= key index? */
static bool is_causal(const Graph *g, Val v)
{
    while (node_of(g, v)->op == OP_BROADCAST || node_of(g, v)->op == OP_RESHAPE)
        v = node_of(g, v)->arg[0];
    const Node *n = node_of(g, v);
    if (n->op != OP_GE)
        return false;
    const Node *a = node_of(g, n->arg[0]), *b = node_of(g, n->arg[1]);
    return a->op == OP_IOTA && b->op == OP_IOTA && a->rank >= 2 && attr_i(a, A_AXIS) == a->rank - 2 && attr_i(b, A_AXIS) == b->rank - 1;
}

/* From the softmax's operand down to the contraction. */
static bool find_score(Match *m, Val v, bool top)
{
    const Graph *g = m->g;
    const Node *n = node_of(g, v);
    double by;
    if (m->uses[v] != (top ? 2 : 1))
        return false;
    switch ((Op)n->op) {
    case OP_CONTRACT:
        m->score = v;
        return true;
    case OP_DIV:
        if (!number_of(g, n->arg[1], &by))
            return false;
        m->scale /= by;
        return find_score(m, n->arg[0], false);
    case OP_MUL:
        for (int i = 0; i < 2; i++)
            if (number_of(g, n->arg[i], &by)) {
                m->scale *= by;
                return find_score(m, n->arg[1 - i], false);
            }
        return false;
    case OP_ADD:
        for (int i = 0; i < 2 && m->scale == 1 && !m->bias && !m->allowed; i++) {
            Match down = *m;
            down.bias = n->arg[i];
            if (find_score(&down, n->arg[1 - i], false)) {
                *m = down;
                return true;
            }
        }
        return false;
    case OP_SELECT:
        if (m->scale != 1 || m->bias || m->allowed || !number_of(g, n->arg[2], &m->instead) || m->instead > never)
            return false;
        if (is_causal(g, n->arg[0]) && !m->causal)
            m->causal = true;
        else
            m->allowed = n->arg[0];
        return find_score(m, n->arg[1], false);
    default:
        return false;
    }
}

/* e / sum(e) with e = exp(x - max(x)); the rows of x are the last axis */
static bool find_softmax(Match *m, Val v)
{
    const Graph *g = m->g;
    const Node *n = node_of(g, v);
    if (n->op != OP_DIV || n->dtype != DAV_F32 || m->uses[v] != 1 || n->rank < 2)
        return false;
    Val e = n->arg[0], sum = without_views(g, n->arg[1]);
    if (node_of(g, e)->op != OP_EXP || m->uses[e] != 2 || !reduces_last(g, sum, OP_SUM, e) || m->uses[sum] != 1)
        return false;
    Val low = node_of(g, e)->arg[0];
    if (node_of(g, low)->op != OP_SUB || m->uses[low] != 1)
        return false;
    Val x = node_of(g, low)->arg[0], peak = without_views(g, node_of(g, low)->arg[1]);
    return reduces_last(g, peak, OP_RMAX, x) && m->uses[peak] == 1 && find_score(m, x, true);
}

/* ---- axes ---- */
/* The dim of each loop in an operand whose dims are all whole loops; -1: not in it.  False: some dim is more than that. */
static bool plain_dims(const Graph *g, const Node *n, int o, int64_t *dim)
{
    const ContractSpec *s = attr_spec(n);
    int found = 0;
    for (int i = 0; i < s->nloop; i++) {
        dim[i] = spec_plain_dim(s, o, i, node_of(g, n->arg[o])->dim);
        found += dim[i] >= 0;
    }
    return found == s->rank[o];
}

/* Queries and keys share all axes of the scores but the last two, and the summed one. */
static bool fit_score(Match *m)
{
    const Node *n = node_of(m->g, m->score);
    const ContractSpec *s = attr_spec(n);
    int64_t dim[2][SPEC_MAX_LOOPS];
    int i = s->nout - 2, j = s->nout - 1, d = s->nout;
    if (n->dtype != DAV_F32 || s->nloop != s->nout + 1 || i < 0 || !plain_dims(m->g, n, 0, dim[0]) || !plain_dims(m->g, n, 1, dim[1]))
        return false;
    m->query = dim[0][i] >= 0 ? 0 : 1;
    const int64_t *q = dim[m->query], *k = dim[1 - m->query];
    if (q[i] < 0 || q[j] >= 0 || k[j] < 0 || k[i] >= 0 || q[d] < 0 || k[d] < 0 || s->extent[d] > MOST_WIDTH)
        return false;
    for (int b = 0; b < i; b++) {
        if (q[b] < 0 || k[b] < 0)
            return false;
        m->perm[0][b] = q[b];
        m->perm[1][b] = k[b];
    }
    m->perm[0][i] = q[i];
    m->perm[0][j] = q[d];
    m->perm[1][i] = k[j];
    m->perm[1][j] = k[d];
    return n->dim[i] >= LEAST_LENGTH && n->dim[j] >= LEAST_LENGTH;
}

/* The last contraction sums the weights' last axis alone and keeps the others; the values have one axis of their own. */
static bool fit_values(Match *m, const Node *n)
{
    const ContractSpec *s = attr_spec(n);
    int64_t p[SPEC_MAX_LOOPS], v[SPEC_MAX_LOOPS];
    int rank = node_of(m->g, n->arg[1 - m->value])->rank, i = rank - 2, j = rank - 1, own = -1;
    if (s->nloop != s->nout + 1 || s->nout != rank || !plain_dims(m->g, n, 1 - m->value, p) || !plain_dims(m->g, n, m->value, v) ||
        p[s->nout] != j || v[s->nout] < 0)
        return false;
    for (int l = 0; l < s->nout; l++) {
        if (p[l] < 0 ? own >= 0 : (p[l] == i) != (v[l] < 0))
            return false;
        if (p[l] < 0)
            own = l;
        else if (p[l] < i)
            m->perm[2][p[l]] = v[l];
        m->back[l] = p[l] < 0 ? (m->rows ? j : i) : p[l] == i ? (m->rows ? i : j) : p[l]; /* batch axes, width, queries */
    }
    if (own < 0 || v[own] < 0 || s->extent[own] > MOST_WIDTH)
        return false;
    m->perm[2][i] = v[s->nout];
    m->perm[2][j] = v[own];
    return true;
}

static bool match(Match *m, Val v)
{
    const Node *n = node_of(m->g, v);
    const Match fresh = *m;
    if (n->op != OP_CONTRACT || n->dtype != DAV_F32)
        return false;
    for (int o = 0; o < 2; o++) {
        *m = fresh;
        m->scale = 1;
        m->value = 1 - o;
        if (find_softmax(m, n->arg[o]) && fit_score(m) && fit_values(m, n))
            return true;
    }
    return false;
}

/* ---- making the op ---- */
static Val flat(Graph *g, Val x, const int64_t *perm) /* [batch.., a, b] in one batch axis */
{
    Val y = perm ? g_transpose(g, x, perm) : x;
    const Node *n = node_of(g, y);
    int64_t batch = 1;
    for (int i = 0; i < n->rank - 2; i++)
        batch *= n->dim[i];
    return g_reshape(g, y, 3, (int64_t[]){batch, n->dim[n->rank - 2], n->dim[n->rank - 1]});
}

/* A bias or condition of the scores' shape; the same for all of the batch where that is plain to see. */
static Val per_batch(Graph *g, Val x)
{
    const Node *n = node_of(g, x);
    if (n->op != OP_BROADCAST)
        return flat(g, x, NULL);
    const Node *from = node_of(g, n->arg[0]);
    int64_t shape[IR_MAX_RANK];
    for (int i = 0; i < n->rank; i++) {
        shape[i] = i < n->rank - 2 ? 1 : n->dim[i];
        if (i < n->rank - 2 && from->dim[i] != 1)
            return flat(g, x, NULL);
    }
    return flat(g, g_broadcast(g, n->arg[0], shape), NULL);
}

static Val make(Graph *g, const Match *m, const Node *n, const Val *map)
{
    const Node *score = node_of(m->g, m->score);
    Val q = map[score->arg[m->query]], k = map[score->arg[1 - m->query]], v = map[n->arg[m->value]], bias = 0;
    if (m->bias)
        bias = per_batch(g, map[m->bias]);
    if (m->allowed) {
        Val allowed = per_batch(g, map[m->allowed]);
        Type t = type_of(g, allowed);
        t.dtype = DAV_F32;
        bias = g_ew(g, OP_SELECT, allowed, g_const(g, t, 0), g_const(g, t, m->instead));
    }
    Val op = g_attention(g, flat(g, q, m->perm[0]), flat(g, k, m->perm[1]), flat(g, v, m->perm[2]), bias, m->scale, m->causal, m->rows);
    Type t;
    if (!op || !tuple_type(g, op, 0, &t))
        return 0;
    int64_t shape[IR_MAX_RANK];
    memcpy(shape, score->dim, sizeof shape);
    shape[score->rank - 2] = t.dim[1];
    shape[score->rank - 1] = t.dim[2];
    return g_transpose(g, g_reshape(g, g_pick(g, op, 0), score->rank, shape), m->back);
}

/* ---- the pass ---- */
static int *count_uses(Arena *arena, const Graph *g)
{
    const bool *live = graph_live(arena, g);
    int *uses = arena_array(arena, int, g->n);
    for (Val v = 1; v < g->n; v++)
        for (int i = 0; live[v] && i < node_of(g, v)->narg; i++)
            uses[node_of(g, v)->arg[i]]++;
    for (int i = 0; i < g->nout; i++)
        uses[g->out[i].val]++;
    return uses;
}

static void recover(Graph *out, const Graph *in, bool rows)
{
    Val *map = arena_array(out->arena, Val, in->n);
    const bool *live = graph_live(out->arena, in);
    Match m = {.g = in, .uses = count_uses(out->arena, in), .rows = rows};
    for (Val v = 1; v < in->n; v++) {
        const Node *n = node_of(in, v);
        Match found = m;
        if (!live[v])
            continue;
        graph_at_node(out, in, v);
        if (n->op == OP_LOOP) {
            Graph *body = graph_new(out->arena, out->err, attr_graph(n, A_GRAPH)->name);
            recover(body, attr_graph(n, A_GRAPH), rows);
            map[v] = region_copy_node(out, in, v, map, body);
        } else {
            map[v] = match(&found, v) ? make(out, &found, n, map) : graph_copy_node(out, in, v, map);
        }
    }
    for (int i = 0; i < in->nout; i++)
        graph_output(out, in->out[i].name, map[in->out[i].val]);
}

bool pass_attention(PassCx *cx, const Graph *in, Graph *out)
{
    const CompileOptions *o = cx->options;
    recover(out, in, !o || o->processors <= 0);
    return cx->err->kind == ERR_NONE;
}
