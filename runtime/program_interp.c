/* The devices interp and interp64: the graph with its gradients expanded, run by the reference interpreter. */
#include "ir/interp.h"
#include "runtime/program_impl.h"
#include <string.h>

static bool call_host(void *ctx, Err *err, const char *name, int nin, const Type *in_type, const void *const *in,
                      int nout, const Type *out_type, void *const *out)
{
    return host_call(ctx, err, name, nin, in_type, in, nout, out_type, out);
}

typedef struct InterpJob { Program *p; Err *err; void *const *in; void *const *out; } InterpJob;

static size_t bytes_of(const Type *t)
{
    return (size_t)type_count(t) * dav_dtype_size(t->dtype);
}

/* Outputs that overwrite inputs are made elsewhere first: the interpreter may read an input after it wrote an output.
 */
static bool interpret(void *arg)
{
    InterpJob *j = arg;
    Program *p = j->p;
    const void *in[p->nin + 1];
    void *out[p->nout + 1];
    InterpHost host = {call_host, p};
    for (int i = 0; i < p->nin; i++)
        in[i] = j->in[i];
    for (int i = 0; i < p->nout; i++)
        out[i] = p->overwrites[i] ? p->overwrites[i] : j->out[i];
    if (!graph_interpret(j->err, p->graph, p->device == DEVICE_INTERP64, in, out, &host))
        return false;
    for (int i = 0; i < p->nout; i++)
        if (p->overwrites[i])
            memcpy(j->out[i] ? j->out[i] : j->in[p->inplace[i]], p->overwrites[i], bytes_of(&p->out[i].type));
    return true;
}

void interp_prepare(Program *p)
{
    p->overwrites = arena_array(p->arena, void *, p->nout + 1);
    for (int i = 0; i < p->nout; i++)
        if (p->inplace[i] >= 0)
            p->overwrites[i] = arena_alloc(p->arena, bytes_of(&p->out[i].type) + 1);
}

bool interp_run(Program *p, Err *err, void *const *in, void *const *out)
{
    InterpJob j = {p, err, in, out};
    return mem_protect(err, interpret, &j);
}
