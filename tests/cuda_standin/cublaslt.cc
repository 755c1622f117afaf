/* cuBLASLt's place: products by plain loops, on the stream of the driver's stand-in.
 *
 * Checks what the library asks of its callers: descriptors that fit each other, leading dimensions, alignment as promised to the
 * heuristics, memory that lives on the device, a workspace as large as the algorithm's, no first call of an algorithm in a capture
 * (its code would have to be loaded).  Algorithms depend on the number of rows: a short product is summed in two halves.
 *   DAV_STANDIN_BLASLT_REFUSES=1   no algorithm that is shown to it is one of its own
 *   DAV_STANDIN_BLASLT_NONE=1      it has no algorithm for anything
 * dav_standin_products counts the products that were computed. */
#include "driver.h"
#include <math.h>
#include <set>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

namespace ours {
#include "runtime/cuda/blaslt_api.h"
}
using ours::BlasAlgo;
using ours::BlasHeuristic;

enum { OK = 0, INVALID = 7, EXECUTION_FAILED = 13, INTERNAL = 14, NOT_SUPPORTED = 15 };
static const uint64_t magic = 0x314f474c41564144ull;

struct Handle { std::set<uint64_t> loaded; };
struct Desc { int compute, trans[2] = {0, 0}; uint32_t epilogue = 1; const void *bias = NULL; int bias_type = -1; };
struct Layout { int type; uint64_t rows, cols; int64_t ld; int32_t batch = 1; int64_t stride = 0; };
struct Preference { uint64_t workspace = 0; uint32_t reductions = 7, alignment[4] = {256, 256, 256, 256}; };
/* data: magic, what it is for, parts of the sum, bytes of workspace, alignments of A, B, D, and of C and the bias by 16 bits */

static long long products;
SHARED long long dav_standin_products() { return products; }

static int wrong(const char *what)
{
    fprintf(stderr, "cublasLt stand-in: %s\n", what);
    return INVALID;
}

#define ENTER()             \
    if (dav_standin_call()) \
    return INTERNAL
/* Calls that free things do so even when they are to fail. */
#define LEAVE() const int status = dav_standin_call() ? INTERNAL : OK

template <class T> static int make(T **to, const T &made)
{
    *to = new T(made);
    dav_standin_count(1);
    return OK;
}
template <class T> static void destroy(T *x)
{
    delete x;
    dav_standin_count(-1);
}

SHARED int cublasLtCreate(Handle **h) { ENTER(); return make(h, Handle{}); }
SHARED int cublasLtDestroy(Handle *h) { LEAVE(); destroy(h); return status; }
SHARED size_t cublasLtGetVersion() { return 130100; }
SHARED const char *cublasLtGetStatusName(int status)
{
    return status == INVALID ? "CUBLAS_STATUS_INVALID_VALUE" : status == EXECUTION_FAILED ? "CUBLAS_STATUS_EXECUTION_FAILED"
         : status == INTERNAL ? "CUBLAS_STATUS_INTERNAL_ERROR" : status == NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_SUCCESS";
}
SHARED int cublasLtMatmulDescCreate(Desc **d, int compute, int scale)
{
    ENTER();
    if (scale != 0 || (compute != 68 && compute != 77))
        return wrong("it has another arithmetic");
    return make(d, Desc{compute});
}
SHARED int cublasLtMatmulDescDestroy(Desc *d) { LEAVE(); destroy(d); return status; }

