/* The inside of fusion: groups of values (fuse.c) and their emission as regions (fuse_emit.c). */
#pragma once
#include "passes/fuse.h"

enum { SIBLING_BYTES = 1 << 14 }; /* values from here on are worth a merge, or being computed again */

typedef struct Group {
    int kind; /* FuseKind, FIXED or ALIAS */
    bool open, fold; /* open: may be merged; fold: holds an op with an inner loop */
    bool fixed_dear; /* depends on parameters alone and takes work: better done once than with every run */
    bool data;       /* depends on more than parameters */
    int64_t dim[IR_MAX_RANK];
    int rank;
    unsigned reduced; /* axes of a row */
    unsigned across;  /* axes of sums over rows, in parts: nothing else in the group reads them */
    int64_t parts;
    int members, parent, last;
    bool emitted;
} Group;

enum { FIXED = FUSE_KIND_COUNT, ALIAS };

typedef struct Fuser {
    PassCx *cx;
    const Graph *in;
    Graph *out;
    bool *live, *solid; /* solid: needs memory of its own */
    bool *summed;       /* read by a reduction */
    int *uses;          /* operands that it is */
    bool *data;         /* depends on more than parameters */
    bool *again;        /* computed again by each group that reads it, never stored */
    int *group;         /* of a value, 0: none */
    Group *g;
    int ngroup;
    size_t words;
    uint64_t *reach, *indirect; /* bit sets by group: depends on; reads other than element by element */
    Val *map;
    int *member, *start; /* members of each root group, ascending */
} Fuser;

int fuse_find(Fuser *f, int a);        /* the group that a was merged into */
int fuse_group_of(Fuser *f, Val v);    /* 0: none */
bool fuse_is_dear(Op op);              /* takes more than a few instructions an element */
void fuse_emit(Fuser *f);
