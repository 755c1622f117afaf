/* Kernel IR to CUDA C: values, each a variable of the thread that has it. */
#include "codegen/cuda/emit.h"
#include "codegen/ranges.h"
#include <stdio.h>
#include <string.h>

/* ---- types: 16-bit floats are computed in f32 ---- */
const char *cuda_value_type(DavDtype t)
{
    return t == DAV_F64 ? "double" : dav_dtype_is_float(t) ? "float" : t == DAV_I64 ? "i64" : t == DAV_I32 ? "int"
           : t == DAV_U32 ? "unsigned" : "bool";
}

const char *cuda_memory_type(DavDtype t)
{
    return t == DAV_BF16 || t == DAV_F16 ? "u16" : t == DAV_BOOL ? "u8" : cuda_value_type(t);
}

/* The function around a value that comes from memory, goes to it, or is rounded to its dtype; a variable of bf16 always is. */
const char *cuda_widen(DavDtype t)
{
    return t == DAV_BF16 ? "dav_from_bf16" : t == DAV_F16 ? "dav_from_f16" : "";
}

const char *cuda_narrow(DavDtype t)
{
    return t == DAV_BF16 ? "dav_upper_half" : t == DAV_F16 ? "dav_to_f16" : "";
}

const char *cuda_rounded(DavDtype t)
{
    return t == DAV_BF16 ? "dav_round_bf16" : t == DAV_F16 ? "dav_round_f16" : "";
}

DavDtype operand_dtype(const Emit *e, Val v)
{
    return (DavDtype)node_of(e->k, v)->dtype;
}

/* ---- text ---- */
void put_line(Emit *e, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    buf_printf(e->out, "%*s%s\n", 4 * e->depth, "", text);
}

static void number(char out[64], DavDtype t, double v, int64_t i)
{
    if (t == DAV_F64 || dav_dtype_is_float(t)) {
        float f = (float)v;
        uint32_t low;
        uint64_t bits;
        memcpy(&bits, &v, sizeof bits);
        memcpy(&low, &f, sizeof low);
        if (t == DAV_F64)
            snprintf(out, 64, "dav_double(0x%llxull)", (unsigned long long)bits);
        else
            snprintf(out, 64, "%s(dav_float(0x%xu))", cuda_rounded(t), low);
    } else if (i == INT64_MIN) {
        snprintf(out, 64, "(-0x7fffffffffffffffll - 1)");
    } else {
        snprintf(out, 64, "(%s)%lldll", cuda_value_type(t), (long long)i);
    }
}

/* ---- values ---- */
/* Ops that C++ has an operator for; the others are functions dav_<name>. */
static const char *operator_of(Op op)
{
    static const struct { Op op; const char *sign; } table[] = {{OP_AND, "&"}, {OP_OR, "|"},  {OP_XOR, "^"}, {OP_EQ, "=="}, {OP_NE, "!="},
                                                                {OP_LT, "<"},  {OP_LE, "<="}, {OP_GT, ">"},  {OP_GE, ">="}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].op == op)
            return table[i].sign;
    return NULL;
}

/* 64-bit arithmetic, divisions above all, costs a device several times as much. */
bool *narrow_values(const Graph *k)
{
    const int64_t most = INT64_C(1) << 30; /* a loop's variable may go past its end by a step of its team */
    bool *narrow = mem_alloc((size_t)k->n);
    Range *range = mem_alloc(mem_mul((size_t)k->n, sizeof *range));
    kernel_ranges(k, range);
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        bool index = n->op == OP_FOR || n->op == OP_CONST || n->op == OP_CAST || (op_info[n->op].flags & OPF_ELEMENTWISE);
        narrow[v] = index && (n->op == OP_FOR || n->dtype == DAV_I64) && range[v].lo >= -most && range[v].hi <= most;
    }
    mem_free(range);
    return narrow;
}

const char *type_of_value(const Emit *e, Val v)
{
    return e->narrow[v] ? "int" : cuda_value_type(node_of(e->k, v)->op == OP_FOR ? DAV_I64 : (DavDtype)node_of(e->k, v)->dtype);
}

/* The call of the function of an op: on ints where operands and result are, else small operands are widened first. */
static void call_function(Emit *e, Val v, char out[200])
{
    const Node *n = node_of(e->k, v);
    bool narrow = e->narrow[v];
    int at = 0;
    for (int i = 0; i < n->narg; i++)
        narrow = narrow && e->narrow[n->arg[i]];
    at += snprintf(out, 200, "dav_%s(", op_info[n->op].text);
    for (int i = 0; i < n->narg; i++)
        at += snprintf(out + at, (size_t)(200 - at), "%s%sv%d", i ? ", " : "", e->narrow[n->arg[i]] && !narrow ? "(i64)" : "", n->arg[i]);
    snprintf(out + at, (size_t)(200 - at), ")");
}

static void elementwise(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    const char *type = type_of_value(e, v), *round = e->narrow[v] ? "(int)" : cuda_rounded((DavDtype)n->dtype), *sign = operator_of((Op)n->op);
    const Val *a = n->arg;
    char call[200];
    if (n->op == OP_SELECT)
        put_line(e, "%s v%d = v%d ? v%d : v%d;", type, v, a[0], a[1], a[2]);
    else if (n->op == OP_STOP)
        put_line(e, "%s v%d = v%d;", type, v, a[0]);
    else if (sign)
        put_line(e, "%s v%d = v%d %s v%d;", type, v, a[0], sign, a[1]);
    else {
        call_function(e, v, call);
        put_line(e, "%s v%d = %s(%s);", type, v, round, call);
    }
}

