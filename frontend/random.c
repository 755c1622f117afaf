/* Random numbers from Philox bits; the bits come from the op `random`, the rest is ordinary arithmetic. */
#include "frontend/net.h"
#undef DAV_HERE
#define DAV_HERE at

DavVal dav_random_bits_(DavPlace at, DavVal key, DavVal counter, int rank, const int64_t *dim)
{
    DavNet *n;
    Type t;
    if (!net_operands(at, "random", (DavVal[]){key, counter}, 2, &n) ||
        !net_type(at, n, "random", DAV_U32, rank, dim, &t))
        return net_val(n, 0);
    Attr shape = {.name = A_SHAPE, .n = rank, .ints = dim};
    return net_val(n, graph_node(n->g, OP_RANDOM, (Val[]){key.id, counter.id}, 2, &shape, 1, NULL));
}

DavVal dav_uniform_of_(DavPlace at, DavVal bits)
{
    return dav_mul(dav_add(dav_cast(dav_shr(bits, 9), DAV_F32), 0.5), 0x1p-23);
}

DavVal dav_gumbel_of_(DavPlace at, DavVal bits)
{
    return dav_neg(dav_log(dav_neg(dav_log(dav_uniform_of(bits)))));
}

DavVal dav_uniform_(DavPlace at, DavVal key, DavVal counter, int rank, const int64_t *dim)
{
    return dav_uniform_of(dav_random_bits_(at, key, counter, rank, dim));
}

DavVal dav_gumbel_(DavPlace at, DavVal key, DavVal counter, int rank, const int64_t *dim)
{
    return dav_gumbel_of(dav_random_bits_(at, key, counter, rank, dim));
}

/* Box-Muller: two uniform numbers a value, the second half of each row's words being the angles. */
DavVal dav_normal_(DavPlace at, DavVal key, DavVal counter, int rank, const int64_t *dim)
{
    DavNet *n;
    Type t;
    if (!net_operands(at, "normal", (DavVal[]){key, counter}, 2, &n) ||
        !net_type(at, n, "normal", DAV_F32, rank, dim, &t))
        return net_val(n, 0);
    if (rank < 1 || rank >= IR_MAX_RANK)
        return net_bad(at, n, "normal: rank %d, expected 1 to %d", rank, IR_MAX_RANK - 1);
    int64_t pair[IR_MAX_RANK] = {dim[0], 2};
    for (int i = 1; i < rank; i++)
        pair[i + 1] = dim[i];
    DavVal u = dav_uniform_(at, key, counter, rank + 1, pair);
    DavVal radius = dav_sqrt(dav_mul(-2, dav_log(dav_squeeze(dav_slice(u, 1, 0, 1), 1))));
    DavVal angle = dav_mul(6.283185307179586, dav_squeeze(dav_slice(u, 1, 1, 2), 1));
    return dav_mul(radius, dav_cos(angle));
}

DavVal dav_choose_(DavPlace at, DavVal logits, DavVal bits)
{
    return dav_argmax(dav_add(logits, dav_gumbel_of(bits)), -1);
}
