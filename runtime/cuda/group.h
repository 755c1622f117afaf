/* The launches of a program: steps alone, or groups of them (passes/plan_group.c) that one kernel works at. */
#pragma once
#include "codegen/cuda/merge.h"
#include "runtime/program_impl.h"

typedef struct CudaGroup {
    const Node *made;      /* the first step's: where it comes from */
    const PlanStep **step; /* in the order of the parts */
    int nstep, npart, npointer;
    CudaPart *part; /* equal kernels */
} CudaGroup;

/* How a plan for these devices groups its steps; `budget` bytes of memory_budget, 0: no bound. */
PlanGrouping cuda_grouping(int64_t budget);
/* By kernel: the group whose first step runs it; NULL: it belongs to the group of a step before.  Products that a
 * library runs (p->product) are alone. */
CudaGroup **cuda_groups(const Program *p);
/* The text of the launch's kernel, and how it is launched. */
bool cuda_group_text(const CudaTarget *t, Err *err, const CudaGroup *group, Buf *text, CudaLaunch *launch);
