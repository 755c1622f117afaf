/* Which steps need all threads to have finished the ones before.
 *
 * Between two meetings every thread works through its share of several kernels on its own, as long as none of them
 * touches memory that another one of them writes. */
#include "passes/plan.h"

typedef struct Touch { int space; int64_t from, to; bool writes, solo; } Touch;

enum { SPACE_ARENA, SPACE_KEPT, SPACE_LITERAL, SPACE_CALLER }; /* SPACE_CALLER + 2i: input i; + 2i + 1: output i */

static Touch touch_of(const PlanBuf *b, const int *inplace, bool writes, bool solo)
{
    Touch t = {.from = b->offset, .to = b->offset + b->bytes, .writes = writes, .solo = solo};
    switch (b->place) {
    case AT_ARENA:
        t.space = SPACE_ARENA;
        break;
    case AT_KEPT:
        t.space = SPACE_KEPT;
        break;
    case AT_LITERAL:
        t.space = SPACE_LITERAL;
        t.from = t.to = 0;
        break;
    case AT_INPUT:
        t.space = SPACE_CALLER + 2 * b->index;
        break;
    case AT_OUTPUT:
        t.space =
            inplace && inplace[b->index] >= 0 ? SPACE_CALLER + 2 * inplace[b->index] : SPACE_CALLER + 2 * b->index + 1;
        break;
    }
    return t;
}

static bool collide(const Touch *a, const Touch *b)
{
    return a->space == b->space && (a->writes || b->writes) && !(a->solo && b->solo) && a->from < b->to &&
           b->from < a->to;
}

static bool step_writes(const Plan *p, const PlanStep *s, int i)
{
    return s->kind == STEP_COPY ? i == 0 : i >= node_of(p->g, s->node)->narg;
}

void plan_meetings(Plan *p, Arena *arena, const bool *solo, const int *inplace)
{
    int most = 0;
    for (int i = 0; i < p->nstep; i++)
        most += p->step[i].nbuf;
    Touch *open = arena_array(arena, Touch, most + 1);
    int n = 0;
    for (int i = 0; i < p->nstep; i++) {
        PlanStep *s = &p->step[i];
        bool alone = s->kind == STEP_KERNEL && solo[s->kernel];
        bool closed = s->kind == STEP_LOOP || s->kind == STEP_HOST;
        s->meet = i > 0 && (closed || s->once != s[-1].once || s[-1].kind == STEP_LOOP || s[-1].kind == STEP_HOST);
        for (int j = 0; j < s->nbuf && !s->meet; j++) {
            Touch t = touch_of(&p->buf[s->buf[j]], inplace, step_writes(p, s, j), alone);
            for (int k = 0; k < n && !s->meet; k++)
                s->meet = collide(&open[k], &t);
        }
        n = s->meet ? 0 : n;
        for (int j = 0; j < s->nbuf; j++)
            open[n++] = touch_of(&p->buf[s->buf[j]], inplace, step_writes(p, s, j), alone);
        if (s->body)
            plan_meetings(s->body, arena, solo, NULL);
    }
}
