#include "runtime/state.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY /* a state on the stack */
#include <xxhash.h>

static bool join(Err *err, char path[STATE_PATH], const char *run_dir, const char *name)
{
    int k = snprintf(path, STATE_PATH, "%s/checkpoints/%s", run_dir, name);
    return (k > 0 && k < STATE_PATH) || err_user(err, "%.80s...: path too long", run_dir);
}

bool state_exists(const char *run_dir)
{
    char path[STATE_PATH];
    Err ignored = {.kind = ERR_NONE};
    return join(&ignored, path, run_dir, "run.state") && file_exists(path);
}

void state_begin(RunState *s)
{
    s->serial++;
    s->n_files = s->n_arrays = 0;
}

static void file_name(char name[256], const RunState *s, const char *role)
{
    snprintf(name, 256, "%s-r%04" PRId64 "-%06" PRIu64 ".safetensors", role, s->round, s->serial);
}

bool state_file_path(Err *err, char path[STATE_PATH], const char *run_dir, const RunState *s, const char *role)
{
    char name[256];
    file_name(name, s, role);
    return join(err, path, run_dir, name);
}

/* Size and xxhash64 of a file, read in pieces. */
static bool hash_file(Err *err, const char *path, uint64_t *bytes, uint64_t *hash)
{
    char piece[1 << 16];
    if (!file_exists(path) || file_is_dir(path))
        return err_user(err, "%s: no such file", path);
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_env(err, "%s: %s", path, strerror(errno));
    XXH64_state_t x;
    XXH64_reset(&x, 0);
    *bytes = 0;
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0; *bytes += n)
        XXH64_update(&x, piece, n);
    bool bad = ferror(f) != 0;
    fclose(f);
    *hash = XXH64_digest(&x);
    return !bad || err_env(err, "%s: read error", path);
}

bool state_add_file(Arena *a, Err *err, const char *run_dir, RunState *s, const char *role)
{
    char path[STATE_PATH], name[256];
    must(s->n_files < STATE_MAX_FILES);
    StateFile *f = &s->files[s->n_files];
    file_name(name, s, role);
    if (!join(err, path, run_dir, name) || !hash_file(err, path, &f->bytes, &f->hash))
        return false;
    f->role = arena_str(a, role);
    f->name = arena_str(a, name);
    s->n_files++;
    return true;
}

void state_add_array(RunState *s, const char *name, const void *data, size_t bytes)
{
    must(s->n_arrays < STATE_MAX_ARRAYS);
    s->arrays[s->n_arrays++] = (StateArray){name, data, bytes};
}

static bool write_state(void *arg, Err *err, const void *bytes, size_t n)
{
    FileWriter w = {0};
    uint64_t hash = hash_bytes(bytes, n, 0);
    unsigned char tail[8];
    for (int i = 0; i < 8; i++)
        tail[i] = (unsigned char)(hash >> (8 * i));
    if (!file_writer_open(err, &w, arg))
        return false;
    if (file_writer_put(err, &w, bytes, n) && file_writer_put(err, &w, tail, sizeof tail))
        return file_writer_commit(err, &w);
    file_writer_abandon(&w);
    return false;
}

/* What was renamed into the folder is there after a power cut, too. */
static void sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

static bool is_tensor_file(const char *name)
{
    static const char end[] = ".safetensors";
    size_t n = strlen(name);
    return n > sizeof end && (strcmp(name + n - (sizeof end - 1), end) == 0 || strstr(name, ".safetensors.tmp"));
}

/* Removes tensor files that the committed state does not name; failing to costs only space. */
static void remove_old(const char *folder, const RunState *s)
{
    DIR *d = opendir(folder);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        bool named = !is_tensor_file(e->d_name);
        for (int i = 0; i < s->n_files; i++)
            named = named || strcmp(s->files[i].name, e->d_name) == 0;
        if (!named)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
}

bool state_commit(Err *err, const char *run_dir, const RunState *s)
{
    char path[STATE_PATH], folder[STATE_PATH];
    if (!join(err, path, run_dir, "run.state") || !join(err, folder, run_dir, ""))
        return false;
    sync_folder(folder);
    if (!state_encode(err, s, write_state, path))
        return false;
    sync_folder(folder);
    remove_old(folder, s);
    return true;
}

static bool check_file(Err *err, const char *run_dir, const StateFile *f)
{
    char path[STATE_PATH];
    uint64_t bytes, hash;
    if (!join(err, path, run_dir, f->name) || !hash_file(err, path, &bytes, &hash))
        return false;
    if (bytes == f->bytes && hash == f->hash)
        return true;
    return err_user(err,
                    "%s: %" PRIu64 " bytes with xxhash64 %016" PRIx64 ", expected %" PRIu64 " bytes with %016" PRIx64
                    " as run.state says",
                    path, bytes, hash, f->bytes, f->hash);
}

typedef struct Loading { Arena *a; Err *err; const char *path, *bytes; size_t n; RunState *s; } Loading;

static bool decode_checked(void *arg)
{
    Loading *l = arg;
    uint64_t hash = 0;
    if (l->n < 8)
        return err_user(l->err, "%s: %zu bytes, expected a run state", l->path, l->n);
    for (int i = 0; i < 8; i++)
        hash |= (uint64_t)(unsigned char)l->bytes[l->n - 8 + (size_t)i] << (8 * i);
    if (hash_bytes(l->bytes, l->n - 8, 0) != hash)
        return err_user(l->err, "%s: damaged: its bytes do not have the xxhash64 at its end", l->path);
    return state_decode(l->a, l->err, l->path, l->bytes, l->n - 8, l->s);
}

bool state_load(Arena *a, Err *err, const char *run_dir, RunState *s)
{
    char path[STATE_PATH], *bytes;
    size_t n;
    if (!join(err, path, run_dir, "run.state") || !file_read(err, path, STATE_MAX_BYTES, &bytes, &n))
        return false;
    Loading l = {a, err, path, bytes, n, s};
    bool ok = mem_protect(err, decode_checked, &l);
    mem_free(bytes);
    for (int i = 0; ok && i < s->n_files; i++)
        ok = check_file(err, run_dir, &s->files[i]);
    return ok;
}

const StateFile *state_file(const RunState *s, const char *role)
{
    for (int i = 0; i < s->n_files; i++)
        if (strcmp(s->files[i].role, role) == 0)
            return &s->files[i];
    return NULL;
}

const StateArray *state_array(const RunState *s, const char *name)
{
    for (int i = 0; i < s->n_arrays; i++)
        if (strcmp(s->arrays[i].name, name) == 0)
            return &s->arrays[i];
    return NULL;
}

bool state_same_machine(Err *err, const RunState *s, const char *dav_version, const char *cpu_level,
                        const char *precision, bool allow_different_bits)
{
    const struct { const char *what, *then, *now;
    } same[] = {
        {"version", s->dav_version, dav_version},
        {"CPU level", s->cpu_level, cpu_level},
        {"precision", s->precision, precision},
    };
    for (int i = 0; i < 3 && !allow_different_bits; i++)
        if (strcmp(same[i].then, same[i].now) != 0)
            return err_user(err, "the run was made with %s %s, here it is %s; its bits would differ: "
                            "--allow-different-bits goes on all the same", same[i].what, same[i].then, same[i].now);
    return true;
}
