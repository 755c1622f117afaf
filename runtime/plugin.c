#include "runtime/plugin.h"
#include "base/text.h"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

struct Registry {
    const DavModel **model; /* vecs */
    const DavSearch **search;
    const DavLoss **loss;
    const DavHostReward **reward;
    void **library;
};

/* ---- finding ---- */
/* What a plugin brings all begins with abi, size and hold a name at a place of their own. */
static const char *name_of_model(const void *item)
{
    return ((const DavModel *)item)->name;
}

static const char *name_of_search(const void *item)
{
    return ((const DavSearch *)item)->name;
}

static const char *name_of_loss(const void *item)
{
    return ((const DavLoss *)item)->name;
}

static const char *name_of_reward(const void *item)
{
    return ((const DavHostReward *)item)->name;
}

static const void *find(const void *const *item, const char *(*name_of)(const void *), const char *name)
{
    for (size_t i = 0; i < vec_len(item); i++)
        if (strcmp(name_of(item[i]), name) == 0)
            return item[i];
    return NULL;
}

static const void *find_or_say(Err *err, const char *place, const char *what, const void *const *item,
                               const char *(*name_of)(const void *), const char *name)
{
    const void *found = find(item, name_of, name);
    if (found)
        return found;
    const char *names[256];
    int n = 0;
    Buf all = {0};
    for (size_t i = 0; i < vec_len(item) && n < 256; i++) {
        names[n++] = name_of(item[i]);
        buf_printf(&all, "%s%s", i ? ", " : "", name_of(item[i]));
    }
    const char *near = err_nearest(name, names, n);
    if (near)
        err_user(err, "%s: no %s is named '%.100s', did you mean '%s'?", place, what, name, near);
    else
        err_user(err, "%s: no %s is named '%.100s'; there are %s", place, what, name, all.len ? all.at : "none");
    buf_free(&all);
    return NULL;
}

const DavModel *registry_model(const Registry *r, Err *err, const char *place, const char *name)
{
    return find_or_say(err, place, "model", (const void *const *)r->model, name_of_model, name);
}

const DavSearch *registry_search(const Registry *r, Err *err, const char *place, const char *name)
{
    return find_or_say(err, place, "search", (const void *const *)r->search, name_of_search, name);
}

const DavLoss *registry_loss(const Registry *r, Err *err, const char *place, const char *name)
{
    return find_or_say(err, place, "loss", (const void *const *)r->loss, name_of_loss, name);
}

const DavHostReward *registry_reward(const Registry *r, Err *err, const char *place, const char *name)
{
    return find_or_say(err, place, "reward in C", (const void *const *)r->reward, name_of_reward, name);
}

const DavModel *registry_model_at(const Registry *r, int i)
{
    return i >= 0 && (size_t)i < vec_len(r->model) ? r->model[i] : NULL;
}

const DavSearch *registry_search_at(const Registry *r, int i)
{
    return i >= 0 && (size_t)i < vec_len(r->search) ? r->search[i] : NULL;
}

const DavLoss *registry_loss_at(const Registry *r, int i)
{
    return i >= 0 && (size_t)i < vec_len(r->loss) ? r->loss[i] : NULL;
}

const DavHostReward *registry_reward_at(const Registry *r, int i)
{
    return i >= 0 && (size_t)i < vec_len(r->reward) ? r->reward[i] : NULL;
}

/* ---- loading ---- */
static bool same_number(Err *err, const char *path, const char *what, uint32_t theirs, uint32_t ours)
{
    return theirs == ours ||
           err_user(err, "%s: built for %s %u, this program has %u; build the plugin again", path, what, theirs, ours);
}

/* The version first: of another version nothing else may be read. */
static bool check_plugin(Err *err, const char *path, const DavPlugin *p)
{
    const DavPlugin *own = &dav_builtin;
    return same_number(err, path, "ABI version", p->abi, own->abi) &&
           same_number(err, path, "sizeof(DavPlugin)", p->size, own->size) &&
           same_number(err, path, "sizeof(DavModel)", p->size_model, own->size_model) &&
           same_number(err, path, "sizeof(DavSearch)", p->size_search, own->size_search) &&
           same_number(err, path, "sizeof(DavLoss)", p->size_loss, own->size_loss) &&
           same_number(err, path, "sizeof(DavHostReward)", p->size_reward, own->size_reward) &&
           same_number(err, path, "sizeof(DavKey)", p->size_key, own->size_key) &&
           same_number(err, path, "sizeof(DavVal)", p->size_val, own->size_val);
}

