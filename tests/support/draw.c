#include "support/draw.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t fnv1a64(const char *prefix, const char *name)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (; *prefix; prefix++)
        h = (h ^ (unsigned char)*prefix) * 0x100000001B3u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001B3u;
    return h;
}

static uint64_t splitmix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t bits(uint64_t key, int64_t i)
{
    return splitmix64(key + (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u);
}

void draw_tensor(void *data, const SafeTensor *t, double offset, double scale)
{
    uint64_t key = fnv1a64("", t->name);
    for (int64_t i = 0, n = safetensor_count(t); i < n; i++) {
        uint64_t z = bits(key, i);
        if (t->dtype == DAV_I64)
            ((int64_t *)data)[i] = (int64_t)offset + (int64_t)(z % (uint64_t)scale);
        else
            ((float *)data)[i] = (float)(offset + scale * ((double)(z >> 40) / 8388608.0 - 1));
    }
}

double draw_sign(const char *name, int64_t i)
{
    return bits(fnv1a64("sign of ", name), i) >> 63 ? -1.0 : 1.0;
}

typedef struct Recipe {
    Arena *arena;
    SafeTensor *model, *in; /* vectors */
    char weights[256];      /* name of the file with real weights; empty: drawn */
} Recipe;

static void recipe_line(Recipe *r, const char *line)
{
    char file[16], name[128], dtype[8], shape[64];
    double offset, scale;
    if (line[0] == '#' || line[0] == '\0' || sscanf(line, "weights %255s", r->weights) == 1)
        return;
    if (sscanf(line, "%15s %127s %7s %63s %lf %lf", file, name, dtype, shape, &offset, &scale) != 6)
        die("recipe line: %s", line);
    SafeTensor t = {.name = arena_str(r->arena, name), .dtype = dtype[0] == 'I' ? DAV_I64 : DAV_F32};
    for (char *at = shape, *end = NULL; t.rank < SAFETENSOR_MAX_RANK && *at; at = *end ? end + 1 : end)
        t.dim[t.rank++] = strtoll(at, &end, 10);
    void *data = arena_alloc(r->arena, (size_t)safetensor_count(&t) * dav_dtype_size(t.dtype));
    draw_tensor(data, &t, offset, scale);
    t.data = data;
    if (strcmp(file, "model") == 0)
        vec_push(r->model, t);
    else
        vec_push(r->in, t);
}

static void must_write(const char *path, const SafeTensor *t)
{
    Err err = {0};
    if (!safetensors_write(&err, path, t, vec_len(t), NULL, 0))
        die("%s", err.text);
}

static void copy_file(const char *from, const char *to)
{
    Err err = {0};
    char *text;
    size_t len;
    if (!file_read(&err, from, 1 << 20, &text, &len) || !file_write(&err, to, text, len))
        die("%s", err.text);
    mem_free(text);
}

static void read_recipe(Recipe *r, const char *path)
{
    Err err = {0};
    char *text;
    size_t len;
    if (!file_read(&err, path, 1 << 20, &text, &len))
        die("%s", err.text);
    for (char *line = text, *end; line; line = end ? end + 1 : NULL) {
        end = strchr(line, '\n');
        if (end)
            *end = '\0';
        recipe_line(r, line);
    }
    mem_free(text);
}

bool recipe_materialise(const char *from, const char *to, const char *data_dir)
{
    Recipe r = {.arena = arena_new()};
    read_recipe(&r, arena_printf(r.arena, "%s/recipe.txt", from));
    bool possible = r.weights[0] == '\0' || data_dir;
    if (possible) {
        const char *weights = arena_printf(r.arena, "%s/diffusion_pytorch_model.safetensors", to);
        copy_file(arena_printf(r.arena, "%s/config.json", from), arena_printf(r.arena, "%s/config.json", to));
        if (r.weights[0] == '\0')
            must_write(weights, r.model);
        else if (symlink(arena_printf(r.arena, "%s/%s", data_dir, r.weights), weights) != 0)
            die("cannot link %s", weights);
        must_write(arena_printf(r.arena, "%s/in.safetensors", to), r.in);
    }
    vec_free(r.model);
    vec_free(r.in);
    arena_free(r.arena);
    return possible;
}
