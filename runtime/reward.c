#define _GNU_SOURCE /* pipe2 */
#include "runtime/reward.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 128, NAME_BYTES = 256 };

struct Reward {
    char name[NAME_BYTES];
    RewardFn fn;
    void *ctx;
    void (*close)(void *ctx);
    double *values; /* room for the largest batch so far */
    int64_t room, calls;
};

static Reward *reward_new(const char *name, RewardFn fn, void *ctx, void (*close)(void *ctx))
{
    Reward *r = mem_alloc(sizeof *r);
    *r = (Reward){.fn = fn, .ctx = ctx, .close = close};
    snprintf(r->name, sizeof r->name, "%s", name);
    return r;
}

Reward *reward_from_function(const char *name, RewardFn fn, void *ctx, void (*close)(void *ctx))
{
    return reward_new(name, fn, ctx, close);
}

void reward_free(Reward *r)
{
    if (!r)
        return;
    if (r->close)
        r->close(r->ctx);
    mem_free(r->values);
    mem_free(r);
}

const char *reward_name(const Reward *r)
{
    return r->name;
}

int64_t reward_calls(const Reward *r)
{
    return r->calls;
}

bool reward_batch(Reward *r, Err *err, int64_t n, int64_t length, const int64_t *letters, float *values)
{
    if (n > r->room) {
        mem_free(r->values);
        r->values = NULL;
        r->values = mem_alloc(mem_mul((size_t)n, sizeof *r->values));
        r->room = n;
    }
    if (!r->fn(r->ctx, err, n, length, letters, r->values))
        return err_prefix(err, "reward %s", r->name);
    r->calls += n;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(r->values[i]))
            return err_user(err, "reward %s: value %" PRId64 " of a batch of %" PRId64 " is not a finite number", r->name, i + 1, n);
        values[i] = (float)r->values[i];
    }
    return true;
}

