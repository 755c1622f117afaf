/* The graph language: every mistake is one line with its place, nothing crashes, invalid values are silent; names and
 * shapes. */
#include "frontend/net.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct Fix { Arena *arena; Err err; DavNet *n; } Fix;

static int setup(void **state)
{
    Fix *f = mem_alloc(sizeof *f);
    f->arena = arena_new();
    f->n = net_new(f->arena, &f->err, "t");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fix *f = *state;
    net_free(f->n);
    arena_free(f->arena);
    mem_free(f);
    return 0;
}

static void assert_shape(DavVal x, DavDtype t, int rank, ...)
{
    assert_true(dav_valid(x));
    assert_int_equal(dav_dtype(x), t);
    assert_int_equal(dav_rank(x), rank);
    va_list ap;
    va_start(ap, rank);
    for (int i = 0; i < rank; i++)
        assert_int_equal(dav_dim(x, i), va_arg(ap, int));
    va_end(ap);
}

static void shapes_follow_numpy(void **state)
{
    Fix *f = *state;
    DavNet *n = f->n;
    DavVal x = dav_input(n, "x", DAV_F32, 2, 3, 4), y = dav_input(n, "y", DAV_F32, 3, 1);
    assert_shape(dav_add(x, y), DAV_F32, 3, 2, 3, 4);
    assert_shape(dav_mul(0.5, y), DAV_F32, 2, 3, 1);
    assert_shape(dav_lt(x, 1), DAV_BOOL, 3, 2, 3, 4);
    assert_shape(dav_where(dav_lt(x, 1), 0, y), DAV_F32, 3, 2, 3, 4);
    assert_shape(dav_where(dav_lt(x, 1), 1, 0), DAV_F32, 3, 2, 3, 4);
    assert_shape(dav_sum(x), DAV_F32, 0);
    assert_shape(dav_sum(x, -1, 0), DAV_F32, 1, 3);
    assert_shape(dav_sum_keep(x, 1), DAV_F32, 3, 2, 1, 4);
    assert_shape(dav_argmax(x, -2), DAV_I32, 2, 2, 4);
    assert_shape(dav_reshape(x, 6, -1), DAV_F32, 2, 6, 4);
    assert_shape(dav_transpose(x, 2, 0, -2), DAV_F32, 3, 4, 2, 3);
    assert_shape(dav_broadcast(y, 5, -1, 7), DAV_F32, 3, 5, 3, 7);
    assert_shape(dav_unsqueeze(x, -1), DAV_F32, 4, 2, 3, 4, 1);
    assert_shape(dav_slice(x, 2, -3, -1), DAV_F32, 3, 2, 3, 2);
    assert_shape(dav_matmul(x, dav_swap(x, 1, 2)), DAV_F32, 3, 2, 3, 3);
    assert_shape(dav_concat(1, x, x), DAV_F32, 3, 2, 6, 4);
    assert_shape(dav_grad(dav_sum(dav_square(x)), x), DAV_F32, 3, 2, 3, 4);
    assert_shape(dav_take(x, dav_input(n, "i", DAV_I64, 5, 6), 1), DAV_F32, 4, 2, 5, 6, 4);
    assert_true(dav_ok(n));
}

static void parameters_are_named_by_scope(void **state)
{
    Fix *f = *state;
    DavNet *n = f->n;
    DavVal x = dav_input(n, "x", DAV_F32, 2, 3, 8);
    dav_enter(n, "blocks.%d", 4);
    x = dav_conv(n, "conv", x, 5, .kernel = {3});
    x = dav_layer_norm(n, "norm", x, .axis = 1);
    dav_leave(n);
    x = dav_linear(n, "head", x, 2, .no_bias = true);
    assert_shape(x, DAV_F32, 3, 2, 5, 2);
    const char *const want[] = {"blocks.4.conv.weight", "blocks.4.conv.bias", "blocks.4.norm.weight",
                                "blocks.4.norm.bias", "head.weight"};
    assert_int_equal(net_param_count(n), 5);
    for (int i = 0; i < 5; i++)
        assert_string_equal(net_param(n, i)->name, want[i]);
    const DavInit init = net_param_named(n, "blocks.4.conv.weight")->init;
    assert_int_equal(init.kind, DAV_INIT_UNIFORM);
    assert_true(init.scale > 0.3333 && init.scale < 0.3334); /* 1 / sqrt(3 * 3) */
    assert_true(dav_ok(n));
}

