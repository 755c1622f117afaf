#define _GNU_SOURCE
#include "kernels.h"
#include "ir/dtype.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

enum { MAX_BUFS = 8, MAX_LEVELS = 8 };

typedef struct Memory { char *map; size_t map_bytes; char *at; size_t bytes; } Memory;
typedef struct Level { const char *name; Jit *jit; } Level;

static Level level[MAX_LEVELS];
static int levels;

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

/* A kernel's buffers before the run, and after it by the interpreter's word. */
typedef struct Bufs { const Node *node[MAX_BUFS]; Memory start[MAX_BUFS], want[MAX_BUFS]; } Bufs;

static void bufs_prepare(const KernelCase *c, Bufs *b)
{
    assert_int_equal(c->kernel->err->kind, ERR_NONE);
    memset(b, 0, sizeof *b);
    void *at[MAX_BUFS] = {0};
    uint64_t seed = 0x9e3779b97f4a7c15u;
    for (Val v = 1; v < c->kernel->n; v++) {
        const Node *n = node_of(c->kernel, v);
        if (n->op != OP_BUF || attr_i(n, A_ROLE) == BUF_SCRATCH)
            continue;
        int i = (int)attr_i(n, A_INDEX);
        assert_in_range(i, 0, MAX_BUFS - 1);
        b->node[i] = n;
        int64_t count = node_count(c->kernel, v);
        b->start[i] = memory_new((size_t)count * dav_dtype_size((DavDtype)n->dtype));
        b->want[i] = memory_new(b->start[i].bytes);
        fill_random((DavDtype)n->dtype, b->start[i].at, count, &seed);
        at[i] = b->start[i].at;
    }
    if (c->fill)
        c->fill(at);
    for (int i = 0; i < MAX_BUFS; i++)
        if (b->node[i]) {
            memcpy(b->want[i].at, b->start[i].at, b->start[i].bytes);
            at[i] = b->want[i].at;
        }
    kernel_interpret(c->kernel, at);
}

static void bufs_free(Bufs *b)
{
    for (int i = 0; i < MAX_BUFS; i++)
        if (b->node[i]) {
            memory_free(&b->start[i]);
            memory_free(&b->want[i]);
        }
}

static void run_level(const KernelCase *c, const Level *l, const Bufs *b)
{
    Err err = {0};
    KernelCode code;
    if (!jit_compile(l->jit, &err, &c->kernel, 1, 1, &code))
        fail_msg("%s at %s: %s", c->kernel->name, l->name, err.text);
    Memory got[MAX_BUFS];
    void *at[MAX_BUFS] = {0};
    for (int i = 0; i < MAX_BUFS; i++)
        if (b->node[i]) {
            got[i] = memory_new(b->start[i].bytes);
            memcpy(got[i].at, b->start[i].at, b->start[i].bytes);
            at[i] = got[i].at;
        }
    int64_t trip = kernel_trip(c->kernel), cut = trip / 3;
    void *scratch = mem_alloc_aligned((size_t)code.scratch_bytes + 64, 64);
    memset(scratch, 0xcd, (size_t)code.scratch_bytes);
    code.fn(at, cut, trip, scratch);
    code.fn(at, 0, cut, scratch);
    code.fn(at, trip, trip, scratch);
    mem_free(scratch);
    for (int i = 0; i < MAX_BUFS; i++)
        if (b->node[i]) {
            compare(c, l->name, b->node[i], &b->want[i], &got[i]);
            memory_free(&got[i]);
        }
}

void kernel_check(const KernelCase *c)
{
    open_levels();
    Bufs b;
    bufs_prepare(c, &b);
    for (int i = 0; i < levels; i++)
        run_level(c, &level[i], &b);
    bufs_free(&b);
}

void kernel_check_on(const KernelCase *c, const CpuTarget *target)
{
    Err err = {0};
    Level l = {.name = target->name, .jit = jit_new(&err, target, NULL)};
    assert_non_null(l.jit);
    Bufs b;
    bufs_prepare(c, &b);
    run_level(c, &l, &b);
    bufs_free(&b);
    jit_free(l.jit);
}

