#include "runtime/page_seq.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/page_chart.h"

static int best_first(const void *a, const void *b)
{
    const PageSample *const *x = a, *const *y = b;
    double u = (*x)->reward, v = (*y)->reward;
    if (u != v && !(isnan(u) && isnan(v)))
        return isnan(u) ? 1 : isnan(v) ? -1 : u > v ? -1 : 1;
    return *x < *y ? -1 : 1; /* equal ones in the order of the file */
}

/* Letters beside A, C, G, T share the classes in turn: neighbours in an alphabet stay apart. */
static const char *letter_class(char c)
{
    static const char *const classes[] = {"A", "C", "G", "T", "o1", "o2", "o3", "o4", "o5"};
    const char *dna = strchr("ACGT", c);
    return classes[dna ? dna - "ACGT" : 4 + (c - 'A') % 5];
}

static void coloured(Buf *out, const char *s)
{
    while (*s) {
        size_t run = strspn(s, (char[]){*s, 0});
        buf_printf(out, "<i class=\"%s\">%.*s</i>", letter_class(*s), (int)run, s);
        s += run;
    }
}

void page_sequences(Page *p, const PageGroup *g, int most)
{
    char text[32];
    if (g->n_samples == 0)
        return;
    const PageSample **order = arena_array(p->arena, const PageSample *, g->n_samples);
    for (int i = 0; i < g->n_samples; i++)
        order[i] = &g->samples[i];
    qsort(order, (size_t)g->n_samples, sizeof *order, best_first);
    bool valued = isfinite(order[0]->reward);
    int n = g->n_samples < most ? g->n_samples : most;
    buf_printf(&p->out,
               "<figure class=\"wide\"><figcaption><b>%s</b> <span>%d of %d samples %s, %s</span></figcaption>"
               "<div class=\"scroll\"><table class=\"seqs\"><thead><tr>",
               valued ? "The best sequences" : "Sequences", n, g->n_samples, g->title,
               valued ? "by the reward oracle" : "in the order of the file");
    if (valued)
        buf_str(&p->out, "<th>reward</th><th>held-out</th>");
    buf_str(&p->out, "<th></th></tr></thead><tbody>");
    for (int i = 0; i < n; i++) {
        buf_str(&p->out, "<tr>");
        if (valued)
            buf_printf(&p->out, "<td>%s</td>", page_short(text, order[i]->reward, 3));
        if (valued)
            buf_printf(&p->out, "<td>%s</td>", page_short(text, order[i]->heldout, 3));
        buf_str(&p->out, "<td><code>");
        coloured(&p->out, order[i]->letters);
        buf_str(&p->out, "</code></td></tr>\n");
    }
    buf_str(&p->out, "</tbody></table></div></figure>\n");
}

/* ---- logos ---- */

enum { LOGO_W = 1080, LOGO_H = 104, LOGO_LEFT = 34, LOGO_TOP = 4, LOGO_BASE = 84 };

/* The letters as outlines in a unit square, so that they can be stretched. */
static const char glyphs[] = "<svg width=\"0\" height=\"0\" style=\"position:absolute\" aria-hidden=\"true\"><defs>"
                             "<path id=\"gA\" d=\"M0 1 .37 0H.63L1 1H.77L.69 .77H.31L.23 1ZM.37 .59H.63L.5 .2Z\"/>"
                             "<path id=\"gC\" d=\"M1 .31C.96 .12 .8 0 .54 0 .2 0 0 .2 0 .5S.2 1 .54 1C.8 1 .96 .88 1 "
                             ".69H.76C.72 .77 .65 .81 .54 .81 "
                             ".34 .81 .23 .7 .23 .5S.34 .19 .54 .19C.65 .19 .72 .23 .76 .31Z\"/>"
                             "<path id=\"gG\" d=\"M1 .31C.96 .12 .8 0 .54 0 .2 0 0 .2 0 .5S.2 1 .54 1C.8 1 1 .86 1 "
                             ".6V.46H.52V.63H.77C.75 .75 .67 .81 "
                             ".54 .81 .34 .81 .23 .7 .23 .5S.34 .19 .54 .19C.65 .19 .72 .23 .76 .31Z\"/>"
                             "<path id=\"gT\" d=\"M0 0H1V.19H.62V1H.38V.19H0Z\"/></defs></svg>";

typedef struct Column { int count[4], total; } Column;

static int count_columns(const PageGroup *g, Column *c)
{
    int length = 0;
    memset(c, 0, PAGE_MAX_LENGTH * sizeof *c);
    for (int i = 0; i < g->n_samples; i++)
        for (int k = 0; g->samples[i].letters[k]; k++) {
            const char *at = strchr("ACGT", g->samples[i].letters[k]);
            if (!at)
                return 0;
            c[k].count[at - "ACGT"]++;
            c[k].total++;
            length = k + 1 > length ? k + 1 : length;
        }
    return length;
}

static void draw_column(Buf *out, const Column *c, double x, double width)
{
    int order[4] = {0, 1, 2, 3};
    for (int i = 1; i < 4; i++) /* the rarest at the bottom */
        for (int k = i; k > 0 && c->count[order[k]] < c->count[order[k - 1]]; k--) {
            int swap = order[k];
            order[k] = order[k - 1];
            order[k - 1] = swap;
        }
    double base = LOGO_BASE;
    for (int i = 0; i < 4; i++) {
        double height = (LOGO_BASE - LOGO_TOP) * c->count[order[i]] / (double)c->total;
        base -= height;
        if (height >= .5)
            buf_printf(out, "<use href=\"#g%c\" class=\"%c\" transform=\"translate(%.2f %.2f)scale(%.2f %.2f)\"/>",
                       "ACGT"[order[i]], "ACGT"[order[i]], x, base, width * .94, height);
    }
}

static void draw_logo(Page *p, const PageGroup *g, const Column *c, int length)
{
    Buf *out = &p->out;
    double width = (LOGO_W - LOGO_LEFT) / (double)length;
    int every = length <= 40 ? 5 : length <= 120 ? 10 : 50;
    buf_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"letters by position, %s\">"
                    "<text class=\"tick\" x=\"0\" y=\"%d\">100%%</text><text class=\"tick\" x=\"0\" y=\"%d\">0</text>",
               LOGO_W, LOGO_H, g->title, LOGO_TOP + 9, LOGO_BASE);
    for (int k = 0; k < length; k++) {
        if (c[k].total)
            draw_column(out, &c[k], (double)LOGO_LEFT + k * width, width);
        if ((k + 1) % every == 0 || k == 0)
            buf_printf(out, "<text class=\"tick\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d</text>",
                       (double)LOGO_LEFT + (k + .5) * width, LOGO_BASE + 16, k + 1);
    }
    buf_str(out, "</svg>");
}

void page_logos(Page *p)
{
    Column *c = arena_array(p->arena, Column, PAGE_MAX_LENGTH);
    bool open = false;
    for (int g = 0; g < PAGE_GROUPS; g++) {
        int length = count_columns(&p->group[g], c);
        if (length == 0)
            continue;
        if (!open) {
            buf_str(&p->out, glyphs);
            buf_str(&p->out,
                    "<figure class=\"wide logos\"><figcaption><b>Letters by position</b> <span>share of each letter, "
                    "the most frequent on top</span></figcaption>");
        }
        open = true;
        buf_printf(&p->out, "<h3>%s <span>%d samples</span></h3>", p->group[g].title, p->group[g].n_samples);
        draw_logo(p, &p->group[g], c, length);
    }
    if (open)
        buf_str(&p->out, "</figure>\n");
}
