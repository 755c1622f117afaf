/* Which steps a device may start with one launch: kernels of one class that do not depend on each other.
 *
 * Steps are put into a new order in which those of a group stand next to each other.  The next group is taken from a class
 * that gains nothing by waiting: each of its steps that cannot run yet depends on one that can.  So what no step waits for
 * (the gradient of a weight, say) is put off until all of its kind can go together, or rides along with what is urgent. */
#include "passes/plan_group.h"
#include <string.h>

typedef struct Segment {
    const Plan *p;
    const PlanGrouping *how;
    const PlanStep *step; /* n kernels, in the order they came in */
    int n;
    size_t words;
    uint64_t *reach; /* by step: those that it depends on, through others too */
    uint64_t *class, *kernel; /* by step: its class, the hash of its kernel */
    int *left;       /* by step: dependences that have no group yet; -1: it has one itself */
    uint64_t *now;   /* a set of steps */
    int *seen;       /* by buffer: the last count that it was part of */
    int count;
} Segment;

static bool has(const uint64_t *set, int i)
{
    return set[i / 64] >> (i % 64) & 1;
}

static void find_dependences(Segment *s, Arena *arena)
{
    int *writer = arena_array(arena, int, s->p->nbuf + 1); /* step + 1 */
    for (int i = 0; i < s->n; i++) {
        const PlanStep *x = &s->step[i];
        uint64_t *mine = s->reach + (size_t)i * s->words;
        int nin = node_of(s->p->g, x->node)->narg;
        for (int j = 0; j < nin; j++) {
            int w = writer[x->buf[j]] - 1;
            if (w < 0)
                continue;
            mine[w / 64] |= UINT64_C(1) << (w % 64);
            for (size_t k = 0; k < s->words; k++)
                mine[k] |= s->reach[(size_t)w * s->words + k];
        }
        for (int j = nin; j < x->nbuf; j++)
            writer[x->buf[j]] = i + 1;
    }
}

static bool ready(const Segment *s, int i)
{
    return s->left[i] == 0;
}

static void count_dependences(Segment *s)
{
    for (int i = 0; i < s->n; i++)
        for (size_t k = 0; k < s->words; k++)
            s->left[i] += __builtin_popcountll(s->reach[(size_t)i * s->words + k]);
}

static void finish(Segment *s, int i)
{
    s->left[i] = -1;
    for (int later = i + 1; later < s->n; later++)
        s->left[later] -= has(s->reach + (size_t)later * s->words, i);
}

/* Will there be a step of the class that can run later and depends on none of those that can run now? */
static bool gains_by_waiting(Segment *s, uint64_t class)
{
    memset(s->now, 0, s->words * sizeof *s->now);
    for (int i = 0; i < s->n; i++)
        if (ready(s, i) && s->class[i] == class)
            s->now[i / 64] |= UINT64_C(1) << (i % 64);
    for (int i = 0; i < s->n && class; i++) {
        bool free = s->left[i] > 0 && s->class[i] == class;
        for (size_t k = 0; k < s->words && free; k++)
            free = !(s->now[k] & s->reach[(size_t)i * s->words + k]);
        if (free)
            return true;
    }
    return false;
}

/* Memory that steps which could run keep from being used again. */
static int64_t bytes_waiting(Segment *s)
{
    int64_t bytes = 0;
    s->count++;
    for (int i = 0; i < s->n; i++) {
        const PlanStep *x = &s->step[i];
        for (int j = 0; ready(s, i) && j < node_of(s->p->g, x->node)->narg; j++) {
            const PlanBuf *b = &s->p->buf[x->buf[j]];
            if (b->place != AT_ARENA || s->seen[x->buf[j]] == s->count)
                continue;
            s->seen[x->buf[j]] = s->count;
            bytes += b->bytes;
        }
    }
    return bytes;
}

static int waiting_for(const Segment *s, uint64_t class)
{
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        bool waits = false;
        for (int j = 0; j < i && !waits && s->left[i] > 0; j++)
            waits = ready(s, j) && s->class[j] == class && has(s->reach + (size_t)i * s->words, j);
        n += waits;
    }
    return n;
}

/* The step whose class goes next: one that gains nothing by waiting, else the one that most others wait for. */
static int choose(Segment *s)
{
    int oldest = 0;
    while (!ready(s, oldest))
        oldest++;
    if (bytes_waiting(s) > s->how->waiting_bytes)
        return oldest;
    int best = oldest, most = -1;
    for (int i = oldest; i < s->n; i++) {
        bool first = ready(s, i);
        for (int j = oldest; j < i && first; j++)
            first = !ready(s, j) || s->class[j] != s->class[i];
        if (first && !gains_by_waiting(s, s->class[i]))
            return i;
        int waiting = first ? waiting_for(s, s->class[i]) : -1;
        best = waiting > most ? i : best;
        most = waiting > most ? waiting : most;
    }
    return best;
}

static bool new_kernel(const Segment *s, const int *member, int n, int i)
{
    for (int j = 0; j < n; j++)
        if (s->kernel[member[j]] == s->kernel[i])
            return false;
    return true;
}

static int take_group(Segment *s, int first, int *member)
{
    int n = 0, kernels = 0, buffers = 0;
    for (int i = first; i < s->n; i++) {
        if (!ready(s, i) || s->class[i] != s->class[first] || (n && !s->class[first]))
            continue;
        bool fresh = new_kernel(s, member, n, i);
        if (n && (buffers + s->step[i].nbuf > s->how->most_buffers || kernels + fresh > s->how->most_kernels))
            continue;
        member[n++] = i;
        kernels += fresh;
        buffers += s->step[i].nbuf;
    }
    return n;
}

static void group_segment(Plan *p, Arena *arena, const PlanGrouping *how, int from, int to)
{
    Segment s = {.p = p, .how = how, .n = to - from, .words = (size_t)(to - from + 63) / 64};
    PlanStep *old = arena_array(arena, PlanStep, s.n);
    int *member = arena_array(arena, int, s.n), at = from;
    memcpy(old, p->step + from, (size_t)s.n * sizeof *old);
    s.step = old;
    s.reach = arena_array(arena, uint64_t, mem_mul((size_t)s.n, s.words));
    s.class = arena_array(arena, uint64_t, s.n);
    s.kernel = arena_array(arena, uint64_t, s.n);
    s.left = arena_array(arena, int, s.n);
    s.now = arena_array(arena, uint64_t, s.words);
    s.seen = arena_array(arena, int, p->nbuf + 1);
    for (int i = 0; i < s.n; i++) {
        const Graph *kernel = attr_graph(node_of(p->g, old[i].node), A_GRAPH);
        s.kernel[i] = graph_hash(kernel);
        s.class[i] = how->class_of(kernel);
    }
    find_dependences(&s, arena);
    count_dependences(&s);
    while (at < to) {
        int n = take_group(&s, choose(&s), member), leader = at;
        for (int i = 0; i < n; i++, at++) {
            finish(&s, member[i]);
            p->step[at] = old[member[i]];
            p->step[at].group = leader;
        }
    }
}

void plan_group(Plan *p, Arena *arena, const PlanGrouping *how)
{
    for (int i = 0, end; i < p->nstep; i = end) {
        const PlanStep *first = &p->step[i];
        for (end = i + 1; end < p->nstep && first->kind == STEP_KERNEL && p->step[end].kind == STEP_KERNEL &&
                          p->step[end].once == first->once;)
            end++;
        if (how && end > i + 1)
            group_segment(p, arena, how, i, end);
        else
            for (int j = i; j < end; j++)
                p->step[j].group = j;
    }
}
