/* libcuda's place: devices whose blocks run one after the other, the threads of a block as fibers.
 *
 * What is asynchronous happens late: copies and launches wait in their stream until somebody synchronises.  Device memory
 * is readable only while the device works, and holds poison until written; so does shared memory at a block's start.
 * Settings of the environment:
 *   DAV_STANDIN_FAIL=n          the n-th call fails, with CUDA_ERROR_UNKNOWN or DAV_STANDIN_STATUS
 *   DAV_STANDIN_INIT=status     of cuInit; DAV_STANDIN_VERSION=n of the driver; DAV_STANDIN_SM=n of the device, 90 by default
 *   DAV_STANDIN_DEVICES=n       1 by default; what belongs to one is refused where another's context is current
 *   DAV_STANDIN_NAME=text       of the device
 *   DAV_STANDIN_LOAD=status     of cuModuleLoadData
 *   DAV_STANDIN_MEMORY=bytes    of the device
 *   DAV_STANDIN_RACE=1          two threads of a block that touch one place between barriers, one of them writing, end the launch; so do
 *                               two blocks that touch one place of the device's memory
 *   DAV_STANDIN_SHUFFLE=seed    blocks run in an order drawn from it
 * dav_standin_live counts what was made and not yet destroyed. */
#define DAV_STANDIN_DRIVER
#include "driver.h"
#include "machine.h"
#include <algorithm>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <numeric>
#include <random>
#include <set>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <unordered_map>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))
typedef unsigned long long Ptr;
enum { OK = 0, INVALID = 1, NO_MEMORY = 2, INVALID_IMAGE = 200, WRONG_CONTEXT = 201, NO_BINARY = 209, NOT_FOUND = 500, ILLEGAL = 700, LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, UNKNOWN = 999 };

/* ---- the device's state ---- */
static const size_t shared_limit = 227 * 1024, region_bytes = (size_t)16 << 30;
static std::mutex lock;
static char *region;
enum { MOST_DEVICES = 8 };
struct Taken { size_t bytes; int device; };
static std::map<size_t, Taken> taken; /* by offset */
static size_t used[MOST_DEVICES];
static thread_local int current_device = -1; /* whose context is current */
static long long ncalls, live;
static long long waits;
static long long bytes_to_device, bytes_to_host; /* copied so far */
static int lost; /* the status that every call gives after a kernel failed */

struct Work { int kind; Ptr to, from; size_t bytes; struct Function *f; unsigned blocks, threads; size_t shared; std::vector<unsigned long long> args; std::function<void()> call = {}; };
struct Stream { int device; std::vector<Work> queue, captured; bool capturing = false, broken = false; };
static std::set<Stream *> streams;
struct TaskGraph { int device; std::vector<Work> work; };
struct Function { void (*entry)(void **); DavMachine **machine; const int *sizes; size_t shared; int device; }; /* of parameters, then 0 */
struct Module { void *so; int device; std::vector<Function *> functions; };
enum { TO_DEVICE, TO_HOST, WITHIN, LAUNCH, FILL, CALL };

