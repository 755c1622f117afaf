#include "runtime/runlog.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "runtime/tensorboard.h"

enum { METRICS, EVENTS, TIMES, N_LOGS };
static const char *const log_names[N_LOGS] = {"metrics.jsonl", "events.out.tfevents.0.dav", "times.jsonl"};

enum { MAX_SCALARS = 64 };
typedef struct Scalar { char tag[128]; double value; } Scalar;

struct RunLog {
    char dir[4096];
    int fd[N_LOGS];
    Buf row, events;
    char event[64];
    Scalar scalar[MAX_SCALARS];
    int n_scalars;
};

/* ---- paths ---- */

bool runlog_path(Err *err, char path[4096], const char *dir, const char *name)
{
    int k = snprintf(path, 4096, "%s/%s", dir, name);
    return (k > 0 && k < 4096) || err_user(err, "%.80s...: path too long", dir);
}

bool runlog_samples_path(Err *err, char path[4096], const char *dir, const char *name)
{
    char file[300];
    snprintf(file, sizeof file, "samples/%.200s.fasta", name);
    return runlog_path(err, path, dir, file);
}

bool runlog_round_samples_path(Err *err, char path[4096], const char *dir, int64_t round)
{
    char name[40];
    snprintf(name, sizeof name, "round-%04" PRId64, round);
    return runlog_samples_path(err, path, dir, name);
}

static bool has(const char *dir, const char *name)
{
    char path[4096];
    Err ignored = {.kind = ERR_NONE};
    return runlog_path(&ignored, path, dir, name) && file_exists(path);
}

bool runlog_is_finished(const char *dir)
{
    return has(dir, "finished");
}

/* ---- the folder ---- */

static bool is_empty(const char *dir)
{
    DIR *d = opendir(dir);
    bool empty = true;
    for (struct dirent *e; d && (e = readdir(d));)
        empty = empty && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0);
    if (d)
        closedir(d);
    return empty;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

/* Removes what a run wrote into one of its folders, by the names it gives, and nothing else. */
static void clear(const char *dir, const char *sub, const char *const *ends, int n)
{
    char path[4096];
    Err ignored = {.kind = ERR_NONE};
    DIR *d = runlog_path(&ignored, path, dir, sub) ? opendir(path) : NULL;
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));)
        for (int i = 0; i < n; i++)
            if (ends_with(e->d_name, ends[i])) {
                unlinkat(dirfd(d), e->d_name, 0);
                break;
            }
    closedir(d);
}

static void clear_run(const char *dir)
{
    static const char *const top[] = {"finished", "metrics.jsonl", "times.jsonl", ".dav", "config.yaml", "index.html"};
    static const char *const checkpoints[] = {"run.state", ".safetensors"};
    static const char *const samples[] = {".fasta"};
    clear(dir, "checkpoints", checkpoints, 2); /* first, so that no kill leaves a checkpoint beside shorter logs */
    clear(dir, "samples", samples, 1);
    clear(dir, ".", top, 6);
}

static bool check_start(Err *err, const char *dir, RunStart start)
{
    bool is_run = has(dir, log_names[METRICS]);
    if (file_exists(dir) && !file_is_dir(dir))
        return err_user(err, "%s: expected a folder, found a file", dir);
    if (start == RUN_RESUME) {
        if (!is_run)
            return err_user(err, "%s: expected a run folder, found no %s in it", dir, log_names[METRICS]);
        if (runlog_is_finished(dir))
            return err_user(err, "%s: this run is finished, nothing is left to resume", dir);
        return true;
    }
    if (!file_exists(dir) || is_empty(dir))
        return true;
    if (!is_run)
        return err_user(err, "%s: expected an empty or new folder, found one with other files in it", dir);
    if (start == RUN_OVERWRITE)
        return true;
    return err_user(err, "%s: holds a run that is %s; --resume continues one, --overwrite replaces it", dir,
                    runlog_is_finished(dir) ? "finished" : "not finished");
}

/* ---- the logs ---- */

static bool open_log(Err *err, RunLog *log, int which)
{
    char path[4096];
    if (!runlog_path(err, path, log->dir, log_names[which]))
        return false;
    log->fd[which] = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    return log->fd[which] >= 0 || err_env(err, "%s: cannot be written: %s", path, strerror(errno));
}

static bool cut(Err *err, const RunLog *log, int which, uint64_t offset)
{
    off_t size = lseek(log->fd[which], 0, SEEK_END);
    char last = '\n';
    if (size < 0 || (uint64_t)size < offset)
        return err_user(err, "%s/%s: %lld bytes, expected at least the %" PRIu64 " of the checkpoint", log->dir,
                        log_names[which], (long long)size, offset);
    if (which == METRICS && offset > 0 && (pread(log->fd[which], &last, 1, (off_t)offset - 1) != 1 || last != '\n'))
        return err_user(err, "%s/%s: expected the end of a line at byte %" PRIu64 ", where the checkpoint stands",
                        log->dir, log_names[which], offset);
    return ftruncate(log->fd[which], (off_t)offset) == 0 ||
           err_env(err, "%s/%s: cannot be cut: %s", log->dir, log_names[which], strerror(errno));
}

static bool append(Err *err, const RunLog *log, int which, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t k = write(log->fd[which], bytes, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return err_env(err, "%s/%s: cannot be written: %s", log->dir, log_names[which], strerror(errno));
        bytes += k;
        n -= (size_t)k;
    }
    return true;
}

static double wall_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool flush_events(RunLog *log, Err *err)
{
    bool ok = append(err, log, EVENTS, log->events.at, log->events.len);
    log->events.len = 0;
    return ok;
}

