/* The text of the IR: printing and reading, mistakes in it, the verifier. */
#include "ir/kernel.h"
#include "ir/opdoc.h"
#include "ir/parse.h"
#include "ir/print.h"
#include "ir/verify.h"
#include "support/ops_cases.h"
#include "support/random_graph.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static Arena *arena;

static int setup(void **state)
{
    (void)state;
    arena = arena_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

static Graph *parse(Err *err, const char *text)
{
    return graph_parse(arena, err, "t.ir", text, strlen(text));
}

static char *print(const Graph *g)
{
    Buf b = {0};
    graph_print(&b, g);
    char *text = arena_str(arena, b.at);
    buf_free(&b);
    return text;
}

static void check_round_trip(const Graph *g)
{
    Err err = {0};
    char *once = print(g);
    Graph *again = parse(&err, once);
    if (!again)
        fail_msg("%s\n%s", err.text, once);
    assert_string_equal(print(again), once);
}

/* ---- print and parse ---- */
static const char sample[] = "graph \"sample\" {\n"
                             "  %1 = input {name=\"x\" role=data} : f32[2,3]  # model.c:12\n"
                             "  %2 = const {value=-inf} : f32[2,3]  # \"my model.c\":13\n"
                             "  %3 = call %1, %2 {graph=@1} : (f32[2,3], bool[2,3])  # model.c:14\n"
                             "    @1 \"block \\\"b\\\"\" {\n"
                             "      %1 = input {name=\"a\" role=data} : f32[2,3]  # block.c:3\n"
                             "      %2 = input {name=\"b\" role=data} : f32[2,3]\n"
                             "      %3 = max %1, %2 : f32[2,3]\n"
                             "      %4 = lt %1, %2 : bool[2,3]\n"
                             "      return y=%3, \"odd name\"=%4\n"
                             "    }\n"
                             "  %4 = pick %3 {index=0} : f32[2,3]\n"
                             "  %5 = call %4, %2 {graph=@1} : (f32[2,3], bool[2,3])\n"
                             "  %6 = pick %5 {index=0} : f32[2,3]\n"
                             "  %7 = cast %6 {to=bf16} : bf16[2,3]\n"
                             "  %8 = literal {data=[1,2.5,nan]} : f64[3]\n"
                             "  return y=%7, l=%8\n"
                             "}\n";

static void sample_comes_back_as_it_is(void **state)
{
    (void)state;
    Err err = {0};
    Graph *g = parse(&err, sample);
    if (!g)
        fail_msg("%s", err.text);
    assert_string_equal(print(g), sample);
    assert_string_equal(g->node[2].file, "my model.c");
    assert_int_equal(g->node[2].line, 13);
    assert_null(g->node[4].file);
    assert_ptr_equal(attr_graph(&g->node[3], A_GRAPH), attr_graph(&g->node[5], A_GRAPH));
}

static void hand_written_text_is_read(void **state)
{
    (void)state;
    Err err = {0};
    Graph *g = parse(&err, "# made by hand\n\ngraph {  # no name\n\t%10=input{name=\"x\" role=data}:f32[ 2 , 3 ] # see above\n"
                           "%12 = neg %10 : f32[2,3]\r\n return y = %12\n}");
    if (!g)
        fail_msg("%s", err.text);
    assert_string_equal(print(g), "graph {\n  %1 = input {name=\"x\" role=data} : f32[2,3]\n  %2 = neg %1 : f32[2,3]\n  return y=%2\n}\n");
}

static void every_op_round_trips(void **state)
{
    (void)state;
    int n;
    OpCase *c = ops_cases(arena, &n);
    for (int i = 0; i < n; i++)
        check_round_trip(c[i].g);
}

static void random_graphs_round_trip(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        Err err = {0};
        Rng r = {seed};
        Graph *g = random_graph(arena, &err, &r, 30);
        if (err.kind || !graph_verify(&err, g, NULL))
            fail_msg("seed %d: %s", (int)seed, err.text);
        check_round_trip(g);
    }
}

/* ---- mistakes in the text ---- */
#define IN(body) "graph {\n  %1 = input {name=\"x\" role=data} : f32[2,3]\n  " body "\n}\n"