template <class T> static bool take(T *to, const void *value, size_t bytes)
{
    if (!value || bytes != sizeof *to)
        return false;
    memcpy(to, value, bytes);
    return true;
}
SHARED int cublasLtMatmulDescSetAttribute(Desc *d, int which, const void *value, size_t bytes)
{
    ENTER();
    bool ok = which == 3 ? take(&d->trans[0], value, bytes) : which == 4 ? take(&d->trans[1], value, bytes)
            : which == 7 ? take(&d->epilogue, value, bytes) : which == 8 ? take(&d->bias, value, bytes)
            : which == 26 && take(&d->bias_type, value, bytes);
    return ok ? OK : wrong("an attribute of a product that it has not, or of another size");
}
SHARED int cublasLtMatrixLayoutCreate(Layout **l, int type, uint64_t rows, uint64_t cols, int64_t ld)
{
    ENTER();
    if ((type != 0 && type != 14) || !rows || !cols || ld < (int64_t)rows)
        return wrong("a matrix that there cannot be");
    return make(l, Layout{type, rows, cols, ld});
}
SHARED int cublasLtMatrixLayoutDestroy(Layout *l) { LEAVE(); destroy(l); return status; }
SHARED int cublasLtMatrixLayoutSetAttribute(Layout *l, int which, const void *value, size_t bytes)
{
    ENTER();
    bool ok = which == 5 ? take(&l->batch, value, bytes) : which == 6 && take(&l->stride, value, bytes);
    return ok ? OK : wrong("an attribute of a matrix that it has not, or of another size");
}
SHARED int cublasLtMatmulPreferenceCreate(Preference **p) { ENTER(); return make(p, Preference{}); }
SHARED int cublasLtMatmulPreferenceDestroy(Preference *p) { LEAVE(); destroy(p); return status; }
SHARED int cublasLtMatmulPreferenceSetAttribute(Preference *p, int which, const void *value, size_t bytes)
{
    ENTER();
    bool ok = which == 1 ? take(&p->workspace, value, bytes) : which == 3 ? take(&p->reductions, value, bytes)
            : which >= 5 && which <= 8 && take(&p->alignment[which - 5], value, bytes);
    return ok ? OK : wrong("a preference that it has not, or of another size");
}

/* ---- one product: D = epilogue(op(A) op(B) + beta C), all column-major ---- */
struct Problem { const Desc *desc; const Layout *a, *b, *c, *d; uint64_t m, n, k; };

static bool fits(const Desc *desc, const Layout *a, const Layout *b, const Layout *c, const Layout *d, Problem *p)
{
    uint64_t rows = desc->trans[0] ? a->cols : a->rows, k = desc->trans[0] ? a->rows : a->cols;
    uint64_t cols = desc->trans[1] ? b->rows : b->cols, k_of_b = desc->trans[1] ? b->cols : b->rows;
    *p = Problem{desc, a, b, c, d, rows, cols, k};
    uint32_t plain = desc->epilogue & ~4u;
    return k == k_of_b && d->rows == rows && d->cols == cols && c->rows == rows && c->cols == cols && c->ld == d->ld && c->type == d->type &&
           a->type == b->type && (a->type == 14 || d->type == 0) && (desc->compute == 68 || a->type == 0) &&
           a->batch == b->batch && a->batch == c->batch && a->batch == d->batch &&
           (desc->epilogue & 4 ? plain == 0 || plain == 2 || plain == 32 : plain == 1 || plain == 2 || plain == 32) &&
           (!(desc->epilogue & 4) || (desc->bias && (desc->bias_type < 0 || desc->bias_type == d->type)));
}

static uint64_t name_of(const Problem &p)
{
    const uint64_t part[] = {p.m, p.n, p.k, (uint64_t)p.a->type, (uint64_t)p.d->type, p.desc->epilogue, (uint64_t)p.desc->trans[0],
                             (uint64_t)p.desc->trans[1], (uint64_t)p.a->batch, (uint64_t)p.desc->compute};
    uint64_t h = 1469598103934665603ull;
    for (uint64_t x : part)
        h = (h ^ x) * 1099511628211ull;
    return h;
}

static int describe(const Problem &p, const BlasAlgo *algo, BlasHeuristic *to)
{
    memset(to, 0, sizeof *to);
    if (algo->data[0] != magic || algo->data[1] != name_of(p))
        return to->state = NOT_SUPPORTED;
    to->algo = *algo;
    to->workspace = algo->data[3];
    to->waves = 1;
    return OK;
}