static void two_layers(DavNet *n, const void *context, const DavVal *in, DavVal *out)
{
    (void)context;
    out[0] = dav_relu(dav_linear(n, "l", in[0], 4));
}

static void equal_bodies_are_one(void **state)
{
    Fix *f = *state;
    DavNet *n = f->n;
    DavVal x = dav_input(n, "x", DAV_F32, 2, 4), y, z;
    dav_call(n, "a", two_layers, NULL, &x, 1, &y, 1);
    dav_call(n, "b", two_layers, NULL, &y, 1, &z, 1);
    assert_true(dav_ok(n));
    assert_non_null(net_param_named(n, "b.l.weight"));
    const Graph *body[2] = {NULL, NULL};
    int k = 0;
    for (Val v = 1; v < n->g->n; v++)
        if (n->g->node[v].op == OP_CALL)
            body[k++] = attr_graph(&n->g->node[v], A_GRAPH);
    assert_int_equal(k, 2);
    assert_ptr_equal(body[0], body[1]);
}

/* ---- mistakes: each makes one error that holds these words, and an invalid value ---- */
static void bad_body(DavNet *n, const void *context, const DavVal *in, DavVal *out)
{
    (void)n;
    (void)context;
    out[0] = dav_reshape(in[0], 7);
}

static DavVal call_of(DavNet *n, DavBody body, DavVal x)
{
    DavVal y;
    dav_call(n, "c", body, NULL, &x, 1, &y, 1);
    return y;
}

static DavVal loop_of(DavNet *n, DavVal x, int64_t trip)
{
    DavVal y;
    dav_loop(n, "c", two_layers, NULL, &x, 1, &y, 1, .trip = trip, .scan = 1);
    return y;
}

static DavVal input_x(DavPlace at, DavNet *n)
{
    Val v = n ? graph_find_input(n->g, "x") : 0;
    return v ? (DavVal){n, v} : dav_input_(at, n, "x", DAV_F32, 2, (int64_t[]){2, 3});
}

