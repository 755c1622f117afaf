/* Vector loops in lines.  Where all that a loop reads and writes of neighbouring lanes is known to begin at multiples of a line, a thread
 * takes whole lines of lanes, T lines apart: each buffer is read by accesses of up to 16 bytes, then the lanes are worked at in order,
 * then the results are written alike.  What is the same for all lanes is read once a line.
 *
 *     for (int at8 = 0 + 4 * lane; at8 < 128; at8 += 128) {
 *         dav_line<float, 4> l9, l12;
 *         { const int v8 = at8; l9.read(p1 + v8); }
 *         for (int in8 = 0; in8 < 4; in8++) { const int v8 = at8 + in8; float v9 = l9.get(in8); ... l12.set(in8, v11); }
 *         { const int v8 = at8; l12.write(p2 + v8); }
 *     } */
#include "codegen/cuda/emit.h"

/* Of a value: whether it is in a line, or the same for all lanes; whether lines' reads, or writes, want it. */
enum { IN_LINE = 1, ALIKE = 2, FOR_READS = 4, FOR_WRITES = 8 };

static bool is_access(const Node *n)
{
    return n->op == OP_LOAD || n->op == OP_STORE;
}

static Val mask_of(const Node *n)
{
    int at = n->op == OP_LOAD ? 2 : 3;
    return n->narg > at ? n->arg[at] : 0;
}

static int64_t element_bytes(const Graph *k, Val access)
{
    return (int64_t)dav_dtype_size((DavDtype)node_of(k, node_of(k, access)->arg[0])->dtype);
}

static bool has_slope(const Graph *k, Val v, Val loop, int64_t wanted)
{
    int64_t by;
    return index_slope(k, v, loop, &by) && by == wanted;
}

static bool is_alike(const Graph *k, Val access, Val loop)
{
    const Node *n = node_of(k, access);
    return has_slope(k, n->arg[1], loop, 0) && (!mask_of(n) || has_slope(k, mask_of(n), loop, 0));
}

/* A buffer that is one of many which lie behind each other begins where the one before ends. */
static bool begins_at_lines(const Graph *k, Val buf, int64_t line)
{
    const Node *n = node_of(k, buf);
    int64_t size = (int64_t)dav_dtype_size((DavDtype)n->dtype), unit = line * size < 16 ? line * size : 16;
    return attr_i(n, A_ROLE) == BUF_SCRATCH || node_count(k, buf) * size % unit == 0;
}

static bool fits(const Graph *k, Val access, Val loop, int64_t line)
{
    const Node *n = node_of(k, access);
    return line * element_bytes(k, access) % 4 == 0 && (!mask_of(n) || has_slope(k, mask_of(n), loop, 0)) && begins_at_lines(k, n->arg[0], line) &&
           index_unit_in_lines(k, n->arg[1], loop, line) % line == 0;
}

/* Nothing that branches, and no buffer is read after it was written, or written twice: lines are read first and written last. */
static bool keeps_order(const Graph *k, Val loop, Val end)
{
    for (Val v = loop + 1; v < end; v++) {
        const Node *n = node_of(k, v);
        if (n->op == OP_FOR || n->op == OP_IF || n->op == OP_TILE_GET || n->op == OP_TILE_CONTRACT)
            return false;
        for (Val w = v + 1; n->op == OP_STORE && w < end; w++)
            if (is_access(node_of(k, w)) && node_of(k, w)->arg[0] == n->arg[0])
                return false;
    }
    return true;
}

static bool divides(const Graph *k, Val loop, int64_t line)
{
    const Node *n = node_of(k, loop);
    const int64_t *nums = attr_ints(n, A_NUMS, NULL);
    if (n->narg)
        return index_unit(k, n->arg[0]) % line == 0 && index_unit(k, n->arg[1]) % line == 0;
    return nums[0] % line == 0 && nums[1] % line == 0;
}

/* Of 16 bytes of the widest elements, at least 4 lanes; shorter where half of the team or more would have none: more threads are worth
 * more than wider accesses. */
