#include "support/blocks.h"
#include <stdlib.h>

DavVal transformer_block(DavNet *n)
{
    enum { BATCH = 8, LENGTH = 1024, WIDTH = 512, HEADS = 8 };
    DavVal x = dav_input(n, "x", DAV_F32, BATCH, LENGTH, WIDTH), part[3], y = dav_layer_norm(n, "norm1", x);
    for (int i = 0; i < 3; i++)
        part[i] = dav_transpose(dav_reshape(dav_linear(n, i == 0 ? "q" : i == 1 ? "k" : "v", y, WIDTH), BATCH, LENGTH, HEADS, WIDTH / HEADS),
                                0, 2, 1, 3);
    y = dav_transpose(dav_attention(part[0], part[1], part[2]), 0, 2, 1, 3);
    x = dav_add(x, dav_linear(n, "out", dav_reshape(y, BATCH, LENGTH, WIDTH), WIDTH));
    return dav_add(x, dav_linear(n, "down", dav_gelu(dav_linear(n, "up", dav_layer_norm(n, "norm2", x), 4 * WIDTH)), WIDTH));
}

DavVal unet_block(DavNet *n)
{
    enum { BATCH = 4, SIDE = 32, CHANNELS = 320, HEADS = 8 };
    DavVal x = dav_input(n, "x", DAV_F32, BATCH, CHANNELS, SIDE, SIDE), t = dav_input(n, "t", DAV_F32, BATCH, 4 * CHANNELS), part[3];
    DavVal h = dav_conv(n, "conv1", dav_silu(dav_group_norm(n, "norm1", x, 32)), CHANNELS, .kernel = {3, 3}, .pad = {1, 1});
    h = dav_add(h, dav_reshape(dav_linear(n, "time", dav_silu(t), CHANNELS), BATCH, CHANNELS, 1, 1));
    h = dav_conv(n, "conv2", dav_silu(dav_group_norm(n, "norm2", h, 32)), CHANNELS, .kernel = {3, 3}, .pad = {1, 1});
    x = dav_add(x, h);
    DavVal y = dav_layer_norm(n, "norm3", dav_transpose(dav_reshape(x, BATCH, CHANNELS, SIDE * SIDE), 0, 2, 1));
    for (int i = 0; i < 3; i++)
        part[i] = dav_transpose(dav_reshape(dav_linear(n, i == 0 ? "q" : i == 1 ? "k" : "v", y, CHANNELS), BATCH, SIDE * SIDE, HEADS,
                                            CHANNELS / HEADS), 0, 2, 1, 3);
    y = dav_transpose(dav_attention(part[0], part[1], part[2]), 0, 2, 1, 3);
    y = dav_linear(n, "out", dav_reshape(y, BATCH, SIDE * SIDE, CHANNELS), CHANNELS);
    return dav_add(x, dav_reshape(dav_transpose(y, 0, 2, 1), BATCH, CHANNELS, SIDE, SIDE));
}

DavNet *block_net(Arena *arena, Err *err, BlockWriter write, bool backward)
{
    DavNet *n = net_new(arena, err, "block");
    DavVal y = write(n), xs[64], grads[64];
    dav_output(n, "y", y);
    if (!backward)
        return n;
    int count = net_param_count(n);
    for (int i = 0; i < count; i++)
        xs[i] = net_val(n, net_param(n, i)->val);
    xs[count] = net_val(n, graph_find_input(n->g, "x"));
    DavVal square = dav_square(y);
    dav_grads(dav_rank(y) == 3 ? dav_mean(square, 0, 1, 2) : dav_mean(square, 0, 1, 2, 3), xs, count + 1, grads);
    for (int i = 0; i <= count; i++)
        dav_output(n, arena_printf(arena, "g%d", i), grads[i]);
    return n;
}
