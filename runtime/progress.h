/* One line of progress that is drawn over itself on a terminal; elsewhere at most a plain line for each round. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct Progress {
    FILE *out;           /* the caller's; NULL: silent */
    bool terminal, drawn;
    int width;
    int64_t total, done, first; /* units of work, in all; first: done before this process (a resumed run) */
    double started, last_drawn;
    char label[48], note[160];
    double (*now)(void); /* seconds; tests put their own clock here */
} Progress;

/* out: usually stderr.  total: units of work (rows, steps); first: those already done. */
void progress_begin(Progress *p, FILE *out, int64_t total, int64_t first);
/* What is going on ("round 3/8 search") and what it gives ("reward 10.8  ESS 4.2  loss 0.81"). */
void progress_label(Progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void progress_note(Progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void progress_add(Progress *p, int64_t units);  /* draws at most ten times a second */
void progress_line(Progress *p);                /* the round is over: label, note and time stay as a line */
void progress_end(Progress *p);                 /* wipes the moving line */

/* "7s", "3:05", "1:02:09"; "?" for a time that is not known. */
void progress_time(char out[16], double seconds);