static int longest_line(const Graph *k, Val loop, Val end, int team)
{
    enum { BYTES = 16, LEAST = 4 };
    int64_t widest = 0, lo, hi;
    for (Val v = loop + 1; v < end; v++)
        if (is_access(node_of(k, v)) && has_slope(k, node_of(k, v)->arg[1], loop, 1) && element_bytes(k, v) > widest)
            widest = element_bytes(k, v);
    int line = widest == 0 ? 1 : widest <= 2 ? BYTES / 2 : LEAST;
    while (line > 1 && index_bounds(k, loop, &lo, &hi) && hi - lo <= team / 2 * line)
        line /= 2;
    return line;
}

/* Lanes that a thread takes at once, a power of two; 1: one after the other. */
static int line_of(const Graph *k, Val loop, int team)
{
    Val end = index_end(k, loop);
    if (index_has_tiles(k) || !keeps_order(k, loop, end))
        return 1;
    int line = longest_line(k, loop, end, team);
    for (; line > 1; line /= 2) {
        bool all = divides(k, loop, line);
        for (Val v = loop + 1; v < end && all; v++)
            all = !is_access(node_of(k, v)) || !has_slope(k, node_of(k, v)->arg[1], loop, 1) || fits(k, v, loop, line);
        if (all)
            break;
    }
    return line;
}

/* Has lane i of both loops one thread? */
static bool spread_alike(const Graph *k, Val a, Val b, int team)
{
    int64_t lo_a, lo_b, hi;
    return a == b || (index_bounds(k, a, &lo_a, &hi) && index_bounds(k, b, &lo_b, &hi) && lo_a == lo_b && line_of(k, a, team) == line_of(k, b, team));
}

/* All accesses are at the very lane of vector loops, which stand directly in the parallel one (nest.c spreads others). */
bool stays_with_its_thread(const Graph *k, Val buf, int team)
{
    Val loop = 0, first = 0;
    int open = 0;
    if (node_of(k, buf)->op != OP_BUF || attr_i(node_of(k, buf), A_ROLE) != BUF_SCRATCH || index_has_tiles(k))
        return false;
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        if (n->op == OP_FOR && attr_i(n, A_KIND) == LOOP_VECTOR && open == 1)
            loop = v;
        open += (n->op == OP_FOR || n->op == OP_IF) - (n->op == OP_END);
        if (n->op == OP_END && n->arg[0] == loop)
            loop = 0;
        if (!is_access(n) || n->arg[0] != buf)
            continue;
        first = first ? first : loop;
        if (!loop || n->arg[1] != loop || !spread_alike(k, first, loop, team))
            return false;
    }
    return true;
}

/* ---- text ---- */
static void want(Emit *e, Val v, Val loop, unsigned char why)
{
    const Node *n = node_of(e->k, v);
    if (v <= loop || e->way[v] & why)
        return;
    e->way[v] = (unsigned char)(e->way[v] | why);
    for (int i = 0; i < n->narg; i++)
        want(e, n->arg[i], loop, why);
}

static void mark(Emit *e, Val loop, Val end)
{
    for (Val v = loop; v < end; v++)
        e->way[v] = 0;
    for (Val v = loop + 1; v < end; v++) {
        const Node *n = node_of(e->k, v);
        if (!is_access(n))
            continue;
        bool in_line = has_slope(e->k, n->arg[1], loop, 1), alike = n->op == OP_LOAD && is_alike(e->k, v, loop);
        if (in_line || alike)
            e->way[v] = (unsigned char)(e->way[v] | (in_line ? IN_LINE : ALIKE));
        unsigned char why = n->op == OP_LOAD ? FOR_READS : FOR_WRITES;
        if (in_line || alike)
            want(e, n->arg[1], loop, why);
        if ((in_line || alike) && mask_of(n))
            want(e, mask_of(n), loop, why);
    }
}

static const char *memory_type(const Emit *e, Val access)
{
    return cuda_memory_type(operand_dtype(e, node_of(e->k, access)->arg[0]));
}

