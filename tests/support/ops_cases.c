#include "support/ops_cases.h"
#include "ir/dtype.h"
#include "ir/parse.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* ---- the file ---- */
static char *next_line(char **at)
{
    char *line = *at, *end = strchr(line, '\n');
    *at = end ? end + 1 : line + strlen(line);
    if (end)
        *end = 0;
    return line;
}

static void take_tensor(CaseTensor *list, int *n, char *text)
{
    assert_true(*n < 8);
    char *blank = strchr(text, ' ');
    if (blank)
        *blank = 0;
    list[(*n)++] = (CaseTensor){text, blank ? blank + 1 : ""};
}

static Graph *take_graph(Arena *arena, char **at, const char *name)
{
    char *text = *at, *end = strstr(text, "\n}\n");
    assert_non_null(end);
    Err err = {0};
    Graph *g = graph_parse(arena, &err, name, text, (size_t)(end + 2 - text));
    if (!g)
        fail_msg("%s", err.text);
    *at = end + 3;
    return g;
}

OpCase *ops_cases(Arena *arena, int *n)
{
    Err err = {0};
    char *data;
    size_t len;
    if (!file_read(&err, DAV_SOURCE_DIR "/tests/data/ops.txt", 16 << 20, &data, &len))
        fail_msg("%s", err.text);
    char *text = arena_strn(arena, data, len);
    mem_free(data);
    int count = 0;
    for (const char *p = text; (p = strstr(p, "case ")); p++)
        count++;
    OpCase *cases = arena_array(arena, OpCase, count), *c = cases - 1;
    for (char *at = text; *at;) {
        char *line = next_line(&at);
        if (strncmp(line, "case ", 5) == 0) {
            (++c)->name = line + 5;
            c->g = take_graph(arena, &at, c->name);
        } else if (strncmp(line, "in ", 3) == 0) {
            take_tensor(c->in, &c->nin, line + 3);
        } else if (strncmp(line, "out ", 4) == 0) {
            take_tensor(c->out, &c->nout, line + 4);
        }
    }
    *n = (int)(c - cases) + 1;
    return cases;
}

/* ---- tensors ---- */
Type case_type(const Graph *g, Val v, bool f64)
{
    Type t = type_of(g, v);
    if (f64 && dav_dtype_is_float(t.dtype))
        t.dtype = DAV_F64;
    return t;
}

static void put(const Type *t, void *data, int64_t i, const char *word)
{
    double v = strtod(word, NULL);
    int64_t whole = strtoll(word, NULL, 10);
    switch (t->dtype) {
    case DAV_F64: ((double *)data)[i] = v; break;
    case DAV_F32: ((float *)data)[i] = (float)v; break;
    case DAV_BF16: ((uint16_t *)data)[i] = bf16_from_f32((float)v); break;
    case DAV_F16: ((uint16_t *)data)[i] = f16_from_f32((float)v); break;
    case DAV_I64: ((int64_t *)data)[i] = whole; break;
    case DAV_I32: ((int32_t *)data)[i] = (int32_t)whole; break;
    case DAV_U32: ((uint32_t *)data)[i] = (uint32_t)whole; break;
    default: ((uint8_t *)data)[i] = (uint8_t)whole; break;
    }
}

void *case_tensor(Arena *arena, const Type *t, const char *values)
{
    int64_t n = type_count(t);
    void *data = arena_alloc(arena, (size_t)n * dav_dtype_size(t->dtype));
    for (int64_t i = 0; i < n; i++) {
        char *end;
        strtod(values, &end);
        assert_true(end != values);
        put(t, data, i, values);
        values = end;
    }
    return data;
}

static double get_float(const Type *t, const void *data, int64_t i)
{
    switch (t->dtype) {
    case DAV_F64: return ((const double *)data)[i];
    case DAV_F32: return ((const float *)data)[i];
    case DAV_BF16: return bf16_to_f32(((const uint16_t *)data)[i]);
    default: return f16_to_f32(((const uint16_t *)data)[i]);
    }
}

static int64_t get_int(const Type *t, const void *data, int64_t i)
{
    switch (t->dtype) {
    case DAV_I64: return ((const int64_t *)data)[i];
    case DAV_I32: return ((const int32_t *)data)[i];
    case DAV_U32: return ((const uint32_t *)data)[i];
    default: return ((const uint8_t *)data)[i];
    }
}

double case_tolerance(DavDtype t)
{
    static const double tolerance[DAV_DTYPE_COUNT] = {[DAV_F64] = 1e-12, [DAV_F32] = 3e-6, [DAV_BF16] = 8e-3, [DAV_F16] = 1e-3};
    return tolerance[t];
}

static bool is_close(double want, double got, double tolerance)
{
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got);
    return want == got || fabs(want - got) <= tolerance * fmax(1, fabs(want));
}

bool case_equals(const OpCase *c, const Type *t, const void *data, const char *values, double tolerance)
{
    for (int64_t i = 0; i < type_count(t); i++) {
        char *end;
        double want = strtod(values, &end);
        assert_true(end != values);
        bool ok = dav_dtype_is_float(t->dtype) ? is_close(want, get_float(t, data, i), tolerance)
                                               : strtoll(values, NULL, 10) == get_int(t, data, i);
        if (!ok) {
            double got = dav_dtype_is_float(t->dtype) ? get_float(t, data, i) : (double)get_int(t, data, i);
            print_error("%s: element %ld: expected %.17g, found %.17g\n", c->name, (long)i, want, got);
            return false;
        }
        values = end;
    }
    return true;
}
