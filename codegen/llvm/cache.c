#include "codegen/llvm/cache.h"
#include "codegen/sources.h"
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_OBJECT = 64 << 20 };

static const char magic[8] = "davobj1";

typedef struct Header {
    char magic[8];
    uint64_t key_len, object_len, checksum; /* of key and object */
} Header;

void cache_key(Buf *key, const CpuTarget *t, uint64_t kernel_hash)
{
    buf_printf(key, "kernel %016" PRIx64 " level %s cpu %s features %s codegen %s llvm %s", kernel_hash, t->name, t->cpu,
               t->features, CODEGEN_SOURCES, jit_llvm_version());
}

static void path_of(Buf *path, const char *dir, const char *key)
{
    buf_printf(path, "%s/%016" PRIx64 ".o", dir, hash_bytes(key, strlen(key), 7));
}

static uint64_t checksum(const char *key, uint64_t key_len, const char *object, uint64_t object_len)
{
    return hash_bytes(object, object_len, hash_bytes(key, key_len, 3));
}

static const char *check(const char *data, size_t len, const char *key, Buf *object)
{
    Header h;
    if (len < sizeof h)
        return "damaged file";
    memcpy(&h, data, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) != 0)
        return "damaged file";
    if (h.key_len > len || h.object_len > len || sizeof h + h.key_len + h.object_len != len)
        return "damaged file";
    const char *k = data + sizeof h, *o = k + h.key_len;
    if (checksum(k, h.key_len, o, h.object_len) != h.checksum)
        return "damaged file";
    if (h.key_len != strlen(key) || memcmp(k, key, h.key_len) != 0)
        return "another kernel has its name";
    buf_add(object, o, h.object_len);
    return NULL;
}

const char *cache_read(const char *dir, const char *key, Buf *object)
{
    if (!dir)
        return "no cache folder";
    Buf path = {0};
    path_of(&path, dir, key);
    Err err = {0};
    char *data = NULL;
    size_t len = 0;
    const char *miss;
    if (!file_exists(path.at))
        miss = "new kernel";
    else if (!file_read(&err, path.at, MAX_OBJECT, &data, &len))
        miss = "unreadable file";
    else
        miss = check(data, len, key, object);
    mem_free(data);
    buf_free(&path);
    return miss;
}

/* Not base's file_write: that one waits for the disk, and what a crash damages here is found by the checksum. */
static bool write_whole(const char *path, const Buf *file)
{
    static atomic_int serial;
    Buf tmp = {0};
    buf_printf(&tmp, "%s.%ld.%d", path, (long)getpid(), atomic_fetch_add(&serial, 1));
    FILE *f = fopen(tmp.at, "wb");
    bool ok = f && fwrite(file->at, 1, file->len, f) == file->len;
    if (f && fclose(f) != 0)
        ok = false;
    ok = ok && rename(tmp.at, path) == 0;
    if (f && !ok)
        unlink(tmp.at);
    buf_free(&tmp);
    return ok;
}

/* ---- bound on the folder: now and then the oldest files go until three quarters are left ---- */
enum { TRIM_EVERY = 64 }; /* writes */
static const int64_t max_folder_bytes = INT64_C(512) << 20;

typedef struct Entry { int64_t written, bytes; char name[24]; } Entry;

static int by_age(const void *a, const void *b)
{
    const Entry *x = a, *y = b;
    return (x->written > y->written) - (x->written < y->written);
}

static void trim(const char *dir)
{
    DIR *d = opendir(dir);
    Entry *all = NULL;
    int64_t total = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        Entry one = {0};
        size_t len = strlen(e->d_name);
        if (len < 3 || len >= sizeof one.name || strcmp(e->d_name + len - 2, ".o") != 0 ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        memcpy(one.name, e->d_name, len);
        one.written = st.st_mtime;
        one.bytes = st.st_size;
        total += one.bytes;
        vec_push(all, one);
    }
    if (total > max_folder_bytes) {
        qsort(all, vec_len(all), sizeof *all, by_age);
        for (size_t i = 0; total > max_folder_bytes / 4 * 3 && i < vec_len(all); i++)
            total -= unlinkat(dirfd(d), all[i].name, 0) == 0 ? all[i].bytes : 0;
    }
    vec_free(all);
    if (d)
        closedir(d);
}

bool cache_write(const char *dir, const char *key, const Buf *object)
{
    if (!dir)
        return false;
    Err err = {0};
    Buf path = {0}, file = {0};
    path_of(&path, dir, key);
    Header h = {.key_len = strlen(key), .object_len = object->len};
    memcpy(h.magic, magic, sizeof magic);
    h.checksum = checksum(key, h.key_len, object->at, object->len);
    buf_add(&file, &h, sizeof h);
    buf_str(&file, key);
    buf_add(&file, object->at, object->len);
    bool ok = file_mkdirs(&err, dir) && write_whole(path.at, &file);
    if (ok && h.checksum % TRIM_EVERY == 0)
        trim(dir);
    buf_free(&file);
    buf_free(&path);
    return ok;
}
