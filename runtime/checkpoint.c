#include "runtime/checkpoint.h"
#include "codegen/codegen.h"
#include <stdio.h>
#include <string.h>

const char *dav_version(void)
{
    return "0.1.0";
}

static bool level_of(Err *err, const char *device, const char **level)
{
    CpuTarget t;
    if (strcmp(device, "cpu") != 0) {
        *level = device;
        return true;
    }
    if (!cpu_target(err, NULL, &t))
        return false;
    *level = t.name;
    return true;
}

/* Moments and average in the parameters' flat layout (runtime/params.h), and the number of updates. */
static bool write_optimiser(Err *err, const char *path, const ParamSet *p, const Optim *o)
{
    size_t bytes = (size_t)p->size * sizeof(float);
    if (!flat_read(err, o->m) || !flat_read(err, o->v) || !flat_read(err, o->ema))
        return false;
    SafeTensor t[] = {{.name = "m", .dtype = DAV_F32, .rank = 1, .dim = {p->size}, .data = o->m, .bytes = bytes},
                      {.name = "v", .dtype = DAV_F32, .rank = 1, .dim = {p->size}, .data = o->v, .bytes = bytes},
                      {.name = "ema", .dtype = DAV_F32, .rank = 1, .dim = {p->size}, .data = o->ema, .bytes = bytes},
                      {.name = "step", .dtype = DAV_I64, .rank = 0, .data = &o->step, .bytes = sizeof o->step}};
    return safetensors_write(err, path, t, 4, NULL, 0);
}

static bool read_flat(Err *err, const SafeTensors *s, const char *name, const ParamSet *p, float *into)
{
    const SafeTensor *t = safetensors_find(s, name);
    if (!t || t->dtype != DAV_F32 || safetensor_count(t) != p->size)
        return err_user(err, "%s: expected '%s' as F32 [%lld]", s->path, name, (long long)p->size);
    memcpy(into, t->data, t->bytes);
    flat_wrote(into);
    return true;
}

static bool read_optimiser(Err *err, const char *path, const ParamSet *p, Optim *o)
{
    SafeTensors *s = safetensors_open(err, path);
    if (!s)
        return false;
    const SafeTensor *step = safetensors_find(s, "step");
    bool ok = read_flat(err, s, "m", p, o->m) && read_flat(err, s, "v", p, o->v) && read_flat(err, s, "ema", p, o->ema);
    if (ok && (!step || step->dtype != DAV_I64 || step->bytes != sizeof o->step))
        ok = err_user(err, "%s: expected 'step' as one I64", path);
    if (ok)
        memcpy(&o->step, step->data, sizeof o->step);
    safetensors_close(s);
    return ok;
}

static bool save(Arena *a, Err *err, const Checkpoint *c, const ParamSet *theta, const Optim *optim)
{
    RunState s = {0};
    char path[STATE_PATH];
    const char *level;
    if (!level_of(err, c->device, &level) || (state_exists(c->dir) && !state_load(a, err, c->dir, &s)))
        return false;
    s.dav_version = dav_version();
    s.cpu_level = level;
    s.precision = c->precision;
    s.seed = c->seed;
    s.phase = c->phase;
    s.round = c->round;
    s.step = c->step;
    s.ema_step = optim->step;
    s.forwards = c->count.forwards;
    s.vjps = c->count.vjps;
    s.reward_forwards = c->count.reward_forwards;
    s.reward_vjps = c->count.reward_vjps;
    s.p0_forwards = c->count.p0_forwards;
    s.metrics_offset = c->metrics_offset;
    s.events_offset = c->events_offset;
    s.n_arrays = 0;
    state_begin(&s);
    return state_file_path(err, path, c->dir, &s, "weights") && params_save(theta, err, path, theta->value) &&
           state_add_file(a, err, c->dir, &s, "weights") && state_file_path(err, path, c->dir, &s, "optimiser") &&
           write_optimiser(err, path, theta, optim) && state_add_file(a, err, c->dir, &s, "optimiser") &&
           state_commit(err, c->dir, &s);
}

bool checkpoint_save(Err *err, const Checkpoint *c, const ParamSet *theta, const Optim *optim)
{
    Arena *a = arena_new();
    bool ok = save(a, err, c, theta, optim);
    arena_free(a);
    return ok;
}

static bool path_of(Err *err, char path[STATE_PATH], const char *dir, const RunState *s, const char *role)
{
    const StateFile *f = state_file(s, role);
    if (!f)
        return err_user(err, "%s: the checkpoint names no file of role '%s'", dir, role);
    return snprintf(path, STATE_PATH, "%s/checkpoints/%s", dir, f->name) < STATE_PATH || err_user(err, "%s: path too long", dir);
}

static bool load(Arena *a, Err *err, Checkpoint *c, ParamSet *theta, Optim *optim, bool allow_different_bits)
{
    RunState s;
    char path[STATE_PATH];
    const char *level;
    if (!level_of(err, c->device, &level) || !state_load(a, err, c->dir, &s) ||
        !state_same_machine(err, &s, dav_version(), level, c->precision, allow_different_bits))
        return false;
    if (s.phase != c->phase)
        return err_user(err, "%s: holds a run of dav %s, not of dav %s", c->dir, s.phase == STATE_ALIGN ? "align" : "pretrain",
                        c->phase == STATE_ALIGN ? "align" : "pretrain");
    if (!path_of(err, path, c->dir, &s, "weights") || !params_load(theta, err, path, theta->value) ||
        !path_of(err, path, c->dir, &s, "optimiser") || !read_optimiser(err, path, theta, optim))
        return false;
    params_touch(theta);
    c->round = s.round;
    c->step = s.step;
    c->count = (Counters){s.forwards, s.vjps, s.reward_forwards, s.reward_vjps, s.p0_forwards};
    c->metrics_offset = s.metrics_offset;
    c->events_offset = s.events_offset;
    return true;
}

bool checkpoint_load(Err *err, Checkpoint *c, ParamSet *theta, Optim *optim, bool allow_different_bits)
{
    Arena *a = arena_new();
    bool ok = load(a, err, c, theta, optim, allow_different_bits);
    arena_free(a);
    return ok;
}
