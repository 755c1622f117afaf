#include "runtime/cuda/group.h"
#include "runtime/cuda/blaslt_rule.h"

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
    g->made = node_of(p->g, p->step[first].node);
    g->step = arena_array(arena, const PlanStep *, end - first);
    g->part = arena_array(arena, CudaPart, end - first);
    for (int i = first; i < end; i++)
        if (!placed[i])
            add_part(g, p, i, end, placed);
    return g;
}

/* Steps from first to before end share a launch, but for those of a library. */
static void find_group(const Program *p, const Plan *plan, int first, int end, bool *placed, CudaGroup **group)
{
    for (int i = first; i < end; i++)
        if (p->product[plan->step[i].kernel].library)
            group[plan->step[i].kernel] = group_of(p->arena, plan, i, i + 1, placed);
    for (int i = first; i < end; i++)
        if (!placed[i])
            group[plan->step[i].kernel] = group_of(p->arena, plan, i, end, placed);
}

static void find_groups(const Program *p, const Plan *plan, CudaGroup **group)
{
    bool *placed = arena_array(p->arena, bool, plan->nstep + 1);
    for (int i = 0, end; i < plan->nstep; i = end) {
        for (end = i + 1; end < plan->nstep && plan->step[end].group == i;)
            end++;
        if (plan->step[i].kind == STEP_KERNEL)
            find_group(p, plan, i, end, placed, group);
        else if (plan->step[i].kind == STEP_LOOP)
            find_groups(p, plan->step[i].body, group);
    }
}

CudaGroup **cuda_groups(const Program *p)
{
    CudaGroup **group = arena_array(p->arena, CudaGroup *, p->plan->nkernel + 1);
    find_groups(p, p->plan, group);
    return group;
}

bool cuda_group_text(const CudaTarget *t, Err *err, const CudaGroup *group, Buf *text, CudaLaunch *launch)
{
    if (group->nstep == 1)
        return cuda_source(t, err, group->part[0].kernel, "kernel", text, launch);
    cuda_group_source(t, group->part, group->npart, "kernel", text, launch);
    return true;
}
