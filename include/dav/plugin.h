/* A plugin: one C file that includes <dav/dav.h>, defines models, searches, losses or rewards and names them once:
 *
 *     DAV_PLUGIN(.models = models, .n_models = 1);
 *
 * `dav build mymodel.c -o mymodel.so` compiles it; commands take the file after --plugin.  On loading, the
 * ABI version and the sizes of the structs are compared, and a plugin built against other headers is refused. */
#pragma once
#include "dav/objective.h"
#ifdef __cplusplus
extern "C" {
#endif

/* A reward that is C code and not a graph: any number of finished sequences, but no gradient (search.value_gradient). */
typedef struct DavHostReward {
    uint32_t abi, size; /* written by DAV_HOST_REWARD */
    const char *name, *doc; /* chosen by reward.function: NAME */
    /* letters i64 [n,length] in 0..V-1; writes n finite numbers.  NULL, or what went wrong in one line; an answer must not
     * depend on which sequences come in one call. */
    const char *(*score)(int64_t n, int64_t length, const int64_t *letters, double *values);
} DavHostReward;
#define DAV_HOST_REWARD(...) {.abi = DAV_ABI, .size = sizeof(DavHostReward), __VA_ARGS__}

typedef struct DavPlugin {
    uint32_t abi, size, size_model, size_search, size_loss, size_reward, size_key, size_val; /* by DAV_PLUGIN */
    const DavModel *const *models;
    int n_models;
    const DavSearch *const *searches;
    int n_searches;
    const DavLoss *const *losses;
    int n_losses;
    const DavHostReward *const *rewards;
    int n_rewards;
} DavPlugin;

#define DAV_PLUGIN(...) \
    __attribute__((visibility("default"))) const DavPlugin dav_plugin = { \
        .abi = DAV_ABI, .size = sizeof(DavPlugin), .size_model = sizeof(DavModel), .size_search = sizeof(DavSearch), \
        .size_loss = sizeof(DavLoss), .size_reward = sizeof(DavHostReward), .size_key = sizeof(DavKey), \
        .size_val = sizeof(DavVal), __VA_ARGS__}

/* What the program itself brings (models/models.c); laid out as a plugin. */
extern const DavPlugin dav_builtin;

#ifdef __cplusplus
}
#endif
