/* How a set of sequences compares: as a table row, as a row of metrics.jsonl, as JSON. */
#pragma once
#include "runtime/aligner.h"
#include "runtime/runlog.h"

/* (held-out median - its median on real test promoters) / sd of the measured data; NAN without a reference table. */
double judge_gain(const Aligner *a, const Judgement *j);
void judge_log(RunLog *log, const Judgement *j);        /* fields of the open row */
void judge_header(Buf *out);
void judge_row(Buf *out, const char *name, const Aligner *a, const Judgement *j);
void judge_json(Buf *out, const char *name, const Aligner *a, const Judgement *j); /* one line */
/* The row of real promoters, of what the reference table knows. */
void judge_real(Buf *out, const Aligner *a);
