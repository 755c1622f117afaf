/* A configuration declared once, as a table: reading it, its errors, `dav list` and the docs come from the table.
 * Used by models, objectives, rewards and by the program's own settings. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef enum { DAV_KEY_INT, DAV_KEY_FLOAT, DAV_KEY_BOOL, DAV_KEY_STRING, DAV_KEY_INTS } DavKeyType;

typedef struct DavKey {
    const char *name;         /* dotted for nested settings: "search.gamma" */
    DavKeyType type;
    const char *fallback;     /* the default as text ("128", "0.9", "true", "relu", "[1,1,4]"); NULL: the key is required */
    double min, max;          /* range of a number, of each number of a list; min == max: any */
    const char *choices;      /* allowed strings, separated by '|'; NULL: any */
    const char *meaning;      /* one line for `dav list` and the docs */
} DavKey;

/* The values read against a table; opaque, owned by whoever read it. Asking for a key that is not in the table, or by
 * the wrong type, is a bug of the caller and dies. */
typedef struct DavConfig DavConfig;

int64_t dav_config_int(const DavConfig *c, const char *key);
double dav_config_float(const DavConfig *c, const char *key);
bool dav_config_bool(const DavConfig *c, const char *key);
const char *dav_config_string(const DavConfig *c, const char *key);
/* The list's numbers; *n their count. Owned by the config. */
const int64_t *dav_config_ints(const DavConfig *c, const char *key, int *n);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
