#include "runtime/rows.h"
#include <string.h>

static size_t type_bytes(Type t)
{
    return mem_mul((size_t)type_count(&t), dav_dtype_size(t.dtype));
}

RowProgram *rows_new(Program *program, int64_t rows)
{
    int nin = program_input_count(program), nout = program_output_count(program);
    RowProgram *r = mem_alloc(sizeof *r);
    r->program = program;
    r->rows = rows;
    r->in = mem_alloc(mem_mul((size_t)nin + 1, sizeof(void *)));
    r->out = mem_alloc(mem_mul((size_t)nout + 1, sizeof(void *)));
    r->pad_in = mem_alloc(mem_mul((size_t)nin + 1, sizeof(void *)));
    r->pad_out = mem_alloc(mem_mul((size_t)nout + 1, sizeof(void *)));
    for (int i = 0; i < nin; i++)
        r->in[i] = r->pad_in[i] = mem_alloc_aligned(type_bytes(program_input_type(program, i)) + 64, 64);
    for (int i = 0; i < nout; i++)
        r->out[i] = r->pad_out[i] = mem_alloc_aligned(type_bytes(program_output_type(program, i)) + 64, 64);
    return r;
}

void rows_free(RowProgram *r)
{
    if (!r)
        return;
    for (int i = 0; i < program_input_count(r->program); i++)
        mem_free(r->pad_in[i]);
    for (int i = 0; i < program_output_count(r->program); i++)
        mem_free(r->pad_out[i]);
    mem_free(r->in);
    mem_free(r->out);
    mem_free(r->pad_in);
    mem_free(r->pad_out);
    program_free(r->program);
    mem_free(r);
}

void rows_bind_params(RowProgram *r, const ParamSet *p, const char *prefix, float *flat)
{
    params_bind_inputs(p, r->program, prefix, flat, r->in);
    *(r->theta && r->theta != p ? &r->phi : &r->theta) = p;
}

/* One number that changes when either set does: versions are unique in the process and never reused. */
static uint64_t version(const RowProgram *r)
{
    return (r->theta ? r->theta->version : 0) * 0x9E3779B97F4A7C15u + (r->phi ? r->phi->version : 0) + 1;
}

typedef struct Slot { int k; char *data; size_t row; RowKind kind; } Slot;

static Slot slot_of(const RowProgram *r, const RowArg *a, bool output)
{
    int k = output ? program_output(r->program, a->name) : program_input(r->program, a->name);
    if (k < 0)
        die("the program has no %s '%s'", output ? "output" : "input", a->name);
    size_t bytes = type_bytes(output ? program_output_type(r->program, k) : program_input_type(r->program, k));
    return (Slot){k, a->data, bytes / (size_t)r->rows, a->kind};
}

static void place(const Slot *s, void **slots, void **pad, int64_t first, int64_t count, int64_t rows, bool output)
{
    char *at = s->kind == ROW_SHARED ? s->data : s->data + (size_t)first * s->row;
    if (s->kind == ROW_SHARED || count == rows) {
        slots[s->k] = at;
        return;
    }
    slots[s->k] = pad[s->k];
    if (output)
        return;
    memcpy(pad[s->k], at, (size_t)count * s->row);
    memset((char *)pad[s->k] + (size_t)count * s->row, 0, (size_t)(rows - count) * s->row);
    for (int64_t i = count; i < rows && s->kind == ROW_EACH; i++) /* copies of the last row are in range whatever they mean */
        memcpy((char *)pad[s->k] + (size_t)i * s->row, at + (size_t)(count - 1) * s->row, s->row);
}

/* Slots of the inputs and outputs that the caller names. */
typedef struct Batches {
    RowProgram *r;
    Slot in[ROWS_MAX_ARGS], out[ROWS_MAX_ARGS];
    int nin, nout;
} Batches;

static bool start(Batches *b, Err *err, int64_t first, int64_t count)
{
    RowProgram *r = b->r;
    for (int i = 0; i < b->nin; i++)
        place(&b->in[i], r->in, r->pad_in, first, count, r->rows, false);
    for (int i = 0; i < b->nout; i++)
        place(&b->out[i], r->out, r->pad_out, first, count, r->rows, true);
    return program_start(r->program, err, r->in, r->out, version(r), 0);
}

static bool finish(const Batches *b, Err *err, int64_t first, int64_t count)
{
    const RowProgram *r = b->r;
    if (!program_finish(r->program, err, r->in, r->out))
        return false;
    for (int i = 0; i < b->nout; i++) {
        const Slot *s = &b->out[i];
        if (r->out[s->k] == r->pad_out[s->k])
            memcpy(s->data + (size_t)first * s->row, r->pad_out[s->k], (size_t)count * s->row);
    }
    return true;
}

bool rows_run_then(RowProgram *r, Err *err, int64_t n, const RowArg *in, int nin, const RowArg *out, int nout, RowsThen then, void *ctx)
{
    Batches b = {.r = r, .nin = nin, .nout = nout};
    must(nin <= ROWS_MAX_ARGS && nout <= ROWS_MAX_ARGS);
    for (int i = 0; i < nin; i++)
        b.in[i] = slot_of(r, &in[i], false);
    for (int i = 0; i < nout; i++)
        b.out[i] = slot_of(r, &out[i], true);
    bool ok = true;
    int64_t done = 0; /* rows that `then` has seen */
    for (int64_t first = 0; first < n && ok; first += r->rows) {
        int64_t count = n - first < r->rows ? n - first : r->rows;
        if (!(ok = start(&b, err, first, count)))
            break;
        if (then && program_runs_beside(r->program) && first > done) {
            ok = then(ctx, err, done, first - done);
            done = first;
        }
        ok = finish(&b, ok ? err : &(Err){0}, first, count) && ok; /* also when `then` failed: what was started ends */
    }
    ok = ok && (!then || done == n || then(ctx, err, done, n - done));
    for (int i = 0; i < nin; i++) /* nothing of the caller's stays behind */
        r->in[b.in[i].k] = r->pad_in[b.in[i].k];
    for (int i = 0; i < nout; i++)
        r->out[b.out[i].k] = r->pad_out[b.out[i].k];
    return ok;
}

bool rows_run(RowProgram *r, Err *err, int64_t n, const RowArg *in, int nin, const RowArg *out, int nout)
{
    return rows_run_then(r, err, n, in, nin, out, nout, NULL, NULL);
}