static void cast(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    DavDtype from = operand_dtype(e, n->arg[0]), to = (DavDtype)n->dtype;
    const char *type = type_of_value(e, v);
    if (to == DAV_BOOL)
        put_line(e, "bool v%d = v%d != 0;", v, n->arg[0]);
    else if (dav_dtype_is_float(from) && !dav_dtype_is_float(to))
        put_line(e, "%s v%d = dav_to_%s(v%d);", type, v, dav_dtype_name(to), n->arg[0]);
    else
        put_line(e, "%s v%d = %s((%s)v%d);", type, v, cuda_rounded(to), type, n->arg[0]);
}

static void bitcast(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    DavDtype from = operand_dtype(e, n->arg[0]), to = (DavDtype)n->dtype;
    bool ff = dav_dtype_is_float(from), tf = dav_dtype_is_float(to);
    bool wide = dav_dtype_size(to) == 8;
    if (dav_dtype_size(to) == 2)
        put_line(e, "float v%d = %s(%s(v%d));", v, cuda_widen(to), cuda_narrow(from), n->arg[0]);
    else if (tf && !ff)
        put_line(e, "%s v%d = %s((%s)v%d);", cuda_value_type(to), v, wide ? "dav_double" : "dav_float", wide ? "u64" : "unsigned", n->arg[0]);
    else
        put_line(e, "%s v%d = (%s)%s(v%d);", cuda_value_type(to), v, cuda_value_type(to), ff && !tf ? "dav_bits" : "", n->arg[0]);
}

static void load(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    DavDtype t = (DavDtype)n->dtype;
    const char *type = cuda_value_type(t), *test = t == DAV_BOOL ? " != 0" : "";
    if (n->narg > 2)
        put_line(e, "%s v%d = v%d ? %s(p%d[v%d]%s) : (%s)0;", type, v, n->arg[2], cuda_widen(t), n->arg[0], n->arg[1], test, type);
    else
        put_line(e, "%s v%d = %s(p%d[v%d]%s);", type, v, cuda_widen(t), n->arg[0], n->arg[1], test);
}

/* Outside of vector loops the whole team has the value: one thread stores it, and where the kernel also reads that
 * buffer nobody may be late reading the old value or early reading the new one. */
static void store(Emit *e, const Node *n)
{
    DavDtype t = operand_dtype(e, n->arg[0]);
    bool alone = e->team > 1 && !e->vector, meet = alone && e->reread[n->arg[0]];
    if (meet)
        put_line(e, "dav_sync<%d>();", e->team);
    if (alone)
        put_line(e, "if (lane == 0)");
    if (n->narg > 3)
        put_line(e, "if (v%d)", n->arg[3]);
    put_line(e, "p%d[v%d] = %s(v%d);", n->arg[0], n->arg[1], cuda_narrow(t), n->arg[2]);
    if (meet)
        put_line(e, "dav_sync<%d>();", e->team);
}

static void update(Emit *e, const Node *n)
{
    static const char *const join[] = {[ACC_ADD] = "add", [ACC_MAX] = "max", [ACC_MIN] = "min"};
    const Node *acc = node_of(e->k, n->arg[0]);
    AccKind kind = (AccKind)attr_i(acc, A_KIND);
    if (kind == ACC_SET)
        put_line(e, "v%d = v%d;", n->arg[0], n->arg[1]);
    else
        put_line(e, "v%d = %s(dav_%s(v%d, %sv%d));", n->arg[0], cuda_rounded((DavDtype)acc->dtype), join[kind], n->arg[0],
                 e->narrow[n->arg[1]] ? "(i64)" : "", n->arg[1]);
}

void put_value(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    DavDtype t = (DavDtype)n->dtype;
    char text[64];
    switch ((Op)n->op) {
    case OP_CONST:
        number(text, t, attr_f(n, A_VALUE), dav_dtype_is_float(t) ? 0 : (int64_t)attr_f(n, A_VALUE));
        if (e->narrow[v])
            put_line(e, "const int v%d = %d;", v, (int)attr_f(n, A_VALUE));
        else
            put_line(e, "const %s v%d = %s;", cuda_value_type(t), v, text);
        break;
    case OP_ACC:
        number(text, t, attr_f(n, A_VALUE), dav_dtype_is_float(t) ? 0 : k_acc_start_int(n));
        put_line(e, "%s v%d = %s;", cuda_value_type(t), v, text);
        break;
    case OP_ACC_UPDATE:
        update(e, n);
        break;
    case OP_ACC_GET:
        put_line(e, "%s v%d = v%d;", cuda_value_type(t), v, n->arg[0]);
        break;
    case OP_CAST:
        cast(e, v);
        break;
    case OP_BITCAST:
        bitcast(e, v);
        break;
    case OP_LOAD:
        if (!put_line_load(e, v))
            load(e, v);
        break;
    case OP_STORE:
        if (!put_line_store(e, v))
            store(e, n);
        break;
    case OP_PHILOX:
        put_line(e, "unsigned v%d = dav_philox(v%d, v%d, v%d, v%d, v%d, v%d, %d);", v, n->arg[0], n->arg[1], n->arg[2], n->arg[3],
                 n->arg[4], n->arg[5], (int)attr_i(n, A_INDEX));
        break;
    case OP_EXP2:
        put_line(e, "float v%d = exp2f(v%d);", v, n->arg[0]);
        break;
    default:
        elementwise(e, v);
    }
}
