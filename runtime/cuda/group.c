#include "runtime/cuda/group.h"

enum { WAITING_BYTES = 256 << 20 };

PlanGrouping cuda_grouping(int64_t budget)
{
    return (PlanGrouping){cuda_launch_class, CUDA_MOST_POINTERS, CUDA_MOST_PARTS, budget > 0 ? 0 : WAITING_BYTES};
}

static const Graph *kernel_of(const Plan *p, const PlanStep *s)
{
    return attr_graph(node_of(p->g, s->node), A_GRAPH);
}

/* Those with the kernel of step `first`. */
static void add_part(CudaGroup *g, const Plan *p, int first, int end, bool *placed)
{
    const Graph *kernel = kernel_of(p, &p->step[first]);
    uint64_t hash = graph_hash(kernel);
    CudaPart *part = &g->part[g->npart++];
    part->kernel = kernel;
    for (int i = first; i < end; i++) {
        if (placed[i] || graph_hash(kernel_of(p, &p->step[i])) != hash)
            continue;
        placed[i] = true;
        part->count++;
        g->step[g->nstep++] = &p->step[i];
        g->npointer += p->step[i].nbuf;
    }
}

static CudaGroup *group_of(Arena *arena, const Plan *p, int first, int end, bool *placed)
{
    CudaGroup *g = arena_alloc(arena, sizeof *g);
    g->step = arena_array(arena, const PlanStep *, end - first);
    g->part = arena_array(arena, CudaPart, end - first);
    for (int i = first; i < end; i++)
        if (!placed[i])
            add_part(g, p, i, end, placed);
    return g;
}

static void find_groups(Arena *arena, const Plan *p, CudaGroup **group)
{
    bool *placed = arena_array(arena, bool, p->nstep + 1);
    for (int i = 0, end; i < p->nstep; i = end) {
        for (end = i + 1; end < p->nstep && p->step[end].group == i;)
            end++;
        if (p->step[i].kind == STEP_KERNEL)
            group[p->step[i].kernel] = group_of(arena, p, i, end, placed);
        else if (p->step[i].kind == STEP_LOOP)
            find_groups(arena, p->step[i].body, group);
    }
}

CudaGroup **cuda_groups(Arena *arena, const Plan *plan)
{
    CudaGroup **group = arena_array(arena, CudaGroup *, plan->nkernel + 1);
    find_groups(arena, plan, group);
    return group;
}

bool cuda_group_text(const CudaTarget *t, Err *err, const CudaGroup *group, Buf *text, CudaLaunch *launch)
{
    if (group->nstep == 1)
        return cuda_source(t, err, group->part[0].kernel, "kernel", text, launch);
    cuda_group_source(t, group->part, group->npart, "kernel", text, launch);
    return true;
}
