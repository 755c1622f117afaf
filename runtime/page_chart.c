#include "runtime/page_chart.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- text ---- */

/* Bytes of the UTF-8 character at s; 0: broken. */
static int utf8_len(const unsigned char *s)
{
    int n = *s < 0x80 ? 1 : *s >= 0xc2 && *s < 0xe0 ? 2 : *s >= 0xe0 && *s < 0xf0 ? 3 : *s >= 0xf0 && *s < 0xf5 ? 4 : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

void page_text(Buf *out, const char *s)
{
    while (s && *s) {
        int n = utf8_len((const unsigned char *)s);
        if (*s == '<' || *s == '>' || *s == '&' || *s == '"' || *s == '\'')
            buf_printf(out, "&#%d;", *s);
        else if (n == 0 || (n == 1 && ((unsigned char)*s < 0x20 || *s == 0x7f)))
            buf_str(out, "\xef\xbf\xbd");
        else
            buf_add(out, s, (size_t)n);
        s += n ? n : 1;
    }
}

const char *page_short(char out[32], double v, int digits)
{
    static const struct { double unit; const char *name; } units[] = {
        {1e12, "\xe2\x80\x89T"}, {1e9, "\xe2\x80\x89G"}, {1e6, "\xe2\x80\x89M"}, {1e4, "\xe2\x80\x89k"},
    };
    const char *unit = "";
    if (!isfinite(v)) {
        strcpy(out, "\xe2\x80\x93");
        return out;
    }
    for (int i = 0; i < 4 && !*unit; i++)
        if (fabs(v) >= units[i].unit) {
            unit = units[i].name;
            v /= i == 3 ? 1e3 : units[i].unit;
        }
    double size = fabs(v) > 0 ? floor(log10(fabs(v))) : 0;
    int after = digits - 1 - (int)fmax(size, -4);
    if (size >= -2 && after > digits)
        after = digits; /* 0.016, not 0.0158: so it stands beside 2.10 */
    char text[32];
    if (fabs(v) > 0 && size < -4)
        snprintf(text, sizeof text, "%.*e", digits - 1, v);
    else
        snprintf(text, sizeof text, "%.*f", after < 0 ? 0 : after, v);
    bool negative = text[0] == '-' && strpbrk(text, "123456789");
    const char *digits_at = text + (text[0] == '-');
    snprintf(out, 32, "%s%.20s%s", negative ? "\xe2\x88\x92" : "", digits_at, unit);
    return out;
}

const char *page_count(char out[48], double v)
{
    char digits[32];
    if (!(fabs(v) < 1e15)) {
        strcpy(out, "\xe2\x80\x93");
        return out;
    }
    int n = snprintf(digits, sizeof digits, "%.0f", fabs(v)), at = 0;
    if (v < 0)
        at += sprintf(out, "\xe2\x88\x92");
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0)
            at += sprintf(out + at, "\xe2\x80\x89");
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}

/* ---- axes ---- */

typedef struct Axis { double lo, hi, step; } Axis; /* lo and hi: what is shown; ticks at multiples of step */

static Axis axis_over(double lo, double hi, int ticks, bool whole)
{
    if (!(hi - lo > 1e-9 * fmax(fabs(lo), fabs(hi)))) { /* equal, as far as a tick's text can tell */
        double pad = fabs(lo) > 0 ? fabs(lo) * .1 : 1;
        lo -= pad;
        hi += pad;
    }
    double raw = (hi - lo) / ticks, unit = pow(10, floor(log10(raw)));
    double step = (raw <= unit ? 1 : raw <= 2 * unit ? 2 : raw <= 5 * unit ? 5 : 10) * unit;
    return (Axis){lo, hi, whole && step < 1 ? 1 : step};
}

static Axis rounded(Axis a)
{
    return (Axis){floor(a.lo / a.step + 1e-9) * a.step, ceil(a.hi / a.step - 1e-9) * a.step, a.step};
}

enum { MAX_TICKS = 24 };

