/* Models, searches, losses and rewards in C by name: those built in (models/models.c) and those of loaded plugins (dav/plugin.h). */
#pragma once
#include "base/mem.h"
#include "dav/plugin.h"

typedef struct Registry Registry;

Registry *registry_new(void);    /* knows what is built in */
void registry_free(Registry *r); /* unloads the plugins: nothing of theirs may be used any more; NULL is fine */

/* Loads a plugin.  Refused with both numbers when its ABI version or a struct's size differs, and when a name is taken.
 */
bool registry_load(Registry *r, Err *err, const char *path);
bool registry_load_all(Registry *r, Err *err, const char *const *paths, int n);

/* NULL and an error that begins with `place` and lists the nearest name, when there is none. */
const DavModel *registry_model(const Registry *r, Err *err, const char *place, const char *name);
/* The same, or the first model of a plugin, which is loaded, when `what` looks like its path. */
const DavModel *registry_model_of(Registry *r, Err *err, const char *place, const char *what);
const DavSearch *registry_search(const Registry *r, Err *err, const char *place, const char *name);
const DavLoss *registry_loss(const Registry *r, Err *err, const char *place, const char *name);
const DavHostReward *registry_reward(const Registry *r, Err *err, const char *place, const char *name);

/* All of them in order; NULL past the end. */
const DavModel *registry_model_at(const Registry *r, int i);
const DavSearch *registry_search_at(const Registry *r, int i);
const DavLoss *registry_loss_at(const Registry *r, int i);
const DavHostReward *registry_reward_at(const Registry *r, int i);

/* Whether path looks like a plugin rather than a model's name or folder: it ends in ".so". */
bool plugin_path(const char *path);