static const struct { const char *text, *expected; } mistakes[] = {
    {"", "t.ir:1:1: expected graph, found the end of the file"},
    {"grph {", "t.ir:1:6: expected graph, found 'grph'"},
    {"graph {\n", "t.ir:2:1: expected a node, 'return' or '}', found the end of the file"},
    {IN("%2 = ad %1, %1 : f32[2,3]"), "expected an op, found 'ad'; the nearest is 'add'"},
    {IN("%2 = add %1, %3 : f32[2,3]"), "expected a value made before, found %3"},
    {IN("%2 = add %1 : f32[2,3]"), "t.ir:3:3: add takes 2 operands, found 1"},
    {IN("%2 = neg %1 : f32[2,4]"), "expected type f32[2,3], found f32[2,4]"},
    {IN("%2 = neg %1 : f33[2,3]"), "expected a dtype (f64 f32 bf16 f16 i64 i32 u32 bool), found 'f33'"},
    {IN("%2 = neg %1 : f32[1,1,1,1,1,1,1,1,1]"), "expected at most 8 axes"},
    {IN("%2 = const {value=0} : f32[16777216,16777216,2]"), "expected a shape of at most 2^48 elements"},
    {IN("%2 = neg %1 : f32[-2]"), "expected a shape"},
    {IN("%2 = neg %1"), "expected ':', found the end of the line"},
    {IN("%1 = neg %1 : f32[2,3]"), "expected the numbers of values to ascend"},
    {IN("%2 = sum %1 {axis=0} : f32[1,3]"), "sum takes no attribute 'axis' (it takes: axes ?parts)"},
    {IN("%2 = sum %1 : f32[1,3]"), "sum needs the attribute 'axes'"},
    {IN("%2 = sum %1 {axes=[0] axes=[0]} : f32[1,3]"), "attribute 'axes' is given twice"},
    {IN("%2 = sum %1 {axes=[5]} : f32[1,3]"), "axis 5 of a value of rank 2"},
    {IN("%2 = sum %1 {axes=[0,]} : f32[1,3]"), "expected an integer, found ']"},
    {IN("%2 = sum %1 {axes=[99999999999999999999]} : f32[1,3]"), "expected an integer"},
    {IN("%2 = cast %1 {to=f3} : f32[1,3]"), "expected f32, found 'f3'"},
    {IN("%2 = const {value=x} : f32[1]"), "expected a number, found 'x}"},
    {IN("%2 = contract %1, %1 {spec=\"a b, b -> a\"} : f32[2]"), "contract"},
    {IN("%2 = contract %1, %1 {spec=\"a c, b c -> a b | c=4\"} : f32[2,2]"), "an axis differs from its loop's extent"},
    {IN("%2 = contract %1, %1 {spec=\"a c, b c -> a b | c=3\"} : f32[2]"), "output loops"},
    {IN("%2 = host %1 {name=\"f} : f32[2]"), "expected a string that ends on its line"},
    {IN("%2 = host %1 {name=\"\\q\"} : f32[2]"), "expected one of"},
    {IN("%2 = host %1 {name=\"\\x00\"} : f32[2]"), "expected one of"},
    {IN("%2 = call %1 {graph=@1} : (f32[2,3])"), "expected '@'"},
    {IN("%2 = call %1 {graph=@0} : (f32[2,3])\n@0 {\n}"), "expected the number of a region, at least 1, found 0"},
    {IN("%2 = call %1 {graph=@1} : (f32[2,3])\n@2 {\n}"), "expected region @1, found @2"},
    {IN("%2 = call %1 {graph=@1} : (f32[2,3])\n@1 {\n%1 = call {graph=@1} : ()\n}"), "region @1 cannot contain itself"},
    {IN("%2 = call %1 {graph=@1} : (f32[2,3])\n@1 {\n}"), "the region has 0 inputs for 1 operands"},
    {IN("%2 = call {graph=@1} : (f32[2,3])\n@1 {\n}"), "expected 0 result types, found 1"},
    {IN("%2 = call {graph=@1} : ()\n@1 {\n}\n%3 = neg %2 : f32[]"), "operand 0 is a tuple"},
    {IN("return y=%1, y=%1"), "a second output 'y'"},
    {IN("return y=%1 z=%1"), "expected the end of the line, found 'z=%1'"},
    {IN("%2 = input {name=\"x\" role=data} : f32[]"), "a second input of this name"},
    {IN("return y=%1\n}"), "expected the end of the file, found '}'"},
    {IN("%2 = end %1"), "kernel"},
};

static void mistakes_are_explained(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        Err err = {0};
        if (parse(&err, mistakes[i].text))
            fail_msg("read without complaint:\n%s", mistakes[i].text);
        assert_int_equal(err.kind, ERR_USER);
        if (!strstr(err.text, mistakes[i].expected) || strncmp(err.text, "t.ir:", 5) != 0)
            fail_msg("expected \"%s\"\nfound    \"%s\"", mistakes[i].expected, err.text);
    }
}