#define X input_x(DAV_HERE, n)
#define IMAGE dav_input(n, "x", DAV_F32, 1, 6, 8)
#define MISTAKES(M) \
    M(dav_add(X, dav_input(n, "y", DAV_F32, 4)), "add(f32[2,3], f32[4])", "expected equal sizes, or 1") \
    M(dav_add(X, dav_input(n, "y", DAV_I64, 3)), "one dtype", "cast") \
    M(dav_add(dav_input(n, "y", DAV_I64, 3), 0.5), "0.5 is no i64", "cast") \
    M(dav_sum(X, 2), "axis 2 of f32[2,3]", "expected -2 to 1 (nearest: 1)") \
    M(dav_sum(X, 1, -1), "axis 1 is given twice", "") \
    M(dav_exp(dav_input(n, "y", DAV_I32, 3)), "exp(i32[3])", "expected a float") \
    M(dav_reshape(X, 4, -1), "6 elements are no multiple of 4", "") \
    M(dav_reshape(X, -1, -1), "one of them may be -1", "") \
    M(dav_transpose(X, 0), "1 axes given, expected 2", "") \
    M(dav_transpose(X, 0, 0), "permutation", "") \
    M(dav_broadcast(X, 4, 3), "axis 0 cannot become 4", "") \
    M(dav_slice(X, 0, 1, 5), "[1, 5) by 1", "inside [0, 2)") \
    M(dav_slice_step(X, 0, 0, 2, 0), "a step of 1 or more", "") \
    M(dav_squeeze(X, 1), "axis 1 has the size 3, expected 1", "") \
    M(dav_unsqueeze(X, 4), "axis 4, expected -3 to 2", "") \
    M(dav_pad(X, 0, -1, 0, 0), "padding must not be negative", "") \
    M(dav_pad(X, 0, INT64_MAX, 1, 0), "huge", "") \
    M(dav_concat(0, X, dav_input(n, "y", DAV_F32, 2, 4)), "operand 1 differs", "") \
    M(dav_window(X, 1, 4), "does not fit axis 1", "") \
    M(dav_fold(X, 0, -3), "", "") \
    M(dav_matmul(X, dav_input(n, "y", DAV_F32, 4, 3)), "last axis of the first, 3", "but one of the second, 4") \
    M(dav_matmul(dav_const(n, DAV_F32, 1), X), "expected vectors or matrices", "dav_mul") \
    M(dav_conv(n, "c", IMAGE, 4, .kernel = {3}, .groups = 4), "4 groups do not divide 6 input", "") \
    M(dav_conv(n, "c", IMAGE, 4, .kernel = {3}, .stride = {-2}), "stride -2", "expected 1 to") \
    M(dav_conv(n, "c", IMAGE, 4, .kernel = {3, 3}, .pad = {1, 1}), "options are given for 2 spatial axes", "has 1") \
    M(dav_conv(n, "c", IMAGE, 4, .kernel = {3}, .dilation = {9}), "dilated by 9", "does not fit") \
    M(dav_conv(n, "c", IMAGE, 0), "0 outputs", "") \
    M(dav_conv(n, "c", IMAGE, 4, .kernel = {-1}), "-1 taps", "") \
    M(dav_conv(n, "c", IMAGE, 4, .kernel = {1}, .pad = {INT64_MAX}), "pad 9223372036854775807", "") \
    M(dav_conv(n, "c", X, 4), "expected [batch, channels, 1 to 3 spatial axes]", "") \
    M(dav_convolve(IMAGE, dav_input(n, "w", DAV_F32, 4, 5, 3)), "5 input channels a group, expected 6", "") \
    M(dav_convolve(IMAGE, dav_input(n, "w", DAV_F32, 4, 6, 3), .groups = 3), "3 groups", "nearest: 2") \
    M(dav_linear(n, "l", dav_const(n, DAV_F32, 1), 3), "expected at least one axis", "") \
    M(dav_linear(n, "l", X, -5), "-5 outputs", "") \
    M(dav_group_norm(n, "g", X, 2), "divisible by 2", "") \
    M(dav_embedding(n, "e", X, 10, 4), "indices must be", "") \
    M(dav_one_hot(X, 4, DAV_F32), "expected i32 or i64", "") \
    M(dav_one_hot(dav_input(n, "i", DAV_I64, 2), 0, DAV_F32), "0 classes", "") \
    M(dav_top_k(X, 1, 4, NULL), "k is 4, expected 1 to 3", "") \
    M(dav_max_pool(IMAGE, .size = {3}, .pad = {2}), "pad 2 of a window of 3", "0 to 1") \
    M(dav_max_pool(X, .size = {3}), "spatial axes", "") \
    M(dav_attention(X, X, dav_input(n, "v", DAV_F32, 5, 3)), "matmul(", "last but one of the second, 5") \
    M(dav_grad(X, X), "must be one float", "") \
    M(dav_grad(dav_sum(X), dav_input(n, "i", DAV_I64, 3)), "no gradient", "") \
    M(dav_random_bits(X, X, 2, 3), "expected key u32[2]", "") \
    M(dav_input(n, "", DAV_F32, 1), "needs a name", "") \
    M(dav_input(n, "x", (DavDtype)99, 1), "no dtype has the number 99", "") \
    M(dav_input(n, "x", DAV_F32, -1), "size -1", "") \
    M(dav_input(n, "x", DAV_F32, 1, 1, 1, 1, 1, 1, 1, 1, 1), "rank 9, expected 0 to 8", "") \
    M(dav_input(n, "x", DAV_F32, 1 << 20, 1 << 20, 1 << 20), "more than 2^48 elements", "") \
    M(dav_const(n, DAV_U32, -1, 1), "-1 is no u32", "") \
    M(dav_param(n, "", (DavInit){0}, 1), "needs a name", "") \
    M(dav_cast(X, (DavDtype)-1), "no dtype", "") \
    M(dav_mean(dav_input(n, "i", DAV_I64, 3)), "expected floats", "") \
    M(dav_iota(n, DAV_I32, 3, 2), "axis 3", "") \
    M(dav_cumsum(X, 7), "axis 7", "") \
    M(dav_literal(n, DAV_F32, NULL, 3), "no numbers", "") \
    M(dav_gather(X, dav_input(n, "i", DAV_I64, 5), 3), "batch 3", "") \
    M(dav_dyn_slice(X, X, 0, 1), "i32[]", "") \
    M(dav_ew_(DAV_HERE, "nothing", 1, (DavArg[]){DAV_ARG(X)}), "no elementwise op", "") \
    M(dav_reduce_(DAV_HERE, "product", X, false, 0, NULL), "no reduction", "") \
    M(dav_add(X, foreign), "belongs to another graph", "arguments") \
    M(dav_add(X, (DavVal){0}), "operand 2 is no value", "") \
    M(dav_add(X, ((DavVal){n, 1000})), "operand 2 is no value of this graph", "") \
    M(call_of(n, bad_body, X), "cannot become 7", "") \
    M(loop_of(n, X, 5), "scanned operand 1 is f32[2,3]", "first axis of 5")

