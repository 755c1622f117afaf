#include "ir/config.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

const char *config_expects(const DavKey *k, char out[256])
{
    static const char *const noun[] = {
        [DAV_KEY_INT] = "an integer", [DAV_KEY_FLOAT] = "a number", [DAV_KEY_BOOL] = "true or false",
        [DAV_KEY_STRING] = "a string", [DAV_KEY_INTS] = "a list of integers",
    };
    char range[80] = "", lo[32], hi[32];
    bool ranged = k->min < k->max && (k->type == DAV_KEY_INT || k->type == DAV_KEY_FLOAT || k->type == DAV_KEY_INTS);
    text_f64(lo, k->min);
    text_f64(hi, k->max);
    if (fabs(k->min) >= 1000 && fabs(k->min) < 1e15)
        snprintf(lo, sizeof lo, "%.15g", k->min);
    if (fabs(k->max) >= 1000 && fabs(k->max) < 1e15)
        snprintf(hi, sizeof hi, "%.15g", k->max);
    if (ranged && isinf(k->max))
        snprintf(range, sizeof range, " not below %s", lo);
    else if (ranged && isinf(k->min))
        snprintf(range, sizeof range, " not above %s", hi);
    else if (ranged)
        snprintf(range, sizeof range, " from %s to %s", lo, hi);
    if (k->type == DAV_KEY_STRING && k->choices)
        snprintf(out, 256, "one of %s", k->choices);
    else
        snprintf(out, 256, "%s%s", noun[k->type], range);
    return out;
}

/* '|' would end a cell of a Markdown table. */
static void cell(Buf *out, const char *s, ConfigStyle style)
{
    for (; *s; s++) {
        if (*s == '|' && style == CONFIG_AS_MARKDOWN)
            buf_str(out, "\\");
        buf_add(out, s, 1);
    }
}

void config_describe(Buf *out, const char *prefix, const DavKey *table, int n, ConfigStyle style)
{
    int name_w = 0, fallback_w = 0, expects_w = 0;
    char expected[256];
#define WIDEN(w, s) ((w) = (int)strlen(s) > (w) ? (int)strlen(s) : (w))
    for (int i = 0; i < n; i++) {
        WIDEN(name_w, table[i].name);
        WIDEN(fallback_w, table[i].fallback ? table[i].fallback : "required");
        WIDEN(expects_w, config_expects(&table[i], expected));
    }
#undef WIDEN
    name_w += (int)strlen(prefix);
    if (expects_w > 40)
        expects_w = 40;
    if (style == CONFIG_AS_MARKDOWN)
        buf_str(out, "| key | default | expected | meaning |\n|---|---|---|---|\n");
    for (int i = 0; i < n; i++) {
        const char *fallback = table[i].fallback ? table[i].fallback : "required";
        config_expects(&table[i], expected);
        if (style == CONFIG_AS_TEXT) {
            buf_printf(out, "  %s%-*s  %-*s  %-*s  %s\n", prefix, name_w - (int)strlen(prefix), table[i].name,
                       fallback_w, fallback, expects_w, expected, table[i].meaning);
            continue;
        }
        buf_printf(out, "| `%s%s` | %s | ", prefix, table[i].name, *fallback ? fallback : "(empty)");
        cell(out, expected, style);
        buf_str(out, " | ");
        cell(out, table[i].meaning, style);
        buf_str(out, " |\n");
    }
}
