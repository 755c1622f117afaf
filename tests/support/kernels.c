#define _GNU_SOURCE
#include "kernels.h"
#include "ir/dtype.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

enum { MAX_BUFS = 8, MAX_LEVELS = 8 };

typedef struct Memory { char *map; size_t map_bytes; char *at; size_t bytes; } Memory;
typedef struct Level { const char *name; Jit *jit; } Level;

static Level level[MAX_LEVELS];
static int levels;
static const char *only;

void kernel_only_level(const char *name)
{
    only = name;
}

static void open_levels(void)
{
    Err err = {0};
    if (levels)
        return;
    for (int i = 0; i < cpu_target_count(); i++) {
        CpuTarget t;
        if (cpu_target_lacks(cpu_target_name(i)))
            continue;
        assert_true(cpu_target(&err, cpu_target_name(i), &t));
        level[levels].name = cpu_target_name(i);
        level[levels].jit = jit_new(&err, &t, NULL);
        assert_non_null(level[levels++].jit);
    }
}

static Memory memory_new(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + page - 1) / page * page;
    Memory m = {.map_bytes = body + page, .bytes = bytes};
    m.map = mmap(NULL, m.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(m.map, MAP_FAILED);
    assert_int_equal(mprotect(m.map + body, page, PROT_NONE), 0);
    m.at = m.map + body - bytes;
    return m;
}

static void memory_free(Memory *m)
{
    munmap(m->map, m->map_bytes);
}

static uint64_t next(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static void put(DavDtype t, char *at, double v, int64_t i)
{
    float f = (float)v;
    uint16_t h = t == DAV_F16 ? f16_from_f32(f) : bf16_from_f32(f);
    int32_t w = (int32_t)i;
    switch (t) {
    case DAV_F64:
        memcpy(at, &v, 8);
        break;
    case DAV_F32:
        memcpy(at, &f, 4);
        break;
    case DAV_BF16:
    case DAV_F16:
        memcpy(at, &h, 2);
        break;
    case DAV_I64:
        memcpy(at, &i, 8);
        break;
    case DAV_BOOL:
        *at = i & 1;
        break;
    default:
        memcpy(at, &w, 4);
    }
}

/* Floats in (-3, 3) with some exact integers among them; integers small, now and then extreme. */
static void fill_random(DavDtype t, char *at, int64_t n, uint64_t *seed)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = next(seed);
        double v = (double)(r >> 11) * 0x1p-53 * 6 - 3;
        int64_t w = (int64_t)(r >> 33) % 41 - 20;
        if (r % 13 == 0)
            v = (double)(int)v;
        if (r % 29 == 0)
            w = t == DAV_I64 ? (r & 64 ? INT64_MIN : INT64_MAX) : (r & 64 ? INT32_MIN : INT32_MAX);
        put(t, at + i * (int64_t)dav_dtype_size(t), v, w);
    }
}

static double get(DavDtype t, const char *at)
{
    float f;
    double d;
    uint16_t h;
    memcpy(&h, at, 2);
    if (t == DAV_BF16)
        return bf16_to_f32(h);
    if (t == DAV_F16)
        return f16_to_f32(h);
    if (t == DAV_F32)
        return memcpy(&f, at, 4), (double)f;
    return memcpy(&d, at, 8), d;
}

static double default_tolerance(DavDtype t)
{
    return t == DAV_F64 ? 1e-13 : t == DAV_F32 ? 4e-7 : t == DAV_F16 ? 1.1e-3 : 8e-3;
}

static void compare(const KernelCase *c, const char *where, const Node *buf, const Memory *want, const Memory *got)
{
    DavDtype t = (DavDtype)buf->dtype;
    size_t size = dav_dtype_size(t);
    double tol = c->tolerance > 0 ? c->tolerance : default_tolerance(t);
    for (size_t i = 0; i < want->bytes; i += size) {
        if (memcmp(want->at + i, got->at + i, size) == 0)
            continue;
        if (!dav_dtype_is_float(t))
            fail_msg("%s at %s: buffer %s[%zu] differs", c->kernel->name, where, attr_s(buf, A_NAME), i / size);
        double w = get(t, want->at + i), g = get(t, got->at + i);
        if ((isnan(w) && isnan(g)) || w == g)
            continue;
        if (!(fabs(w - g) <= tol * fmax(1, fabs(w))))
            fail_msg("%s at %s: buffer %s[%zu]: expected %.9g, found %.9g", c->kernel->name, where, attr_s(buf, A_NAME), i / size, w, g);
    }
}

static void run_level(const KernelCase *c, const Level *l, const Memory *start, const Memory *want, const Node *const *buf)
{
    Err err = {0};
    KernelCode code;
    if (!jit_compile(l->jit, &err, &c->kernel, 1, 1, &code))
        fail_msg("%s at %s: %s", c->kernel->name, l->name, err.text);
    Memory got[MAX_BUFS];
    void *bufs[MAX_BUFS] = {0};
    for (int i = 0; i < MAX_BUFS; i++)
        if (buf[i]) {
            got[i] = memory_new(start[i].bytes);
            memcpy(got[i].at, start[i].at, start[i].bytes);
            bufs[i] = got[i].at;
        }
    int64_t trip = kernel_trip(c->kernel), cut = trip / 3;
    void *scratch = mem_alloc_aligned((size_t)code.scratch_bytes + 64, 64);
    memset(scratch, 0xcd, (size_t)code.scratch_bytes);
    code.fn(bufs, cut, trip, scratch);
    code.fn(bufs, 0, cut, scratch);
    code.fn(bufs, trip, trip, scratch);
    mem_free(scratch);
    for (int i = 0; i < MAX_BUFS; i++)
        if (buf[i]) {
            compare(c, l->name, buf[i], &want[i], &got[i]);
            memory_free(&got[i]);
        }
}

void kernel_check(const KernelCase *c)
{
    open_levels();
    assert_int_equal(c->kernel->err->kind, ERR_NONE);
    const Node *buf[MAX_BUFS] = {0};
    Memory start[MAX_BUFS], want[MAX_BUFS];
    void *bufs[MAX_BUFS] = {0};
    uint64_t seed = 0x9e3779b97f4a7c15u;
    for (Val v = 1; v < c->kernel->n; v++) {
        const Node *n = node_of(c->kernel, v);
        if (n->op != OP_BUF || attr_i(n, A_ROLE) == BUF_SCRATCH)
            continue;
        int i = (int)attr_i(n, A_INDEX);
        assert_in_range(i, 0, MAX_BUFS - 1);
        buf[i] = n;
        int64_t count = node_count(c->kernel, v);
        start[i] = memory_new((size_t)count * dav_dtype_size((DavDtype)n->dtype));
        want[i] = memory_new(start[i].bytes);
        fill_random((DavDtype)n->dtype, start[i].at, count, &seed);
        bufs[i] = start[i].at;
    }
    if (c->fill)
        c->fill(bufs);
    for (int i = 0; i < MAX_BUFS; i++)
        if (buf[i]) {
            memcpy(want[i].at, start[i].at, start[i].bytes);
            bufs[i] = want[i].at;
        }
    kernel_interpret(c->kernel, bufs);
    for (int i = 0; i < levels; i++)
        if (!only || strcmp(only, level[i].name) == 0)
            run_level(c, &level[i], start, want, buf);
    for (int i = 0; i < MAX_BUFS; i++)
        if (buf[i]) {
            memory_free(&start[i]);
            memory_free(&want[i]);
        }
}
