#include "runtime/cuda/blaslt.h"
#include "codegen/cache.h"
#include "codegen/cuda/cuda.h"
#include "runtime/cuda/blaslt_rule.h"
#include <dlfcn.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the library ---- */
static const char *const library[] = {"libcublasLt.so.13", "libcublasLt.so.12"};

static void *open_library(const char **name, Err *err)
{
    char why[2][300];
    for (int i = 0; i < 2; i++) {
        void *so = cuda_library(library[i]);
        *name = library[i];
        if (so)
            return so;
        snprintf(why[i], sizeof why[i], "%s", dlerror());
    }
    err_env(err, "CUDA: cuBLASLt does not load (our own kernels run everywhere): %s; %s", why[0], why[1]);
    return NULL;
}

static bool load(BlasLt *lt, Err *err)
{
    const char *name = NULL;
    void *so = open_library(&name, err);
    if (!so)
        return false;
#define FIND(result, symbol, parameters)                                                                               \
    *(void **)&lt->symbol = dlsym(so, #symbol);                                                                        \
    if (!lt->symbol) {                                                                                                 \
        dlclose(so);                                                                                                   \
        return err_env(err, "CUDA: %s has no %s (our own kernels run everywhere)", name, #symbol);                     \
    }
    BLASLT(FIND)
#undef FIND
    return true;
}

const BlasLt *blaslt_open(Err *err)
{
    static BlasLt opened;
    static bool ok;
    static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&opening);
    ok = ok || load(&opened, err);
    pthread_mutex_unlock(&opening);
    return ok ? &opened : NULL;
}

bool blaslt_version(Err *err, char out[64])
{
    const BlasLt *lt = blaslt_open(err);
    size_t v = lt ? lt->cublasLtGetVersion() : 0;
    snprintf(out, 64, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    return lt != NULL;
}

/* ---- a program's products ---- */
enum { MOST_WORKSPACE = 32 << 20 };

typedef struct Call {
    BlasDesc desc;
    BlasLayout a, b, d; /* as it names them */
    BlasAlgo algo;
    const BlasShape *shape;
    const PlainProduct *product;
} Call;

struct Blaslt {
    const BlasLt *lt;
    const Program *p;
    const CudaDevice *device;
    BlasHandle handle;
    Call *call; /* by kernel; desc NULL: not its own */
    int64_t workspace;
    bool any;
};

static bool succeeded(const Blaslt *b, Err *err, BlasStatus status, const char *what, const PlainProduct *x)
{
    if (status == 0)
        return true;
    const char *name = b->lt->cublasLtGetStatusName(status);
    err_env(err, "CUDA: %s: %s (%d)%s; with DAV_CUDA_BLASLT=0 our own kernels run instead", what,
            name ? name : "an unknown status", status,
            status == BLAS_ALLOC_FAILED ? ": the device's memory is full, a smaller batch helps" : "");
    return x &&
           err_prefix(err,
                      "product of %" PRId64 " x %" PRId64 " x %" PRId64 " (rows, sum, columns), %" PRId64 " of them, "
                      "of '%s' on %s",
                      x->m, x->k, x->n, x->batch, b->p->stats.name, b->device->name);
}

static int type_of_data(int64_t dtype)
{
    return dtype == DAV_BF16 ? BLAS_R_16BF : BLAS_R_32F;
}

static bool set_layout(const Blaslt *b, Err *err, const PlainProduct *x, BlasLayout layout, int which,
                       const void *value, size_t bytes)
{
    return succeeded(b, err, b->lt->cublasLtMatrixLayoutSetAttribute(layout, which, value, bytes),
                     "cublasLtMatrixLayoutSetAttribute", x);
}

static bool make_layout(const Blaslt *b, Err *err, const PlainProduct *x, const BlasMatrix *m, int64_t dtype,
                        BlasLayout *layout)
{
    int32_t count = (int32_t)x->batch;
    BlasStatus made =
        b->lt->cublasLtMatrixLayoutCreate(layout, type_of_data(dtype), (uint64_t)m->rows, (uint64_t)m->cols, m->ld);
    return succeeded(b, err, made, "cublasLtMatrixLayoutCreate", x) &&
           (count == 1 ||
            (set_layout(b, err, x, *layout, BLAS_LAYOUT_BATCH_COUNT, &count, sizeof count) &&
             set_layout(b, err, x, *layout, BLAS_LAYOUT_BATCH_STRIDE, &m->batch_stride, sizeof m->batch_stride)));
}

static uint32_t epilogue_of(const PlainProduct *x)
{
    uint32_t e = x->activation == PLAIN_RELU        ? BLAS_EPILOGUE_RELU
                 : x->activation == PLAIN_GELU_TANH ? BLAS_EPILOGUE_GELU
                                                    : 0;
    e |= x->bias >= 0 ? BLAS_EPILOGUE_BIAS : 0;
    return e ? e : BLAS_EPILOGUE_DEFAULT;
}

static int compute_of(const Blaslt *b, const PlainProduct *x)
{
    return x->in == DAV_F32 && b->p->options.tf32 ? BLAS_COMPUTE_TF32 : BLAS_COMPUTE_32F;
}

static bool set(const Blaslt *b, Err *err, const Call *c, int which, const void *value, size_t bytes)
{
    return succeeded(b, err, b->lt->cublasLtMatmulDescSetAttribute(c->desc, which, value, bytes),
                     "cublasLtMatmulDescSetAttribute", c->product);
}

static bool make_desc(const Blaslt *b, Err *err, Call *c)
{
    const PlainProduct *x = c->product;
    uint32_t epilogue = epilogue_of(x);
    int32_t transposed = BLAS_OP_T, bias_type = type_of_data(x->out);
    uintptr_t somewhere =
        256 + (uintptr_t)c->shape->bias_alignment; /* heuristics read of the pointer how it is aligned */
    if (!succeeded(b, err, b->lt->cublasLtMatmulDescCreate(&c->desc, compute_of(b, x), BLAS_R_32F),
                   "cublasLtMatmulDescCreate", x))
        return false;
    return (!c->shape->a.transposed || set(b, err, c, BLAS_DESC_TRANS_A, &transposed, sizeof transposed)) &&
           (!c->shape->b.transposed || set(b, err, c, BLAS_DESC_TRANS_B, &transposed, sizeof transposed)) &&
           set(b, err, c, BLAS_DESC_EPILOGUE, &epilogue, sizeof epilogue) &&
           (x->bias < 0 || (set(b, err, c, BLAS_DESC_BIAS_TYPE, &bias_type, sizeof bias_type) &&
                            set(b, err, c, BLAS_DESC_BIAS_POINTER, &somewhere, sizeof somewhere)));
}

/* ---- algorithms ---- */
static void matrix_key(Buf *key, const char *name, const BlasMatrix *m)
{
    buf_printf(key, " %s %" PRId64 "x%" PRId64 " ld %" PRId64 " batch %" PRId64 " aligned %d%s", name, m->rows, m->cols,
               m->ld, m->batch_stride, m->alignment, m->transposed ? " transposed" : "");
}

/* Everything that the choice depends on. */
static void key_of(const Blaslt *b, const Call *c, Buf *key)
{
    const PlainProduct *x = c->product;
    buf_printf(key, "cublasLt %zu device %s sm %d compute %d types %d %d epilogue %u batch %" PRId64 " workspace %d",
               b->lt->cublasLtGetVersion(), b->device->name, b->device->sm, compute_of(b, x), type_of_data(x->in),
               type_of_data(x->out), epilogue_of(x), x->batch, MOST_WORKSPACE);
    matrix_key(key, "a", &c->shape->a);
    matrix_key(key, "b", &c->shape->b);
    matrix_key(key, "d", &c->shape->d);
    buf_printf(key, " c aligned %d bias aligned %d", c->shape->c_alignment, c->shape->bias_alignment);
}

static bool prefer(const Blaslt *b, Err *err, const Call *c, BlasPreference preference, int which, const void *value,
                   size_t bytes)
{
    return succeeded(b, err, b->lt->cublasLtMatmulPreferenceSetAttribute(preference, which, value, bytes),
                     "cublasLtMatmulPreferenceSetAttribute", c->product);
}

static bool set_preferences(const Blaslt *b, Err *err, const Call *c, BlasPreference preference)
{
    const int alignments[] = {c->shape->a.alignment, c->shape->b.alignment, c->shape->c_alignment,
                              c->shape->d.alignment};
    const uint64_t most = MOST_WORKSPACE;
    const uint32_t reductions = BLAS_REDUCTION_IN_F32;
    bool ok = prefer(b, err, c, preference, BLAS_PREFER_WORKSPACE_BYTES, &most, sizeof most) &&
              prefer(b, err, c, preference, BLAS_PREFER_REDUCTIONS, &reductions, sizeof reductions);
    for (int i = 0; i < 4 && ok; i++) {
        uint32_t alignment = (uint32_t)alignments[i];
        ok = prefer(b, err, c, preference, BLAS_PREFER_ALIGNMENT_A + i, &alignment, sizeof alignment);
    }
    return ok;
}

/* *count 0: it has no algorithm for this. */
static bool ask(const Blaslt *b, Err *err, const Call *c, BlasHeuristic *found, int *count)
{
    BlasPreference preference = NULL;
    const BlasLt *lt = b->lt;
    *count = 0;
    if (!succeeded(b, err, lt->cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate",
                   c->product))
        return false;
    bool ok = set_preferences(b, err, c, preference);
    if (ok) {
        BlasStatus status =
            lt->cublasLtMatmulAlgoGetHeuristic(b->handle, c->desc, c->a, c->b, c->d, c->d, preference, 1, found, count);
        ok = status == BLAS_NOT_SUPPORTED || succeeded(b, err, status, "cublasLtMatmulAlgoGetHeuristic", c->product);
        if (status != 0 || found->state != 0)
            *count = 0;
    }
    BlasStatus destroyed = lt->cublasLtMatmulPreferenceDestroy(preference);
    return succeeded(b, ok ? err : &(Err){0}, destroyed, "cublasLtMatmulPreferenceDestroy", c->product) && ok;
}

/* What an earlier process found, when this cuBLASLt still takes it for this product. */
static bool recall(const Blaslt *b, const Call *c, const char *key, BlasHeuristic *found)
{
    Buf stored = {0};
    BlasAlgo algo;
    bool ok = !cache_read(b->p->cache_dir.at, key, &stored) && stored.len == sizeof algo;
    if (ok) {
        memcpy(&algo, stored.at, sizeof algo);
        ok = b->lt->cublasLtMatmulAlgoCheck(b->handle, c->desc, c->a, c->b, c->d, c->d, &algo, found) == 0 &&
             found->state == 0 && found->workspace <= MOST_WORKSPACE;
        found->algo = algo;
    }
    buf_free(&stored);
    return ok;
}

static bool find_algorithm(Blaslt *b, Err *err, Call *c, ProductChoice *choice)
{
    Buf key = {0};
    BlasHeuristic found = {0};
    int count = 1;
    key_of(b, c, &key);
    bool recalled = recall(b, c, key.at, &found), ok = recalled || ask(b, err, c, &found, &count);
    if (ok && !recalled && count > 0)
        cache_write(b->p->cache_dir.at, key.at, &(Buf){.at = (char *)&found.algo, .len = sizeof found.algo});
    buf_free(&key);
    c->algo = found.algo;
    choice->library = ok && count > 0;
    choice->rule = !choice->library ? "cuBLASLt has no algorithm for it"
                   : recalled       ? "large; its algorithm is from the cache"
                                    : "large; its algorithm is by cuBLASLt's heuristics";
    if (choice->library && (int64_t)found.workspace > b->workspace)
        b->workspace = (int64_t)found.workspace;
    return ok;
}

static bool prepare_call(Blaslt *b, Err *err, Call *c, ProductChoice *choice)
{
    const PlainProduct *x = c->product = &choice->product;
    c->shape = &choice->shape;
    return make_desc(b, err, c) && make_layout(b, err, x, &c->shape->a, x->in, &c->a) &&
           make_layout(b, err, x, &c->shape->b, x->in, &c->b) && make_layout(b, err, x, &c->shape->d, x->out, &c->d) &&
           find_algorithm(b, err, c, choice);
}

static bool wanted(const Program *p)
{
    for (int i = 0; i < p->plan->nkernel; i++)
        if (p->product[i].library)
            return true;
    return false;
}

bool blaslt_prepare(Program *p, Err *err, const CudaDevice *device, Blaslt **made)
{
    *made = NULL;
    if (!product_choices(p, err, NULL))
        return false;
    if (!wanted(p))
        return true;
    Err missing = {0};
    const BlasLt *lt = blaslt_open(&missing);
    if (!lt)
        return product_choices(p, err, arena_str(p->arena, missing.text));
    Blaslt *b = *made = arena_alloc(p->arena, sizeof *b);
    *b = (Blaslt){.lt = lt, .p = p, .device = device, .call = arena_array(p->arena, Call, p->plan->nkernel + 1)};
    if (!succeeded(b, err, lt->cublasLtCreate(&b->handle), "cublasLtCreate", NULL))
        return false;
    for (int i = 0; i < p->plan->nkernel; i++) {
        if (p->product[i].library && !prepare_call(b, err, &b->call[i], &p->product[i]))
            return false;
        b->any |= p->product[i].library;
    }
    return true;
}

int64_t blaslt_workspace(const Blaslt *b)
{
    return b ? b->workspace : 0;
}

bool blaslt_any(const Blaslt *b)
{
    return b && b->any;
}

/* ---- a run ---- */
static void *element(void *const *buf, const PlainMatrix *m, int64_t dtype)
{
    return (char *)buf[m->buf] + m->offset * (int64_t)dav_dtype_size((DavDtype)dtype);
}

bool blaslt_launch(const Blaslt *b, Err *err, int kernel, void *const *buf, CuPtr workspace, CuStream stream)
{
    const Call *c = &b->call[kernel];
    const PlainProduct *x = c->product;
    const float one = 1, beta = x->c.buf >= 0 ? 1 : 0;
    void *d = element(buf, &x->d, x->out), *addend = x->c.buf >= 0 ? element(buf, &x->c, x->out) : d;
    if (x->bias >= 0 && !set(b, err, c, BLAS_DESC_BIAS_POINTER, &buf[x->bias], sizeof buf[x->bias]))
        return false;
    const void *theirs_a = element(buf, &x->b, x->in), *theirs_b = element(buf, &x->a, x->in);
    BlasStatus status =
        b->lt->cublasLtMatmul(b->handle, c->desc, &one, theirs_a, c->a, theirs_b, c->b, &beta, addend, c->d, d, c->d,
                              &c->algo, (void *)(uintptr_t)workspace, (size_t)b->workspace, stream);
    return succeeded(b, err, status, "cublasLtMatmul", x);
}

void blaslt_release(Blaslt *b)
{
    if (!b || !b->handle)
        return;
    for (int i = 0; i < b->p->plan->nkernel; i++) {
        Call *c = &b->call[i];
        BlasLayout layout[] = {c->a, c->b, c->d};
        for (int j = 0; j < 3; j++)
            if (layout[j])
                b->lt->cublasLtMatrixLayoutDestroy(layout[j]);
        if (c->desc)
            b->lt->cublasLtMatmulDescDestroy(c->desc);
    }
    b->lt->cublasLtDestroy(b->handle);
}
