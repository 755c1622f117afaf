/* Every op of the table against NumPy and PyTorch (tests/data/ops.txt): the reference interpreter in the graphs' own dtypes
 * and in f64, and compiled programs. */
#include "ir/interp.h"
#include "runtime/program.h"
#include "support/ops_cases.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static Arena *arena;
static OpCase *cases;
static int ncases;

static int setup(void **state)
{
    (void)state;
    arena = arena_new();
    cases = ops_cases(arena, &ncases);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

static bool has_op(const Graph *g, Op op)
{
    for (Val v = 1; v < g->n; v++) {
        const Attr *region = node_attr(&g->node[v], A_GRAPH);
        if (g->node[v].op == op || (region && has_op(region->graph, op)))
            return true;
    }
    return false;
}

/* How many cases are named after the op, or hold it where it cannot stand alone. */
static int count_cases(Op op)
{
    int n = 0;
    size_t len = strlen(op_info[op].text);
    for (int i = 0; i < ncases; i++)
        n += (strncmp(cases[i].name, op_info[op].text, len) == 0 && cases[i].name[len] == '.' && has_op(cases[i].g, op));
    return n;
}

static void every_op_has_cases(void **state)
{
    (void)state;
    for (int op = OP_INVALID + 1; op < OP_COUNT; op++) {
        if (op == OP_GRAD || op_is_attention((Op)op)) /* expanded before anything runs; tests/test_attention.c */
            continue;
        bool alone = (op_info[op].flags & OPF_TENSOR) && op != OP_INPUT && op != OP_PICK && op != OP_HOST && op != OP_FUSE;
        int held = 0;
        for (int i = 0; i < ncases; i++)
            held += has_op(cases[i].g, (Op)op);
        if (held == 0 || (alone && op != OP_CALL && count_cases((Op)op) < 3))
            fail_msg("%s: %d cases of its own, in %d cases at all; see tests/reference/ops.py", op_info[op].text,
                     count_cases((Op)op), held);
    }
}

/* ---- running ---- */
static bool double_it(void *ctx, Err *err, const char *name, int nin, const Type *in_type, const void *const *in, int nout,
                      const Type *out_type, void *const *out)
{
    (void)ctx, (void)nout, (void)out_type;
    if (strcmp(name, "double") != 0 || nin != 1)
        return err_user(err, "no function '%s'", name);
    for (int64_t i = 0; i < type_count(in_type); i++)
        if (in_type->dtype == DAV_F64)
            ((double *)out[0])[i] = 2 * ((const double *)in[0])[i];
        else
            ((float *)out[0])[i] = 2 * ((const float *)in[0])[i];
    return true;
}

typedef struct Buffers { Arena *arena; void *in[8], *out[8]; Type type[8]; } Buffers;

static Buffers buffers_of(const OpCase *c, bool f64)
{
    Buffers b = {.arena = arena_new()};
    int n;
    Val *in = graph_inputs(c->g, b.arena, &n);
    assert_int_equal(n, c->nin);
    assert_int_equal(c->g->nout, c->nout);
    for (int i = 0; i < n; i++) {
        Type t = case_type(c->g, in[i], f64);
        assert_string_equal(attr_s(node_of(c->g, in[i]), A_NAME), c->in[i].name);
        b.in[i] = case_tensor(b.arena, &t, c->in[i].values);
    }
    for (int i = 0; i < c->nout; i++) {
        assert_string_equal(c->g->out[i].name, c->out[i].name);
        b.type[i] = case_type(c->g, c->g->out[i].val, f64);
        b.out[i] = arena_alloc(b.arena, (size_t)type_count(&b.type[i]) * dav_dtype_size(b.type[i].dtype));
    }
    return b;
}

static int wrong_outputs(const OpCase *c, const Buffers *b)
{
    int wrong = 0;
    for (int i = 0; i < c->nout; i++)
        wrong += !case_equals(c, &b->type[i], b->out[i], c->out[i].values, case_tolerance(b->type[i].dtype));
    return wrong;
}

static void interpret_all(bool f64)
{
    InterpHost host = {double_it, NULL};
    int wrong = 0, run = 0;
    for (int i = 0; i < ncases; i++) {
        const OpCase *c = &cases[i];
        if (f64 && (has_op(c->g, OP_KERNEL) || has_op(c->g, OP_CAST))) /* fixed dtypes; results that are rounded */
            continue;
        Buffers b = buffers_of(c, f64);
        Err err = {0};
        if (graph_interpret(&err, c->g, f64, (const void *const *)b.in, b.out, &host))
            wrong += wrong_outputs(c, &b);
        else
            fail_msg("%s: %s", c->name, err.text);
        arena_free(b.arena);
        run++;
    }
    print_message("%d cases interpreted\n", run);
    assert_int_equal(wrong, 0);
}

static void interpreter_in_own_dtypes(void **state)
{
    (void)state;
    interpret_all(false);
}

static void interpreter_in_f64(void **state)
{
    (void)state;
    interpret_all(true);
}

static bool host_double(void *ctx, Err *err, int nin, const Type *in_type, const void *const *in, int nout, const Type *out_type,
                        void *const *out)
{
    return double_it(ctx, err, "double", nin, in_type, in, nout, out_type, out);
}

static int run_compiled(const OpCase *c)
{
    Buffers b = buffers_of(c, false);
    Err err = {0};
    ProgramOptions opt = {.device = "cpu"};
    Program *p = program_compile(&err, c->g, &opt);
    if (!p)
        fail_msg("%s: %s", c->name, err.text);
    program_set_host(p, "double", host_double, NULL);
    if (!program_run(p, &err, b.in, b.out, 1, 1))
        fail_msg("%s: %s", c->name, err.text);
    int wrong = wrong_outputs(c, &b);
    program_free(p);
    arena_free(b.arena);
    return wrong;
}

static void compiled(void **state)
{
    (void)state;
    int wrong = 0, run = 0;
    for (int i = 0; i < ncases; i++) {
        if (has_op(cases[i].g, OP_KERNEL) || has_op(cases[i].g, OP_FUSE)) /* made by passes, not given to them */
            continue;
        wrong += run_compiled(&cases[i]);
        run++;
    }
    print_message("%d cases compiled\n", run);
    assert_int_equal(wrong, 0);
}

/* ---- mistakes ---- */
static void gradients_have_to_be_expanded(void **state)
{
    (void)state;
    Err err = {0};
    Graph *g = graph_new(arena, &err, "g");
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 0, NULL));
    Val d = graph_node(g, OP_GRAD, (Val[]){g_bin(g, OP_MUL, x, x), x}, 2, NULL, 0, NULL);
    graph_output(g, "d", g_pick(g, d, 0));
    float in = 1, out;
    assert_false(graph_interpret(&err, g, false, (const void *[]){&in}, (void *[]){&out}, NULL));
    assert_non_null(strstr(err.text, "autodiff"));
}

static void out_of_memory_is_an_error(void **state)
{
    (void)state;
    const OpCase *c = NULL;
    for (int i = 0; i < ncases; i++)
        if (strcmp(cases[i].name, "loop.scan") == 0)
            c = &cases[i];
    assert_non_null(c);
    Buffers b = buffers_of(c, false);
    int64_t live = mem_live(), n = 0;
    for (bool ok = false; !ok; n++) {
        Err err = {0};
        mem_fail_at(n + 1);
        ok = graph_interpret(&err, c->g, false, (const void *const *)b.in, b.out, NULL);
        assert_true(ok || err.kind == ERR_ENV);
        assert_int_equal(mem_live(), live);
    }
    mem_fail_at(0);
    assert_true(n > 10);
    arena_free(b.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_has_cases),        cmocka_unit_test(interpreter_in_own_dtypes),
        cmocka_unit_test(interpreter_in_f64),        cmocka_unit_test(compiled),
        cmocka_unit_test(gradients_have_to_be_expanded), cmocka_unit_test(out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
