#include "codegen/cache.h"
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

enum { PATH_BYTES = 4096 };

static bool path_of(char path[PATH_BYTES], const char *dir, const char *key)
{
    int n = snprintf(path, PATH_BYTES, "%s/%016" PRIx64 ".o", dir, hash_bytes(key, strlen(key), 7));
    return n > 0 && n < PATH_BYTES;
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

typedef struct Read { const char *path, *key, *miss; Buf *object; char *data; } Read;

static bool read_object(void *arg)
{
    Read *r = arg;
    Err err = {0};
    size_t len = 0;
    r->miss = !file_exists(r->path)                                    ? "new kernel"
              : !file_read(&err, r->path, MAX_OBJECT, &r->data, &len) ? "unreadable file"
                                                                       : check(r->data, len, r->key, r->object);
    return true;
}

const char *cache_read(const char *dir, const char *key, Buf *object)
{
    char path[PATH_BYTES];
    if (!dir || !path_of(path, dir, key))
        return "no cache folder";
    Err err = {0};
    Read r = {.path = path, .key = key, .object = object};
    if (!mem_protect(&err, read_object, &r))
        r.miss = "no memory to read it";
    mem_free(r.data);
    return r.miss;
}

/* Not base's file_write: that one waits for the disk, and what a crash damages here is found by the checksum. */
static bool write_whole(const char *path, const Header *h, const char *key, const Buf *object)
{
    static atomic_int serial;
    char tmp[PATH_BYTES + 64];
    snprintf(tmp, sizeof tmp, "%s.%ld.%d", path, (long)getpid(), atomic_fetch_add(&serial, 1));
    FILE *f = fopen(tmp, "wb");
    bool ok = f && fwrite(h, sizeof *h, 1, f) == 1 && fwrite(key, 1, h->key_len, f) == h->key_len &&
              fwrite(object->at, 1, object->len, f) == object->len;
    if (f && fclose(f) != 0)
        ok = false;
    ok = ok && rename(tmp, path) == 0;
    if (f && !ok)
        unlink(tmp);
    return ok;
}

/* ---- bound on the folder: now and then the oldest files go until three quarters are left ---- */
enum { TRIM_EVERY = 64 }; /* writes */
static const int64_t max_folder_bytes = INT64_C(512) << 20;

typedef struct Entry { int64_t written, bytes; char name[24]; } Entry;
typedef struct Trim { DIR *dir; Entry *all; int64_t most; } Trim; /* all: vec */

static int by_age(const void *a, const void *b)
{
    const Entry *x = a, *y = b;
    return (x->written > y->written) - (x->written < y->written);
}

static bool trim(void *arg)
{
    Trim *t = arg;
    int64_t total = 0;
    for (struct dirent *e; (e = readdir(t->dir));) {
        struct stat st;
        Entry one = {0};
        size_t len = strlen(e->d_name);
        if (len < 3 || len >= sizeof one.name || strcmp(e->d_name + len - 2, ".o") != 0 ||
            fstatat(dirfd(t->dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        memcpy(one.name, e->d_name, len);
        one.written = st.st_mtime;
        one.bytes = st.st_size;
        total += one.bytes;
        vec_push(t->all, one);
    }
    if (total <= t->most)
        return true;
    qsort(t->all, vec_len(t->all), sizeof *t->all, by_age);
    for (size_t i = 0; total > t->most / 4 * 3 && i < vec_len(t->all); i++)
        total -= unlinkat(dirfd(t->dir), t->all[i].name, 0) == 0 ? t->all[i].bytes : 0;
    return true;
}

void cache_trim(const char *dir, int64_t most)
{
    Err err = {0};
    Trim t = {.dir = opendir(dir), .most = most};
    if (!t.dir)
        return;
    mem_protect(&err, trim, &t); /* no memory: another time */
    vec_free(t.all);
    closedir(t.dir);
}

bool cache_write(const char *dir, const char *key, const Buf *object)
{
    char path[PATH_BYTES];
    if (!dir || !path_of(path, dir, key))
        return false;
    Err err = {0};
    Header h = {.key_len = strlen(key), .object_len = object->len};
    memcpy(h.magic, magic, sizeof magic);
    h.checksum = checksum(key, h.key_len, object->at, object->len);
    bool ok = file_mkdirs(&err, dir) && write_whole(path, &h, key, object);
    if (ok && h.checksum % TRIM_EVERY == 0)
        cache_trim(dir, max_folder_bytes);
    return ok;
}
