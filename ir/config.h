/* Values read against tables of DavKey (dav/config.h).
 *
 * A DavConfig lives in an arena.  It is given one or more tables, then any number of sources, the later overriding the
 * earlier, then config_finish fills in the defaults and complains about what is missing:
 *
 *     DavConfig *c = config_new(arena);
 *     config_add_table(c, "", table, n);
 *     ok = config_read_json(c, err, "config.json", text, len) && config_finish(c, err, "config.json");
 *
 * Every value remembers its place ("file", "file:line", "--set", "default").  All errors are user errors of one line:
 * place, key, what was expected, what was found, the nearest valid name. */
#pragma once
#include "base/text.h"
#include "dav/config.h"

/* How a source wrote a value.  PLAIN is text without a type of its own (YAML's plain scalars, --set, defaults). */
typedef enum {
    CONFIG_PLAIN,
    CONFIG_STRING,
    CONFIG_NUMBER,
    CONFIG_BOOL,
    CONFIG_LIST,
    CONFIG_NULL,
    CONFIG_OTHER
} ConfigForm;

/* A value as its source wrote it; a list is the text "[1, 2]". */
typedef struct ConfigText {
    ConfigForm form;
    const char *text;
} ConfigText;

enum {
    CONFIG_MAX_BYTES = 1 << 20, /* of one source */
    CONFIG_MAX_LIST = 4096,     /* numbers in a list */
    CONFIG_MAX_DEPTH = 16,      /* of nested objects */
    CONFIG_MAX_NAME = 256,      /* characters of a dotted name */
};

DavConfig *config_new(Arena *a);

/* Adds a table of n keys, each named prefix followed by its name.  The table must outlive the config.  A name that is
 * there already, or a default that breaks its own row, is a bug and dies. */
void config_add_table(DavConfig *c, const char *prefix, const DavKey *table, int n);

/* Names that a source may hold and that have no effect; n names, which must outlive the config.  A name that ends in
 * ".*" stands for everything below it. */
void config_accept(DavConfig *c, const char *const *names, int n);

/* Sets one key; place is copied. */
bool config_set(DavConfig *c, Err *err, const char *place, const char *key, ConfigText value);

/* Reads a JSON object; nested objects give dotted names, null stands for "not set". */
bool config_read_json(DavConfig *c, Err *err, const char *file, const char *text, size_t len);

/* Reads the file and finishes: what most callers want for a model's config.json. */
bool config_read_json_file(DavConfig *c, Err *err, const char *path);

/* Gives every key without a value its default; a required one that is missing is an error at `place`. */
bool config_finish(DavConfig *c, Err *err, const char *place);

bool config_has(const DavConfig *c, const char *key);          /* is the key in a table? */
bool config_accepts(const DavConfig *c, const char *name);     /* may a source hold it without effect? */
Arena *config_arena(const DavConfig *c);
const char *config_ints_text(Arena *a, const int64_t *v, int n); /* "[1, 2]" */
const char *config_place(const DavConfig *c, const char *key); /* where its value came from; NULL before it has one */
/* The value as text, lists as "[1, 2]"; NULL before it has one. */
const char *config_text(const DavConfig *c, const char *key);
int config_count(const DavConfig *c);
const DavKey *config_key(const DavConfig *c, int i, const char **full_name); /* in the tables' order */
const char *config_nearest(const DavConfig *c, const char *name);            /* NULL: none is near */

/* What a key expects, as in errors: "an integer from 1 to 64".  Returns `out`. */
const char *config_expects(const DavKey *k, char out[256]);

/* The tables as aligned text for a terminal, or as a Markdown table. */
typedef enum { CONFIG_AS_TEXT, CONFIG_AS_MARKDOWN } ConfigStyle;
void config_describe(Buf *out, const char *prefix, const DavKey *table, int n, ConfigStyle style);