/* ---- on an emulated machine: one program with all kernels, buffers through its standard input and output ---- */
static const char driver[] =
    "#include <stdint.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
    "typedef void (*Fn)(void *const *, int64_t, int64_t, void *);\n"
    "int main(void) {\n"
    "    for (int k = 0; k < COUNT; k++) {\n"
    "        int64_t head[10]; void *at[8] = {0};\n"
    "        if (fread(head, sizeof head, 1, stdin) != 1) return 1;\n"
    "        for (int i = 0; i < 8; i++) { at[i] = malloc((size_t)head[i] + 64); if (fread(at[i], 1, (size_t)head[i], stdin) != (size_t)head[i]) return 2; }\n"
    "        void *scratch = aligned_alloc(64, (size_t)(head[9] + 127) / 64 * 64);\n"
    "        table[k](at, 0, head[8], scratch);\n"
    "        for (int i = 0; i < 8; i++) fwrite(at[i], 1, (size_t)head[i], stdout);\n"
    "    }\n    return fflush(stdout) ? 3 : 0;\n}\n";

static void write_objects(const char *dir, const CpuTarget *t, const KernelCase *c, int n)
{
    Err err = {0};
    Buf source = {0}, path = {0}, decl = {0};
    for (int i = 0; i < n; i++) {
        Buf object = {0};
        char symbol[32], file[256];
        snprintf(symbol, sizeof symbol, "kernel_%d", i);
        snprintf(file, sizeof file, "%s/k%d.o", dir, i);
        if (!jit_object(t, &err, c[i].kernel, symbol, &object) || !file_write(&err, file, object.at, object.len))
            fail_msg("%s: %s", c[i].kernel->name, err.text);
        buf_free(&object);
        buf_printf(&decl, "void %s(void *const *, long, long, void *);\n", symbol);
        buf_printf(&source, "%s%s", i ? ", " : "void (*const table[])(void *const *, long, long, void *) = {", symbol);
    }
    buf_printf(&decl, "%s};\nenum { COUNT = %d };\n%s", source.at, n, driver);
    buf_printf(&path, "%s/driver.c", dir);
    assert_true(file_write(&err, path.at, decl.at, decl.len));
    buf_free(&source);
    buf_free(&path);
    buf_free(&decl);
}

static void shell(const char *fmt, const char *dir)
{
    Buf line = {0};
    for (const char *p = fmt; *p; p++)
        *p == '@' ? buf_str(&line, dir) : buf_add(&line, p, 1);
    int status = system(line.at);
    if (status != 0)
        fail_msg("failed: %s", line.at);
    buf_free(&line);
}

void kernel_check_aarch64(const KernelCase *c, int n)
{
    if (system("command -v qemu-aarch64 aarch64-linux-gnu-gcc >/dev/null 2>&1") != 0) {
        print_message("SKIPPED: needs qemu-aarch64 and aarch64-linux-gnu-gcc\n");
        skip();
    }
    Err err = {0};
    CpuTarget t;
    char dir[] = "/tmp/dav-neon-XXXXXX";
    assert_non_null(mkdtemp(dir));
    assert_true(cpu_target_named(&err, "neon", &t));
    write_objects(dir, &t, c, n);
    Bufs *b = calloc((size_t)n, sizeof *b);
    Buf in = {0}, path = {0};
    for (int k = 0; k < n; k++) {
        bufs_prepare(&c[k], &b[k]);
        int64_t head[10] = {[8] = kernel_trip(c[k].kernel), [9] = kernel_scratch(c[k].kernel, NULL)};
        for (int i = 0; i < MAX_BUFS; i++)
            head[i] = (int64_t)b[k].start[i].bytes;
        buf_add(&in, head, sizeof head);
        for (int i = 0; i < MAX_BUFS; i++)
            buf_add(&in, b[k].start[i].at, b[k].start[i].bytes);
    }
    buf_printf(&path, "%s/in", dir);
    assert_true(file_write(&err, path.at, in.at, in.len));
    shell("cd @ && aarch64-linux-gnu-gcc -O1 -w -static -o run driver.c k*.o && qemu-aarch64 ./run <in >out", dir);
    char *out;
    size_t len, at = 0;
    path.len = 0;
    buf_printf(&path, "%s/out", dir);
    assert_true(file_read(&err, path.at, in.len + 1, &out, &len));
    for (int k = 0; k < n; k++)
        for (int i = 0; i < MAX_BUFS; i++) {
            Memory got = {.at = out + at, .bytes = b[k].start[i].bytes};
            at += got.bytes;
            assert_true(at <= len);
            if (b[k].node[i])
                compare(&c[k], "neon", b[k].node[i], &b[k].want[i], &got);
        }
    for (int k = 0; k < n; k++)
        bufs_free(&b[k]);
    mem_free(out);
    buf_free(&in);
    buf_free(&path);
    free(b);
    shell("rm -r @", dir);
}
