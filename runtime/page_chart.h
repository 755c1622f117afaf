/* Charts as inline SVG.  Colours are CSS classes s0..s5 of the page's style sheet. */
#pragma once
#include "base/text.h"

/* Text into HTML: escaped, control characters and broken UTF-8 replaced. */
void page_text(Buf *out, const char *s);
/* "12.3", "1.4 M", "0.0012", an en dash for NAN: `digits` significant ones. */
const char *page_short(char out[32], double v, int digits);
/* "1 234 567": whole numbers with thin spaces. */
const char *page_count(char out[48], double v);

typedef struct ChartLine {
    const char *label;
    int colour;
    const double *x, *y; /* NAN in y: a gap */
    const double *spread; /* a band of y +- spread; NULL: none */
    int n;
    bool quiet; /* thin, in the background, without a name */
} ChartLine;

typedef struct ChartMark { const char *label; double y; int colour; } ChartMark; /* a level: a dashed line */

typedef struct Chart {
    const char *title, *note, *x_label;
    const ChartLine *line;
    int n_lines;
    const ChartMark *mark;
    int n_marks;
} Chart;

/* A figure; nothing when no line has a finite value. */
void chart_lines(Buf *out, const Chart *c);

typedef struct ChartValues { const char *label; int colour; const double *v; int n; } ChartValues; /* n values */

/* One histogram a row over a common axis, each with its median, quartiles and 5 % and 95 % quantiles. */
void chart_histograms(Buf *out, const char *title, const char *note, const ChartValues *rows, int n_rows);
