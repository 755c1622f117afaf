/* The memory plan: golden numbers on graphs whose best plan is known. */
#include "passes/lower.h"
#include "passes/plan.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

enum { N = 1 << 16, BYTES = 4 * N };

typedef struct Fixture { Arena *arena; Err err; Graph *g; PassCx cx; } Fixture;

static Fixture begin(void)
{
    Fixture f = {.arena = arena_new()};
    f.g = graph_new(f.arena, &f.err, "memory");
    return f;
}

static Plan *plan_of(Fixture *f, const int *inplace)
{
    static const CompileOptions none = {0};
    f->cx = (PassCx){.arena = f->arena, .err = &f->err, .options = &none};
    const Graph *g = passes_run(&f->cx, f->g, NULL);
    if (!g)
        fail_msg("%s", f->err.text);
    return plan_make(f->arena, g, inplace);
}

static void end(Fixture *f)
{
    vec_free(f->cx.notes);
    vec_free(f->cx.times);
    arena_free(f->arena);
}

static Type vector(int64_t rows)
{
    return type_make(DAV_F32, 2, (int64_t[]){rows, N / rows});
}

/* Something that fuses with nothing: a running sum. */
static Val barrier(Graph *g, Val x)
{
    Attr a[] = {{.name = A_AXIS, .i = 1}, {.name = A_EXCLUSIVE, .i = 0}, {.name = A_REVERSE, .i = 0}};
    return graph_node(g, OP_CUMSUM, &x, 1, a, 3, NULL);
}

static Val product(Graph *g, Val x, Val w)
{
    ContractSpec s;
    spec_parse(g->err, "a c, c b -> a b | c=1024", &s);
    s.extent[0] = 64;
    s.extent[1] = 1024;
    return g_contract(g, x, w, &s, DAV_F32);
}

/* A chain of products needs room for two values however long it is; the first reads an input, the last writes an
 * output. */
static void test_products(void **state)
{
    (void)state;
    Fixture f = begin();
    Val w = g_input(f.g, "w", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){1024, 1024})),
        v = g_input(f.g, "x", ROLE_DATA, vector(64));
    for (int i = 0; i < 10; i++)
        v = product(f.g, v, w);
    graph_output(f.g, "y", v);
    Plan *p = plan_of(&f, NULL);
    assert_int_equal(p->arena_bytes, 2 * BYTES);
    assert_int_equal(p->unplanned_bytes, 10 * BYTES);
    end(&f);
}

/* A running sum reads each element just before it writes it: one place for the whole chain. */
static void test_chain(void **state)
{
    (void)state;
    Fixture f = begin();
    Val v = g_input(f.g, "x", ROLE_DATA, vector(64));
    for (int i = 0; i < 10; i++)
        v = barrier(f.g, v);
    graph_output(f.g, "y", v);
    Plan *p = plan_of(&f, NULL);
    assert_int_equal(p->nstep, 10);
    assert_int_equal(p->arena_bytes, BYTES);
    assert_int_equal(p->unplanned_bytes, 10 * BYTES);
    end(&f);
}

/* An elementwise kernel writes over its operand. */
static void test_in_place(void **state)
{
    (void)state;
    Fixture f = begin();
    Val x = barrier(f.g, g_input(f.g, "x", ROLE_DATA, vector(64)));
    Val y = g_un(f.g, OP_EXP, x);
    graph_output(f.g, "y", barrier(f.g, y)); /* x and exp x in one place, y at the caller's */
    Plan *p = plan_of(&f, NULL);
    assert_true(p->arena_bytes == BYTES);
    end(&f);
}

/* A value that lives on beside a chain takes one more. */
static void test_residual(void **state)
{
    (void)state;
    Fixture f = begin();
    Val x = barrier(f.g, g_input(f.g, "x", ROLE_DATA, vector(64))), v = x;
    for (int i = 0; i < 4; i++)
        v = barrier(f.g, v);
    graph_output(f.g, "y", barrier(f.g, g_bin(f.g, OP_ADD, v, x)));
    Plan *p = plan_of(&f, NULL);
    assert_int_equal(p->arena_bytes, 2 * BYTES);
    end(&f);
}

/* Values of parameters alone are kept, not planned. */
static void test_kept(void **state)
{
    (void)state;
    Fixture f = begin();
    Val w = barrier(f.g, g_input(f.g, "w", ROLE_PARAM, vector(64))), x = g_input(f.g, "x", ROLE_DATA, vector(64));
    graph_output(f.g, "y", barrier(f.g, g_bin(f.g, OP_MUL, x, w)));
    Plan *p = plan_of(&f, NULL);
    assert_int_equal(p->kept_bytes, BYTES);
    assert_true(p->step[0].once && !p->step[1].once);
    end(&f);
}

/* No two values that are alive together overlap, on a graph with many lifetimes. */
static void test_no_overlap(void **state)
{
    (void)state;
    Fixture f = begin();
    Val v[24];
    v[0] = barrier(f.g, g_input(f.g, "x", ROLE_DATA, vector(64)));
    for (int i = 1; i < 24; i++)
        v[i] = barrier(f.g, i % 3 ? g_bin(f.g, OP_ADD, v[i - 1], v[i / 2]) : v[i - 1]);
    graph_output(f.g, "y", v[23]);
    Plan *p = plan_of(&f, NULL);
    for (int a = 0; a < p->nbuf; a++)
        for (int b = 0; b < a; b++) {
            const PlanBuf *x = &p->buf[a], *y = &p->buf[b];
            bool both = x->place == AT_ARENA && y->place == AT_ARENA && x->shares < 0 && y->shares < 0;
            if (both && x->first <= y->last && y->first <= x->last)
                assert_true(x->offset + x->bytes <= y->offset || y->offset + y->bytes <= x->offset);
        }
    assert_true(p->arena_bytes < p->unplanned_bytes / 2);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products), cmocka_unit_test(test_chain), cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_residual), cmocka_unit_test(test_kept),  cmocka_unit_test(test_no_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
