#include "runtime/params.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static const char *under(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) == 0 ? name + n : NULL;
}

/* Versions are unique in the process: a program may serve several parameter sets in turn. */
void params_touch(ParamSet *p)
{
    static atomic_ullong next = 1;
    p->version = atomic_fetch_add(&next, 1);
}

static void add_entries(ParamSet *p, const Graph *g, const char *prefix, bool frozen)
{
    for (Val v = 1; v < g->n; v++) {
        const Node *n = node_of(g, v);
        if (n->op != OP_INPUT || attr_i(n, A_ROLE) != (frozen ? ROLE_FROZEN : ROLE_PARAM))
            continue;
        const char *name = under(attr_s(n, A_NAME), prefix);
        if (!name)
            continue;
        Type t = type_of(g, v);
        must(t.dtype == DAV_F32);
        size_t len = strlen(name) + 1;
        ParamEntry e = {mem_alloc(len), t, frozen, p->size, type_count(&t)};
        memcpy((char *)e.name, name, len);
        p->entry[p->n++] = e;
        p->size += round_up(e.count, 16);
    }
}

int64_t param_leaf(int64_t n)
{
    enum { LEAST = 1024, MOST_LEAVES = 8192 };
    int64_t leaf = LEAST;
    while (n > MOST_LEAVES * leaf)
        leaf *= 2;
    return leaf;
}

ParamSet *params_from_graph(const Graph *g, const char *prefix)
{
    ParamSet *p = mem_alloc(sizeof *p);
    p->entry = mem_alloc(mem_mul((size_t)g->n, sizeof *p->entry));
    add_entries(p, g, prefix, false);
    p->size = p->trainable = round_up(p->size, 4 * param_leaf(p->size));
    add_entries(p, g, prefix, true);
    p->size = round_up(p->size, FLAT_ALIGN);
    p->value = params_flat(p);
    params_touch(p);
    return p;
}

void params_free(ParamSet *p)
{
    if (!p)
        return;
    for (int i = 0; i < p->n; i++)
        mem_free((char *)p->entry[i].name);
    mem_free(p->entry);
    flat_free(p->value);
    mem_free(p);
}

float *params_flat(const ParamSet *p)
{
    return flat_new(p->size + 16);
}

/* Shared by both directions: `find` is program_input or program_output. */
static void bind(const ParamSet *p, Program *prog, const char *prefix, float *flat,
                 int (*find)(const Program *, const char *), void **slot)
{
    char name[512];
    for (int i = 0; i < p->n; i++) {
        snprintf(name, sizeof name, "%s%s", prefix, p->entry[i].name);
        int k = find(prog, name);
        if (k >= 0)
            slot[k] = flat + p->entry[i].offset;
        if (k >= 0 && find == program_input)
            program_bind(prog, k, flat, p->entry[i].offset);
    }
}

void params_bind_inputs(const ParamSet *p, Program *prog, const char *prefix, float *flat, void **in)
{
    bind(p, prog, prefix, flat, program_input, in);
}

void params_bind_outputs(const ParamSet *p, Program *prog, const char *prefix, float *flat, void **out)
{
    bind(p, prog, prefix, flat, program_output, out);
}

static const ParamEntry *find_entry(const ParamSet *p, const char *name)
{
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->entry[i].name, name) == 0)
            return &p->entry[i];
    return NULL;
}

static bool unknown_tensor(const ParamSet *p, Err *err, const char *path, const char *name)
{
    const char **names = mem_alloc(mem_mul((size_t)p->n + 1, sizeof *names));
    for (int i = 0; i < p->n; i++)
        names[i] = p->entry[i].name;
    const char *near = err_nearest(name, names, p->n);
    err_user(err, "%s: the network has no parameter '%.200s'%s%s%s", path, name, near ? " (nearest: '" : "", near ? near : "",
             near ? "')" : "");
    mem_free(names);
    return false;
}

static bool same_shape(const SafeTensor *t, const Type *want)
{
    return t->rank == want->rank && (t->rank == 0 || memcmp(t->dim, want->dim, (size_t)t->rank * sizeof *t->dim) == 0);
}

static bool load_all(const ParamSet *p, Err *err, const SafeTensors *s, float *flat)
{
    for (size_t i = 0; i < s->n; i++)
        if (!find_entry(p, s->tensor[i].name))
            return unknown_tensor(p, err, s->path, s->tensor[i].name);
    for (int i = 0; i < p->n; i++) {
        const ParamEntry *e = &p->entry[i];
        const SafeTensor *t = safetensors_find(s, e->name);
        char want[160], found[160];
        if (!t)
            return err_user(err, "%s: parameter '%s' %s is missing", s->path, e->name, type_text(&e->type, want));
        if (!same_shape(t, &e->type)) {
            Type have = type_make(DAV_F32, t->rank, t->dim);
            return err_user(err, "%s: '%s': expected %s, found %s", s->path, e->name, type_text(&e->type, want) + 3,
                            type_text(&have, found) + 3);
        }
        if (!safetensor_to_f32(err, s, t, flat + e->offset))
            return false;
    }
    return true;
}

bool params_load(const ParamSet *p, Err *err, const char *path, float *flat)
{
    SafeTensors *s = safetensors_open(err, path);
    bool here = s && flat_read(err, flat), ok = here && load_all(p, err, s, flat);
    if (here)
        flat_wrote(flat);
    safetensors_close(s);
    return ok;
}

bool params_save(const ParamSet *p, Err *err, const char *path, const float *flat)
{
    if (!flat_read(err, flat) || !flat_read(err, p->value))
        return false;
    SafeTensor *t = mem_alloc(mem_mul((size_t)p->n + 1, sizeof *t));
    for (int i = 0; i < p->n; i++) {
        const ParamEntry *e = &p->entry[i];
        t[i] = (SafeTensor){.name = e->name, .dtype = DAV_F32, .rank = e->type.rank};
        memcpy(t[i].dim, e->type.dim, sizeof t[i].dim);
        t[i].data = (e->frozen ? p->value : flat) + e->offset;
        t[i].bytes = (size_t)e->count * sizeof(float);
    }
    bool ok = safetensors_write(err, path, t, (size_t)p->n, NULL, 0);
    mem_free(t);
    return ok;
}