static int setting(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

/* CUDA C++ Programming Guide, "Technical Specifications per Compute Capability": shared memory that a block may ask for. */
static size_t shared_most()
{
    int sm = setting("DAV_STANDIN_SM", 90);
    return (size_t)(sm < 80 ? 64 : sm == 86 || sm == 89 || sm / 10 == 12 ? 99 : sm < 90 ? 163 : 227) * 1024;
}

static long long fail_at;
static std::map<const void *, long long> site_seen; /* places that call, and which call was their first */
static std::vector<long long> first_of_site;
static bool fails(const void *site)
{
    static const char *at = getenv("DAV_STANDIN_FAIL");
    if (site_seen.emplace(site, ncalls + 1).second)
        first_of_site.push_back(ncalls + 1);
    return ++ncalls == (at ? atoll(at) : -1) || ncalls == fail_at;
}
#define ENTER()                            \
    std::lock_guard<std::mutex> hold(lock); \
    if (lost)                              \
        return lost;                       \
    if (fails(__builtin_return_address(0))) \
        return setting("DAV_STANDIN_STATUS", UNKNOWN)

/* Calls that free things do so even when they are to fail. */
#define LEAVE()                            \
    std::lock_guard<std::mutex> hold(lock); \
    const int status = lost ? lost : fails(__builtin_return_address(0)) ? (int)UNKNOWN : (int)OK

static int capturing; /* streams that record */
static void open_memory(int device, bool open)
{
    for (auto &t : taken)
        if (t.second.device == device)
            mprotect(region + t.first, t.second.bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

/* ---- a block's threads ---- */
enum { STACK = 256 * 1024 };
struct Fiber { ucontext_t first; jmp_buf at; bool begun, done; int wait; unsigned mask, passed_block, passed[6]; };
enum { READY, AT_BLOCK, AT_LANES };
static Fiber fiber[DAV_MAX_THREADS];
static char *stacks;
static jmp_buf scheduler;
static unsigned current, nthreads;
static DavMachine machine;
static Function *running;
static void **arguments;

/* ---- races: who touched a place last, and after which barriers ---- */
enum { PLACES = 1 << 20, GRANULE = 1 };
struct Touch { unsigned thread, block_epoch, lane_epoch; bool any; };
struct Place { size_t at; unsigned generation; Touch wrote, read[2]; };
static std::vector<Place> places;
static unsigned generation;
static const void *raced;

static Touch now()
{
    const Fiber &f = fiber[current];
    unsigned lanes = 0;
    for (unsigned p : f.passed)
        lanes += p;
    return Touch{current, f.passed_block, lanes, true};
}

/* Nothing stands between them: no barrier of the block, and of the warp's none that both have passed. */
static bool unordered(const Touch &x, const Touch &y)
{
    bool warp = x.thread / 32 == y.thread / 32;
    return x.any && x.thread != y.thread && x.block_epoch == y.block_epoch && !(warp && x.lane_epoch != y.lane_epoch);
}

static Place *place_of(size_t granule)
{
    for (size_t i = granule * 0x9e3779b97f4a7c15ull >> 44, n = 0; n < PLACES; i = (i + 1) % PLACES, n++) {
        Place &p = places[i];
        if (p.generation != generation)
            p = Place{granule, generation, {}, {}};
        if (p.at == granule)
            return &p;
    }
    return NULL;
}

/* Blocks are never ordered: what one writes no other one may touch. */
struct Crossing { unsigned writer, reader; bool many; }; /* block + 1; many: it has several readers */
static std::unordered_map<size_t, Crossing> crossing;     /* of a launch, by address */

static bool crosses(size_t at, bool write)
{
    const unsigned me = machine.block + 1;
    Crossing &c = crossing[at];
    bool crossed = (c.writer && c.writer != me) || (write && (c.many || (c.reader && c.reader != me)));
    if (write)
        c.writer = me;
    else if (c.reader && c.reader != me)
        c.many = true;
    else
        c.reader = me;
    return crossed;
}

static void touch(const void *at, int bytes, bool write)
{
    if ((char *)at >= stacks && (char *)at < stacks + (size_t)STACK * DAV_MAX_THREADS)
        return; /* a thread's own */
    if ((char *)at >= (char *)&machine && (char *)at < (char *)(&machine + 1))
        return; /* what stands for the hardware */
    if ((char *)at >= region && (char *)at < region + region_bytes)
        for (size_t i = 0; i < (size_t)bytes; i++)
            raced = crosses((size_t)at + i, write) ? at : raced;
    Touch t = now();
    for (size_t g = (size_t)at / GRANULE; g <= ((size_t)at + (size_t)bytes - 1) / GRANULE; g++) {
        Place *p = place_of(g);
        if (!p)
            return;
        if (unordered(p->wrote, t) || (write && (unordered(p->read[0], t) || unordered(p->read[1], t))))
            raced = at;
        if (write)
            p->wrote = t;
        else if (!p->read[0].any || p->read[0].thread == t.thread)
            p->read[0] = t;
        else
            p->read[1] = t;
    }
}

static void pause_fiber()
{
    if (!_setjmp(fiber[current].at))
        _longjmp(scheduler, 1);
}

static void fiber_main()
{
    for (;;) {
        running->entry(arguments);
        fiber[current].done = true;
        pause_fiber();
    }
}

static int level_of(unsigned mask) { return __builtin_ctz((unsigned)__builtin_popcount(mask)); }

static void sync_block()
{
    fiber[current].passed_block++;
    fiber[current].wait = AT_BLOCK;
    pause_fiber();
}

static void sync_lanes(unsigned mask)
{
    fiber[current].passed[level_of(mask)]++;
    fiber[current].wait = AT_LANES;
    fiber[current].mask = mask;
    pause_fiber();
}

static bool may_run(unsigned i)
{
    Fiber *f = &fiber[i];
    if (f->done)
        return false;
    for (unsigned o = 0; f->wait == AT_BLOCK && o < nthreads; o++)
        if (!fiber[o].done && fiber[o].passed_block < f->passed_block)
            return false;
    for (unsigned l = 0; f->wait == AT_LANES && l < 32; l++) {
        Fiber *o = &fiber[(i & ~31u) + l];
        if (f->mask >> l & 1 && !o->done && o->passed[level_of(f->mask)] < f->passed[level_of(f->mask)])
            return false;
    }
    f->wait = READY;
    return true;
}

static void __attribute__((noinline)) resume(unsigned i)
{
    current = machine.thread = i;
    if (_setjmp(scheduler))
        return;
    if (fiber[i].begun)
        _longjmp(fiber[i].at, 1);
    fiber[i].begun = true;
    getcontext(&fiber[i].first);
    fiber[i].first.uc_stack.ss_sp = stacks + (size_t)i * STACK;
    fiber[i].first.uc_stack.ss_size = STACK;
    makecontext(&fiber[i].first, fiber_main, 0);
    setcontext(&fiber[i].first);
}

static bool run_block()
{
    for (unsigned i = 0; i < nthreads; i++) {
        Fiber *f = &fiber[i];
        f->done = false;
        f->wait = READY;
        f->passed_block = 0;
        memset(f->passed, 0, sizeof f->passed);
    }
    for (unsigned left = nthreads; left;) {
        bool moved = false;
        for (unsigned i = 0; i < nthreads; i++)
            if (may_run(i)) {
                resume(i);
                moved = true;
                left -= fiber[i].done;
            }
        if (!moved) {
            fprintf(stderr, "cuda stand-in: block %u hangs: its threads wait at different barriers\n", machine.block);
            return false;
        }
    }
    return true;
}

static bool run_grid(const Work &w)
{
    static std::vector<unsigned char> shared(shared_limit + 64);
    if (!stacks)
        stacks = (char *)mmap(NULL, (size_t)STACK * DAV_MAX_THREADS, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    std::vector<unsigned long long> args = w.args;
    std::vector<void *> at;
    for (size_t i = 0, word = 0; w.f->sizes[i]; word += (size_t)w.f->sizes[i++] / 8)
        at.push_back(&args[word]);
    arguments = at.data();
    running = w.f;
    *w.f->machine = &machine;
    machine.shared = shared.data() + (64 - (size_t)shared.data() % 64) % 64;
    machine.blocks = w.blocks;
    machine.memory = region;
    machine.memory_end = region + region_bytes;
    machine.access = touch;
    if (getenv("DAV_STANDIN_RACE"))
        places.resize(PLACES);
    machine.sync_block = sync_block;
    machine.sync_lanes = sync_lanes;
    nthreads = w.threads;
    std::vector<unsigned> order(w.blocks);
    std::iota(order.begin(), order.end(), 0u);
    if (const char *seed = getenv("DAV_STANDIN_SHUFFLE"))
        std::shuffle(order.begin(), order.end(), std::mt19937((unsigned)atoi(seed)));
    crossing.clear();
    for (unsigned b : order) {
        machine.block = b;
        memset(machine.shared, 0xff, w.shared);
        generation++;
        raced = NULL;
        if (!run_block())
            return false;
        if (raced) {
            fprintf(stderr, "cuda stand-in: threads of block %u race, or with another block, at %p\n", b, raced);
            return false;
        }
    }
    return true;
}

static int drain(Stream *s)
{
    open_memory(s->device, true);
    int status = OK;
    for (Work &w : s->queue)
        if (w.kind == LAUNCH)
            status = status || run_grid(w) ? status : LAUNCH_FAILED;
        else if (w.kind == CALL)
            w.call();
        else if (w.kind == FILL)
            memset((void *)w.to, (int)w.from, w.bytes);
        else {
            memmove((void *)w.to, (void *)w.from, w.bytes);
            bytes_to_device += w.kind == TO_DEVICE ? (long long)w.bytes : 0;
            bytes_to_host += w.kind == TO_HOST ? (long long)w.bytes : 0;
        }
    s->queue.clear();
    open_memory(s->device, false);
    return lost = status;
}

/* ---- devices ---- */
API long long dav_standin_live() { return live; }
API long long dav_standin_calls() { return ncalls; }
API long long dav_standin_waits() { return waits; } /* of the host for a stream */
API long long dav_standin_pending() /* copies and launches that nobody has waited for */
{
    long long n = 0;
    for (const Stream *s : streams)
        n += (long long)s->queue.size();
    return n;
}
API long long dav_standin_bytes_to_device() { return bytes_to_device; }
API long long dav_standin_bytes_to_host() { return bytes_to_host; }
/* The n-th call from now on fails; 0: none. */
API int dav_standin_fail_in(long long n) { fail_at = n ? ncalls + n : 0; return OK; }
/* The first call from the i-th place that has called since the last question with a negative i, which forgets all; 0: there are fewer. */
API long long dav_standin_site(int i)
{
    if (i < 0) {
        site_seen.clear();
        first_of_site.clear();
    }
    return i >= 0 && i < (int)first_of_site.size() ? first_of_site[(size_t)i] : 0;
}
API int cuInit(unsigned) { ENTER(); return setting("DAV_STANDIN_INIT", OK); }
API int cuDriverGetVersion(int *v) { ENTER(); *v = setting("DAV_STANDIN_VERSION", 13000); return OK; }
static int device_count() { return std::min(setting("DAV_STANDIN_DEVICES", 1), (int)MOST_DEVICES); }
API int cuDeviceGetCount(int *n) { ENTER(); *n = device_count(); return OK; }
API int cuDeviceGet(int *d, int i) { ENTER(); *d = i; return i >= 0 && i < device_count() ? OK : 101; }
API int cuDeviceGetName(char *to, int n, int) { ENTER(); const char *name = getenv("DAV_STANDIN_NAME"); snprintf(to, (size_t)n, "%s", name ? name : "stand-in"); return OK; }
static size_t memory_limit()
{
    const char *m = getenv("DAV_STANDIN_MEMORY");
    return m ? (size_t)atoll(m) : (size_t)4 << 30;
}
API int cuDeviceTotalMem_v2(size_t *n, int) { ENTER(); *n = memory_limit(); return OK; }
API int cuDeviceGetAttribute(int *v, int which, int)
{
    ENTER();
    const int sm = setting("DAV_STANDIN_SM", 90);
    *v = which == 75 ? sm / 10 : which == 76 ? sm % 10 : which == 97 ? (int)shared_most() : which == 16 ? 4 : 0;
    return OK;
}
static char context[MOST_DEVICES]; /* each place is a context */
API int cuDevicePrimaryCtxRetain(void **c, int device) { ENTER(); *c = &context[device]; live++; return OK; }
API int cuDevicePrimaryCtxRelease_v2(int) { LEAVE(); live--; return status; }
API int cuCtxSetCurrent(void *c) { ENTER(); current_device = c ? (int)((char *)c - context) : -1; return OK; }

/* ---- memory ---- */
API int cuMemGetInfo_v2(size_t *free, size_t *whole)
{
    ENTER();
    if (current_device < 0)
        return WRONG_CONTEXT;
    *whole = memory_limit();
    *free = *whole > used[current_device] ? *whole - used[current_device] : 0;
    return OK;
}
API int cuMemAlloc_v2(Ptr *to, size_t bytes)
{
    ENTER();
    if (capturing)
        return CAPTURE_UNSUPPORTED;
    if (!region)
        region = (char *)mmap(NULL, region_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    size_t whole = (bytes + 4095) / 4096 * 4096, at = 0;
    if (!bytes)
        return INVALID;
    if (current_device < 0)
        return WRONG_CONTEXT;
    if (used[current_device] + whole > memory_limit())
        return NO_MEMORY;
    for (auto &t : taken) { /* a page between two allocations is nobody's */
        if (t.first >= at + whole + 4096)
            break;
        at = t.first + t.second.bytes + 4096;
    }
    taken[at] = Taken{whole, current_device};
    used[current_device] += whole;
    live++;
    mprotect(region + at, whole, PROT_READ | PROT_WRITE);
    memset(region + at, 0xfb, whole); /* as floats: huge and negative */
    mprotect(region + at, whole, PROT_NONE);
    *to = (Ptr)(region + at);
    return OK;
}
API int cuMemFree_v2(Ptr p)
{
    LEAVE();
    auto t = taken.find((size_t)((char *)p - region));
    if (t == taken.end())
        return INVALID;
    madvise(region + t->first, t->second.bytes, MADV_DONTNEED);
    used[t->second.device] -= t->second.bytes;
    taken.erase(t);
    live--;
    return status;
}
API int cuMemHostAlloc(void **to, size_t bytes, unsigned)
{
    ENTER();
    if (!(*to = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096)))
        return NO_MEMORY;
    live++;
    return OK;
}
API int cuMemFreeHost(void *p) { LEAVE(); free(p); live--; return status; }

static int enqueue(Stream *s, int kind, Ptr to, Ptr from, size_t bytes)
{
    ENTER();
    if (s->device != current_device)
        return WRONG_CONTEXT;
    (s->capturing ? s->captured : s->queue).push_back(Work{kind, to, from, bytes, NULL, 0, 0, 0, {}});
    return OK;
}
API int cuMemcpyHtoDAsync_v2(Ptr to, const void *from, size_t n, Stream *s) { return enqueue(s, TO_DEVICE, to, (Ptr)from, n); }
API int cuMemcpyDtoHAsync_v2(void *to, Ptr from, size_t n, Stream *s) { return enqueue(s, TO_HOST, (Ptr)to, from, n); }
API int cuMemcpyDtoDAsync_v2(Ptr to, Ptr from, size_t n, Stream *s) { return enqueue(s, WITHIN, to, from, n); }
API int cuMemsetD8Async(Ptr to, unsigned char v, size_t n, Stream *s) { return enqueue(s, FILL, to, v, n); }

/* ---- streams ---- */
API int cuStreamCreate(Stream **s, unsigned) { ENTER(); streams.insert(*s = new Stream{current_device, {}, {}}); live++; return OK; }
API int cuStreamDestroy_v2(Stream *s) { LEAVE(); streams.erase(s); delete s; live--; return status; }
API int cuStreamSynchronize(Stream *s)
{
    ENTER();
    if (s->capturing) {
        s->broken = true;
        return CAPTURE_UNSUPPORTED;
    }
    waits++;
    return drain(s);
}

/* ---- modules and launches ---- */
API int cuModuleLoadData(Module **to, const void *image)
{
    ENTER();
    if (int refused = setting("DAV_STANDIN_LOAD", OK))
        return refused;
    /* Machine code runs on later devices of its generation, PTX on all later ones. */
    unsigned long long level, sm = (unsigned long long)setting("DAV_STANDIN_SM", 90);
    bool ptx = memcmp(image, "DAVPTX  ", 8) == 0;
    if (!ptx && memcmp(image, "DAVCUBIN", 8) != 0)
        return INVALID_IMAGE;
    memcpy(&level, (const char *)image + 8, sizeof level);
    if (level > sm || (!ptx && level / 10 != sm / 10))
        return NO_BINARY;
    size_t bytes;
    memcpy(&bytes, (const char *)image + 16, sizeof bytes);
    char path[] = "/tmp/dav-standin-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0)
        return UNKNOWN;
    bool ok = write(fd, (const char *)image + 24, bytes) == (ssize_t)bytes;
    close(fd);
    void *so = ok ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    unlink(path);
    if (!so)
        return INVALID_IMAGE;
    *to = new Module{so, current_device, {}};
    live++;
    return OK;
}
API int cuModuleUnload(Module *m)
{
    LEAVE();
    for (Function *f : m->functions)
        delete f;
    dlclose(m->so);
    delete m;
    live--;
    return status;
}
API int cuModuleGetFunction(Function **to, Module *m, const char *name)
{
    ENTER();
    auto entry = (void (*)(void **))dlsym(m->so, ("dav_entry_" + std::string(name)).c_str());
    auto sizes = (const int *const *)dlsym(m->so, ("dav_sizes_" + std::string(name)).c_str());
    auto at = (DavMachine **)dlsym(m->so, "dav_machine");
    if (!entry || !sizes || !at)
        return NOT_FOUND;
    m->functions.push_back(*to = new Function{entry, at, *sizes, 48 * 1024, m->device});
    return OK;
}
API int cuFuncSetAttribute(Function *f, int which, int v)
{
    ENTER();
    if (which != 8 || v > (int)shared_most())
        return INVALID;
    f->shared = (size_t)v;
    return OK;
}
API int cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                       Stream *s, void **params, void **)
{
    ENTER();
    if (!gx || gx > 0x7fffffffu || gy != 1 || gz != 1 || !bx || bx > DAV_MAX_THREADS || by != 1 || bz != 1 || shared > f->shared)
        return INVALID;
    if (s->device != current_device || f->device != current_device)
        return WRONG_CONTEXT;
    Work w = {LAUNCH, 0, 0, 0, f, gx, bx, shared, {}};
    int bytes = 0;
    for (int i = 0; f->sizes[i]; bytes += f->sizes[i++]) /* a parameter is a pointer or a table of them; its value is taken now */
        w.args.insert(w.args.end(), (unsigned long long *)params[i], (unsigned long long *)params[i] + f->sizes[i] / 8);
    if (bytes > 4096) /* CUDA C++ Programming Guide, "Function Parameters" */
        return INVALID;
    (s->capturing ? s->captured : s->queue).push_back(w);
    return OK;
}

/* ---- for libraries beside it ---- */
bool dav_standin_call()
{
    std::lock_guard<std::mutex> hold(lock);
    return fails(__builtin_return_address(0)) || lost;
}
void dav_standin_count(int objects)
{
    std::lock_guard<std::mutex> hold(lock);
    live += objects;
}
bool dav_standin_holds(const void *at, size_t bytes)
{
    std::lock_guard<std::mutex> hold(lock);
    for (auto &t : taken)
        if (t.second.device == current_device && (const char *)at >= region + t.first && (const char *)at + bytes <= region + t.first + t.second.bytes)
            return true;
    return false;
}
bool dav_standin_captures(const Stream *s) { return s->capturing; }
void dav_standin_queue(Stream *s, const std::function<void()> &work)
{
    std::lock_guard<std::mutex> hold(lock);
    Work w = {CALL, 0, 0, 0, NULL, 0, 0, 0, {}};
    w.call = work;
    (s->capturing ? s->captured : s->queue).push_back(w);
}

/* ---- graphs ---- */
API int cuStreamBeginCapture_v2(Stream *s, int mode)
{
    ENTER();
    if (s->capturing || mode < 0 || mode > 2)
        return INVALID;
    s->capturing = true;
    s->broken = false;
    capturing++;
    return OK;
}
API int cuStreamEndCapture(Stream *s, TaskGraph **g)
{
    LEAVE();
    *g = NULL;
    if (!s->capturing)
        return INVALID;
    s->capturing = false;
    capturing--;
    if (status == OK && !s->broken) {
        *g = new TaskGraph{s->device, s->captured};
        live++;
    }
    s->captured.clear();
    return status ? status : s->broken ? CAPTURE_INVALIDATED : OK;
}
API int cuGraphInstantiateWithFlags(TaskGraph **exec, TaskGraph *g, unsigned long long)
{
    ENTER();
    *exec = new TaskGraph{g->device, g->work};
    live++;
    return OK;
}
API int cuGraphLaunch(TaskGraph *exec, Stream *s)
{
    ENTER();
    if (exec->device != s->device || s->device != current_device)
        return WRONG_CONTEXT;
    s->queue.insert(s->queue.end(), exec->work.begin(), exec->work.end());
    return OK;
}
API int cuGraphDestroy(TaskGraph *g) { LEAVE(); delete g; live--; return status; }
API int cuGraphExecDestroy(TaskGraph *g) { LEAVE(); delete g; live--; return status; }

API int cuGetErrorName(int e, const char **to)
{
    *to = e == OK ? "CUDA_SUCCESS" : e == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : e == INVALID ? "CUDA_ERROR_INVALID_VALUE"
        : e == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : e == INVALID_IMAGE ? "CUDA_ERROR_INVALID_IMAGE"
        : e == NOT_FOUND ? "CUDA_ERROR_NOT_FOUND" : e == WRONG_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT" : e == NO_BINARY ? "CUDA_ERROR_NO_BINARY_FOR_GPU" : e == 222 ? "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
        : e == 100 ? "CUDA_ERROR_NO_DEVICE" : e == ILLEGAL ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_UNKNOWN";
    return OK;
}
API int cuGetErrorString(int e, const char **to) { return cuGetErrorName(e, to); }
