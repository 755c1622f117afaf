/* Programs of the devices interp and interp64. */
#include "ir/interp.h"
#include "runtime/program_impl.h"
#include <string.h>

static bool call_host(void *ctx, Err *err, const char *name, int nin, const Type *in_type, const void *const *in, int nout,
                      const Type *out_type, void *const *out)
{
    const Program *p = ctx;
    for (size_t i = 0; i < vec_len(p->host); i++)
        if (strcmp(p->host[i].name, name) == 0)
            return p->host[i].fn(p->host[i].ctx, err, nin, in_type, in, nout, out_type, out);
    return err_user(err, "the host function '%s' was not set", name);
}

bool interp_run(Program *p, Err *err, void *const *in, void *const *out)
{
    InterpHost host = {call_host, p};
    return graph_interpret(err, p->graph, p->device == DEVICE_INTERP64, (const void *const *)in, out, &host);
}
