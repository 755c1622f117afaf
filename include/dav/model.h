/* A model: a table of configuration keys, its inputs and outputs, and a function that writes its forward pass.
 * Reading config.json, its errors, `dav list models NAME` and the docs come from the table. */
#pragma once
#include "dav/config.h"
#include "dav/nn.h"
#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define DAV_ABI 2u /* changes with any struct or meaning below */

enum { DAV_MAX_PORTS = 8 };

/* What a model is for; DAV_NETWORK may only be run.
 *   denoiser: (ids i64 [B,L] or relaxed one-hot f32 [B,L,V], t f32 [B] or [1], or {0} where the task has no time)
 *             -> logits [B,L,V], the last symbol is the mask; config keys `alphabet_size` (V), `length` (L)
 *   reward:   relaxed one-hot f32 [B,L,letters] -> [B] or [B,n]; scores to be made large */
typedef enum { DAV_NETWORK, DAV_DENOISER, DAV_REWARD } DavModelKind;

/* An input or output.  types: what it may be, as "i64[B,L] | f32[B,L,alphabet_size]": numbers, names of integer keys of
 * the config, or capital letters that stand for one size wherever they are used; B is the batch. */
typedef struct DavPort {
    const char *name, *types;
    const char *limit; /* integers lie in 0 .. limit-1; a number or a key of the config; NULL: any */
    bool optional;
    const char *meaning;
} DavPort;

typedef struct DavModel {
    uint32_t abi, size; /* DAV_ABI, sizeof(DavModel): written by DAV_MODEL */
    DavModelKind kind;
    const char *name, *doc;
    const DavKey *keys;
    int n_keys;
    const char *const *ignored; /* config keys that are accepted and have no effect */
    int n_ignored;
    const char *weights; /* file of the weights inside a model folder; NULL: diffusion_pytorch_model.safetensors */
    DavPort input[DAV_MAX_PORTS], output[DAV_MAX_PORTS]; /* those with a name */
    /* in: one value an input port, {0} for an absent optional one.  out: one an output port. */
    void (*forward)(DavNet *n, const DavConfig *c, const DavVal *in, DavVal *out);
} DavModel;

#define DAV_MODEL(...) {.abi = DAV_ABI, .size = sizeof(DavModel), __VA_ARGS__}
#define DAV_KEYS(table) .keys = (table), .n_keys = (int)(sizeof(table) / sizeof((table)[0]))
#define DAV_IGNORED(table) .ignored = (table), .n_ignored = (int)(sizeof(table) / sizeof((table)[0]))

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
