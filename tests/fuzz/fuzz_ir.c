/* Any text: an error, or a graph that prints, reads back and prints equally, and passes the verifier again. */
#include "ir/parse.h"
#include "ir/print.h"
#include "ir/verify.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static Buf once, twice;

static bool round_trip(void *text)
{
    const Buf *in = text;
    Err err = {0};
    Arena *a = arena_new();
    Graph *g = graph_parse(a, &err, "fuzz", in->at, in->len);
    if ((g != NULL) != (err.kind == ERR_NONE))
        abort();
    if (g) {
        once.len = twice.len = 0;
        graph_print(&once, g);
        Graph *again = graph_parse(a, &err, "printed", once.at, once.len);
        if (!again || !graph_verify(&err, again, NULL))
            abort();
        graph_print(&twice, again);
        if (strcmp(once.at, twice.at) != 0)
            abort();
    }
    arena_free(a);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Buf text = {.at = (char *)(uintptr_t)bytes, .len = n};
    Err err = {0};
    if (!mem_protect(&err, round_trip, &text))
        abort();
    return 0;
}
