/* What the graphs of the search are made of: the step-by-step programs and the one of whole trajectories share it. */
#pragma once
#include "runtime/masked_programs.h"

/* What the denoiser says of states x i64[B,L] at time t: logp f32[B,L,V], x0 i64[B,L]. */
typedef struct Evaluation { DavVal logp, x0; } Evaluation;
Evaluation masked_evaluation(DavNet *n, const MaskedSpec *s, DavVal x, DavVal t);
/* f32[B] of finished sequences i64[B,L]. */
DavVal masked_reward(DavNet *n, const MaskedSpec *s, DavVal x0);
/* f32[B,L,V]: d r(soft x0hat(x)) / d one-hot x. */
DavVal masked_guide(DavNet *n, const MaskedSpec *s, DavVal x, DavVal t);
DavChoice masked_choice(DavNet *n, const MaskedSpec *s, DavStep step, DavVal key, DavVal counter);

/* All steps of a trajectory as one program:
 *   key, choice_key u32[2], counter u32[B*M,3] of step 0, and of T + 1 steps, before whose first one nothing is known of the start:
 *   tick u32[T+1,3] what a step adds to the counter, shares f32[T+1,2], in the first step equal; scale, guide_scale, t, t_next f32[T+1,1]
 *   -> x, x0 i64[B,T,L] chosen states and their evaluations' fills; with a search also lognorm, ess, lp, lq f32[B,T], r f32[B] at the end
 * A row is a trajectory; a run evaluates its M children of a step at once, equal ones too. */
void masked_whole_write(DavNet *n, const void *spec, int64_t rows);
RowProgram *masked_whole(Err *err, const MaskedSpec *s, const BuildOptions *o, int steps);
/* rows_bind_params for it. */
void masked_whole_bind(RowProgram *p, const ParamSet *set, const char *prefix, float *flat);
