#include "runtime/cuda/blaslt_rule.h"
#include "runtime/flat.h"
#include <stdlib.h>
#include <string.h>

enum { ALIGNED = 16, BUFFER_ALIGNMENT = 64 /* of a buffer outside of loops that is no flat array's part */ };
/* By the forecast's fractions (codegen/cuda/predict.c), not measured: an h100 does 3e8 operations of our tiles in about
 * the time of a launch, and our tiles wait for arithmetic, no more for memory, from 58 (rtx4090) to 104 (h100)
 * operations a byte on in bf16, from 7 (a100) to 43 (rtx4090) in f32. */
static const double least_flops = 3e8, least_intensity_tensor = 64, least_intensity_f32 = 16;

static int64_t size_of(int64_t dtype)
{
    return (int64_t)dav_dtype_size((DavDtype)dtype);
}

static DavDtype dtype_of(const Plan *plan, const PlanStep *s, int64_t buf)
{
    return (DavDtype)node_of(plan->g, node_of(plan->g, s->node)->arg[buf])->dtype;
}

/* Where a buffer begins.  Parameters, gradients and moments may be bound to a place in a flat array, later. */
static int start_of(const Program *p, const PlanStep *s, int64_t buf)
{
    const PlanBuf *b = &p->plan->buf[s->buf[buf]];
    int input = b->place == AT_INPUT ? b->index : b->place == AT_OUTPUT ? p->inplace[b->index] : -1;
    return input >= 0 && p->in[input].type.dtype == DAV_F32 ? FLAT_ALIGN * (int)sizeof(float) : BUFFER_ALIGNMENT;
}

/* The largest power of two up to 16 that divides every address where a column begins. */
static int alignment_of(int start, const PlainMatrix *x, const BlasMatrix *m, int64_t size)
{
    int64_t all = start | x->offset * size | m->ld * size | m->batch_stride * size, low = all & -all;
    return low < ALIGNED ? (int)low : ALIGNED;
}

static bool orient(int start, const PlainMatrix *x, int64_t rows, int64_t cols, int64_t batch, int64_t size,
                   BlasMatrix *m)
{
    bool by_rows = (x->col == 1 || cols == 1) && (rows == 1 || x->row >= cols);
    if (!by_rows && !((x->row == 1 || rows == 1) && (cols == 1 || x->col >= rows)))
        return false;
    *m = by_rows ? (BlasMatrix){.rows = cols, .cols = rows, .ld = rows == 1 ? cols : x->row}
                 : (BlasMatrix){.rows = rows, .cols = cols, .ld = cols == 1 ? rows : x->col, .transposed = true};
    m->batch_stride = batch == 1 ? 0 : x->batch;
    m->alignment = alignment_of(start, x, m, size);
    const int64_t most = INT32_MAX;
    return m->ld <= most && m->rows <= most && m->cols <= most && batch <= most && m->batch_stride >= 0;
}

/* False: such strides cannot be said to it. */
static bool find_shape(const Program *p, const PlanStep *s, const PlainProduct *x, BlasShape *to)
{
    int64_t in = size_of(x->in), out = size_of(x->out);
    if (!orient(start_of(p, s, x->b.buf), &x->b, x->k, x->n, x->batch, in, &to->a) ||
        !orient(start_of(p, s, x->a.buf), &x->a, x->m, x->k, x->batch, in, &to->b) ||
        !orient(start_of(p, s, x->d.buf), &x->d, x->m, x->n, x->batch, out, &to->d) || to->d.transposed)
        return false;
    to->c_alignment = x->c.buf < 0 ? to->d.alignment : alignment_of(start_of(p, s, x->c.buf), &x->c, &to->d, out);
    to->bias_alignment = x->bias < 0 ? 0 : start_of(p, s, x->bias);
    return true;
}

static bool is_product(const Graph *kernel)
{
    for (Val v = 1; v < kernel->n; v++)
        if (node_of(kernel, v)->op == OP_TILE_CONTRACT)
            return true;
    return false;
}

static bool on_tensor_cores(const Program *p, const PlainProduct *x)
{
    return x->in == DAV_BF16 || p->options.tf32;
}

static bool large(const Program *p, const PlainProduct *x)
{
    double flops = 2.0 * (double)x->batch * (double)x->m * (double)x->n * (double)x->k;
    double in = (double)x->m * (double)x->k + (double)x->k * (double)x->n,
           out = (double)x->m * (double)x->n * (x->c.buf >= 0 ? 2 : 1);
    double bytes = (double)x->batch * (in * (double)size_of(x->in) + out * (double)size_of(x->out));
    return flops >= least_flops &&
           flops / bytes >= (on_tensor_cores(p, x) ? least_intensity_tensor : least_intensity_f32);
}

/* Why our kernel runs it; NULL: nothing is against the library. */
static const char *why_ours(const Program *p, const PlanStep *s, ProductChoice *c, const char *no_library)
{
    const PlainProduct *x = &c->product;
    const char *setting = getenv("DAV_CUDA_BLASLT");
    bool always = setting && strcmp(setting, "1") == 0;
    if (setting && strcmp(setting, "0") == 0)
        return "DAV_CUDA_BLASLT=0";
    if (!p->learns)
        return "not a program that learns: the same bits for any number of rows";
    if ((x->bias >= 0 && dtype_of(p->plan, s, x->bias) != (DavDtype)x->out) ||
        (x->c.buf >= 0 && dtype_of(p->plan, s, x->c.buf) != (DavDtype)x->out))
        return "what is added has another dtype than the result, which cuBLASLt has not";
    if (!find_shape(p, s, x, &c->shape))
        return "strides that cuBLASLt has not";
    if (!always && on_tensor_cores(p, x) && (c->shape.a.alignment < ALIGNED || c->shape.b.alignment < ALIGNED))
        return "for tensor cores, rows that need not begin at multiples of 16 bytes";
    if (!always && !large(p, x))
        return "small: fewer than 3e8 operations, or than 64 a byte (f32: 16)";
    return no_library;
}

static void choose(Program *p, const Plan *plan, bool nested, const char *no_library)
{
    for (int i = 0; i < plan->nstep; i++) {
        const PlanStep *s = &plan->step[i];
        if (s->kind == STEP_LOOP)
            choose(p, s->body, true, no_library);
        if (s->kind != STEP_KERNEL || !is_product(p->plan->kernel[s->kernel]))
            continue;
        ProductChoice *c = &p->product[s->kernel];
        c->plain = plain_product_of(plan->g, s->node, &c->product);
        c->rule = !c->plain ? "no plain product"
                  : nested  ? "in a loop, whose slices begin anywhere"
                            : why_ours(p, s, c, no_library);
        c->library = !c->rule;
        if (c->library)
            c->rule = "large";
    }
}

bool product_choices(Program *p, Err *err, const char *no_library)
{
    const char *setting = getenv("DAV_CUDA_BLASLT");
    if (setting && *setting && strcmp(setting, "0") != 0 && strcmp(setting, "1") != 0)
        return err_user(err, "DAV_CUDA_BLASLT: expected 0 (never), 1 (wherever it can) or nothing (the rule of docs/cuda.md), found '%.40s'", setting);
    p->product = arena_array(p->arena, ProductChoice, p->plan->nkernel + 1);
    choose(p, p->plan, false, no_library);
    return true;
}
