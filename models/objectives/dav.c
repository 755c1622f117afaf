/* The searches and losses that the program brings, as a user would register his own. */
#include <dav/dav.h>

static DavVal importance(DavNet *n, const DavConfig *c, const DavStep *s)
{
    (void)n, (void)c;
    return dav_importance_weights(s->reward, s->logp, s->logq, s->scale);
}

static DavVal transition(DavNet *n, const DavConfig *c, const DavTransition *t)
{
    (void)n, (void)c;
    return dav_masked_loss(t->logp, t->x, t->next);
}

static DavVal released(DavNet *n, const DavConfig *c, const DavTransition *t)
{
    (void)n, (void)c;
    return dav_masked_loss_released(t->logp, t->x, t->x0, t->share);
}

/* share * m_t / (1 - m_t): the released code divides by the share of filled positions */
static DavVal released_weight(DavNet *n, const DavConfig *c, const DavTransition *t)
{
    (void)n, (void)c;
    DavVal m = dav_sub(1.0, t->share_left);
    return dav_masked_loss_released(t->logp, t->x, t->x0, dav_div(dav_mul(t->share, m), dav_max(t->share_left, 1e-3)));
}

const DavSearch dav_search_dav = DAV_SEARCH(.name = "dav", .weights = importance,
                                            .doc = "importance weights: gamma^(t-1) r / alpha + log p - log q");
const DavLoss dav_loss_dav = DAV_LOSS(.name = "dav", .loss = transition, .doc = "-log p of the sampled transition (forward KL)");
const DavLoss dav_loss_released =
    DAV_LOSS(.name = "released", .loss = released, .doc = "the released code's target: the argmax fill of the chosen child");
const DavLoss dav_loss_released_weight =
    DAV_LOSS(.name = "released_weight", .loss = released_weight,
             .doc = "the same with the released code's weight, divided by 1 - m(t) instead of m(t)");
