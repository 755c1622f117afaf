/* Runs a program of a fixed micro-batch over any number of rows: whole batches in place, the tail through padded copies.
 * Because no row's result depends on the others, the same rows give the same bits however they are split. */
#pragma once
#include "runtime/params.h"

enum { ROWS_MAX_ARGS = 16 };

/* EACH: one part a row; the tail's missing rows are copies of the last one.  WEIGHTS: the same, missing rows are zeros.
 * SHARED: the same whole tensor for every batch (scalars, keys). */
typedef enum { ROW_EACH, ROW_WEIGHTS, ROW_SHARED } RowKind;
typedef struct RowArg {
    const char *name; /* input or output of the program; one that the program lacks is a bug */
    void *data;
    RowKind kind;
} RowArg;

typedef struct RowProgram {
    Program *program;
    int64_t rows;      /* of one run */
    void **in, **out;  /* slots; parameters are bound once */
    void **pad_in, **pad_out; /* one batch of each input and output */
    const ParamSet *theta, *phi; /* whose versions decide whether packed weights are fresh; may be NULL */
} RowProgram;

/* Takes over the program.  Every input and output is given memory of one batch. */
RowProgram *rows_new(Program *program, int64_t rows);
void rows_free(RowProgram *r); /* NULL is fine */
/* Binds the parameters named prefix + name to flat; their set's version is followed. */
void rows_bind_params(RowProgram *r, const ParamSet *p, const char *prefix, float *flat);
/* Inputs and outputs that are not named keep their padding memory (outputs: not wanted). */
bool rows_run(RowProgram *r, Err *err, int64_t n, const RowArg *in, int nin, const RowArg *out, int nout);
/* What the host does with rows first .. first + n - 1 when their results are there.  On a device of its own the program goes on with the
 * next rows meanwhile; on the host it is called once, with all of them. */
typedef bool (*RowsThen)(void *ctx, Err *err, int64_t first, int64_t n);
bool rows_run_then(RowProgram *r, Err *err, int64_t n, const RowArg *in, int nin, const RowArg *out, int nout, RowsThen then, void *ctx);
