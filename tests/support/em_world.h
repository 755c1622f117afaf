/* A small problem both ways: model folders and aligners of the program, and the same for tests/support/exact_em.h. */
#pragma once
#include "runtime/aligner.h"
#include "support/exact_em.h"

typedef struct World {
    char dir[64];
    Arena *arena;
    Registry *registry;
    Err err;
    ExactEm em;                /* its rewards are the program's, of every word */
    double start[EXACT_THETA]; /* parameters of p_0 */
    ExactTable prior;          /* log p_0 */
    double law[EXACT_WORDS];   /* of its samples */
} World;

/* Shapes, steps, alpha, gamma and lambda are taken from em; what fails, fails the test.  Model folders below /tmp until
 * world_free. */
World *world_new(ExactEm em, double reward_gain);
void world_free(World *w);
void world_check(const World *w, bool ok); /* fails the test with the error */

DavConfig *world_config(World *w, const char *const *set);
/* An aligner of em's settings and the given ones ("key=value", NULL at the end); aligner_close. */
Aligner *world_aligner(World *w, const char *const *set);
/* Starts again from the pretrained model; the rounds go on being counted, so that other random numbers follow. */
void world_restart(Aligner *a);
/* The current parameters, and the law of the current model's samples, by enumeration. */
void world_parameters(const World *w, const Aligner *a, double *theta);
void world_law(const World *w, const Aligner *a, double law[EXACT_WORDS]);
