/* Objects on disk.  A file: header, key text, object; written whole or not at all, checked when read. */
#pragma once
#include "codegen/codegen.h"

/* Everything that an object's bytes depend on, as text; the file's name is its hash. */
void cache_key(Buf *key, const CpuTarget *target, uint64_t kernel_hash);
/* NULL: object holds what was stored; else why it does not. */
const char *cache_read(const char *dir, const char *key, Buf *object);
/* Failing to write costs time, not correctness: false is not an error. */
bool cache_write(const char *dir, const char *key, const Buf *object);
/* Removes the objects (*.o) that were written longest ago, until three quarters of `most` bytes are left, if there are more
 * than `most`.  cache_write does it now and then. */
void cache_trim(const char *dir, int64_t most);
