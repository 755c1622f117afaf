#include "support/em_world.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

void world_check(const World *w, bool ok)
{
    if (!ok)
        fail_msg("%s", w->err.text);
}

static DavConfig *model_config(World *w, const DavModel *m, const char *const *set)
{
    DavConfig *c = config_new(w->arena);
    config_add_table(c, "", m->keys, m->n_keys);
    for (; *set; set += 2)
        world_check(w, config_set(c, &w->err, "test", set[0], (ConfigText){CONFIG_PLAIN, set[1]}));
    world_check(w, config_finish(c, &w->err, "test"));
    return c;
}

static void write_model(World *w, const char *name, Network net, ParamSet *p, double gain)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", w->dir, name);
    assert_int_equal(mkdir(path, 0700), 0);
    for (int64_t i = 0; i < p->size; i++)
        p->value[i] *= (float)gain;
    world_check(w, modeldir_write_config(&w->err, path, net.model, net.config));
    snprintf(path, sizeof path, "%s/%s/diffusion_pytorch_model.safetensors", w->dir, name);
    world_check(w, params_save(p, &w->err, path, p->value));
    params_free(p);
}

DavConfig *world_config(World *w, const char *const *set)
{
    const ExactEm *e = &w->em;
    Settings *s = settings_new(w->arena);
    const char *common[] = {arena_printf(w->arena, "pretrained.model=%s/denoiser", w->dir),
                            arena_printf(w->arena, "reward.model=%s/reward", w->dir),
                            arena_printf(w->arena, "sample.num_steps=%d", e->steps),
                            arena_printf(w->arena, "search.search_kl=%.17g", e->alpha),
                            arena_printf(w->arena, "search.gamma=%.17g", e->gamma),
                            arena_printf(w->arena, "train.train_kl=%.17g", e->lambda),
                            "sample.batch_size=256",
                            "train.micro_batch=256",
                            "seed=5",
                            "threads=1"};
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        world_check(w, settings_set(s, &w->err, common[i]));
    for (; *set; set++)
        world_check(w, settings_set(s, &w->err, *set));
    DavConfig *c = options_read(&w->err, w->arena, OPTIONS_ALIGN, NULL, 0, s);
    world_check(w, c);
    return c;
}

Aligner *world_aligner(World *w, const char *const *set)
{
    Aligner *a = aligner_open(&w->err, w->registry, world_config(w, set));
    world_check(w, a);
    return a;
}

void world_parameters(const World *w, const Aligner *a, double *theta)
{
    for (int i = 0; i < a->theta->n; i++) {
        const ParamEntry *p = &a->theta->entry[i];
        int size, at = exact_theta_part(&w->em, p->name, &size);
        assert_int_equal(size, p->count);
        for (int j = 0; j < size; j++)
            theta[at + j] = a->theta->value[p->offset + j];
    }
}

static void read_rewards(World *w, Aligner *a)
{
    int64_t x[EXACT_WORDS][EXACT_LENGTH], *flat = &x[0][0];
    float r[EXACT_WORDS];
    for (int i = 0; i < w->em.words; i++)
        for (int l = 0, rest = i; l < w->em.length; l++, rest /= w->em.letters)
            *flat++ = rest % w->em.letters;
    world_check(w, masked_score(a->plain, &w->err, w->em.words, &x[0][0], r));
    for (int i = 0; i < w->em.words; i++)
        w->em.reward[i] = r[i];
}

World *world_new(ExactEm em, double reward_gain)
{
    World *w = mem_alloc(sizeof *w);
    *w = (World){.dir = "/tmp/dav-em-XXXXXX", .arena = arena_new(), .registry = registry_new(), .em = em};
    assert_non_null(mkdtemp(w->dir));
    exact_open(&w->em);
    const DavModel *tiny = registry_model(w->registry, &w->err, "test", "TinyDenoiser"),
                   *cnn = registry_model(w->registry, &w->err, "test", "SeqCNN");
    const char *symbols = arena_printf(w->arena, "%d", em.letters + 1),
               *letters = arena_printf(w->arena, "%d", em.letters), *length = arena_printf(w->arena, "%d", em.length),
               *hidden = arena_printf(w->arena, "%d", em.hidden);
    MaskedSpec spec = {
        .denoiser = {tiny, model_config(w, tiny,
                                        (const char *const[]){"alphabet_size", symbols, "length", length, "hidden_dim",
                                                              hidden, NULL})},
        .reward = {
            cnn, model_config(w, cnn,
                              (const char *const[]){"letters", letters, "length", length, "channels", "[6]", "kernels",
                                                    "[3]", "pool", "[1]", "dense", "6", "activation", "gelu", NULL})}};
    world_check(w, masked_spec_shape(&w->err, &spec));
    write_model(w, "denoiser", spec.denoiser, masked_denoiser_params(&w->err, &spec, 3), 3);
    write_model(w, "reward", spec.reward, masked_reward_params(&w->err, &spec, 4), reward_gain);
    Aligner *a = world_aligner(w, (const char *const[]){"search.method=none", NULL});
    world_parameters(w, a, w->start);
    read_rewards(w, a);
    aligner_close(a);
    exact_table(&w->em, w->start, w->prior);
    exact_law(&w->em, w->prior, w->law);
    return w;
}

void world_free(World *w)
{
    char command[100];
    snprintf(command, sizeof command, "rm -r %s", w->dir);
    assert_int_equal(system(command), 0);
    registry_free(w->registry);
    arena_free(w->arena);
    mem_free(w);
}

void world_law(const World *w, const Aligner *a, double law[EXACT_WORDS])
{
    static ExactTable table;
    double theta[EXACT_THETA];
    world_parameters(w, a, theta);
    exact_table(&w->em, theta, table);
    exact_law(&w->em, table, law);
}

void world_restart(Aligner *a)
{
    size_t bytes = (size_t)a->theta->size * sizeof(float);
    memcpy(a->theta->value, a->pretrained->value, bytes);
    params_touch(a->theta);
    memset(a->optim->m, 0, bytes);
    memset(a->optim->v, 0, bytes);
    flat_wrote(a->theta->value);
    flat_wrote(a->optim->m);
    flat_wrote(a->optim->v);
    a->optim->step = 0;
}
