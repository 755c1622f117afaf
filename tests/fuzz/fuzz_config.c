/* Any bytes as a config.json: one-line errors, or values of the table. */
#include "../support/config_table.h"
#include "ir/config.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

typedef struct Input { const uint8_t *bytes; size_t n; } Input;

static bool read(void *arg)
{
    static const char *const accepted[] = {"dropout", "extra.*"};
    const Input *in = arg;
    Err err = {0};
    Arena *a = arena_new();
    DavConfig *c = config_new(a);
    config_add_table(c, "", table, N_KEYS);
    config_accept(c, accepted, 2);
    bool ok = config_read_json(c, &err, "config.json", (const char *)in->bytes, in->n) && config_finish(c, &err, "config.json");
    if (ok != (err.kind == ERR_NONE) || (ok && (dav_config_int(c, "steps") < 1 || !dav_config_string(c, "model.name"))))
        abort();
    arena_free(a);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Err err = {0};
    if (!mem_protect(&err, read, &(Input){bytes, n}))
        abort();
    return 0;
}
