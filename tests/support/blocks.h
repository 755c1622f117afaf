/* Blocks of larger networks than the shipped ones. */
#pragma once
#include "frontend/net.h"

typedef DavVal (*BlockWriter)(DavNet *n);
/* Pre-norm, 8 heads, over 8 x 1024 x 512. */
DavVal transformer_block(DavNet *n);
/* A residual block with its time embedding, then self-attention over the pixels, as in a UNet at 32x32. */
DavVal unet_block(DavNet *n);
/* Its output y; backward: and g0, g1, ... of its mean square in all parameters and in x. */
DavNet *block_net(Arena *arena, Err *err, BlockWriter write, bool backward);