static int ticks_of(Axis a, double tick[MAX_TICKS])
{
    double first = ceil(a.lo / a.step - 1e-9);
    int n = 0;
    while (n < MAX_TICKS && (first + n) * a.step <= a.hi + a.step * 1e-6) {
        tick[n] = (first + n) * a.step;
        n++;
    }
    return n;
}

static double place(Axis a, double v, double from, double to)
{
    return from + (v - a.lo) / (a.hi - a.lo) * (to - from);
}

static const char *tick_text(char out[32], double v, double step)
{
    int after = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    if (fabs(v) >= 1e4 || after > 5)
        return page_short(out, v, 3);
    if (fabs(v) < step * 1e-6)
        v = 0;
    snprintf(out, 32, "%s%.*f", v < 0 ? "\xe2\x88\x92" : "", after, fabs(v));
    return out;
}

/* ---- line charts: a box of W x H, the plot between the margins ---- */

enum { W = 520, H = 250, LEFT = 54, RIGHT = 92, TOP = 12, BOTTOM = 34, MAX_POINTS = 600 };

typedef struct Range { double lo, hi; } Range;

static void widen(Range *r, double v)
{
    if (!isfinite(v))
        return;
    r->lo = fmin(r->lo, v);
    r->hi = fmax(r->hi, v);
}

static void draw_axes(Buf *out, const Chart *c, Axis x, Axis y)
{
    char text[32];
    double tick[MAX_TICKS];
    int n = ticks_of(y, tick);
    for (int i = 0; i < n; i++) {
        double at = place(y, tick[i], H - BOTTOM, TOP);
        buf_printf(out,
                   "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text class=\"tick\" x=\"%d\" y=\"%.1f\" "
                   "text-anchor=\"end\">%s</text>",
                   LEFT, at, W - RIGHT, LEFT - 8, at + 4, tick_text(text, tick[i], y.step));
    }
    n = ticks_of(x, tick);
    for (int i = 0; i < n; i++)
        buf_printf(out, "<text class=\"tick\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>",
                   place(x, tick[i], LEFT, W - RIGHT), H - BOTTOM + 18, tick_text(text, tick[i], x.step));
    buf_printf(out, "<text class=\"tick\" x=\"%d\" y=\"%d\">", W - RIGHT + 24, H - BOTTOM + 18);
    page_text(out, c->x_label);
    buf_str(out, "</text>");
}

/* Every k-th point, so that a long log stays a small page. */
static int stride_of(const ChartLine *l)
{
    return (l->n + MAX_POINTS - 1) / MAX_POINTS;
}

static void draw_band(Buf *out, const ChartLine *l, Axis x, Axis y)
{
    if (!l->spread || l->n < 2)
        return;
    buf_printf(out, "<path class=\"band s%d\" d=\"", l->colour);
    const char *pen = "M";
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < l->n; i++) {
            int k = side ? l->n - 1 - i : i;
            double s = isfinite(l->spread[k]) ? l->spread[k] : 0;
            if (!isfinite(l->y[k]))
                continue;
            buf_printf(out, "%s%.1f %.1f", pen, place(x, l->x[k], LEFT, W - RIGHT),
                       place(y, l->y[k] + (side ? -s : s), H - BOTTOM, TOP));
            pen = "L";
        }
    buf_str(out, "\"/>");
}

static void draw_line(Buf *out, const ChartLine *l, Axis x, Axis y)
{
    int stride = stride_of(l), drawn = 0;
    bool gap = true;
    char value[32];
    buf_printf(out, "<path class=\"line%s s%d\" d=\"", l->quiet ? " quiet" : "", l->colour);
    for (int i = 0; i < l->n; i += i + stride < l->n || i == l->n - 1 ? stride : l->n - 1 - i) {
        if (isfinite(l->y[i]))
            buf_printf(out, "%s%.1f %.1f", gap ? "M" : "L", place(x, l->x[i], LEFT, W - RIGHT),
                       place(y, l->y[i], H - BOTTOM, TOP));
        gap = !isfinite(l->y[i]);
    }
    buf_str(out, "\"/>");
    for (int i = 0; i < l->n; i++)
        drawn += isfinite(l->y[i]);
    for (int i = 0; i < l->n && drawn <= 60; i++) {
        if (!isfinite(l->y[i]))
            continue;
        buf_printf(out, "<circle class=\"dot s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"><title>", l->colour,
                   place(x, l->x[i], LEFT, W - RIGHT), place(y, l->y[i], H - BOTTOM, TOP), drawn > 25 ? "2" : "3");
        page_text(out, l->label);
        buf_printf(out, " %s at %g</title></circle>", page_short(value, l->y[i], 4), l->x[i]);
    }
}