/* ---- a process ---- */
typedef struct Child {
    pid_t pid;
    int to, from;
    RewardFormat format;
    double timeout_s;
    char line[LINE_MAX_BYTES];
    size_t filled; /* bytes of the line that is being read */
} Child;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void child_close(void *ctx)
{
    Child *c = ctx;
    close(c->to);
    close(c->from);
    kill(-c->pid, SIGTERM); /* its own group: whatever it started goes too */
    for (int i = 0; i < 100 && waitpid(c->pid, NULL, WNOHANG) == 0; i++) {
        if (i == 50)
            kill(-c->pid, SIGKILL);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    mem_free(c);
}

/* A process that has gone is described by how it went. */
static bool child_died(const Child *c, Err *err, int64_t done, int64_t n)
{
    int status = 0;
    for (int i = 0; i < 20 && waitpid(c->pid, &status, WNOHANG) == 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    const char *how = WIFSIGNALED(status) ? "was killed by signal" : "ended with status";
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    return err_env(err, "the process %s %d after %" PRId64 " of %" PRId64 " answers", how, number, done, n);
}

static void write_fasta(Buf *b, int64_t n, int64_t length, const int64_t *letters)
{
    for (int64_t i = 0; i < n; i++) {
        buf_printf(b, ">%" PRId64 "\n", i);
        for (int64_t j = 0; j < length; j++) {
            int64_t v = letters[i * length + j];
            buf_add(b, v >= 0 && v < 4 ? &"ACGT"[v] : "N", 1);
        }
        buf_add(b, "\n", 1);
    }
    buf_add(b, "\n", 1);
}

static void write_raw(Buf *b, int64_t n, int64_t length, const int64_t *letters)
{
    const int64_t head[2] = {n, length};
    buf_add(b, (const char *)head, sizeof head);
    for (int64_t i = 0; i < n * length; i++)
        buf_add(b, &(char){(char)letters[i]}, 1);
}

/* Takes whole lines out of what has arrived. */
static bool take_lines(Child *c, Err *err, const char *data, size_t len, int64_t n, int64_t *done, double *values)
{
    for (size_t i = 0; i < len; i++) {
        if (data[i] != '\n') {
            if (c->filled + 1 >= sizeof c->line)
                return err_user(err, "answer %" PRId64 " is longer than %d characters, expected one number", *done + 1, LINE_MAX_BYTES);
            c->line[c->filled++] = data[i];
            continue;
        }
        c->line[c->filled] = 0;
        if (c->filled && c->line[c->filled - 1] == '\r')
            c->line[c->filled - 1] = 0;
        c->filled = 0;
        if (*done == n)
            return err_user(err, "more answers than the %" PRId64 " sequences of the batch", n);
        if (!text_to_f64(c->line, &values[*done]))
            return err_user(err, "answer %" PRId64 ": expected a finite number, found \"%.60s\"", *done + 1, c->line);
        ++*done;
    }
    return true;
}

/* Answers that nobody asked for would be taken for those of this batch: a process that gave too many is found out here. */
static bool nothing_waits(const Child *c, Err *err)
{
    struct pollfd p = {c->from, POLLIN, 0};
    char data[64];
    if (!c->filled && (poll(&p, 1, 0) <= 0 || read(c->from, data, sizeof data) <= 0))
        return true;
    return err_user(err, "more answers than the sequences of the batches so far");
}

/* Writes and reads by turns, so that neither side can block the other for ever. */
static bool child_talk(Child *c, Err *err, const char *text, size_t len, int64_t n, double *values)
{
    double end = now() + c->timeout_s;
    size_t sent = 0;
    for (int64_t done = 0; done < n || sent < len;) {
        struct pollfd p[2] = {{c->from, POLLIN, 0}, {sent < len ? c->to : -1, POLLOUT, 0}};
        double left = end - now();
        int ready = left > 0 ? poll(p, 2, (int)(left * 1000) + 1) : 0;
        if (ready == 0)
            return err_env(err, "no answer within %g s (%" PRId64 " of %" PRId64 " answers came)", c->timeout_s, done, n);
        if (p[1].revents) {
            ssize_t k = write(c->to, text + sent, len - sent);
            if (k < 0 && errno != EAGAIN && errno != EINTR)
                return child_died(c, err, done, n);
            sent += k > 0 ? (size_t)k : 0;
        }
        if (p[0].revents) {
            char data[4096];
            ssize_t k = read(c->from, data, sizeof data);
            if (k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR))
                return child_died(c, err, done, n);
            if (k > 0 && !take_lines(c, err, data, (size_t)k, n, &done, values))
                return false;
        }
    }
    return true;
}

static bool child_score(void *ctx, Err *err, int64_t n, int64_t length, const int64_t *letters, double *values)
{
    Child *c = ctx;
    Buf b = {0};
    (c->format == REWARD_RAW ? write_raw : write_fasta)(&b, n, length, letters);
    bool ok = nothing_waits(c, err) && child_talk(c, err, b.at, b.len, n, values);
    buf_free(&b);
    return ok;
}

static void child_exec(const char *command, int in, int out)
{
    setpgid(0, 0);
    dup2(in, 0);
    dup2(out, 1);
    for (int fd = 3; fd < 256; fd++)
        close(fd);
    signal(SIGPIPE, SIG_DFL);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

Reward *reward_from_command(Err *err, const char *command, RewardFormat format, double timeout_s)
{
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) != 0)
        return err_env(err, "reward process: %s", strerror(errno)), NULL;
    if (pipe2(from, O_CLOEXEC) != 0) {
        close(to[0]), close(to[1]);
        return err_env(err, "reward process: %s", strerror(errno)), NULL;
    }
    signal(SIGPIPE, SIG_IGN); /* a dead process shows as a failed write, not as our own death */
    pid_t pid = fork();
    if (pid == 0)
        child_exec(command, to[0], from[1]);
    close(to[0]);
    close(from[1]);
    if (pid < 0) {
        close(to[1]), close(from[0]);
        return err_env(err, "reward process: %s", strerror(errno)), NULL;
    }
    setpgid(pid, pid);
    fcntl(to[1], F_SETFL, O_NONBLOCK);
    fcntl(from[0], F_SETFL, O_NONBLOCK);
    Child *c = mem_alloc(sizeof *c);
    *c = (Child){.pid = pid, .to = to[1], .from = from[0], .format = format, .timeout_s = timeout_s};
    return reward_new(command, child_score, c, child_close);
}