static void declare(Emit *e, Val loop, Val end)
{
    for (Val v = loop + 1; v < end; v++)
        if (e->way[v] & IN_LINE)
            put_line(e, "dav_line<%s, %d> l%d;", memory_type(e, v), e->line, v);
        else if (e->way[v] & ALIKE)
            put_line(e, "%s l%d;", cuda_value_type((DavDtype)node_of(e->k, v)->dtype), v);
}

static void move_line(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    const char *verb = n->op == OP_LOAD ? "read" : "write";
    Val mask = mask_of(n);
    if (mask)
        put_line(e, "if (v%d)", mask);
    put_line(e, "%sl%d.%s(p%d + v%d);", mask ? "    " : "", v, verb, n->arg[0], n->arg[1]);
    if (mask && n->op == OP_LOAD) {
        put_line(e, "else");
        put_line(e, "    l%d.clear();", v);
    }
}

/* Before the lanes, or behind them: indices of the first one, and what is moved from and to there. */
static void put_aside(Emit *e, Val loop, Val end, Op access, unsigned char why)
{
    bool any = false;
    for (Val v = loop + 1; v < end; v++)
        any |= node_of(e->k, v)->op == access && e->way[v] & (IN_LINE | ALIKE);
    if (!any)
        return;
    e->ahead = true;
    put_line(e, "{");
    e->depth++;
    put_line(e, "const %s v%d = at%d;", type_of_value(e, loop), loop, loop);
    for (Val v = loop + 1; v < end; v++) {
        bool mine = node_of(e->k, v)->op == access && e->way[v] & (IN_LINE | ALIKE);
        if (mine && e->way[v] & IN_LINE)
            move_line(e, v);
        else if (mine || e->way[v] & why)
            put_value(e, v);
        if (mine && e->way[v] & ALIKE)
            put_line(e, "l%d = v%d;", v, v);
    }
    e->depth--;
    put_line(e, "}");
    e->ahead = false;
}

bool put_lines(Emit *e, Val loop, const char *type, const char *lo, const char *hi)
{
    Val end = index_end(e->k, loop);
    int line = line_of(e->k, loop, e->team);
    if (line == 1)
        return false;
    e->line = line;
    mark(e, loop, end);
    put_line(e, "for (%s at%d = %s + %d * lane; at%d < %s; at%d += %d) {", type, loop, lo, line, loop, hi, loop, line * e->team);
    e->depth++;
    declare(e, loop, end);
    put_aside(e, loop, end, OP_LOAD, FOR_READS);
    buf_str(e->out, "#pragma unroll\n");
    put_line(e, "for (int in%d = 0; in%d < %d; in%d++) {", loop, loop, line, loop);
    e->depth++;
    put_line(e, "const %s v%d = at%d + in%d;", type, loop, loop, loop);
    return true;
}

void put_lines_end(Emit *e, Val loop)
{
    if (e->line < 2 || loop != e->vector)
        return;
    e->depth--;
    put_line(e, "}");
    put_aside(e, loop, index_end(e->k, loop), OP_STORE, FOR_WRITES);
    e->line = 0;
}

bool put_line_load(Emit *e, Val v)
{
    DavDtype t = (DavDtype)node_of(e->k, v)->dtype;
    if (e->line < 2 || e->ahead || !(e->way[v] & (IN_LINE | ALIKE)))
        return false;
    if (e->way[v] & ALIKE)
        put_line(e, "const %s v%d = l%d;", cuda_value_type(t), v, v);
    else
        put_line(e, "%s v%d = %s(l%d.get(in%d)%s);", cuda_value_type(t), v, cuda_widen(t), v, e->vector, t == DAV_BOOL ? " != 0" : "");
    return true;
}

bool put_line_store(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    if (e->line < 2 || !(e->way[v] & IN_LINE))
        return false;
    put_line(e, "l%d.set(in%d, %s(v%d));", v, e->vector, cuda_narrow(operand_dtype(e, n->arg[0])), n->arg[2]);
    return true;
}
