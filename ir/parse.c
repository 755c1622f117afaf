#include "ir/parse.h"
#include "ir/parse_scan.h"
#include "ir/print.h"
#include "ir/verify.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Numbers of values or of regions; they ascend in the text, so they are found by bisection. */
typedef struct Labels { int64_t *number; int n, cap; } Labels;

typedef struct Body {
    Graph *g;
    Labels label; /* of values: label k is of node value[k] */
    Val *value;
} Body;

typedef struct Parser {
    Scan s;
    Arena *arena;
    Labels region; /* graph[k] is NULL while its text is being read */
    Graph **graph;
    Err why; /* of the node being built */
    int depth;
} Parser;

/* One node as it stands, before it is built. */
typedef struct Line {
    Op op;
    int64_t label;
    Val *arg;
    int narg, argcap;
    Attr attr[ATTR_COUNT];
    int nattr;
    int64_t new_region; /* the region that has to follow; 0: none */
    int region_attr;
    Type *type; /* one, or those of a tuple */
    int ntype, typecap;
    const char *file;
    int line;
    const char *at; /* where it starts, for errors */
    int at_line, at_col;
} Line;

/* ---- labels ---- */
static void *grow(Arena *a, void *old, int n, int *cap, size_t size)
{
    if (n < *cap)
        return old;
    int wide = *cap ? 2 * *cap : 2;
    void *p = arena_alloc(a, mem_mul((size_t)wide, size));
    if (n)
        memcpy(p, old, (size_t)n * size);
    *cap = wide;
    return p;
}

static int label_find(const Labels *l, int64_t number)
{
    int lo = 0, hi = l->n;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (l->number[mid] < number)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < l->n && l->number[lo] == number ? lo : -1;
}

/* Adds number with its value; false when it does not ascend. */
static bool label_add(Arena *a, Labels *l, int64_t number, void **values, size_t size, const void *value)
{
    if (l->n && number <= l->number[l->n - 1])
        return false;
    int cap = l->cap;
    *values = grow(a, *values, l->n, &cap, size);
    l->number = grow(a, l->number, l->n, &l->cap, sizeof *l->number);
    memcpy((char *)*values + (size_t)l->n * size, value, size);
    l->number[l->n++] = number;
    return true;
}

/* ---- types ---- */
static bool parse_type(Parser *p, Type *t)
{
    char word[SCAN_WORD];
    *t = (Type){0};
    if (!scan_word(&p->s, word))
        return scan_expected(&p->s, "a type such as f32[2,3]");
    if (!dav_dtype_from_name(word, &t->dtype))
        return scan_expected_at_word(&p->s, word, "a dtype (f64 f32 bf16 f16 i64 i32 u32 bool)");
    if (!scan_need(&p->s, '['))
        return false;
    int64_t count = 1;
    for (bool more = !scan_take(&p->s, ']'); more;) {
        int64_t d;
        if (t->rank == IR_MAX_RANK)
            return scan_expected(&p->s, "at most 8 axes");
        if (!scan_int(&p->s, &d))
            return false;
        if (d < 0 || __builtin_mul_overflow(count, d ? d : 1, &count) || count > (int64_t)1 << 48)
            return scan_expected(&p->s, "a shape of at most 2^48 elements");
        t->dim[t->rank++] = d;
        more = scan_take(&p->s, ',');
        if (!more && !scan_need(&p->s, ']'))
            return false;
    }
    return true;
}

static bool parse_types(Parser *p, Line *l)
{
    bool tuple = (op_info[l->op].flags & OPF_TUPLE) != 0;
    if (!scan_need(&p->s, ':') || (tuple && !scan_need(&p->s, '(')))
        return false;
    if (tuple && scan_take(&p->s, ')'))
        return true;
    do {
        l->type = grow(p->arena, l->type, l->ntype, &l->typecap, sizeof *l->type);
        if (!parse_type(p, &l->type[l->ntype++]))
            return false;
    } while (tuple && scan_take(&p->s, ','));
    return !tuple || scan_need(&p->s, ')');
}

/* ---- attributes ---- */
static bool parse_ints(Parser *p, Attr *a)
{
    int64_t *v = NULL;
    int cap = 0;
    if (!scan_need(&p->s, '['))
        return false;
    for (bool more = !scan_take(&p->s, ']'); more;) {
        v = grow(p->arena, v, a->n, &cap, sizeof *v);
        if (!scan_int(&p->s, &v[a->n++]))
            return false;
        more = scan_take(&p->s, ',');
        if (!more && !scan_need(&p->s, ']'))
            return false;
    }
    a->ints = v;
    return true;
}

