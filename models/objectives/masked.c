/* The EM objective for masked diffusion, in the graph language.  Formulas and shapes: dav/objective.h. */
#include <dav/dav.h>
#include <math.h>

static DavVal masked_at(DavVal x, int64_t letters)
{
    return dav_eq(x, (double)letters);
}

/* The element of the last axis that x names; 0 where x is no letter. */
static DavVal at_letter(DavVal logp, DavVal x)
{
    DavVal hot = dav_one_hot(x, dav_dim(logp, -1), DAV_BOOL);
    return dav_sum(dav_where(hot, logp, 0.0), -1);
}

DavVal dav_masked_logp(DavVal logits)
{
    return dav_log_softmax(dav_slice(logits, -1, 0, dav_dim(logits, -1) - 1), -1);
}

DavVal dav_masked_argmax_fill(DavVal logp, DavVal x)
{
    DavVal best = dav_cast(dav_argmax(logp, -1), DAV_I64);
    return dav_where(masked_at(x, dav_dim(logp, -1)), best, x);
}

DavVal dav_masked_soft_x0(DavVal relaxed, DavVal logits)
{
    int64_t letters = dav_dim(logits, -1) - 1;
    DavVal p = dav_softmax(dav_slice(logits, -1, 0, letters), -1);
    DavVal kept = dav_slice(relaxed, -1, 0, letters), mask = dav_slice(relaxed, -1, letters, letters + 1);
    return dav_add(kept, dav_mul(mask, p));
}

DavVal dav_masked_guided(DavVal logp, DavVal guide, DavVal scale)
{
    return dav_log_softmax(dav_add(logp, dav_mul(scale, guide)), -1);
}

/* Letters from log q [B,1,L,V] by uniform numbers [B,M,L]: how many partial sums lie at or below the number. */
static DavVal draw_letters(DavVal logq, DavVal u)
{
    int64_t letters = dav_dim(logq, -1);
    DavVal sums = dav_slice(dav_cumsum(dav_exp(logq), -1), -1, 0, letters - 1);
    DavVal passed = dav_ge(dav_unsqueeze(u, -1), sums);
    return dav_sum(dav_cast(passed, DAV_I64), -1);
}

DavChildren dav_masked_children(DavVal x, DavVal logp, DavVal logq, DavVal shares, DavVal key, DavVal counter, int64_t children)
{
    int64_t b = dav_dim(x, 0), l = dav_dim(x, 1), letters = dav_dim(logp, -1);
    DavVal u = dav_reshape(dav_uniform(key, counter, b * children, l, 2), b, children, l, 2);
    DavVal m_t = dav_slice(shares, 0, 0, 1), m_s = dav_slice(shares, 0, 1, 2);
    DavVal chance = dav_div(dav_sub(m_t, m_s), m_t);
    DavVal parent = dav_unsqueeze(x, 1);
    DavVal fill = dav_and(masked_at(parent, letters), dav_lt(dav_squeeze(dav_slice(u, -1, 0, 1), -1), chance));
    DavVal letter = draw_letters(dav_unsqueeze(logq, 1), dav_squeeze(dav_slice(u, -1, 1, 2), -1));
    DavVal lp = at_letter(dav_unsqueeze(logp, 1), letter), lq = at_letter(dav_unsqueeze(logq, 1), letter);
    return (DavChildren){.x = dav_where(fill, letter, parent),
                         .logp = dav_sum(dav_where(fill, lp, 0.0), -1),
                         .logq = dav_sum(dav_where(fill, lq, 0.0), -1)};
}

DavVal dav_importance_weights(DavVal reward, DavVal logp, DavVal logq, DavVal scale)
{
    return dav_add(dav_mul(scale, reward), dav_sub(logp, logq));
}

DavChoice dav_choose_child(DavVal logw, DavVal key, DavVal counter)
{
    int64_t b = dav_dim(logw, 0), m = dav_dim(logw, 1);
    DavVal logn = dav_log_softmax(logw, -1);
    DavVal index = dav_choose(logw, dav_random_bits(key, counter, b, m));
    return (DavChoice){.index = index,
                       .lognorm = dav_add(dav_pick_last(logn, index), log((double)m)),
                       .ess = dav_div(1.0, dav_sum(dav_exp(dav_mul(2.0, logn)), -1))};
}

DavChoice dav_choose_best_child(DavVal logw)
{
    DavVal logn = dav_log_softmax(logw, -1);
    return (DavChoice){.index = dav_cast(dav_argmax(logw, -1), DAV_I32),
                       .lognorm = dav_const(logw.net, DAV_F32, log((double)dav_dim(logw, 1)), dav_dim(logw, 0)),
                       .ess = dav_div(1.0, dav_sum(dav_exp(dav_mul(2.0, logn)), -1))};
}

DavVal dav_masked_loss(DavVal logp, DavVal x, DavVal next)
{
    DavVal filled = masked_at(x, dav_dim(logp, -1));
    /* a position of `next` that is still masked names no letter and adds 0 */
    return dav_neg(dav_sum(dav_where(filled, at_letter(logp, next), 0.0), -1));
}

DavVal dav_masked_loss_released(DavVal logp, DavVal x, DavVal x0, DavVal share)
{
    return dav_mul(share, dav_masked_cross_entropy(logp, x, x0));
}

DavVal dav_masked_kl(DavVal logp, DavVal logp0, DavVal x, DavVal share)
{
    DavVal each = dav_sum(dav_mul(dav_exp(logp), dav_sub(logp, logp0)), -1);
    return dav_mul(share, dav_sum(dav_where(masked_at(x, dav_dim(logp, -1)), each, 0.0), -1));
}

DavVal dav_masked_cross_entropy(DavVal logp, DavVal x, DavVal x0)
{
    return dav_masked_loss(logp, x, x0);
}

DavVal dav_masked_noise(DavVal x0, DavVal share, DavVal uniform, int64_t mask)
{
    return dav_where(dav_lt(uniform, dav_unsqueeze(share, 1)), (double)mask, x0);
}
