/* The EM objective's vocabulary for masked diffusion, written in the language (models/objectives/masked.c).
 *
 * V letters, the mask is symbol V.  B samples, L positions, M children.  Formulas: Sahoo et al., "Simple and effective masked
 * diffusion language models" (SUBS, log-linear noise) and the DAV paper, arXiv 2510.00502.  Times enter as the shares of
 * masked positions m(t): nothing is compiled for one schedule.  All log-probabilities are natural and summed over positions.
 *
 * From t to s < t a masked position is filled with probability (m_t - m_s) / m_t, by a letter from p(x0 | x_t); filled
 * positions stay.  The chance to stay masked has no parameters and is the same in model and proposal, so that it is left out of
 * log p and log q alike. */
#pragma once
#include "dav/model.h"
#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* SUBS: logits f32 [B,L,V+1] -> log p(x0 | x_t) over letters f32 [B,L,V]; the mask symbol has probability 0.  Values at filled
 * positions are what the network says there; the functions below do not read them. */
DavVal dav_masked_logp(DavVal logits);
/* The filled-in sequence: letters of x [B,L] i64 kept, argmax of logp where masked. */
DavVal dav_masked_argmax_fill(DavVal logp, DavVal x);
/* Tweedie's estimate as letter probabilities f32 [B,L,V] from a relaxed state f32 [B,L,V+1] and the logits at it. */
DavVal dav_masked_soft_x0(DavVal relaxed, DavVal logits);
/* Guided proposal: log q over letters, softmax(logp + scale * guide); scale f32 [1], guide f32 [B,L,V]. */
DavVal dav_masked_guided(DavVal logp, DavVal guide, DavVal scale);

typedef struct DavChildren {
    DavVal x;    /* i64 [B,M,L] */
    DavVal logp; /* f32 [B,M] log p of the newly filled letters */
    DavVal logq; /* f32 [B,M] log q of them */
} DavChildren;
/* M children of each state.  shares f32 [2]: m_t, m_s.  key, counter u32 [B*M,3] as dav_random_bits: two numbers a position,
 * the first decides whether it is filled, the second by which letter (inverse distribution function of q). */
DavChildren dav_masked_children(DavVal x, DavVal logp, DavVal logq, DavVal shares, DavVal key, DavVal counter, int64_t children);

/* Importance log-weights [B,M]: scale * reward + log p - log q, scale f32 [1] = gamma^(t-1) / alpha. */
DavVal dav_importance_weights(DavVal reward, DavVal logp, DavVal logq, DavVal scale);
typedef struct DavChoice {
    DavVal index;   /* i32 [B] drawn from softmax(logw) */
    DavVal lognorm; /* f32 [B] log(M * normalised weight of the chosen one): its term in the bound */
    DavVal ess;     /* f32 [B] 1 / sum of squared normalised weights */
} DavChoice;
DavChoice dav_choose_child(DavVal logw, DavVal key, DavVal counter); /* counter u32 [B,3] */
/* The child of the largest weight, the first of equals; its term in the bound is log M, its choice being certain. */
DavChoice dav_choose_best_child(DavVal logw);

/* Losses, one number a sample, f32 [B]. */
/* -log p of the sampled transition: newly filled positions of `next`. */
DavVal dav_masked_loss(DavVal logp, DavVal x, DavVal next);
/* The released code's target: share * sum over masked positions of -log p of x0; share f32 [B] = (m_t - m_s) / m_t. */
DavVal dav_masked_loss_released(DavVal logp, DavVal x, DavVal x0, DavVal share);
/* Exact KL(p || p0) of the step: share * sum over masked positions. */
DavVal dav_masked_kl(DavVal logp, DavVal logp0, DavVal x, DavVal share);
/* Cross-entropy of x0 summed over masked positions. */
DavVal dav_masked_cross_entropy(DavVal logp, DavVal x, DavVal x0);
/* x0 with each position masked where its uniform number is below share f32 [B]. */
DavVal dav_masked_noise(DavVal x0, DavVal share, DavVal uniform, int64_t mask);

/* ---- what a user can register: a search weight, a loss ---- */
/* One reverse step as a search sees it; shapes as above. */
typedef struct DavStep {
    DavVal reward, logp, logq; /* f32 [B,M] */
    DavVal scale;              /* f32 [1] gamma^(t-1) / alpha */
} DavStep;
typedef struct DavSearch {
    uint32_t abi, size; /* written by DAV_SEARCH */
    const char *name, *doc;
    const DavKey *keys; /* settings below search.<name>. */
    int n_keys;
    DavVal (*weights)(DavNet *n, const DavConfig *c, const DavStep *s); /* log-weights [B,M] */
} DavSearch;

/* One transition as a loss sees it. */
typedef struct DavTransition {
    DavVal logp;        /* f32 [B,L,V] of the trained model at x */
    DavVal x, next, x0; /* i64 [B,L]: the state, the chosen child, the argmax fill of the child's evaluation */
    DavVal share;       /* f32 [B] (m_t - m_s) / m_t */
    DavVal share_left;  /* f32 [B] 1 - m_t */
} DavTransition;
typedef struct DavLoss {
    uint32_t abi, size; /* written by DAV_LOSS */
    const char *name, *doc;
    const DavKey *keys; /* settings below train.<name>. */
    int n_keys;
    DavVal (*loss)(DavNet *n, const DavConfig *c, const DavTransition *t); /* [B] */
} DavLoss;
#define DAV_SEARCH(...) {.abi = DAV_ABI, .size = sizeof(DavSearch), __VA_ARGS__}
#define DAV_LOSS(...) {.abi = DAV_ABI, .size = sizeof(DavLoss), __VA_ARGS__}

/* The program's own. */
extern const DavSearch dav_search_dav;
extern const DavLoss dav_loss_dav, dav_loss_released, dav_loss_released_weight;

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