static void regions_nest_to_a_bound(void **state)
{
    (void)state;
    Buf b = {0};
    Err err = {0};
    buf_str(&b, "graph {\n");
    for (int i = 1; i < 5000; i++)
        buf_printf(&b, "%%1 = call {graph=@%d} : ()\n@%d {\n", i, i);
    assert_null(parse(&err, b.at));
    assert_non_null(strstr(err.text, "nested deeper than"));
    buf_free(&b);
}

/* Every prefix, and every single byte changed: an error or a graph, never a crash. */
static void damaged_text_does_no_harm(void **state)
{
    (void)state;
    size_t len = strlen(sample);
    char *text = arena_str(arena, sample);
    for (size_t n = 0; n < len; n++) {
        Err err = {0};
        Arena *a = arena_new();
        Graph *g = graph_parse(a, &err, "t.ir", text, n);
        assert_true((g != NULL) == (err.kind == ERR_NONE));
        for (int bit = 0; bit < 8; bit++) {
            err_clear(&err);
            text[n] ^= (char)(1 << bit);
            g = graph_parse(a, &err, "t.ir", text, len);
            assert_true((g != NULL) == (err.kind == ERR_NONE));
            text[n] = sample[n];
        }
        arena_free(a);
    }
}

/* ---- the verifier on broken graphs ---- */
static Graph *healthy(Err *err)
{
    Graph *g = graph_new(arena, err, "g");
    g->no_fold = true;
    graph_at(g, "model.c", 7);
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){2, 3}));
    Val s = g_reduce(g, OP_SUM, x, (int64_t[]){1}, 1);
    graph_output(g, "y", g_un(g, OP_EXP, s));
    return g;
}

static void break_type(Graph *g) { g->node[3].dim[0] = 5; }
static void break_dtype(Graph *g) { g->node[2].dtype = DAV_I32; }
static void break_order(Graph *g) { ((Val *)(uintptr_t)g->node[2].arg)[0] = 3; }
static void break_operand(Graph *g) { ((Val *)(uintptr_t)g->node[2].arg)[0] = 99; }
static void break_arity(Graph *g) { g->node[3].narg = 0; }
static void break_attr(Graph *g) { ((Attr *)(uintptr_t)g->node[2].attr)->name = A_AXIS; }
static void break_attrs(Graph *g)
{
    Attr *a = (Attr *)(uintptr_t)g->node[1].attr, first = a[0];
    a[0] = a[1];
    a[1] = first;
}
static void break_axes(Graph *g) { ((int64_t *)(uintptr_t)g->node[2].attr->ints)[0] = 2; }
static void break_missing(Graph *g) { g->node[2].nattr = 0; }
static void break_op(Graph *g) { g->node[3].op = 250; }
static void break_role(Graph *g) { ((Attr *)(uintptr_t)g->node[1].attr)[1].i = 17; }
static void break_output(Graph *g) { g->out[0].val = 0; }

static const struct { void (*harm)(Graph *); const char *expected; } harms[] = {
    {break_type, "model.c:7: expected type f32[2,1], found f32[5,1]; in: %3 = exp %2 : f32[5,1]"},
    {break_dtype, "expected type f32[2,1], found i32[2,1]; in: %2 = sum %1 {axes=[1]}"},
    {break_order, "node %2: an operand is not a value made before"},
    {break_operand, "node %2: an operand is not a value made before"},
    {break_arity, "expected 1 operands, found 0"},
    {break_attr, "an attribute that its op does not take"},
    {break_attrs, "attributes are not in the order of the table"},
    {break_axes, "axis 2 of a value of rank 2; in: %2 = sum %1 {axes=[2]}"},
    {break_missing, "sum lacks the attribute 'axes'"},
    {break_op, "the op is not in the table"},
    {break_role, "out of range"},
    {break_output, "output 'y' is %0"},
};

static void broken_graphs_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof harms / sizeof *harms; i++) {
        Err err = {0};
        Graph *g = healthy(&err);
        assert_true(graph_verify(&err, g, NULL));
        harms[i].harm(g);
        assert_false(graph_verify(&err, g, NULL));
        if (!strstr(err.text, harms[i].expected))
            fail_msg("expected \"%s\"\nfound    \"%s\"", harms[i].expected, err.text);
    }
}

static void refused_ops_are_found_in_regions(void **state)
{
    (void)state;
    Err err = {0};
    Graph *g = parse(&err, sample);
    assert_non_null(g);
    bool refused[OP_COUNT] = {[OP_MAX] = true};
    assert_false(graph_verify(&err, g, refused));
    assert_non_null(strstr(err.text, "max is not allowed"));
    err_clear(&err);
    refused[OP_MAX] = false;
    refused[OP_MIN] = true;
    assert_true(graph_verify(&err, g, refused));
}

