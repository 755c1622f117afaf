/* What a run folder's page shows, read from its files.  Whatever is missing or unreadable stays out of the page. */
#pragma once
#include <jansson.h>

#include "runtime/settings.h"

enum { PAGE_MAX_SAMPLES = 4096, PAGE_MAX_LENGTH = 1000 };

typedef struct PageSample {
    const char *letters;
    double reward, heldout; /* "reward=" and "heldout=" of the FASTA header, or of the eval row; NAN: not there */
} PageSample;

/* One group of the comparison: before, after, posterior, real. */
typedef struct PageGroup {
    const char *name, *title;
    const json_t *row; /* its eval row or the reference table; NULL: none */
    PageSample *samples;
    int n_samples;
} PageGroup;

enum { PAGE_BEFORE, PAGE_AFTER, PAGE_POSTERIOR, PAGE_REAL, PAGE_GROUPS };

typedef struct PageRows {
    json_t **row; /* owned by the page's trees */
    int n;
} PageRows;

typedef struct Page {
    Arena *arena;
    Buf out;
    const char *dir;
    json_t *metrics, *times, *reference; /* freed by page_write */
    PageRows rounds, steps; /* in order; of repeated rounds the last */
    PageGroup group[PAGE_GROUPS];
    Settings *settings; /* NULL: no config */
    const char *config_text;
    int bad_lines; /* of metrics.jsonl */
} Page;

void page_load(Page *p, const char *reference_path);

/* A row's number, or its list's only one; NAN when it is missing. */
double page_number(const json_t *row, const char *name);
/* A row's list of numbers, in the arena, without what is no number. */
double *page_numbers(Page *p, const json_t *row, const char *name, int *n);