typedef struct Label { double y; const char *text; int colour; bool mark; } Label;

static int label_order(const void *a, const void *b)
{
    double u = ((const Label *)a)->y, v = ((const Label *)b)->y;
    return u < v ? -1 : u > v;
}

/* The names at the right end of their lines, pushed apart where they would meet. */
static void draw_labels(Buf *out, Label *label, int n)
{
    static const double gap = 15;
    qsort(label, (size_t)n, sizeof *label, label_order);
    for (int i = 1; i < n; i++)
        label[i].y = fmax(label[i].y, label[i - 1].y + gap);
    double low = H - BOTTOM;
    for (int i = n - 1; i >= 0; i--, low -= gap)
        label[i].y = fmin(label[i].y, low);
    for (int i = 0; i < n; i++) {
        buf_printf(out, "<text class=\"name%s s%d\" x=\"%d\" y=\"%.1f\">", label[i].mark ? " level" : "",
                   label[i].colour, W - RIGHT + 10, label[i].y + 4);
        page_text(out, label[i].text);
        buf_str(out, "</text>");
    }
}

static int last_finite(const ChartLine *l)
{
    int i = l->n - 1;
    while (i >= 0 && !isfinite(l->y[i]))
        i--;
    return i;
}

static void open_figure(Buf *out, const char *title, const char *note, int height)
{
    buf_str(out, "<figure><figcaption><b>");
    page_text(out, title);
    buf_str(out, "</b> <span>");
    page_text(out, note);
    buf_printf(out, "</span></figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", W, height);
    page_text(out, title);
    buf_str(out, "\">");
}

void chart_lines(Buf *out, const Chart *c)
{
    Range x = {INFINITY, -INFINITY}, y = x;
    Label label[16];
    int n = 0;
    for (int k = 0; k < c->n_lines; k++)
        for (int i = 0; i < c->line[k].n; i++) {
            const ChartLine *l = &c->line[k];
            double s = l->spread && isfinite(l->spread[i]) ? l->spread[i] : 0;
            if (isfinite(l->y[i]))
                widen(&x, l->x[i]);
            widen(&y, l->y[i] - s);
            widen(&y, l->y[i] + s);
        }
    if (!(x.lo <= x.hi))
        return;
    for (int k = 0; k < c->n_marks; k++)
        widen(&y, c->mark[k].y);
    Axis ax = axis_over(x.lo, x.hi, 8, true), ay = rounded(axis_over(y.lo, y.hi, 4, false));
    open_figure(out, c->title, c->note, H);
    draw_axes(out, c, ax, ay);
    for (int k = 0; k < c->n_marks && n < 16; k++) {
        double at = place(ay, c->mark[k].y, H - BOTTOM, TOP);
        if (!isfinite(c->mark[k].y))
            continue;
        buf_printf(out, "<path class=\"mark s%d\" d=\"M%d %.1fH%d\"/>", c->mark[k].colour, LEFT, at, W - RIGHT);
        label[n++] = (Label){at, c->mark[k].label, c->mark[k].colour, true};
    }
    for (int k = 0; k < c->n_lines; k++)
        draw_band(out, &c->line[k], ax, ay);
    for (int k = 0; k < c->n_lines && n < 16; k++) {
        int end = last_finite(&c->line[k]);
        if (end < 0)
            continue;
        draw_line(out, &c->line[k], ax, ay);
        if (!c->line[k].quiet)
            label[n++] =
                (Label){place(ay, c->line[k].y[end], H - BOTTOM, TOP), c->line[k].label, c->line[k].colour, false};
    }
    draw_labels(out, label, n);
    buf_str(out, "</svg></figure>\n");
}