static void mistakes_are_one_line_each(void **state)
{
    (void)state;
    Arena *far = arena_new();
    Err far_err = {0};
    DavNet *other = net_new(far, &far_err, "other");
    DavVal foreign = dav_input(other, "there", DAV_F32, 2);
#define M(expr, words, more) \
    do { \
        Arena *arena = arena_new(); \
        Err err = {0}; \
        DavNet *n = net_new(arena, &err, "t"); \
        DavVal v = expr; \
        const char place[] = __FILE__ ":"; \
        if (err.kind != ERR_USER || err.count != 1 || !strstr(err.text, words) || !strstr(err.text, more) || \
            dav_valid(v) || strncmp(err.text, place, strlen(place)) != 0 || strchr(err.text, '\n')) \
            fail_msg("%s\n  gave (%d): %s", #expr, err.count, err.text); \
        dav_output(n, "y", dav_softmax(dav_add(v, 1), 0)); \
        assert_int_equal(err.count, 1); \
        net_free(n); \
        arena_free(arena); \
    } while (0);
    MISTAKES(M)
#undef M
    net_free(other);
    arena_free(far);
}

static void mistakes_of_order(void **state)
{
    Fix *f = *state;
    DavNet *n = f->n;
    char place[300];
    snprintf(place, sizeof place, "%s:%d: ", __FILE__, __LINE__ + 1);
    dav_leave(n);
    assert_non_null(strstr(f->err.text, "dav_leave without a dav_enter"));
    assert_memory_equal(f->err.text, place, strlen(place));
    err_clear(&f->err);
    dav_param(n, "w", (DavInit){0}, 3);
    dav_param(n, "w", (DavInit){0}, 3);
    assert_non_null(strstr(f->err.text, "parameter 'w' is declared twice"));
    err_clear(&f->err);
    DavVal x = dav_input(n, "x", DAV_F32, 3);
    dav_output(n, "y", x);
    dav_output(n, "y", x);
    assert_non_null(strstr(f->err.text, "output 'y' is given twice"));
    err_clear(&f->err);
    dav_output(n, "z", (DavVal){0});
    assert_non_null(strstr(f->err.text, "output 'z' is no value"));
    err_clear(&f->err);
    assert_int_equal(dav_dim(x, 4), 1);
    assert_int_equal(f->err.count, 1);
}

/* Without a net there is nowhere to report to: nothing happens. */
static void no_net_no_crash(void **state)
{
    (void)state;
    DavVal none = {0}, out;
    assert_false(dav_valid(dav_input(NULL, "x", DAV_F32, 2)));
    assert_false(dav_valid(dav_const(NULL, DAV_F32, 1)));
    assert_false(dav_valid(dav_param(NULL, "w", (DavInit){0}, 2)));
    assert_false(dav_valid(dav_add(none, 1)));
    assert_false(dav_valid(dav_add(1, 2)));
    assert_false(dav_valid(dav_sum(none)));
    assert_false(dav_valid(dav_matmul(none, none)));
    assert_false(dav_valid(dav_conv(NULL, "c", none, 3)));
    assert_false(dav_valid(dav_layer_norm(NULL, NULL, none)));
    assert_false(dav_valid(dav_concat(0, none, none)));
    assert_false(dav_valid(dav_grad(none, none)));
    dav_enter(NULL, "x");
    dav_leave(NULL);
    dav_output(NULL, "y", none);
    dav_call(NULL, NULL, NULL, NULL, NULL, 0, &out, 1);
    assert_false(dav_valid(out));
    assert_int_equal(dav_dim(none, 3), 1);
    assert_string_equal(dav_name(NULL, "x"), "");
    assert_false(dav_ok(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(shapes_follow_numpy, setup, teardown),
        cmocka_unit_test_setup_teardown(parameters_are_named_by_scope, setup, teardown),
        cmocka_unit_test_setup_teardown(equal_bodies_are_one, setup, teardown),
        cmocka_unit_test(mistakes_are_one_line_each),
        cmocka_unit_test_setup_teardown(mistakes_of_order, setup, teardown),
        cmocka_unit_test(no_net_no_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
