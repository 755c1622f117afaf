/* Kernels to functions: equal ones once, from the cache where it has them, else compiled on a few threads; LLJIT links. */
#include "codegen/cache.h"
#include "codegen/llvm/emit.h"
#include <inttypes.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/Object.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct Loaded { uint64_t hash; KernelCode code; } Loaded;

struct Jit {
    CpuTarget target;
    LLVMOrcLLJITRef lljit;
    Loaded *loaded;        /* vec */
    const char *cache_dir; /* NULL, or the text below */
    char cache_text[];
};

static bool llvm_failed(Err *err, LLVMErrorRef e, const char *what)
{
    if (!e)
        return false;
    char *why = LLVMGetErrorMessage(e);
    err_env(err, "LLVM cannot %s: %s", what, why);
    LLVMDisposeErrorMessage(why);
    return true;
}

const char *jit_llvm_version(void)
{
    static _Thread_local char text[32];
    unsigned major, minor, patch;
    LLVMGetVersion(&major, &minor, &patch);
    snprintf(text, sizeof text, "%u.%u.%u", major, minor, patch);
    return text;
}

bool jit_cache_dir(Buf *out)
{
    const char *own = getenv("DAV_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own && *own)
        buf_str(out, own);
    else if (xdg && *xdg)
        buf_printf(out, "%s/dav", xdg);
    else if (home && *home)
        buf_printf(out, "%s/.cache/dav", home);
    else
        return false;
    return true;
}

Jit *jit_new(Err *err, const CpuTarget *target, const char *cache_dir)
{
    Worker *probe = worker_new(err, target); /* initialises LLVM, proves that it has the target */
    if (!probe)
        return NULL;
    worker_free(probe);
    Jit *j = mem_alloc(sizeof *j + (cache_dir ? strlen(cache_dir) + 1 : 0));
    j->target = *target;
    if (cache_dir)
        j->cache_dir = strcpy(j->cache_text, cache_dir);
    if (llvm_failed(err, LLVMOrcCreateLLJIT(&j->lljit, NULL), "start its just-in-time linker")) {
        jit_free(j);
        return NULL;
    }
    return j;
}

void jit_free(Jit *j)
{
    if (!j)
        return;
    if (j->lljit)
        LLVMConsumeError(LLVMOrcDisposeLLJIT(j->lljit));
    vec_free(j->loaded);
    mem_free(j);
}

const CpuTarget *jit_target(const Jit *j)
{
    return &j->target;
}

/* ---- making objects ---- */
typedef struct Job {
    const Graph *kernel;
    uint64_t hash;
    int index; /* in the caller's list */
    char symbol[32];
    Buf key, object; /* the cache's key and what it names */
    KernelCode code;
} Job;

typedef struct Queue {
    Jit *jit;
    Job *job;
    int n;
    atomic_int next;
    atomic_bool failed;
} Queue;

typedef struct Hand { /* of one thread */
    Queue *q;
    Err err;
    Worker *worker;
    pthread_t thread;
} Hand;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static bool make_object(Hand *h, Job *job)
{
    Jit *j = h->q->jit;
    double start = now_ms();
    cache_key(&job->key, &j->target, job->hash);
    const char *miss = cache_read(j->cache_dir, job->key.at, &job->object);
    bool ok = true;
    if (miss) {
        if (!h->worker)
            h->worker = worker_new(&h->err, &j->target);
        ok = h->worker && worker_object(h->worker, &h->err, job->kernel, job->symbol, &job->object);
        if (ok)
            cache_write(j->cache_dir, job->key.at, &job->object);
    }
    job->code.miss_reason = miss;
    job->code.from_cache = !miss;
    job->code.compile_ms = now_ms() - start;
    return ok;
}

static bool run_queue(void *arg)
{
    Hand *h = arg;
    for (;;) {
        int i = atomic_fetch_add(&h->q->next, 1);
        if (i >= h->q->n || atomic_load(&h->q->failed))
            return true;
        if (!make_object(h, &h->q->job[i])) {
            atomic_store(&h->q->failed, true);
            return false;
        }
    }
}

static void *thread_main(void *arg)
{
    Hand *h = arg;
    if (!mem_protect(&h->err, run_queue, h))
        atomic_store(&h->q->failed, true);
    worker_free(h->worker);
    return NULL;
}

enum { MAX_HANDS = 16 };

static bool make_objects(Jit *j, Err *err, Job *job, int n, int threads)
{
    Queue q = {.jit = j, .job = job, .n = n};
    Hand hand[MAX_HANDS];
    memset(hand, 0, sizeof hand);
    if (threads <= 0)
        threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    threads = threads > n ? n : threads;
    threads = threads > MAX_HANDS ? MAX_HANDS : threads < 1 ? 1 : threads;
    int started = 1; /* this thread works too */
    for (int i = 0; i < threads; i++)
        hand[i].q = &q;
    while (started < threads && pthread_create(&hand[started].thread, NULL, thread_main, &hand[started]) == 0)
        started++;
    thread_main(&hand[0]);
    for (int i = 1; i < started; i++)
        pthread_join(hand[i].thread, NULL);
    for (int i = 0; i < started; i++)
        if (hand[i].err.kind == ERR_USER)
            return err_user(err, "%s", hand[i].err.text);
        else if (hand[i].err.kind)
            return err_env(err, "%s", hand[i].err.text);
    return true;
}

/* ---- linking them ---- */
static int64_t code_size(const Buf *object)
{
    int64_t size = 0;
    LLVMMemoryBufferRef m = LLVMCreateMemoryBufferWithMemoryRange(object->at, object->len, "kernel", false);
    char *why = NULL;
    LLVMBinaryRef bin = LLVMCreateBinary(m, NULL, &why);
    if (bin) {
        LLVMSectionIteratorRef s = LLVMObjectFileCopySectionIterator(bin);
        for (; !LLVMObjectFileIsSectionIteratorAtEnd(bin, s); LLVMMoveToNextSection(s)) {
            const char *name = LLVMGetSectionName(s);
            if (name && (strncmp(name, ".text", 5) == 0 || strncmp(name, ".rodata", 7) == 0))
                size += (int64_t)LLVMGetSectionSize(s);
        }
        LLVMDisposeSectionIterator(s);
        LLVMDisposeBinary(bin);
    }
    LLVMDisposeMessage(why);
    LLVMDisposeMemoryBuffer(m);
    return size;
}

static bool link_object(Jit *j, Err *err, Job *job)
{
    LLVMMemoryBufferRef m = LLVMCreateMemoryBufferWithMemoryRangeCopy(job->object.at, job->object.len, job->symbol);
    LLVMOrcJITDylibRef lib = LLVMOrcLLJITGetMainJITDylib(j->lljit);
    return !llvm_failed(err, LLVMOrcLLJITAddObjectFile(j->lljit, lib, m), "link a kernel");
}

/* For `perf record`: with DAV_PERF_MAP set, names for addresses where perf looks for them. */
static void perf_map(const Job *job)
{
    if (!getenv("DAV_PERF_MAP"))
        return;
    char path[64];
    snprintf(path, sizeof path, "/tmp/perf-%ld.map", (long)getpid());
    FILE *f = fopen(path, "a");
    if (!f)
        return;
    uintptr_t size = (uintptr_t)job->code.code_bytes, fn = (uintptr_t)job->code.fn; /* the body stands before the entry */
    fprintf(f, "%" PRIxPTR " %" PRIxPTR " %s.%s\n", fn - size, size + 64, job->kernel->name, job->symbol);
    fclose(f);
}

static bool find_symbol(Jit *j, Err *err, Job *job)
{
    LLVMOrcExecutorAddress at = 0;
    if (llvm_failed(err, LLVMOrcLLJITLookup(j->lljit, &at, job->symbol), "find a kernel it linked"))
        return false;
    job->code.fn = (KernelFn)(uintptr_t)at;
    job->code.code_bytes = code_size(&job->object);
    job->code.scratch_bytes = kernel_scratch(job->kernel, NULL);
    perf_map(job);
    vec_push(j->loaded, ((Loaded){job->hash, job->code}));
    return true;
}

/* ---- all of it ---- */
static const Loaded *find_loaded(const Jit *j, uint64_t hash)
{
    for (size_t i = 0; i < vec_len(j->loaded); i++)
        if (j->loaded[i].hash == hash)
            return &j->loaded[i];
    return NULL;
}

static void share_code(KernelCode *out, const uint64_t *hash, int n)
{
    for (int i = 0; i < n; i++) {
        for (int e = 0; e < i && out[i].same_as < 0; e++)
            if (hash[e] == hash[i])
                out[i].same_as = e;
        if (out[i].same_as < 0)
            continue;
        int first = out[i].same_as;
        out[i] = out[first];
        out[i].same_as = first;
        out[i].compile_ms = 0;
    }
}

typedef struct Compile {
    Jit *jit;
    Err *err;
    const Graph *const *kernels;
    int n, threads, jobs;
    KernelCode *out;
    Arena *arena;
    Job *job;
} Compile;

static bool compile_all(void *arg)
{
    Compile *c = arg;
    Jit *j = c->jit;
    Err *err = c->err;
    int n = c->n, jobs = 0;
    const Graph *const *kernels = c->kernels;
    KernelCode *out = c->out;
    uint64_t *hash = arena_array(c->arena, uint64_t, n);
    Job *job = c->job = arena_array(c->arena, Job, n);
    for (int i = 0; i < n; i++) {
        hash[i] = graph_hash(kernels[i]);
        out[i] = (KernelCode){.same_as = -1};
        bool seen = false;
        for (int e = 0; e < i && !seen; e++)
            seen = hash[e] == hash[i];
        const Loaded *l = seen ? NULL : find_loaded(j, hash[i]);
        if (l) {
            out[i] = l->code;
            out[i].compile_ms = 0;
        } else if (!seen) {
            job[jobs] = (Job){.kernel = kernels[i], .hash = hash[i], .index = i};
            snprintf(job[jobs].symbol, sizeof job->symbol, "k%016" PRIx64, hash[i]);
            jobs++;
        }
    }
    c->jobs = jobs;
    bool ok = jobs == 0 || make_objects(j, err, job, jobs, c->threads);
    for (int i = 0; ok && i < jobs; i++)
        ok = link_object(j, err, &job[i]);
    for (int i = 0; ok && i < jobs; i++) {
        ok = find_symbol(j, err, &job[i]);
        job[i].code.same_as = -1;
        out[job[i].index] = job[i].code;
    }
    share_code(out, hash, n);
    return ok;
}

bool jit_compile(Jit *j, Err *err, const Graph *const *kernels, int n, int threads, KernelCode *out)
{
    Compile c = {.jit = j, .err = err, .kernels = kernels, .n = n, .threads = threads, .out = out, .arena = arena_new()};
    bool ok = mem_protect(err, compile_all, &c);
    for (int i = 0; i < c.jobs; i++) {
        buf_free(&c.job[i].key);
        buf_free(&c.job[i].object);
    }
    arena_free(c.arena);
    return ok;
}

/* ---- text, objects for elsewhere ---- */
typedef struct TextJob {
    Worker *worker;
    Err *err;
    const Graph *kernel;
    const char *symbol;
    Buf *ir, *assembly, *object; /* each may be NULL */
} TextJob;

static bool write_texts(void *arg)
{
    TextJob *t = arg;
    return t->object ? worker_object(t->worker, t->err, t->kernel, t->symbol, t->object)
                     : worker_text(t->worker, t->err, t->kernel, t->symbol, t->ir, t->assembly);
}

static bool run_text_job(const CpuTarget *target, TextJob *t)
{
    t->worker = worker_new(t->err, target);
    bool ok = t->worker && mem_protect(t->err, write_texts, t);
    worker_free(t->worker);
    return ok;
}

bool jit_text(const CpuTarget *target, Err *err, const Graph *kernel, Buf *llvm_ir, Buf *assembly, AsmCount *count)
{
    Buf own = {0}, *text = assembly ? assembly : &own;
    TextJob t = {.err = err, .kernel = kernel, .symbol = "kernel", .ir = llvm_ir, .assembly = assembly || count ? text : NULL};
    bool ok = run_text_job(target, &t);
    if (ok && count)
        *count = asm_count(text->at, target);
    buf_free(&own);
    return ok;
}

bool jit_object(const CpuTarget *target, Err *err, const Graph *kernel, const char *symbol, Buf *object)
{
    TextJob t = {.err = err, .kernel = kernel, .symbol = symbol, .object = object};
    return run_text_job(target, &t);
}