static bool parse_floats(Parser *p, Attr *a)
{
    double *v = NULL;
    int cap = 0;
    if (!scan_need(&p->s, '['))
        return false;
    for (bool more = !scan_take(&p->s, ']'); more;) {
        v = grow(p->arena, v, a->n, &cap, sizeof *v);
        if (!scan_float(&p->s, &v[a->n++]))
            return false;
        more = scan_take(&p->s, ',');
        if (!more && !scan_need(&p->s, ']'))
            return false;
    }
    a->floats = v;
    return true;
}

/* A number, or one of the attribute's words. */
static bool parse_int(Parser *p, Op op, Attr *a)
{
    int n = 0;
    const char *const *words = attr_words(op, a->name, &n);
    char word[SCAN_WORD];
    if (!words)
        return scan_int(&p->s, &a->i);
    if (!scan_word(&p->s, word))
        return scan_expected(&p->s, "a word");
    for (a->i = 0; a->i < n; a->i++)
        if (strcmp(word, words[a->i]) == 0)
            return true;
    const char *near = err_nearest(word, words, n);
    return scan_expected_at_word(&p->s, word, near ? near : words[0]);
}

static bool parse_spec(Parser *p, Attr *a)
{
    char *text;
    ContractSpec *spec = arena_alloc(p->arena, sizeof *spec);
    Err why = {0};
    a->spec = spec;
    if (!scan_string(&p->s, p->arena, &text))
        return false;
    return spec_parse(&why, text, spec) || scan_fail(&p->s, "%s", why.text);
}

static bool parse_region_label(Parser *p, Line *l, Attr *a)
{
    int64_t number;
    if (!scan_need(&p->s, '@') || !scan_int(&p->s, &number))
        return false;
    if (number < 1)
        return scan_fail(&p->s, "expected the number of a region, at least 1, found %" PRId64, number);
    int k = label_find(&p->region, number);
    if (k >= 0 && !p->graph[k])
        return scan_fail(&p->s, "region @%" PRId64 " cannot contain itself", number);
    a->graph = k >= 0 ? p->graph[k] : NULL;
    if (k < 0) {
        l->new_region = number;
        l->region_attr = l->nattr;
    }
    return true;
}

static bool parse_attr(Parser *p, Line *l)
{
    char word[SCAN_WORD];
    if (!scan_word(&p->s, word))
        return scan_expected(&p->s, "an attribute");
    int name = attr_from_text(word);
    if (name < 0 || !op_allows_attr(l->op, (AttrName)name, NULL))
        return scan_fail(&p->s, "%s takes no attribute '%.40s' (it takes: %s)", op_info[l->op].text, word, op_info[l->op].attrs);
    for (int i = 0; i < l->nattr; i++)
        if (l->attr[i].name == (AttrName)name)
            return scan_fail(&p->s, "attribute '%s' is given twice", word);
    Attr *a = &l->attr[l->nattr];
    *a = (Attr){.name = (AttrName)name};
    bool ok = scan_need(&p->s, '=');
    switch (attr_info[name].kind) {
    case ATTR_INT:
        ok = ok && parse_int(p, l->op, a);
        break;
    case ATTR_FLOAT:
        ok = ok && scan_float(&p->s, &a->f);
        break;
    case ATTR_STR: {
        char *text = NULL;
        ok = ok && scan_string(&p->s, p->arena, &text);
        a->s = text;
        break;
    }
    case ATTR_INTS:
        ok = ok && parse_ints(p, a);
        break;
    case ATTR_FLOATS:
        ok = ok && parse_floats(p, a);
        break;
    case ATTR_SPEC:
        ok = ok && parse_spec(p, a);
        break;
    case ATTR_GRAPH:
        ok = ok && parse_region_label(p, l, a);
        break;
    }
    l->nattr++;
    return ok;
}

static bool parse_attrs(Parser *p, Line *l)
{
    if (!scan_take(&p->s, '{'))
        return true;
    while (!scan_take(&p->s, '}'))
        if (!parse_attr(p, l))
            return false;
    return true;
}

/* ---- nodes ---- */
static bool parse_value(Parser *p, const Body *b, Val *v)
{
    int64_t number;
    if (!scan_need(&p->s, '%') || !scan_int(&p->s, &number))
        return false;
    int k = label_find(&b->label, number);
    if (k < 0)
        return scan_fail(&p->s, "expected a value made before, found %%%" PRId64, number);
    *v = b->value[k];
    return true;
}

