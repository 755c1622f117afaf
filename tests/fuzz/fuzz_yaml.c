/* Any bytes as settings in YAML: one-line errors, or values that are written and read back as the same ones. */
#include "../support/config_table.h"
#include "runtime/settings.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

typedef struct Input { const char *bytes; size_t n; } Input;

static DavConfig *read(Arena *a, Err *err, const char *bytes, size_t n)
{
    DavConfig *c = config_new(a);
    Settings *s = settings_new(a);
    config_add_table(c, "", table, N_KEYS);
    bool ok = settings_parse_yaml(s, err, "fuzz.yaml", bytes, n) && settings_apply(s, err, c) && config_finish(c, err, "fuzz.yaml");
    if (ok != (err->kind == ERR_NONE))
        abort();
    return ok ? c : NULL;
}

static bool round_trip(void *arg)
{
    const Input *in = arg;
    static Buf out;
    Err err = {0};
    Arena *a = arena_new();
    DavConfig *c = read(a, &err, in->bytes, in->n);
    if (c) {
        out.len = 0;
        settings_write_yaml(&out, c);
        DavConfig *again = read(a, &err, out.at, out.len);
        for (int i = 0; i < config_count(c); i++) {
            const char *name;
            config_key(c, i, &name);
            if (!again || strcmp(config_text(c, name), config_text(again, name)) != 0)
                abort();
        }
    }
    arena_free(a);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Err err = {0};
    if (!mem_protect(&err, round_trip, &(Input){(const char *)bytes, n}))
        abort();
    return 0;
}
