/* The list of built-in models and objectives: a new one is a file and a row here. */
#include "builtin.h"

static const DavModel *const models[] = {&model_dna_conv, &model_seq_cnn, &model_tiny_denoiser, &model_mpra_dragonn,
                                         &model_aesthetic_mlp, &model_seq_transformer};
static const DavSearch *const searches[] = {&dav_search_dav};
static const DavLoss *const losses[] = {&dav_loss_dav, &dav_loss_released, &dav_loss_released_weight};

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

const DavPlugin dav_builtin = {
    .abi = DAV_ABI,
    .size = sizeof(DavPlugin),
    .size_model = sizeof(DavModel),
    .size_search = sizeof(DavSearch),
    .size_loss = sizeof(DavLoss),
    .size_reward = sizeof(DavHostReward),
    .size_key = sizeof(DavKey),
    .size_val = sizeof(DavVal),
    .models = models,
    .n_models = COUNT(models),
    .searches = searches,
    .n_searches = COUNT(searches),
    .losses = losses,
    .n_losses = COUNT(losses),
};
