#include "runtime/cuda/explain.h"
#include "runtime/kernel_name.h"
#include <string.h>

/* The lines of source that a kernel's values come from, each once, in order, as far as there is room for. */
static void lines_of(const Graph *k, Buf *out)
{
    enum { MOST = 4 };
    const Node *shown[MOST];
    int n = 0;
    for (Val v = 1; v < k->n; v++) {
        const Node *x = node_of(k, v);
        bool fresh = x->file != NULL && x->line > 0;
        for (int i = 0; i < n; i++)
            fresh = fresh && !(shown[i]->line == x->line && strcmp(shown[i]->file, x->file) == 0);
        if (!fresh)
            continue;
        if (n == MOST) {
            buf_str(out, ", ...");
            return;
        }
        buf_printf(out, "%s%s:%d", n ? ", " : " from ", x->file, x->line);
        shown[n++] = x;
    }
}

bool explain_launch(const Program *p, Err *err, const CudaGroup *group, const char *device)
{
    int kernel = group->step[0]->kernel;
    const Graph *k = p->plan->kernel[kernel];
    Buf lines = {0};
    lines_of(k, &lines);
    if (!lines.len && group->made->file) /* it copies or fills: its values come from nowhere else */
        buf_printf(&lines, " from %s:%d", group->made->file, group->made->line);
    if (group->nstep > 1)
        buf_printf(&lines, ", or one of the %d launched with it (DAV_CUDA_SYNC=1 launches each alone)", group->nstep - 1);
    err_prefix(err, "kernel %d (%s) of '%s'%s, on %s", kernel, kernel_name(p->arena, k), p->stats.name, lines.len ? lines.at : "", device);
    buf_free(&lines);
    return false;
}
