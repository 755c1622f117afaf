#include "runtime/programfile.h"
#include "ir/dtype.h"
#include "ir/parse.h"
#include "ir/verify.h"
#include "runtime/safetensors.h"
#include <string.h>

enum { ALIGNMENT = 64 };

static size_t bytes_of(const Type *t)
{
    return mem_mul((size_t)type_count(t), dav_dtype_size(t->dtype));
}

static void *aligned(Arena *arena, size_t bytes)
{
    unsigned char *p = arena_alloc(arena, bytes + ALIGNMENT);
    return p + (ALIGNMENT - (uintptr_t)p % ALIGNMENT) % ALIGNMENT;
}

static double float_at(InputData x, int64_t i)
{
    switch (x.dtype) {
    case DAV_F32:
        return ((const float *)x.data)[i];
    case DAV_BF16:
        return bf16_to_f32(((const uint16_t *)x.data)[i]);
    default:
        return f16_to_f32(((const uint16_t *)x.data)[i]);
    }
}

static void *input_copy(Arena *arena, const Type *t, InputData from)
{
    void *to = aligned(arena, bytes_of(t));
    if (from.dtype == t->dtype)
        memcpy(to, from.data, bytes_of(t));
    else
        for (int64_t i = 0; i < type_count(t); i++)
            ((double *)to)[i] = float_at(from, i);
    return to;
}

bool program_run_to_file(Err *err, Arena *arena, Program *p, InputSource source, void *ctx, const char *path, int threads)
{
    int nin = program_input_count(p), nout = program_output_count(p);
    void **in = arena_array(arena, void *, nin), **out = arena_array(arena, void *, nout);
    SafeTensor *t = arena_array(arena, SafeTensor, nout);
    for (int i = 0; i < nin; i++) {
        Type type = program_input_type(p, i);
        in[i] = input_copy(arena, &type, source(ctx, program_input_name(p, i)));
    }
    for (int i = 0; i < nout; i++) {
        Type type = program_output_type(p, i);
        out[i] = aligned(arena, bytes_of(&type));
        t[i] = (SafeTensor){.name = program_output_name(p, i), .dtype = type.dtype, .rank = type.rank, .data = out[i],
                            .bytes = bytes_of(&type)};
        memcpy(t[i].dim, type.dim, sizeof type.dim);
    }
    return program_run(p, err, in, out, 1, threads) && safetensors_write(err, path, t, (size_t)nout, NULL, 0);
}

/* ---- graphs from files ---- */
typedef struct Work {
    Err *err;
    const char *path, *in, *out;
    const ProgramOptions *options;
    Arena *arena;
    Graph *g;
    SafeTensors *file;
    Program *program;
} Work;

static bool check_tensor(Work *w, const Val *input, int n, const SafeTensor *t)
{
    const char **names = arena_array(w->arena, const char *, n);
    for (int i = 0; i < n; i++)
        names[i] = attr_s(node_of(w->g, input[i]), A_NAME);
    for (int i = 0; i < n; i++) {
        if (strcmp(names[i], t->name) != 0)
            continue;
        Type want = type_of(w->g, input[i]), have = type_make(t->dtype, t->rank, t->dim);
        char a[160], b[160];
        if (t->dtype == DAV_DTYPE_COUNT)
            return err_user(w->err, "%s: tensor '%s': expected %s, found %s", w->in, t->name, type_text(&want, a), t->file_dtype);
        return type_equal(&want, &have) ||
               err_user(w->err, "%s: tensor '%s': expected %s, found %s", w->in, t->name, type_text(&want, a), type_text(&have, b));
    }
    const char *near = err_nearest(t->name, names, n);
    return err_user(w->err, "%s: %s has no input '%.200s'%s%s%s", w->in, w->path, t->name, near ? "; nearest: '" : "", near ? near : "",
                    near ? "'" : "");
}

static bool check_inputs(Work *w)
{
    int n;
    Val *input = graph_inputs(w->g, w->arena, &n);
    for (size_t i = 0; i < w->file->n; i++)
        if (!check_tensor(w, input, n, &w->file->tensor[i]))
            return false;
    for (int i = 0; i < n; i++) {
        const char *name = attr_s(node_of(w->g, input[i]), A_NAME);
        Type t = type_of(w->g, input[i]);
        char text[160];
        if (!safetensors_find(w->file, name))
            return err_user(w->err, "%s: tensor '%s', %s, is missing", w->in, name, type_text(&t, text));
    }
    return true;
}

static InputData tensor_data(void *ctx, const char *name)
{
    const SafeTensor *t = safetensors_find(((Work *)ctx)->file, name);
    return (InputData){t->data, t->dtype};
}

static bool work(void *arg)
{
    Work *w = arg;
    const bool refused[OP_COUNT] = {[OP_KERNEL] = true, [OP_FUSE] = true};
    w->g = graph_read(w->arena, w->err, w->path);
    if (!w->g)
        return false;
    if (!graph_verify(w->err, w->g, refused))
        return err_prefix(w->err, "%s: what passes make is not run from a file", w->path);
    w->file = safetensors_open(w->err, w->in);
    if (!w->file || !check_inputs(w))
        return false;
    w->program = program_compile(w->err, w->g, w->options);
    return w->program && program_run_to_file(w->err, w->arena, w->program, tensor_data, w, w->out, w->options->compile.threads);
}

bool graph_run_file(Err *err, const char *graph, const char *in, const char *out, const ProgramOptions *options)
{
    Work w = {.err = err, .path = graph, .in = in, .out = out, .options = options, .arena = arena_new()};
    bool ok = mem_protect(err, work, &w);
    program_free(w.program);
    safetensors_close(w.file);
    arena_free(w.arena);
    return ok;
}
