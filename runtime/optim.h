/* AdamW with gradient clipping and an exponential moving average, over flat arrays (runtime/params.h), as one program.
 *
 *   norm = sqrt(sum g^2) (a fixed tree);  g <- g min(1, clip / (norm + 1e-6));
 *   m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;
 *   theta <- theta - lr (wd theta + (m / (1 - b1^k)) / (sqrt(v / (1 - b2^k)) + eps));  ema <- d ema + (1 - d) theta
 * Loshchilov and Hutter, "Decoupled weight decay regularization", in PyTorch's order of operations (clip_grad_norm_, AdamW).
 * All numbers are inputs: a change recompiles nothing. */
#pragma once
#include "runtime/params.h"

typedef struct OptimSettings { double lr, beta1, beta2, eps, weight_decay, clip, ema; } OptimSettings; /* clip 0: none */

typedef struct Optim {
    Program *program;
    int64_t size;              /* of the trainable part */
    float *grad, *m, *v, *ema; /* [params size] each, of runtime/flat.h; ema starts as a copy of the parameters */
    float *norm;               /* of the last gradient, [param_leaf(size)] times the same */
    int64_t step;              /* updates done */
} Optim;

/* The program is one of the device ("cpu", "cuda", ...), which keeps all five arrays. */
Optim *optim_new(Err *err, const ParamSet *p, const CompileOptions *co, const char *device);
void optim_free(Optim *o);
/* One update of p->value from o->grad, which is then zeroed.  *grad_norm is the norm before clipping; when it is not finite
 * nothing is changed and the error says so. */
bool optim_update(Optim *o, Err *err, ParamSet *p, const OptimSettings *s, double *grad_norm);