SHARED int cublasLtMatmulAlgoCheck(Handle *, Desc *desc, Layout *a, Layout *b, Layout *c, Layout *d, const BlasAlgo *algo, BlasHeuristic *to)
{
    ENTER();
    Problem p;
    if (getenv("DAV_STANDIN_BLASLT_REFUSES"))
        return NOT_SUPPORTED;
    return fits(desc, a, b, c, d, &p) ? describe(p, algo, to) : INVALID;
}

SHARED int cublasLtMatmulAlgoGetHeuristic(Handle *, Desc *desc, Layout *a, Layout *b, Layout *c, Layout *d, Preference *prefer, int asked,
                                          BlasHeuristic *found, int *count)
{
    ENTER();
    Problem p;
    *count = 0;
    if (asked < 1 || !fits(desc, a, b, c, d, &p))
        return wrong("descriptors that do not fit each other");
    if (getenv("DAV_STANDIN_BLASLT_NONE"))
        return NOT_SUPPORTED;
    uint64_t partial = p.m * p.n * sizeof(float), parts = p.n < 64 && p.k > 1 && partial <= prefer->workspace && prefer->reductions & 2 ? 2 : 1;
    BlasAlgo algo = {{magic, name_of(p), parts, parts > 1 ? partial : 0, prefer->alignment[0], prefer->alignment[1], prefer->alignment[3],
                      prefer->alignment[2] | ((uintptr_t)desc->bias & -(uintptr_t)desc->bias) << 16}};
    *count = 1;
    return describe(p, &algo, found);
}

static float bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float load(const void *at, int type, int64_t i) { return type == 14 ? bf16(((const uint16_t *)at)[i]) : ((const float *)at)[i]; }

static void store(void *at, int type, int64_t i, float v)
{
    uint32_t bits;
    if (type == 0) {
        ((float *)at)[i] = v;
        return;
    }
    memcpy(&bits, &v, sizeof bits);
    ((uint16_t *)at)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float tf32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x1000) & ~0x1fffu;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Rows of op(A), columns of op(B) as floats, the sum's index inside. */
static std::vector<float> unpacked(const void *at, const Layout &l, bool sum_is_rows, int64_t base, bool rounded)
{
    uint64_t outer = sum_is_rows ? l.cols : l.rows, inner = sum_is_rows ? l.rows : l.cols;
    std::vector<float> to(outer * inner);
    for (uint64_t o = 0; o < outer; o++)
        for (uint64_t i = 0; i < inner; i++) {
            float v = load(at, l.type, base + (int64_t)(sum_is_rows ? i + o * (uint64_t)l.ld : o + i * (uint64_t)l.ld));
            to[o * inner + i] = rounded ? tf32(v) : v;
        }
    return to;
}

static float finish(float v, uint32_t epilogue)
{
    if (epilogue & 32)
        return 0.5f * v * (1 + tanhf(0.7978845608f * (v + 0.044715f * v * v * v)));
    return epilogue & 2 ? fmaxf(v, 0) : v;
}

struct Job { Desc desc; Layout a, b, c, d; uint64_t m, n, k, parts; const void *at_a, *at_b, *at_c; void *at_d; float *workspace; float beta; };

