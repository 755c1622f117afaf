/* Any bytes as a run state (without the hash at its end, which would hide the decoder): an error, or a state that is
 * encoded and decoded again. */
#include "runtime/state.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

typedef struct Input { const uint8_t *bytes; size_t n; Arena *arena; } Input;

static bool decode_again(void *arg, Err *err, const void *bytes, size_t n)
{
    Arena *a = arg;
    static RunState s;
    return state_decode(a, err, "again", bytes, n, &s) || s.n_files > STATE_MAX_FILES;
}

static bool round_trip(void *arg)
{
    Input *in = arg;
    static RunState s;
    Err err = {0};
    in->arena = arena_new();
    bool ok = state_decode(in->arena, &err, "fuzz", in->bytes, in->n, &s);
    if (ok != (err.kind == ERR_NONE))
        abort();
    for (int i = 0; ok && i < s.n_files; i++)
        if (strchr(s.files[i].name, '/') || s.files[i].name[0] == '.')
            abort();
    if (ok && !state_encode(&err, &s, decode_again, in->arena))
        abort();
    arena_free(in->arena);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Err err = {0};
    if (!mem_protect(&err, round_trip, &(Input){bytes, n, NULL}))
        abort();
    return 0;
}