static bool parse_op(Parser *p, Line *l)
{
    char word[SCAN_WORD];
    if (!scan_word(&p->s, word))
        return scan_expected(&p->s, "an op");
    int op = op_from_text(word);
    if (op > OP_INVALID) {
        l->op = (Op)op;
        return true;
    }
    const char *names[OP_COUNT];
    for (int i = 0; i < OP_COUNT; i++)
        names[i] = op_info[i].text;
    const char *near = err_nearest(word, names + 1, OP_COUNT - 1);
    return scan_fail(&p->s, "expected an op, found '%.60s'%s%s%s", word, near ? "; the nearest is '" : "", near ? near : "",
                     near ? "'" : "");
}

static bool parse_line(Parser *p, const Body *b, Line *l)
{
    l->at_line = p->s.line;
    l->at_col = scan_col(&p->s);
    if (!scan_need(&p->s, '%') || !scan_int(&p->s, &l->label) || !scan_need(&p->s, '=') || !parse_op(p, l))
        return false;
    if (scan_peek(&p->s) == '%')
        do {
            l->arg = grow(p->arena, l->arg, l->narg, &l->argcap, sizeof *l->arg);
            if (!parse_value(p, b, &l->arg[l->narg++]))
                return false;
        } while (scan_take(&p->s, ','));
    if (!parse_attrs(p, l) || (op_has_type(l->op) && !parse_types(p, l)))
        return false;
    scan_place(&p->s, p->arena, &l->file, &l->line);
    return scan_line_end(&p->s);
}

static bool fail_at(Parser *p, const Line *l, const char *why)
{
    p->s.line = l->at_line;
    return scan_fail_at(&p->s, l->at_col, "%s", why);
}

/* The output loops of a contraction have the extents of the result's axes. */
static bool complete_spec(Parser *p, Line *l)
{
    for (int i = 0; i < l->nattr; i++) {
        if (l->attr[i].name != A_SPEC)
            continue;
        ContractSpec *spec = arena_copy(p->arena, l->attr[i].spec, sizeof *spec);
        if (spec->nout != l->type[0].rank)
            return fail_at(p, l, "the spec's output loops are not as many as the type's axes");
        memcpy(spec->extent, l->type[0].dim, (size_t)spec->nout * sizeof *spec->extent);
        l->attr[i].spec = spec;
    }
    return true;
}

static bool check_types(Parser *p, const Line *l, const Graph *g, Val v)
{
    char text[2][160], why[400];
    bool tuple = (op_info[l->op].flags & OPF_TUPLE) != 0;
    if (tuple && tuple_count(g, v) != l->ntype) {
        snprintf(why, sizeof why, "expected %d result types, found %d", tuple_count(g, v), l->ntype);
        return fail_at(p, l, why);
    }
    for (int k = 0; k < l->ntype; k++) {
        Type t = type_of(g, v);
        if (tuple && !tuple_type(g, v, k, &t))
            return fail_at(p, l, "a result has too many axes");
        if (type_equal(&t, &l->type[k]))
            continue;
        snprintf(why, sizeof why, "expected type %s, found %s", type_text(&t, text[0]), type_text(&l->type[k], text[1]));
        return fail_at(p, l, why);
    }
    return true;
}

static bool build(Parser *p, Body *b, Line *l)
{
    if (!complete_spec(p, l))
        return false;
    graph_at(b->g, l->file, l->line);
    Val v = graph_node(b->g, l->op, l->arg, l->narg, l->attr, l->nattr, l->ntype ? &l->type[0] : NULL);
    if (!v) {
        const char *text = p->why.text, *bare = strstr(text, ": "); /* drop the place in the user's program */
        return fail_at(p, l, bare ? bare + 2 : text);
    }
    if (!label_add(p->arena, &b->label, l->label, (void **)&b->value, sizeof v, &v))
        return fail_at(p, l, "expected the numbers of values to ascend");
    return check_types(p, l, b->g, v);
}

static Graph *parse_body(Parser *p);