/* ---- kernels ---- */
#define KERNEL(body)                                                                                                                       \
    "graph {\n%1 = input {name=\"x\" role=data} : f32[4]\n%2 = kernel %1 {graph=@1} : (f32[4])\n@1 {\n"                                    \
    "%1 = buf {name=\"a\" role=in index=0} : f32[4]\n%2 = buf {name=\"b\" role=out index=1} : f32[4]\n" body "}\n}\n"
#define VECTOR "%4 = for {kind=vector nums=[0,4,1]} : i64[]\n"
#define ACC(kind) "%4 = acc {value=0 kind=" kind "} : f32[]\n"
#define AFTER_ACC "%5 = for {kind=vector nums=[0,4,1]} : i64[]\n"
#define PARALLEL "%3 = for {kind=parallel nums=[0,4,1]} : i64[]\n"

static const struct { const char *text, *expected; } kernel_mistakes[] = {
    {KERNEL(""), NULL}, /* without a parallel loop */
    {KERNEL(PARALLEL "%4 = load %1, %3 : f32[]\n%5 = store %2, %3, %4\n"), "has no end"},
    {KERNEL(PARALLEL "%4 = end %3\n%5 = for {kind=parallel nums=[0,4,1]} : i64[]\n%6 = end %5\n"), "a second parallel loop"},
    {KERNEL("%3 = for {kind=serial nums=[0,4,1]} : i64[]\n%4 = end %3\n"), "the outermost loop, and no other, is parallel"},
    {KERNEL(PARALLEL "%4 = for {kind=parallel nums=[0,4,1]} : i64[]\n%5 = end %4\n%6 = end %3\n"), "the outermost loop, and no other"},
    {KERNEL(PARALLEL "%4 = for {kind=serial nums=[0,4,1]} : i64[]\n%5 = end %3\n%6 = end %4\n"), "is not the innermost open"},
    {KERNEL(PARALLEL "%4 = load %1, %3 : f32[]\n%5 = end %3\n%6 = neg %4 : f32[]\n"), "used after the body"},
    {KERNEL(PARALLEL "%4 = const {value=0} : f32[]\n%5 = store %1, %3, %4\n%6 = end %3\n"), "is only read"},
    {KERNEL(PARALLEL "%4 = const {value=0} : f32[]\n%5 = store %2, %4, %4\n%6 = end %3\n"), "is not an i64"},
    {KERNEL(PARALLEL "%4 = load %2, %3, %3 : f32[]\n%5 = end %3\n"), "is not a bool"},
    {KERNEL(PARALLEL "%4 = store %2, %3, %3\n%5 = end %3\n"), "expected a value of dtype f32"},
    {KERNEL(PARALLEL "%4 = for {kind=vector nums=[0,4,1]} : i64[]\n%5 = for {kind=vector nums=[0,4,1]} : i64[]\n%6 = end %5\n%7 = end %4\n"
                     "%8 = end %3\n"), "a vector loop inside of a vector loop"},
    {KERNEL("%3 = acc {value=0 kind=add} : f32[]\n"), "outside of the parallel loop"},
    {KERNEL(PARALLEL "%4 = input {name=\"y\" role=data} : f32[]\n%5 = end %3\n"), "tensor level in a kernel"},
    {KERNEL(PARALLEL "%4 = for {kind=serial nums=[0,4,0]} : i64[]\n%5 = end %4\n%6 = end %3\n"), "nums"},
    {KERNEL(PARALLEL VECTOR "%5 = for {kind=serial nums=[0,4,2]} : i64[]\n%6 = end %5\n%7 = const {value=2} : i64[]\n"
                     "%8 = lt %4, %7 : bool[]\n%9 = if %8\n"), "%8 differs from lane to lane"},
    {KERNEL(PARALLEL "%4 = for {kind=vector nums=[0,4,2]} : i64[]\n"), "in a vector loop 1"},
    {KERNEL(PARALLEL ACC("add") AFTER_ACC "%6 = acc_update %4, %4\n"), "expected a scalar"},
    {KERNEL(PARALLEL ACC("add") AFTER_ACC "%6 = load %1, %5 : f32[]\n%7 = acc_update %4, %6\n%8 = acc_get %4 : f32[]\n"), "%4 is read and updated"},
    {KERNEL(PARALLEL ACC("set") AFTER_ACC "%6 = load %1, %5 : f32[]\n%7 = acc_update %4, %6\n"), "%4 is set in a vector loop"},
};

