#include "runtime/progress.h"
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static double monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_time(char out[16], double seconds)
{
    if (!(seconds >= 0 && seconds < 1e7)) {
        memcpy(out, "?", 2);
        return;
    }
    int s = (int)seconds;
    if (s < 60)
        snprintf(out, 16, "%ds", s);
    else if (s < 3600)
        snprintf(out, 16, "%d:%02d", s / 60, s % 60);
    else
        snprintf(out, 16, "%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
}

void progress_begin(Progress *p, FILE *out, int64_t total, int64_t first)
{
    struct winsize w;
    *p = (Progress){.out = out, .total = total, .first = first, .done = first, .now = monotonic, .width = 80};
    p->terminal = out && fileno(out) >= 0 && isatty(fileno(out));
    if (p->terminal && ioctl(fileno(out), TIOCGWINSZ, &w) == 0 && w.ws_col >= 20)
        p->width = w.ws_col;
    p->started = p->now();
    p->last_drawn = p->started - 1;
}

void progress_label(Progress *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->label, sizeof p->label, fmt, ap);
    va_end(ap);
}

void progress_note(Progress *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->note, sizeof p->note, fmt, ap);
    va_end(ap);
}

static void draw(Progress *p, double now)
{
    double spent = now - p->started, part = p->total > 0 ? (double)p->done / (double)p->total : 0;
    double rate = spent > 0 ? (double)(p->done - p->first) / spent : 0;
    char line[512], took[16], left[16], bar[16 * 3 + 1] = "";
    part = part < 0 ? 0 : part > 1 ? 1 : part;
    for (int i = 0; i < 16; i++)
        strcat(bar, i < (int)(part * 16 + .5) ? "\xe2\x94\x81" : "\xe2\x94\x84"); /* a heavy and a dotted line */
    progress_time(took, spent);
    progress_time(left, rate > 0 ? (double)(p->total - p->done) / rate : -1);
    snprintf(line, sizeof line, "%s %s %3.0f%%  %s, %s left  %.*f/s  %s", p->label, bar, 100 * part, took, left,
             rate < 10, rate, p->note);
    int columns = 0;
    char *end = line;
    for (; *end && columns < p->width - 1; end++) /* cut to the terminal's width, between characters */
        columns += ((unsigned char)end[1] & 0xc0) != 0x80;
    *end = 0;
    fprintf(p->out, "\r\033[K%s", line);
    fflush(p->out);
    p->drawn = true;
    p->last_drawn = now;
}

void progress_add(Progress *p, int64_t units)
{
    p->done += units;
    if (!p->terminal)
        return;
    double now = p->now();
    if (now - p->last_drawn >= 0.1)
        draw(p, now);
}

static void wipe(Progress *p)
{
    if (p->drawn)
        fputs("\r\033[K", p->out);
    p->drawn = false;
}

void progress_line(Progress *p)
{
    char took[16];
    if (!p->out)
        return;
    wipe(p);
    progress_time(took, p->now() - p->started);
    fprintf(p->out, "%s  %s  %s\n", p->label, p->note, took);
    fflush(p->out);
}

void progress_end(Progress *p)
{
    if (!p->out)
        return;
    wipe(p);
    fflush(p->out);
}
