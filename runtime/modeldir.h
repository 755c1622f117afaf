/* Model folders: config.json and a safetensors file, in the layout of the ecosystem's libraries (docs/run.md). */
#pragma once
#include "ir/config.h"
#include "runtime/plugin.h"
#include "runtime/safetensors.h"

typedef struct ModelDir {
    const DavModel *model;
    DavConfig *config;
    const char *path, *weights; /* the folder, the file of the weights */
} ModelDir;

/* Reads config.json: `_class_name` (diffusers) or `architectures` (transformers) names the model, its table of keys
 * reads the rest.  Does not look at the weights.  Everything belongs to the arena; the model to the registry. */
bool modeldir_open(Arena *a, Err *err, const Registry *r, const char *path, ModelDir *out);

/* Writes config.json for a model, whole or not at all. */
bool modeldir_write_config(Err *err, const char *path, const DavModel *model, const DavConfig *config);

/* ---- ports: what a model takes, against what a file holds ---- */
/* Sizes that capital letters of port types stand for; 0: not yet known. */
typedef struct PortSizes {
    int64_t size[26];
} PortSizes;

/* Whether tensor t of `file` fits the port; learns the sizes of letters.  Integers are checked against the port's
 * limit. */
bool port_accepts(Err *err, const char *file, const DavPort *port, const DavConfig *c, const SafeTensor *t,
                  PortSizes *sizes);
/* Length and letters of the relaxed sequences f32[B,length,letters] that a reward's first input takes, by its numbers or by keys
 * of the config; a user's error when they are not known. */
bool model_sequence(Err *err, const DavModel *m, const DavConfig *c, int64_t *length, int64_t *letters);
/* "i64[B,L] | f32[B,L,5]": the port's types with the config's numbers in place of its keys. */
void port_types_text(Buf *out, const DavPort *port, const DavConfig *c);
