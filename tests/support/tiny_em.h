/* A masked diffusion of three positions and two letters with all its laws at hand: TinyDenoiser and a small SeqCNN. */
#pragma once
#include "runtime/estep.h"
#include "runtime/masked_programs.h"
#include "runtime/modeldir.h"

enum { L = 3, V = 2, STATES = 27, WORDS = 8 };

typedef struct Tiny {
    Arena *arena;
    Err err;
    Registry *registry;
    MaskedSpec spec;
    ParamSet *theta, *phi;
    Masked *k;
    double logp[STATES][L][V], r[STATES]; /* at every state; reward of its argmax fill */
    int64_t x[STATES][L];
} Tiny;

/* Programs of the search for M children and T steps; what fails, fails the test. */
Tiny *tiny_new(int children, bool gradient, int steps, int64_t rows);
Tiny *tiny_new_on(const char *device, int children, bool gradient, int steps, int64_t rows);
/* New programs for the same networks. */
void tiny_rebuild(Tiny *t, const char *device, int steps, int64_t rows);
void tiny_free(Tiny *t);
SearchSettings tiny_settings(const Tiny *t, double alpha, double gamma, bool weigh);
/* log q over letters of the proposal at the all-masked state, guided by scale times the gradient that the program gives. */
void tiny_proposal(Tiny *t, double scale, double logq[L][V]);
