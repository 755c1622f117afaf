/* Nets: scopes, parameters, inputs and outputs, and the checks that every op shares. */
#include "frontend/net.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

DavNet *net_new(Arena *arena, Err *err, const char *name)
{
    DavNet *n = arena_alloc(arena, sizeof *n);
    n->arena = arena;
    n->err = err;
    n->g = graph_new(arena, err, name);
    n->prefix = "";
    return n;
}

void net_free(DavNet *n)
{
    if (!n)
        return;
    vec_free(n->outer);
    vec_free(n->param);
    for (size_t i = 0; i < vec_len(n->body); i++)
        net_free(n->body[i].net);
    vec_free(n->body);
    map_free(&n->names);
}

int net_param_count(const DavNet *n)
{
    return (int)vec_len(n->param);
}

const NetParam *net_param(const DavNet *n, int i)
{
    return &n->param[i];
}

const NetParam *net_param_named(const DavNet *n, const char *name)
{
    int64_t i;
    return map_get(&n->names, name, &i) ? &n->param[i] : NULL;
}

/* ---- mistakes ---- */
DavVal net_bad(DavPlace at, DavNet *n, const char *fmt, ...)
{
    if (!n)
        return (DavVal){0};
    char text[1500];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_user_at(n->err, at.file, at.line, "%s", text);
    return net_val(n, 0);
}

void dav_mistake_(DavPlace at, DavNet *n, const char *fmt, ...)
{
    char text[1500];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    net_bad(at, n, "%s", text);
}

bool net_operands(DavPlace at, const char *what, const DavVal *v, int n, DavNet **net)
{
    *net = NULL;
    for (int i = 0; i < n && !*net; i++)
        *net = v[i].net;
    if (!*net)
        return false;
    graph_at((*net)->g, at.file, at.line);
    bool ok = true;
    for (int i = 0; i < n; i++) {
        if (!v[i].net)
            net_bad(at, *net, "%s: operand %d is no value: it was never made", what, i + 1);
        else if (v[i].net != *net)
            net_bad(
                at, *net,
                "%s: operand %d belongs to another graph; a region's body uses only values given to it as arguments",
                what, i + 1);
        else if (v[i].id < 0 || v[i].id >= (*net)->g->n)
            net_bad(at, *net, "%s: operand %d is no value of this graph", what, i + 1);
        else if (v[i].id)
            continue;
        ok = false;
    }
    return ok;
}

bool net_axis(DavPlace at, const char *what, DavVal x, int64_t axis, int *out)
{
    int rank = net_node(x)->rank;
    if (axis >= -rank && axis < rank) {
        *out = (int)(axis < 0 ? axis + rank : axis);
        return true;
    }
    char t[160];
    if (rank == 0)
        net_bad(at, x.net, "%s: axis %" PRId64 " of %s, which has no axes", what, axis, net_type_text(x, t));
    else
        net_bad(at, x.net, "%s: axis %" PRId64 " of %s, expected %d to %d (nearest: %d)", what, axis,
                net_type_text(x, t), -rank, rank - 1, axis < 0 ? -rank : rank - 1);
    return false;
}

const char *net_type_text(DavVal x, char buf[160])
{
    Type t = type_of(x.net->g, x.id);
    return type_text(&t, buf);
}

bool net_type(DavPlace at, DavNet *n, const char *what, DavDtype t, int rank, const int64_t *dim, Type *out)
{
    if (!n)
        return false;
    graph_at(n->g, at.file, at.line);
    if ((int)t < 0 || t >= DAV_DTYPE_COUNT) {
        net_bad(at, n, "%s: no dtype has the number %d", what, (int)t);
        return false;
    }
    if (rank < 0 || rank > IR_MAX_RANK) {
        net_bad(at, n, "%s: rank %d, expected 0 to %d", what, rank, IR_MAX_RANK);
        return false;
    }
    for (int i = 0; i < rank; i++)
        if (dim[i] < 0) {
            net_bad(at, n, "%s: axis %d has the size %" PRId64 ", expected 0 or more", what, i, dim[i]);
            return false;
        }
    *out = type_make(t, rank, dim);
    return true;
}

DavArg dav_arg_val_(DavVal v)
{
    return (DavArg){.val = v};
}

DavArg dav_arg_number_(double number)
{
    return (DavArg){.number = number, .is_number = true};
}

/* ---- what is known of a value ---- */
bool dav_valid(DavVal x)
{
    return x.net && x.id > 0 && x.id < x.net->g->n;
}

bool dav_ok(const DavNet *n)
{
    return n && n->err->kind == ERR_NONE;
}

int64_t dav_dim_(DavPlace at, DavVal x, int axis)
{
    DavNet *n;
    int i;
    if (!net_operands(at, "dav_dim", &x, 1, &n) || !net_axis(at, "dav_dim", x, axis, &i))
        return 1;
    return net_node(x)->dim[i];
}