static void broken_kernels_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof kernel_mistakes / sizeof *kernel_mistakes; i++) {
        Err err = {0};
        const char *expected = kernel_mistakes[i].expected ? kernel_mistakes[i].expected : "has no parallel loop";
        if (parse(&err, kernel_mistakes[i].text))
            fail_msg("read without complaint:\n%s", kernel_mistakes[i].text);
        if (!strstr(err.text, expected))
            fail_msg("expected \"%s\"\nfound    \"%s\"\n%s", expected, err.text, kernel_mistakes[i].text);
    }
}

/* ---- memory, documents ---- */
static bool parse_sample(void *err)
{
    return parse(err, sample) != NULL;
}

static void out_of_memory_leaves_nothing(void **state)
{
    (void)state;
    Arena *all = arena;
    bool ok = false;
    for (int64_t n = 1; !ok; n++) {
        int64_t live = mem_live();
        Err err = {0};
        arena = arena_new();
        mem_fail_at(n);
        ok = mem_protect(&err, parse_sample, &err);
        mem_fail_at(0);
        assert_true(ok || err.kind == ERR_ENV);
        arena_free(arena);
        assert_int_equal(mem_live(), live);
    }
    arena = all;
}

typedef struct PrintJob { const Graph *graph; Buf text; } PrintJob;

static bool print_sample(void *arg)
{
    PrintJob *j = arg;
    graph_print(&j->text, j->graph);
    return true;
}

/* What the printer leaves behind belongs to the text and to the graph. */
static void printing_out_of_memory(void **state)
{
    (void)state;
    bool ok = false;
    int failed = 0;
    for (int64_t n = 1; !ok; n++) {
        int64_t live = mem_live();
        Err err = {0};
        Arena *own = arena_new();
        Graph *outer = graph_parse(own, &err, "sample", sample, sizeof sample - 1);
        if (!outer)
            fail_msg("%s", err.text);
        PrintJob j = {.graph = outer};
        mem_fail_at(n);
        ok = mem_protect(&err, print_sample, &j);
        mem_fail_at(0);
        assert_true(ok || err.kind == ERR_ENV);
        failed += !ok;
        buf_free(&j.text);
        arena_free(own);
        assert_int_equal(mem_live(), live);
    }
    assert_true(failed >= 1);
}

static void ops_document_is_up_to_date(void **state)
{
    (void)state;
    Buf now = {0};
    char *then;
    size_t len;
    Err err = {0};
    ops_markdown(&now);
    assert_true(file_read(&err, DAV_SOURCE_DIR "/docs/ops.md", 1 << 20, &then, &len));
    if (strcmp(now.at, then) != 0)
        fail_msg("docs/ops.md differs from the table: run ./dev docs");
    mem_free(then);
    buf_free(&now);
}

/* The example of docs/ir.md is what the printer prints. */
static void documented_example_comes_back(void **state)
{
    (void)state;
    Err err = {0};
    char *doc;
    size_t len;
    assert_true(file_read(&err, DAV_SOURCE_DIR "/docs/ir.md", 1 << 20, &doc, &len));
    char *at = strstr(doc, "    graph \"demo\""), *end = at ? strstr(at, "\n    }\n") : NULL;
    assert_non_null(end);
    Buf text = {0};
    for (; at <= end + 1; at = strchr(at, '\n') + 1)
        buf_add(&text, at + 4, (size_t)(strchr(at, '\n') - at) - 3); /* without the indentation, with the line's end */
    Graph *g = parse(&err, text.at);
    if (!g)
        fail_msg("%s", err.text);
    assert_string_equal(print(g), text.at);
    buf_free(&text);
    mem_free(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sample_comes_back_as_it_is),  cmocka_unit_test(hand_written_text_is_read),
        cmocka_unit_test(every_op_round_trips),        cmocka_unit_test(random_graphs_round_trip),
        cmocka_unit_test(mistakes_are_explained),      cmocka_unit_test(regions_nest_to_a_bound),
        cmocka_unit_test(damaged_text_does_no_harm),   cmocka_unit_test(broken_graphs_are_refused),
        cmocka_unit_test(refused_ops_are_found_in_regions), cmocka_unit_test(broken_kernels_are_refused),
        cmocka_unit_test(out_of_memory_leaves_nothing), cmocka_unit_test(ops_document_is_up_to_date),
        cmocka_unit_test(documented_example_comes_back), cmocka_unit_test(printing_out_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