/* A plugin's lists are what its author wrote: an entry that lacks its name or its function is his mistake. */
static bool check_item(Err *err, const char *path, const char *what, int i, const void *item, const char *name,
                       bool complete)
{
    if (!item || !name || !*name)
        return err_user(err, "%s: %s %d has no name", path, what, i);
    return complete ||
           err_user(err, "%s: %s '%.100s' has no function, or was not written by its macro", path, what, name);
}

static bool check_items(const Registry *r, Err *err, const char *path, const DavPlugin *p)
{
    for (int i = 0; i < p->n_models; i++) {
        const DavModel *m = p->models[i];
        if (!check_item(err, path, "model", i, m, m ? m->name : NULL,
                        m && m->abi == DAV_ABI && m->size == sizeof *m && m->forward && m->input[0].name &&
                            m->output[0].name))
            return false;
        if (find((const void *const *)r->model, name_of_model, m->name))
            return err_user(err, "%s: a model named '%.100s' is there already", path, m->name);
    }
    for (int i = 0; i < p->n_searches; i++) {
        const DavSearch *s = p->searches[i];
        if (!check_item(err, path, "search", i, s, s ? s->name : NULL,
                        s && s->abi == DAV_ABI && s->size == sizeof *s && s->weights))
            return false;
        if (find((const void *const *)r->search, name_of_search, s->name))
            return err_user(err, "%s: a search named '%.100s' is there already", path, s->name);
    }
    for (int i = 0; i < p->n_losses; i++) {
        const DavLoss *l = p->losses[i];
        if (!check_item(err, path, "loss", i, l, l ? l->name : NULL,
                        l && l->abi == DAV_ABI && l->size == sizeof *l && l->loss))
            return false;
        if (find((const void *const *)r->loss, name_of_loss, l->name))
            return err_user(err, "%s: a loss named '%.100s' is there already", path, l->name);
    }
    for (int i = 0; i < p->n_rewards; i++) {
        const DavHostReward *h = p->rewards[i];
        if (!check_item(err, path, "reward", i, h, h ? h->name : NULL,
                        h && h->abi == DAV_ABI && h->size == sizeof *h && h->score))
            return false;
        if (find((const void *const *)r->reward, name_of_reward, h->name))
            return err_user(err, "%s: a reward named '%.100s' is there already", path, h->name);
    }
    return true;
}

static void add_all(Registry *r, const DavPlugin *p)
{
    for (int i = 0; i < p->n_models; i++)
        vec_push(r->model, p->models[i]);
    for (int i = 0; i < p->n_searches; i++)
        vec_push(r->search, p->searches[i]);
    for (int i = 0; i < p->n_losses; i++)
        vec_push(r->loss, p->losses[i]);
    for (int i = 0; i < p->n_rewards; i++)
        vec_push(r->reward, p->rewards[i]);
}

bool registry_load(Registry *r, Err *err, const char *path)
{
    char local[4200]; /* without a slash dlopen would search the system's folders */
    snprintf(local, sizeof local, "%s%.4096s", strchr(path, '/') ? "" : "./", path);
    if (!file_exists(local))
        return err_env(err, "%s: no such file", path);
    void *lib = dlopen(local, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        const char *why = dlerror();
        return err_user(err, "%s: cannot be loaded as a plugin: %.500s", path, why ? why : "unknown reason");
    }
    vec_push(r->library, lib);
    const DavPlugin *p = dlsym(lib, "dav_plugin");
    if (!p)
        return err_user(err, "%s: is no plugin: it has no DAV_PLUGIN(...)", path);
    if (!check_plugin(err, path, p) || !check_items(r, err, path, p))
        return false;
    add_all(r, p);
    return true;
}

const DavModel *registry_model_of(Registry *r, Err *err, const char *place, const char *what)
{
    if (!plugin_path(what))
        return registry_model(r, err, place, what);
    size_t first = vec_len(r->model);
    if (!registry_load(r, err, what))
        return NULL;
    return first < vec_len(r->model) ? r->model[first] : (err_user(err, "%s: %s: the plugin has no model", place, what), NULL);
}

bool registry_load_all(Registry *r, Err *err, const char *const *paths, int n)
{
    for (int i = 0; i < n; i++)
        if (!registry_load(r, err, paths[i]))
            return false;
    return true;
}

Registry *registry_new(void)
{
    Registry *r = mem_alloc(sizeof *r);
    add_all(r, &dav_builtin);
    return r;
}

void registry_free(Registry *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < vec_len(r->library); i++)
        dlclose(r->library[i]);
    vec_free(r->library);
    vec_free(r->model);
    vec_free(r->search);
    vec_free(r->loss);
    vec_free(r->reward);
    mem_free(r);
}

bool plugin_path(const char *path)
{
    size_t n = strlen(path);
    return n > 3 && strcmp(path + n - 3, ".so") == 0;
}
