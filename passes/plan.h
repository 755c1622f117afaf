/* The plan of a lowered graph: steps in order, and where every value lies.
 *
 * Values whose lifetimes do not overlap share memory in one arena; an elementwise kernel writes over an operand that
 * nobody reads afterwards; results that the caller wants are written where the caller wants them.  Steps that depend on
 * parameters alone form the `once` part, whose results keep memory of their own. */
#pragma once
#include "ir/kernel.h"
#include "passes/pass.h"

typedef enum { AT_ARENA, AT_KEPT, AT_INPUT, AT_OUTPUT, AT_LITERAL } Place;

typedef struct PlanBuf {
    Place place;
    int index;      /* of the input, output or literal */
    int64_t offset; /* in the arena or the kept memory */
    int64_t bytes;
    int first, last; /* steps between which it holds something */
    int shares;      /* buffer whose memory it takes over in place, -1: none */
    Val val;         /* the value it was made for, 0: working memory of a loop */
} PlanBuf;

typedef enum { STEP_KERNEL, STEP_HOST, STEP_LOOP, STEP_COPY } StepKind;

typedef struct PlanStep {
    StepKind kind;
    bool once;
    int group; /* the first step of those that a device may start together; they follow each other */
    bool meet; /* all threads must have finished the steps before: this one reads what they write, or overwrites it */
    Val node;     /* of the graph; 0: a copy */
    int nbuf, *buf; /* kernel: by buffer index; host: operands, result; loop: operands, results; copy: to, from */
    int kernel;   /* of Plan.kernel of the outermost plan */
    struct Plan *body; /* of a loop */
    int work;     /* buffer of a loop: two sets of carried values, then the body's arena */
    int64_t *carry_at; /* of a loop: offsets in it of the carried values, 2 each */
    int64_t body_at;
} PlanStep;

typedef struct Plan {
    const Graph *g;
    PlanStep *step; /* the once part first */
    PlanBuf *buf;
    int nstep, nbuf, ninput;
    /* Of the outermost plan, those of loops too: */
    const Graph **kernel;
    const Node **literal;
    int nkernel, nliteral;
    int64_t arena_bytes, kept_bytes, unplanned_bytes;
    int unplanned_bufs, planned_bufs;
} Plan;

/* For devices on which starting a kernel takes time: independent kernels of one class form groups. */
typedef struct PlanGrouping {
    uint64_t (*class_of)(const Graph *kernel); /* 0: always alone */
    int most_buffers, most_kernels;            /* of a group; different kernels */
    int64_t waiting_bytes;                     /* that steps may keep alive by waiting for others of their class */
} PlanGrouping;

/* inplace: for each output the input that it may overwrite, -1: none; NULL: none at all. */
Plan *plan_make(Arena *arena, const Graph *g, const int *inplace);
Plan *plan_make_grouped(Arena *arena, const Graph *g, const int *inplace, const PlanGrouping *grouping);
/* Finds where threads must meet; solo[k]: kernel k is run by the first thread alone. */
void plan_meetings(Plan *p, Arena *arena, const bool *solo, const int *inplace);
