/* Programs written in the language and built for rows: networks, losses, their gradients in flat accumulators. */
#pragma once
#include "dav/dav.h"
#include "frontend/net.h"
#include "runtime/optim.h"
#include "runtime/rows.h"

/* A model with the configuration it was asked for. */
typedef struct Network { const DavModel *model; const DavConfig *config; } Network;

/* Everything that decides how programs are compiled. */
typedef struct BuildOptions {
    CompileOptions compile;
    const char *device;
    int64_t rows; /* of a micro-batch */
} BuildOptions;

/* Writes the graph of a program over `rows` rows. */
typedef void (*GraphWriter)(DavNet *n, const void *context, int64_t rows);

/* Builds, compiles and wraps one program; NULL with err set. */
RowProgram *build_program(Err *err, const char *name, const BuildOptions *o, GraphWriter write, const void *context);
/* The program's graph as text, before any pass; learner: with what build_learner adds. */
bool build_text(Err *err, const char *name, const BuildOptions *o, GraphWriter write, const void *context, bool learner, Buf *out);
/* The parameters below prefix ("theta.") of what write writes, with the initial values of the seed (dav/nn.h). */
ParamSet *build_params(Err *err, GraphWriter write, const void *context, const char *prefix, uint32_t seed);

/* A training program.  `write` makes at least the output "loss" f32 [rows]; added are the input "weight" f32 [rows] and, for
 * every trainable parameter below "theta.", its accumulator: acc += d (sum weight * loss) / d parameter, in place in
 * optim->grad.  Parameters are bound to theta->value. */
RowProgram *build_learner(Err *err, const char *name, const BuildOptions *o, GraphWriter write, const void *context,
                          const ParamSet *theta, Optim *optim);
/* Runs it over n rows: in as rows_run, without the weight.  loss (f32 [n]) and other outputs as rows_run. */
bool learn_rows(RowProgram *p, Err *err, int64_t n, const RowArg *in, int nin, float *weight, const RowArg *out, int nout);

/* Writes a network below a scope ("theta", "phi"); t: {0} when the network takes none.  Its first output. */
DavVal network_apply(DavNet *n, const char *scope, Network net, DavVal in, DavVal t);