/* ---- histograms ---- */

static int number_order(const void *a, const void *b)
{
    double u = *(const double *)a, v = *(const double *)b;
    return u < v ? -1 : u > v;
}

static double quantile(const double *sorted, int n, double q)
{
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

enum { ROW = 62, BAR = 44, BINS = 48, NAME = 96, VALUE = 66 };

static void draw_histogram(Buf *out, const ChartValues *r, const double *sorted, Axis x, double base)
{
    int count[BINS] = {0}, most = 1;
    double left = NAME, right = W - VALUE, width = (right - left) / (double)BINS;
    char text[32];
    for (int i = 0; i < r->n; i++) {
        int b = (int)place(x, sorted[i], 0, BINS);
        b = b < 0 ? 0 : b >= BINS ? BINS - 1 : b;
        most = ++count[b] > most ? count[b] : most;
    }
    for (int b = 0; b < BINS; b++)
        if (count[b])
            buf_printf(out, "<rect class=\"bar s%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>", r->colour,
                       left + b * width + .4, base - BAR * count[b] / (double)most, width - .8,
                       BAR * count[b] / (double)most);
    double q[5];
    static const double at[] = {.05, .25, .5, .75, .95};
    for (int i = 0; i < 5; i++)
        q[i] = place(x, quantile(sorted, r->n, at[i]), left, right);
    buf_printf(out, "<path class=\"whisker s%d\" d=\"M%.1f %.1fH%.1f\"/><path class=\"box s%d\" d=\"M%.1f %.1fH%.1f\"/>"
                    "<circle class=\"median s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>", r->colour, q[0], base + 5, q[4],
               r->colour, q[1], base + 5, q[3], r->colour, q[2], base + 5);
    buf_printf(out, "<text class=\"name s%d\" x=\"0\" y=\"%.1f\">", r->colour, base - 2);
    page_text(out, r->label);
    buf_printf(out, "</text><text class=\"value\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>", W, base - 2,
               page_short(text, quantile(sorted, r->n, .5), 3));
}

void chart_histograms(Buf *out, const char *title, const char *note, const ChartValues *rows, int n_rows)
{
    Range x = {INFINITY, -INFINITY};
    int n = 0;
    for (int k = 0; k < n_rows; k++)
        for (int i = 0; i < rows[k].n; i++, n++)
            widen(&x, rows[k].v[i]);
    if (n == 0)
        return;
    Axis ax = axis_over(x.lo, x.hi, 6, false);
    char text[32];
    double base = 8, tick[MAX_TICKS];
    int shown = 0;
    for (int k = 0; k < n_rows; k++)
        shown += rows[k].n > 0;
    int bottom = shown * ROW + 14;
    open_figure(out, title, note, bottom + 22);
    int n_ticks = ticks_of(ax, tick);
    for (int i = 0; i < n_ticks; i++) {
        double at = place(ax, tick[i], NAME, W - VALUE);
        buf_printf(out,
                   "<path class=\"grid\" d=\"M%.1f 4V%d\"/><text class=\"tick\" x=\"%.1f\" y=\"%d\" "
                   "text-anchor=\"middle\">%s</text>",
                   at, bottom, at, bottom + 16, tick_text(text, tick[i], ax.step));
    }
    buf_printf(out, "<text class=\"tick\" x=\"%d\" y=\"%d\" text-anchor=\"end\">median</text>", W, bottom + 16);
    for (int k = 0; k < n_rows; k++) {
        if (rows[k].n == 0)
            continue;
        double *sorted = mem_alloc((size_t)rows[k].n * sizeof *sorted);
        memcpy(sorted, rows[k].v, (size_t)rows[k].n * sizeof *sorted);
        qsort(sorted, (size_t)rows[k].n, sizeof *sorted, number_order);
        base += (double)ROW;
        draw_histogram(out, &rows[k], sorted, ax, base - 12);
        mem_free(sorted);
    }
    buf_str(out, "</svg></figure>\n");
}
