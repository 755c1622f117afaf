/* Text that grows, maps from strings, numbers parsed strictly, hashes, whole files. */
#pragma once
#include "base/mem.h"
#include <stdarg.h>

typedef struct Buf { char *at; size_t len, cap; } Buf; /* always NUL-terminated once written; zero-initialise */
void buf_add(Buf *b, const void *bytes, size_t n);
void buf_str(Buf *b, const char *s);
void buf_printf(Buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_free(Buf *b);

/* string -> int64; keys are copied.  Zero-initialise. */
typedef struct Map { struct MapSlot *slot; size_t len, cap; } Map;
bool map_get(const Map *m, const char *key, int64_t *value);
bool map_put(Map *m, const char *key, int64_t value); /* true when the key is new */
void map_free(Map *m);

bool text_to_i64(const char *s, int64_t *out); /* the whole string, no blanks, in range */
bool text_to_f64(const char *s, double *out);  /* the whole string; nan and inf refused */
bool text_to_bytes(const char *s, int64_t *out); /* "1500", "64kB", "1.5 GB", "2GiB": decimal and binary units, below 2^62 */
void text_f64(char out[32], double v);         /* shortest text that reads back as v; "nan", "inf", "-inf" */

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed); /* xxhash64 */
uint64_t hash_str(const char *s);
uint32_t hash_name32(const char *s); /* FNV-1a: stable for ever, it is part of the random streams' keys */

/* ---- files ---- */
/* Reads a whole regular file into malloc'd memory (mem_free), NUL added after the end. */
bool file_read(Err *err, const char *path, size_t max_bytes, char **data, size_t *len);
/* Same for a gzip or plain file; max_bytes bounds what comes out. */
bool file_read_gz(Err *err, const char *path, size_t max_bytes, char **data, size_t *len);
/* Writes path whole or not at all: temporary file beside it, fsync, rename. */
bool file_write(Err *err, const char *path, const void *data, size_t len);
/* The same in pieces: open, write by fwrite to w->f, then commit or abandon. */
typedef struct FileWriter { void *f; char path[4096], tmp[4200]; } FileWriter;
bool file_writer_open(Err *err, FileWriter *w, const char *path);
bool file_writer_put(Err *err, FileWriter *w, const void *data, size_t len);
bool file_writer_commit(Err *err, FileWriter *w);
void file_writer_abandon(FileWriter *w);
bool file_mkdirs(Err *err, const char *path); /* like mkdir -p */
bool file_exists(const char *path);
bool file_is_dir(const char *path);
