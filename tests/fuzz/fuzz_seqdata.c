/* Any text: an error, or sequences of the letters 0..3 that can be split, counted and written. */
#include "runtime/markov.h"
#include "runtime/seqmetrics.h"
#include "runtime/split.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Err err = {0};
    Arena *a = arena_new();
    SeqData *d = seqdata_parse(&err, a, "fuzz", (const char *)bytes, n);
    if ((d != NULL) != (err.kind == ERR_NONE))
        abort();
    for (size_t i = 0; d && i < d->start[d->n]; i++)
        if (d->letter[i] > 3)
            abort();
    if (d) {
        Split *s = split_make(a, a, d);
        SplitSummary sum = split_summary(d, s);
        if (sum.left_out + sum.fold_rows[0] + sum.fold_rows[1] + sum.fold_rows[2] + sum.fold_rows[3] != d->n)
            abort();
        if (!(markov_nats_per_base(markov_fit(a, d, 2, 1), d) > 0) || seq_unique_share(a, d) > 1)
            abort();
    }
    arena_free(a);
    return 0;
}
