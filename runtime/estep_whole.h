/* Between the two ways of the search: step by step (estep.c), and a trajectory as one program (estep_whole.c). */
#pragma once
#include "runtime/estep.h"

/* gamma^{t-1} / alpha with t = T - step the number of steps left; the same for the proposal's gradient. */
float search_scale(const Masked *k, const SearchSettings *s, int step);
float search_guide_scale(const Masked *k, const SearchSettings *s, int step);
void search_keys(const SearchSettings *s, uint32_t draw[2], uint32_t choice[2]);
/* A state of l ids as letters. */
void search_put_letters(uint8_t *to, const int64_t *from, int64_t l);
/* Adds a step's term, and the end's, to the estimates of the bounds of trajectory i. */
void search_add_step(Trajectories *t, const SearchSettings *s, int64_t i, int step, float lognorm, float lq, float lp, float ess);
void search_add_end(Trajectories *t, const SearchSettings *s, int64_t i, float reward);

/* Trajectories first .. first + n - 1 into rows at .. of out, by k->whole. */
bool search_whole(Masked *k, Err *err, const SearchSettings *s, Trajectories *out, int64_t first, int64_t at, int64_t n, bool with_reward);
