/* Building: shape rules, folding, hash-consing, mistakes reported once, contraction specs. */
#include "ir/graph.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

typedef struct Fix { Arena *arena; Err err; Graph *g; } Fix;

static int setup(void **state)
{
    Fix *f = mem_alloc(sizeof *f);
    f->arena = arena_new();
    f->g = graph_new(f->arena, &f->err, "t");
    graph_at(f->g, "model.c", 12);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fix *f = *state;
    arena_free(f->arena);
    mem_free(f);
    return 0;
}

static Type f32(int rank, int64_t a, int64_t b)
{
    return type_make(DAV_F32, rank, (int64_t[]){a, b});
}

static void folds_and_merges(void **state)
{
    Fix *f = *state;
    Graph *g = f->g;
    Val x = g_input(g, "x", ROLE_DATA, f32(2, 3, 4));
    Val one = g_const(g, f32(2, 3, 4), 1.0);
    assert_int_equal(g_bin(g, OP_MUL, x, one), x);
    assert_int_equal(g_bin(g, OP_ADD, x, one), g_bin(g, OP_ADD, x, one));
    Val three = g_bin(g, OP_ADD, one, g_const(g, f32(2, 3, 4), 2.0));
    assert_int_equal(node_of(g, three)->op, OP_CONST);
    assert_true(attr_f(node_of(g, three), A_VALUE) == 3.0);
    int64_t perm[] = {1, 0};
    assert_int_equal(g_transpose(g, g_transpose(g, x, perm), perm), x);
    /* x + 0 is not x when x is -0: it must stay */
    assert_int_not_equal(g_bin(g, OP_ADD, x, g_const(g, f32(2, 3, 4), 0.0)), x);
    assert_int_equal(f->err.kind, ERR_NONE);
}

static void mistakes_are_reported_once(void **state)
{
    Fix *f = *state;
    Graph *g = f->g;
    Val x = g_input(g, "x", ROLE_DATA, f32(2, 3, 4)), y = g_input(g, "y", ROLE_DATA, f32(2, 3, 5));
    Val bad = g_bin(g, OP_ADD, x, y);
    assert_int_equal(bad, 0);
    assert_int_equal(g_un(g, OP_EXP, bad), 0);
    assert_int_equal(f->err.count, 1);
    assert_string_equal(f->err.text, "model.c:12: add(f32[3,4], f32[3,5]): operands need equal shapes here");
}

static void specs_round_trip(void **state)
{
    Fix *f = *state;
    const char *text[] = {"a c, c b -> a b | c=8", "a b+4*d-16 e, d e c -> a b c | d=9 e=128",
                          "a (b-2*d+3)/2 e, d c e -> a b c | d=5 e=7", "a b, a b -> | a=3 b=4"};
    for (int i = 0; i < 4; i++) {
        ContractSpec s;
        assert_true(spec_parse(&f->err, text[i], &s));
        Buf b = {0};
        spec_print(&b, &s);
        assert_string_equal(b.at, text[i]);
        buf_free(&b);
    }
    ContractSpec s;
    assert_false(spec_parse(&f->err, "b c, c a -> b a | c=4", &s)); /* output loops come first, in order */
}

static void contraction_shape_and_work(void **state)
{
    Fix *f = *state;
    ContractSpec s;
    assert_true(spec_parse(&f->err, "a b+4*d-16 e, d e c -> a b c | d=9 e=128", &s));
    s.extent[0] = 2, s.extent[1] = 20, s.extent[2] = 128;
    Val x = g_input(f->g, "x", ROLE_DATA, type_make(DAV_F32, 3, (int64_t[]){2, 20, 128}));
    Val w = g_input(f->g, "w", ROLE_PARAM, type_make(DAV_F32, 3, (int64_t[]){9, 128, 128}));
    Val y = g_contract(f->g, x, w, &s, DAV_F32);
    assert_int_not_equal(y, 0);
    double useful, all;
    Type tx = type_of(f->g, x), tw = type_of(f->g, w);
    spec_work(&s, &tx, &tw, &useful, &all);
    /* taps at -16, -12, .., 16 meet 4, 8, 12, 16, 20, 16, 12, 8, 4 of 20 rows */
    assert_true(useful / all == 100.0 / 180.0);
    s.extent[2] = 64;
    assert_int_equal(g_contract(f->g, x, w, &s, DAV_F32), 0);
    assert_int_equal(f->err.kind, ERR_USER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(folds_and_merges, setup, teardown),
        cmocka_unit_test_setup_teardown(mistakes_are_reported_once, setup, teardown),
        cmocka_unit_test_setup_teardown(specs_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(contraction_shape_and_work, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