static bool parse_region(Parser *p, Line *l)
{
    int64_t number;
    Graph *none = NULL;
    if (!scan_need(&p->s, '@') || !scan_int(&p->s, &number))
        return false;
    if (number != l->new_region)
        return scan_fail(&p->s, "expected region @%" PRId64 ", found @%" PRId64, l->new_region, number);
    if (!label_add(p->arena, &p->region, number, (void **)&p->graph, sizeof none, &none))
        return scan_fail(&p->s, "expected the numbers of regions to ascend, found @%" PRId64, number);
    if (p->region.n > PARSE_MAX_REGIONS)
        return scan_fail(&p->s, "more than %d regions", PARSE_MAX_REGIONS);
    int k = p->region.n - 1;
    Graph *body = parse_body(p);
    if (!body)
        return false;
    p->graph[k] = body;
    l->attr[l->region_attr].graph = body;
    return true;
}

static bool parse_node(Parser *p, Body *b)
{
    Line l = {.op = OP_INVALID};
    return parse_line(p, b, &l) && (!l.new_region || parse_region(p, &l)) && build(p, b, &l);
}

/* ---- graphs ---- */
static bool parse_outputs(Parser *p, Body *b)
{
    do {
        char *name;
        Val v;
        if (!scan_name(&p->s, p->arena, &name) || !scan_need(&p->s, '=') || !parse_value(p, b, &v))
            return false;
        if ((op_info[b->g->node[v].op].flags & OPF_TUPLE) || !op_has_type((Op)b->g->node[v].op))
            return scan_fail(&p->s, "output '%.60s' is not a tensor", name);
        for (int i = 0; i < b->g->nout; i++)
            if (strcmp(b->g->out[i].name, name) == 0)
                return scan_fail(&p->s, "a second output '%.60s'", name);
        graph_output(b->g, name, v);
    } while (scan_take(&p->s, ','));
    return scan_line_end(&p->s);
}

static Graph *parse_body(Parser *p)
{
    char *name = NULL, word[SCAN_WORD];
    Body b = {0};
    if (p->depth == PARSE_MAX_DEPTH) {
        scan_fail(&p->s, "regions are nested deeper than %d", PARSE_MAX_DEPTH);
        return NULL;
    }
    if ((scan_peek(&p->s) == '"' && !scan_string(&p->s, p->arena, &name)) || !scan_need(&p->s, '{') || !scan_line_end(&p->s))
        return NULL;
    p->depth++;
    b.g = graph_new(p->arena, &p->why, name);
    b.g->no_fold = true;
    while (scan_peek(&p->s) == '%')
        if (!parse_node(p, &b))
            return NULL;
    if (scan_peek(&p->s) == 'r' && (!scan_word(&p->s, word) || strcmp(word, "return") != 0 || !parse_outputs(p, &b))) {
        scan_expected_at_word(&p->s, word, "return"); /* silent when an error stands already */
        return NULL;
    }
    if (scan_peek(&p->s) != '}') {
        scan_expected(&p->s, "a node, 'return' or '}'");
        return NULL;
    }
    scan_take(&p->s, '}');
    b.g->err = p->s.err;
    graph_at(b.g, NULL, 0);
    p->depth--;
    return scan_line_end(&p->s) ? b.g : NULL;
}

Graph *graph_parse(Arena *arena, Err *err, const char *file, const char *text, size_t len)
{
    Parser p = {.arena = arena};
    char word[SCAN_WORD];
    scan_init(&p.s, err, file, text, len);
    scan_skip(&p.s);
    if (!scan_word(&p.s, word) || strcmp(word, "graph") != 0) {
        scan_expected_at_word(&p.s, word, "graph");
        return NULL;
    }
    Graph *g = parse_body(&p);
    if (!g)
        return NULL;
    if (scan_peek(&p.s)) {
        scan_expected(&p.s, "the end of the file");
        return NULL;
    }
    if (!graph_verify(err, g, NULL)) {
        err_prefix(err, "%s", file);
        return NULL;
    }
    return g;
}

typedef struct Reading { Arena *arena; Err *err; const char *path, *text; size_t len; Graph *g; } Reading;

static bool parse_protected(void *arg)
{
    Reading *r = arg;
    r->g = graph_parse(r->arena, r->err, r->path, r->text, r->len);
    return r->g != NULL;
}

Graph *graph_read(Arena *arena, Err *err, const char *path)
{
    char *text;
    Reading r = {.arena = arena, .err = err, .path = path};
    if (!file_read(err, path, PARSE_MAX_BYTES, &text, &r.len))
        return NULL;
    r.text = text;
    bool ok = mem_protect(err, parse_protected, &r);
    mem_free(text);
    return ok ? r.g : NULL;
}
