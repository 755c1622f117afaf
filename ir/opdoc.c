#include "ir/opdoc.h"
#include "ir/print.h"
#include <stdio.h>
#include <string.h>

typedef struct Rules { const char *shape, *grad; } Rules;

static const Rules rules[OP_COUNT] = {
#define EW(NAME, text, arity, dom, shape, grad, ...) [OP_##NAME] = {#shape, #grad},
#define OP(NAME, text, arity, level, shape, grad, ...) [OP_##NAME] = {#shape, #grad},
#include "ir/ops.def"
};

static const char *domain_text(OpDomain d)
{
    static const char *const text[] = {[DOM_NUM] = "numbers", [DOM_FLT] = "floats", [DOM_INT] = "i64 i32 u32",
                                       [DOM_LOG] = "bool, integers", [DOM_ANY] = "all"};
    return text[d];
}

/* A cell: '|' would end it, '<' '*' '_' may mean something. */
static void cell(Buf *out, const char *text)
{
    for (; *text; text++)
        buf_printf(out, strchr("|<*_[", *text) ? "\\%c" : "%c", *text);
}

static void name_cell(Buf *out, const char *name, int arity)
{
    buf_printf(out, "| `%s` | ", name);
    if (arity < 0)
        buf_str(out, "any");
    else
        buf_printf(out, "%d", arity);
}

static void elementwise(Buf *out)
{
    buf_str(out, "## Elementwise\n\n"
                 "Operands and result have one shape; a broadcast is a node of its own. NaN goes through, but comparisons with it "
                 "are false (`ne`: true). Also ops of kernel IR. f16 and bf16 compute in f32 and round.\n\n"
                 "| op | operands | dtypes | gradient | meaning |\n|---|---|---|---|---|\n");
    for (int op = 0; op < OP_COUNT; op++) {
        const OpInfo *i = &op_info[op];
        if (!(i->flags & OPF_ELEMENTWISE))
            continue;
        name_cell(out, i->text, i->arity);
        buf_printf(out, " | %s | %s | ", domain_text(i->domain), strcmp(rules[op].grad, "zero") == 0 ? "none" : "yes");
        cell(out, i->doc);
        buf_str(out, " |\n");
    }
    buf_str(out, "\n");
}

static void attributes_cell(Buf *out, const char *attrs)
{
    for (const char *p = attrs; *p;) {
        size_t n = strcspn(p, " ");
        bool optional = *p == '?';
        buf_printf(out, "%s`%.*s`%s", p == attrs ? "" : " ", (int)(n - optional), p + optional, optional ? " (may)" : "");
        p += n + strspn(p + n, " ");
    }
}

static void others(Buf *out, const char *title, unsigned level)
{
    buf_printf(out, "## %s\n\n| op | operands | attributes | type rule | gradient | meaning |\n|---|---|---|---|---|---|\n", title);
    for (int op = OP_INVALID + 1; op < OP_COUNT; op++) {
        const OpInfo *i = &op_info[op];
        if ((i->flags & OPF_ELEMENTWISE) || !(i->flags & level))
            continue;
        name_cell(out, i->text, i->arity);
        buf_str(out, " | ");
        attributes_cell(out, i->attrs);
        buf_str(out, " | ");
        cell(out, rules[op].shape);
        buf_printf(out, " | %s | ", strcmp(rules[op].grad, "zero") == 0 ? "none" : "yes");
        cell(out, i->doc);
        buf_printf(out, "%s |\n", i->flags & OPF_TUPLE ? " (its results are read by `pick`)" : "");
    }
    buf_str(out, "\n");
}

static void words_of(Buf *out, AttrName name)
{
    for (int op = 0; op < OP_COUNT; op++) {
        int n = 0;
        const char *const *word = attr_words((Op)op, name, &n);
        if (!word)
            continue;
        buf_printf(out, "; of `%s`:", op_info[op].text);
        for (int i = 0; i < n; i++)
            buf_printf(out, " %s", word[i]);
    }
}

static void attributes(Buf *out)
{
    static const char *const kind[] = {[ATTR_INT] = "integer",   [ATTR_FLOAT] = "float",   [ATTR_STR] = "string", [ATTR_INTS] = "integers",
                                       [ATTR_FLOATS] = "floats", [ATTR_GRAPH] = "region", [ATTR_SPEC] = "contraction"};
    buf_str(out, "## Attributes\n\n| attribute | kind | meaning |\n|---|---|---|\n");
    for (int a = 0; a < ATTR_COUNT; a++) {
        buf_printf(out, "| `%s` | %s | ", attr_info[a].text, kind[attr_info[a].kind]);
        cell(out, attr_info[a].meaning);
        words_of(out, (AttrName)a);
        buf_str(out, " |\n");
    }
}

void ops_markdown(Buf *out)
{
    buf_str(out, "# Ops\n\nMade from `ir/ops.def` by `./dev docs`; a test compares. [ir.md](ir.md) describes the text form. An op "
                 "without a gradient stops it. \"any\" operands: as many as are given.\n\n");
    others(out, "Tensors", OPF_TENSOR);
    elementwise(out);
    others(out, "Kernel IR", OPF_KERNEL);
    attributes(out);
}
