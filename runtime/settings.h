/* What a user asked for, from YAML files and the command line, as a flat list of dotted names with their places.
 * It is gathered before any table is known, so that a name in it (model.name, say) may decide which tables are read;
 * settings_apply then puts everything into a DavConfig.
 *
 * YAML: nested maps of scalars and of lists of scalars; `a: {b: 1}` and `a.b: 1` mean the same.  The key `base` at the
 * top names a file, relative to the folder of its own, whose settings come first.  Refused with file and line: anchors,
 * aliases, tags, several documents, repeated keys, lists in lists.  A plain null stands for the default. */
#pragma once
#include "ir/config.h"

enum { SETTINGS_MAX_BASES = 8 }; /* files that one file may rest upon, one on the other */

typedef struct Settings Settings;

Settings *settings_new(Arena *a);
bool settings_read_yaml(Settings *s, Err *err, const char *path);
bool settings_parse_yaml(Settings *s, Err *err, const char *file, const char *text,
                         size_t len);                             /* file: for places, `base` */
bool settings_set(Settings *s, Err *err, const char *assignment); /* "a.b=v", as after --set */
/* The same for what another option stands for; errors name that option. */
bool settings_set_for(Settings *s, Err *err, const char *option, const char *assignment);
bool settings_set_device(Settings *s, Err *err, const char *device); /* --device; NULL: not given */

/* The last value given to a name, as text; NULL: none. */
const char *settings_get(const Settings *s, const char *name);

/* All of them in order, with their places. */
int settings_count(const Settings *s);
const char *settings_item(const Settings *s, int i, const char **text, const char **place); /* the name */

/* Sets everything in order, later over earlier; does not finish the config. */
bool settings_apply(const Settings *s, Err *err, DavConfig *c);

/* All values of a finished config as nested YAML, each with the place it came from as a comment.  Reading it back gives
 * the same values. */
void settings_write_yaml(Buf *out, const DavConfig *c);