static bool open_logs(RunLog *log, Err *err, RunStart start, uint64_t metrics_offset, uint64_t events_offset)
{
    static const char *const folders[] = {"checkpoints", "samples"};
    char path[4096];
    for (int i = 0; i < 2; i++)
        if (!runlog_path(err, path, log->dir, folders[i]) || !file_mkdirs(err, path))
            return false;
    if (!open_log(err, log, METRICS))
        return false;
    if (flock(log->fd[METRICS], LOCK_EX | LOCK_NB) != 0)
        return err_env(err, "%s: another process is writing this run", log->dir);
    if (start == RUN_OVERWRITE) {
        clear_run(log->dir); /* the locked log is removed as well: make and lock a new one */
        close(log->fd[METRICS]);
        if (!open_log(err, log, METRICS) || flock(log->fd[METRICS], LOCK_EX | LOCK_NB) != 0)
            return err_env(err, "%s: another process is writing this run", log->dir);
    }
    if (!open_log(err, log, EVENTS) || !open_log(err, log, TIMES))
        return false;
    if (!cut(err, log, METRICS, metrics_offset) || !cut(err, log, EVENTS, events_offset))
        return false;
    if (events_offset > 0)
        return true;
    tensorboard_version(&log->events, wall_time());
    return flush_events(log, err);
}

bool runlog_open(Err *err, const char *dir, RunStart start, uint64_t metrics_offset, uint64_t events_offset,
                 RunLog **out)
{
    *out = NULL;
    if (!check_start(err, dir, start))
        return false;
    RunLog *log = mem_alloc(sizeof *log);
    *out = log;
    for (int i = 0; i < N_LOGS; i++)
        log->fd[i] = -1;
    int k = snprintf(log->dir, sizeof log->dir, "%s", dir);
    bool ok = k > 0 && k < 4000 ? open_logs(log, err, start, metrics_offset, events_offset)
                                : err_user(err, "%.80s...: not a usable folder name", dir);
    if (!ok) {
        runlog_close(log);
        *out = NULL;
    }
    return ok;
}

void runlog_close(RunLog *log)
{
    if (!log)
        return;
    for (int i = 0; i < N_LOGS; i++)
        if (log->fd[i] >= 0)
            close(log->fd[i]);
    buf_free(&log->row);
    buf_free(&log->events);
    mem_free(log);
}

/* ---- rows ---- */

static void quote(Buf *b, const char *s)
{
    buf_str(b, "\"");
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            buf_printf(b, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            buf_printf(b, "\\u%04x", *s);
        else
            buf_add(b, s, 1);
    }
    buf_str(b, "\"");
}

static void number(Buf *b, double v)
{
    char text[32];
    text_f64(text, v);
    buf_str(b, isfinite(v) ? text : "null");
}

static void field(RunLog *log, const char *name)
{
    buf_str(&log->row, ", ");
    quote(&log->row, name);
    buf_str(&log->row, ": ");
}

static void scalar(RunLog *log, const char *name, double value)
{
    if (log->n_scalars == MAX_SCALARS || !isfinite(value))
        return;
    Scalar *s = &log->scalar[log->n_scalars++];
    snprintf(s->tag, sizeof s->tag, "%s/%.60s", log->event, name);
    s->value = value;
}

void runlog_begin(RunLog *log, const char *event)
{
    log->row.len = 0;
    log->n_scalars = 0;
    snprintf(log->event, sizeof log->event, "%s", event);
    buf_str(&log->row, "{\"event\": ");
    quote(&log->row, event);
}

void runlog_int(RunLog *log, const char *name, int64_t value)
{
    field(log, name);
    buf_printf(&log->row, "%" PRId64, value);
    scalar(log, name, (double)value);
}

void runlog_number(RunLog *log, const char *name, double value)
{
    field(log, name);
    number(&log->row, value);
    scalar(log, name, value);
}

void runlog_string(RunLog *log, const char *name, const char *value)
{
    field(log, name);
    quote(&log->row, value);
}

void runlog_numbers(RunLog *log, const char *name, const double *values, size_t n)
{
    field(log, name);
    buf_str(&log->row, "[");
    for (size_t i = 0; i < n; i++) {
        buf_str(&log->row, i ? ", " : "");
        number(&log->row, values[i]);
    }
    buf_str(&log->row, "]");
}

bool runlog_end(RunLog *log, Err *err, int64_t step)
{
    double now = wall_time();
    buf_str(&log->row, "}\n");
    for (int i = 0; i < log->n_scalars; i++)
        tensorboard_scalar(&log->events, now, step, log->scalar[i].tag, log->scalar[i].value);
    return append(err, log, METRICS, log->row.at, log->row.len) && flush_events(log, err);
}

bool runlog_seconds(RunLog *log, Err *err, int64_t round, double seconds)
{
    char line[120], text[32];
    text_f64(text, seconds);
    int n =
        snprintf(line, sizeof line, "{\"event\": \"round\", \"round\": %" PRId64 ", \"seconds\": %s}\n", round, text);
    return append(err, log, TIMES, line, (size_t)n);
}

bool runlog_sync(RunLog *log, Err *err, uint64_t *metrics_offset, uint64_t *events_offset)
{
    uint64_t *offset[] = {[METRICS] = metrics_offset, [EVENTS] = events_offset};
    for (int i = METRICS; i <= EVENTS; i++) {
        off_t end = lseek(log->fd[i], 0, SEEK_END);
        if (end < 0 || fsync(log->fd[i]) != 0)
            return err_env(err, "%s/%s: cannot be written: %s", log->dir, log_names[i], strerror(errno));
        *offset[i] = (uint64_t)end;
    }
    return true;
}

bool runlog_finish(RunLog *log, Err *err)
{
    char path[4096];
    return runlog_path(err, path, log->dir, "finished") && file_write(err, path, "", 0);
}