static void compute(const Job &j)
{
    for (int32_t g = 0; g < j.d.batch; g++) {
        bool rounded = j.desc.compute == 77;
        std::vector<float> a = unpacked(j.at_a, j.a, j.desc.trans[0], g * j.a.stride, rounded);
        std::vector<float> b = unpacked(j.at_b, j.b, !j.desc.trans[1], g * j.b.stride, rounded);
        for (uint64_t part = 0; part < j.parts; part++)
            for (uint64_t col = 0; col < j.n; col++)
                for (uint64_t row = 0; row < j.m; row++) {
                    float sum = 0;
                    for (uint64_t i = part * j.k / j.parts; i < (part + 1) * j.k / j.parts; i++)
                        sum += a[row * j.k + i] * b[col * j.k + i];
                    if (part + 1 < j.parts) {
                        j.workspace[col * j.m + row] = sum;
                        continue;
                    }
                    sum += j.parts > 1 ? j.workspace[col * j.m + row] : 0;
                    int64_t at = (int64_t)(row + col * (uint64_t)j.d.ld) + g * j.d.stride;
                    if (j.beta != 0)
                        sum += j.beta * load(j.at_c, j.c.type, at);
                    if (j.desc.epilogue & 4)
                        sum += load(j.desc.bias, j.d.type, (int64_t)row);
                    store(j.at_d, j.d.type, at, finish(sum, j.desc.epilogue));
                }
    }
    products++;
}

static size_t bytes_of(const Layout *l)
{
    return ((l->cols - 1) * (uint64_t)l->ld + l->rows + (uint64_t)(l->batch - 1) * (uint64_t)l->stride) * (l->type == 14 ? 2 : 4);
}

static bool apart(const void *x, size_t n, const void *y, size_t m)
{
    return (const char *)x + n <= (const char *)y || (const char *)y + m <= (const char *)x;
}

SHARED int cublasLtMatmul(Handle *h, Desc *desc, const float *alpha, const void *at_a, Layout *a, const void *at_b, Layout *b, const float *beta,
                          const void *at_c, Layout *c, void *at_d, Layout *d, const BlasAlgo *algo, void *workspace, size_t bytes, Stream *s)
{
    ENTER();
    Problem p;
    BlasHeuristic known;
    if (!fits(desc, a, b, c, d, &p) || *alpha != 1 || describe(p, algo, &known) != OK)
        return wrong("descriptors and algorithm do not fit each other");
    const void *at[3] = {at_a, at_b, at_d};
    for (int i = 0; i < 3; i++)
        if ((uintptr_t)at[i] % algo->data[4 + i])
            return wrong("a matrix is aligned worse than promised");
    if ((*beta != 0 && (uintptr_t)at_c % (algo->data[7] & 0xffff)) || (desc->epilogue & 4 && (uintptr_t)desc->bias % (algo->data[7] >> 16)))
        return wrong("an operand that is added is aligned worse than promised");
    if (known.workspace > bytes || (known.workspace && !dav_standin_holds(workspace, known.workspace)))
        return wrong("the workspace is too small");
    if (!dav_standin_holds(at_a, bytes_of(a)) || !dav_standin_holds(at_b, bytes_of(b)) || !dav_standin_holds(at_d, bytes_of(d)) ||
        (*beta != 0 && !dav_standin_holds(at_c, bytes_of(c))))
        return wrong("a matrix is not in the device's memory");
    if (desc->epilogue & 4 && !dav_standin_holds(desc->bias, p.m * (d->type == 14 ? 2 : 4)))
        return wrong("the bias is not in the device's memory");
    if (!apart(at_a, bytes_of(a), at_d, bytes_of(d)) || !apart(at_b, bytes_of(b), at_d, bytes_of(d)) ||
        (at_c != at_d && *beta != 0 && !apart(at_c, bytes_of(c), at_d, bytes_of(d))))
        return wrong("the result lies over an operand");
    if (dav_standin_captures(s) && !h->loaded.count(algo->data[1])) {
        fprintf(stderr, "cublasLt stand-in: the code of an algorithm would have to be loaded in a capture\n");
        return EXECUTION_FAILED;
    }
    h->loaded.insert(algo->data[1]);
    Job j = {*desc, *a, *b, *c, *d, p.m, p.n, p.k, algo->data[2], at_a, at_b, at_c, at_d, (float *)workspace, *beta};
    dav_standin_queue(s, [j] { compute(j); });
    return OK;
}
