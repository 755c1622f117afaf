#include "base/text.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool file_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Only regular files: a FIFO or a device could block or never end. */
static bool check_regular(Err *err, const char *path, int64_t *size)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return errno == ENOENT || errno == ENOTDIR ? err_user(err, "%s: no such file", path)
                                                   : err_env(err, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_user(err, "%s: expected a regular file, found a %s", path, S_ISDIR(st.st_mode) ? "folder" : "special file");
    *size = st.st_size;
    return true;
}

typedef struct GzRead { gzFile f; size_t max; Buf out; int n; } GzRead;

/* At most a little more than max bytes through zlib, which passes plain files through as they are. */
static bool read_through_zlib(void *arg)
{
    GzRead *r = arg;
    char piece[1 << 16];
    buf_add(&r->out, "", 0);
    while ((r->n = gzread(r->f, piece, sizeof piece)) > 0 && r->out.len <= r->max)
        buf_add(&r->out, piece, (size_t)r->n);
    return true;
}

bool file_read_gz(Err *err, const char *path, size_t max_bytes, char **data, size_t *len)
{
    int64_t size;
    if (!check_regular(err, path, &size))
        return false;
    GzRead r = {.f = gzopen(path, "rb"), .max = max_bytes};
    if (!r.f)
        return err_env(err, "%s: %s", path, errno ? strerror(errno) : "cannot be opened");
    bool ok = mem_protect(err, read_through_zlib, &r);
    int code = Z_OK;
    const char *why = r.n < 0 ? gzerror(r.f, &code) : NULL;
    if (ok && r.n < 0)
        ok = code == Z_ERRNO ? err_env(err, "%s: %s", path, strerror(errno)) : err_user(err, "%s: damaged gzip data: %s", path, why);
    else if (ok && r.out.len > max_bytes)
        ok = err_user(err, "%s: larger than the %zu bytes expected at most", path, max_bytes);
    if (gzclose_r(r.f) != Z_OK && ok)
        ok = err_user(err, "%s: gzip data ends too early", path);
    if (!ok) {
        buf_free(&r.out);
        return false;
    }
    *data = r.out.at;
    *len = r.out.len;
    return true;
}

bool file_read(Err *err, const char *path, size_t max_bytes, char **data, size_t *len)
{
    int64_t size;
    if (!check_regular(err, path, &size))
        return false;
    if ((uint64_t)size > max_bytes)
        return err_user(err, "%s: %lld bytes, expected at most %zu", path, (long long)size, max_bytes);
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_env(err, "%s: %s", path, strerror(errno));
    char *p = mem_alloc((size_t)size + 1);
    size_t n = fread(p, 1, (size_t)size, f);
    bool bad = ferror(f) != 0;
    fclose(f);
    if (bad) {
        mem_free(p);
        return err_env(err, "%s: read error", path);
    }
    p[n] = 0;
    *data = p;
    *len = n;
    return true;
}

bool file_writer_open(Err *err, FileWriter *w, const char *path)
{
    int k = snprintf(w->path, sizeof w->path, "%s", path);
    if (k < 0 || (size_t)k >= sizeof w->path)
        return err_user(err, "%.80s...: path too long", path);
    struct stat st;
    if (!*path)
        return err_user(err, "expected the name of a file to write, found an empty one");
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) /* renaming over a device would take it away from everybody */
        return err_env(err, "%s: cannot be written: expected a regular file, found a %s", path,
                       S_ISDIR(st.st_mode) ? "folder" : "special file");
    snprintf(w->tmp, sizeof w->tmp, "%s.tmp%ld", path, (long)getpid());
    w->f = fopen(w->tmp, "wb");
    return w->f ? true : err_env(err, "%s: cannot be written: %s", path, strerror(errno));
}

bool file_writer_put(Err *err, FileWriter *w, const void *data, size_t len)
{
    if (len && fwrite(data, 1, len, w->f) != len)
        return err_env(err, "%s: cannot be written: %s", w->path, strerror(errno));
    return true;
}

void file_writer_abandon(FileWriter *w)
{
    if (w->f)
        fclose(w->f);
    w->f = NULL;
    unlink(w->tmp);
}

bool file_writer_commit(Err *err, FileWriter *w)
{
    bool ok = fflush(w->f) == 0 && fsync(fileno((FILE *)w->f)) == 0;
    int why = errno;
    if (fclose(w->f) != 0 && ok)
        ok = false, why = errno;
    w->f = NULL;
    if (ok && rename(w->tmp, w->path) != 0)
        ok = false, why = errno;
    if (!ok) {
        unlink(w->tmp);
        return err_env(err, "%s: cannot be written: %s", w->path, strerror(why));
    }
    return true;
}

bool file_write(Err *err, const char *path, const void *data, size_t len)
{
    FileWriter w = {0};
    if (!file_writer_open(err, &w, path))
        return false;
    if (!file_writer_put(err, &w, data, len)) {
        file_writer_abandon(&w);
        return false;
    }
    return file_writer_commit(err, &w);
}

bool file_mkdirs(Err *err, const char *path)
{
    char part[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return err_user(err, "%.80s: not a usable folder name", path);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, 0777) != 0 && !(errno == EEXIST && file_is_dir(part)))
            return err_env(err, "%s: folder cannot be made: %s", part, strerror(errno));
    }
    return true;
}
