/* A run folder and its logs.  docs/runfolder.md lists the files.
 *
 * metrics.jsonl holds one JSON object a line and nothing that depends on the clock: with the checkpoint's offsets a
 * resumed run continues it so that it equals the uninterrupted one byte for byte.  Times go to times.jsonl. */
#pragma once
#include "base/text.h"

typedef enum {
    RUN_NEW,       /* refuses a folder that holds a run, finished or not, or anything else */
    RUN_OVERWRITE, /* replaces a run; other folders are refused */
    RUN_RESUME,    /* needs a run that is not finished */
} RunStart;

typedef struct RunLog RunLog;

/* Opens the folder and locks it against other processes.  With RUN_RESUME the logs are cut to the offsets of the
 * checkpoint (runlog_sync's); otherwise these are 0.  runlog_close also after an error: *out is then NULL or usable. */
bool runlog_open(Err *err, const char *dir, RunStart start, uint64_t metrics_offset, uint64_t events_offset,
                 RunLog **out);
void runlog_close(RunLog *log); /* NULL is fine */

/* One row: begin, fields, end.  The row and its TensorBoard scalars (tag EVENT/NAME at the row's step) reach the files
 * in runlog_end.  A number that is not finite is written as null. */
void runlog_begin(RunLog *log, const char *event);
void runlog_int(RunLog *log, const char *name, int64_t value);
void runlog_number(RunLog *log, const char *name, double value);
void runlog_string(RunLog *log, const char *name, const char *value);
void runlog_numbers(RunLog *log, const char *name, const double *values, size_t n);
bool runlog_end(RunLog *log, Err *err, int64_t step);

bool runlog_seconds(RunLog *log, Err *err, int64_t round, double seconds); /* a row of times.jsonl */

/* Puts all rows safely on the disk; the offsets belong into the checkpoint that is written next. */
bool runlog_sync(RunLog *log, Err *err, uint64_t *metrics_offset, uint64_t *events_offset);

bool runlog_finish(RunLog *log, Err *err); /* marks the run as finished */
bool runlog_is_finished(const char *dir);

/* Paths inside a run folder; room for 4096 characters. */
bool runlog_path(Err *err, char path[4096], const char *dir, const char *name);
bool runlog_samples_path(Err *err, char path[4096], const char *dir, const char *name); /* DIR/samples/NAME.fasta */
bool runlog_round_samples_path(Err *err, char path[4096], const char *dir, int64_t round);
