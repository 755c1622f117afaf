/* How a set of sequences compares: as a table row, as a row of metrics.jsonl, as JSON. */
#pragma once
#include "runtime/aligner.h"
#include "runtime/runlog.h"

/* (held-out median - its median on real test promoters) / sd of the measured data; NAN without a reference table. */
double judge_gain(const Aligner *a, const Judgement *j);
/* The numbers that a row of judge_log holds, as far as the row of metrics.jsonl with this event name has them. */
bool judge_read(Err *err, const char *run_dir, const char *name, Judgement *j, bool *found);
void judge_log(RunLog *log, const Judgement *j);        /* fields of the open row */
void judge_header(Buf *out);
void judge_row(Buf *out, const char *name, const Aligner *a, const Judgement *j);
void judge_more(Buf *out, const Judgement *j); /* log-likelihood and distance, as a line below the row */
void judge_json(Buf *out, const char *name, const Aligner *a, const Judgement *j); /* one line */
/* The row of real promoters, of what the reference table knows. */
void judge_real(Buf *out, const Aligner *a);
