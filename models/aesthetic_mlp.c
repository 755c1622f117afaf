/* AestheticMLP: the LAION aesthetic head, sac+logos+ava1-l14-linearMSE: five linear layers with nothing between them.
 */
#include "builtin.h"

static const char *const ignored[] = {"dropout"};

static void forward(DavNet *n, const DavConfig *c, const DavVal *in, DavVal *out)
{
    static const struct {
        int index;
        int64_t width;
    } layers[] = {{0, 1024}, {2, 128}, {4, 64}, {6, 16}, {7, 1}};
    (void)c;
    DavVal h = in[0];
    for (int i = 0; i < 5; i++)
        h = dav_linear(n, dav_name(n, "layers.%d", layers[i].index), h, layers[i].width);
    out[0] = h;
}

const DavModel model_aesthetic_mlp =
    DAV_MODEL(.kind = DAV_NETWORK, .name = "AestheticMLP",
              .doc = "LAION aesthetic score of a CLIP ViT-L/14 image embedding", DAV_IGNORED(ignored),
              .input = {{"image_embeds", "f32[B,768]", NULL, false, "of length 1 each"}},
              .output = {{"score", "f32[B,1]", NULL, false, "aesthetic score, 1 to 10"}}, .forward = forward);