int dav_rank(DavVal x)
{
    return dav_valid(x) ? net_node(x)->rank : 0;
}

DavDtype dav_dtype(DavVal x)
{
    return dav_valid(x) ? (DavDtype)net_node(x)->dtype : DAV_F32;
}

/* ---- inputs and outputs ---- */
static DavVal input(DavPlace at, DavNet *n, const char *name, InputRole role, DavDtype t, int rank, const int64_t *dim)
{
    Type type;
    if (!net_type(at, n, "input", t, rank, dim, &type))
        return net_val(n, 0);
    if (!name || !*name)
        return net_bad(at, n, "an input needs a name");
    return net_val(n, g_input(n->g, name, role, type));
}

DavVal dav_input_(DavPlace at, DavNet *n, const char *name, DavDtype t, int rank, const int64_t *dim)
{
    return input(at, n, name, ROLE_DATA, t, rank, dim);
}

DavVal dav_state_(DavPlace at, DavNet *n, const char *name, DavDtype t, int rank, const int64_t *dim)
{
    return input(at, n, name, ROLE_STATE, t, rank, dim);
}

void dav_output_(DavPlace at, DavNet *n, const char *name, DavVal v)
{
    DavNet *net;
    if (!n)
        return;
    graph_at(n->g, at.file, at.line);
    if (!name || !*name)
        net_bad(at, n, "an output needs a name");
    else if (!v.net)
        net_bad(at, n, "output '%s' is no value: it was never made", name);
    else if (v.net != n)
        net_bad(at, n, "output '%s' belongs to another graph", name);
    else if (net_operands(at, "output", &v, 1, &net))
        graph_output(n->g, name, v.id);
}

/* ---- scopes and parameters ---- */
enum { NAME_LIMIT = 1000 };

static const char *format_name(DavNet *n, const char *fmt, va_list ap)
{
    char text[NAME_LIMIT];
    if (vsnprintf(text, sizeof text, fmt ? fmt : "", ap) >= (int)sizeof text)
        err_user(n->err, "a name is longer than %d characters: %.60s...", NAME_LIMIT, text);
    return arena_str(n->arena, text);
}

const char *dav_name(DavNet *n, const char *fmt, ...)
{
    if (!n)
        return "";
    va_list ap;
    va_start(ap, fmt);
    const char *s = format_name(n, fmt, ap);
    va_end(ap);
    return s;
}

static void enter(DavNet *n, const char *name)
{
    vec_push(n->outer, n->prefix);
    n->prefix = *name ? arena_printf(n->arena, "%s%s.", n->prefix, name) : n->prefix;
}

void dav_enter_(DavPlace at, DavNet *n, const char *fmt, ...)
{
    if (!n)
        return;
    va_list ap;
    va_start(ap, fmt);
    const char *name = format_name(n, fmt, ap);
    va_end(ap);
    if (strlen(n->prefix) + strlen(name) > NAME_LIMIT) {
        net_bad(at, n, "scopes are nested too deep at '%s'", name);
        name = "";
    }
    enter(n, name);
}

void dav_leave_(DavPlace at, DavNet *n)
{
    if (!n)
        return;
    if (!vec_len(n->outer))
        net_bad(at, n, "dav_leave without a dav_enter");
    else
        n->prefix = vec_pop(n->outer);
}

/* The parameter nearest in name, for a second declaration nothing is near but itself. */
DavVal dav_param_(DavPlace at, DavNet *n, const char *name, DavInit init, bool frozen, int rank, const int64_t *dim)
{
    Type t;
    if (!net_type(at, n, "parameter", DAV_F32, rank, dim, &t))
        return net_val(n, 0);
    if (!name || !*name || strlen(name) > NAME_LIMIT)
        return net_bad(at, n, "a parameter needs a name of 1 to %d characters", NAME_LIMIT);
    const char *full = arena_printf(n->arena, "%s%s", n->prefix, name);
    if (net_param_named(n, full))
        return net_bad(at, n, "parameter '%s' is declared twice; use the value of the first, or another scope", full);
    if (init.kind == DAV_INIT_DEFAULT)
        init.kind = DAV_INIT_ZEROS;
    if (init.kind < DAV_INIT_DEFAULT || init.kind > DAV_INIT_NORMAL)
        return net_bad(at, n, "parameter '%s': no initialiser has the number %d", full, (int)init.kind);
    Val v = g_input(n->g, full, frozen ? ROLE_FROZEN : ROLE_PARAM, t);
    if (!v)
        return net_val(n, 0);
    map_put(&n->names, full, (int64_t)vec_len(n->param));
    NetParam p = {.name = full, .val = v, .frozen = frozen, .init = init};
    vec_push(n->param, p);
    return net_val(n, v);
}
