/* codegen/cuda/machine.cu for a CPU: the same names, with the meaning that the CUDA C++ and PTX manuals give them.  The
 * threads of a block are fibers of driver.cc, which runs each until it waits; warps have 32 lanes. */
#pragma once
#include <math.h>
#include <string.h>

enum { DAV_MAX_THREADS = 1024 };

struct DavMachine {
    unsigned thread, block, blocks;
    unsigned char *shared;
    const char *memory; /* the device's, and where it ends */
    const char *memory_end;
    unsigned slot[DAV_MAX_THREADS];    /* what each lane shows the others in a shuffle */
    const void *row[DAV_MAX_THREADS];  /* and where its row of a matrix lies */
    unsigned a[DAV_MAX_THREADS][4], b[DAV_MAX_THREADS][2]; /* and in an mma */
    void (*access)(const void *at, int bytes, bool write); /* by the thread that runs, when races are watched */
    void (*sync_block)(void);
    void (*sync_lanes)(unsigned mask);
};

#ifndef DAV_STANDIN_DRIVER
extern "C" {
__attribute__((visibility("default"))) DavMachine *dav_machine;
}

#ifdef DAV_WATCH_RACES /* the compiler's hooks of -fsanitize=thread, before each access to memory */
#define DAV_HOOK extern "C" __attribute__((visibility("default"), no_sanitize("thread"))) void
#define DAV_HOOKS(n)                                                                   \
    DAV_HOOK __tsan_read##n(void *p) { dav_machine->access(p, n, false); }             \
    DAV_HOOK __tsan_write##n(void *p) { dav_machine->access(p, n, true); }             \
    DAV_HOOK __tsan_unaligned_read##n(void *p) { dav_machine->access(p, n, false); }   \
    DAV_HOOK __tsan_unaligned_write##n(void *p) { dav_machine->access(p, n, true); }
DAV_HOOKS(1)
DAV_HOOKS(2)
DAV_HOOKS(4)
DAV_HOOKS(8)
DAV_HOOKS(16)
DAV_HOOK __tsan_init(void) {}
DAV_HOOK __tsan_func_entry(void *) {}
DAV_HOOK __tsan_func_exit(void) {}
DAV_HOOK __tsan_read_range(void *p, unsigned long n) { dav_machine->access(p, (int)n, false); }
DAV_HOOK __tsan_write_range(void *p, unsigned long n) { dav_machine->access(p, (int)n, true); }
#endif

#define DAV_FN static inline __attribute__((unused))
#define DAV_MEMBER inline
#define DAV_KERNEL(threads) extern "C" void
#define DAV_ENTRY(name)
#define DAV_CONSTANT

DAV_FN unsigned dav_thread() { return dav_machine->thread; }
DAV_FN unsigned dav_block() { return dav_machine->block; }
DAV_FN unsigned dav_blocks() { return dav_machine->blocks; }
/* Blocks run one after the other and their first thread begins, so a static array is a block's memory. */
#define DAV_SHARED(name, bytes)                                                \
    static unsigned char name[bytes] __attribute__((aligned(16)));            \
    if (dav_machine->thread == 0)                                              \
    memset(name, 0xff, sizeof name)
#define DAV_SHARED_BY_LAUNCH(name) unsigned char *const name = dav_machine->shared
DAV_FN void dav_sync_block() { dav_machine->sync_block(); }
DAV_FN void dav_sync_lanes(unsigned mask) { dav_machine->sync_lanes(mask); }

DAV_FN unsigned dav_shuffle(unsigned mask, unsigned v, int lane)
{
    unsigned me = dav_machine->thread;
    dav_machine->slot[me] = v;
    dav_machine->sync_lanes(mask);
    unsigned got = dav_machine->slot[(me & ~31u) + ((unsigned)lane & 31u)];
    dav_machine->sync_lanes(mask);
    return got;
}

DAV_FN float dav_fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
DAV_FN double dav_fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
template <class To, class From> DAV_FN To dav_same_bits(From x)
{
    To to;
    static_assert(sizeof to == sizeof x, "sizes differ");
    memcpy(&to, &x, sizeof to);
    return to;
}
DAV_FN unsigned dav_bits(float x) { return dav_same_bits<unsigned>(x); }
DAV_FN float dav_float(unsigned x) { return dav_same_bits<float>(x); }
DAV_FN unsigned long long dav_bits(double x) { return dav_same_bits<unsigned long long>(x); }
DAV_FN double dav_double(unsigned long long x) { return dav_same_bits<double>(x); }

/* PTX ISA, "Matrix fragments for mma.m16n8k16": with g = lane / 4 and t = lane % 4, register i of A holds row g + 8 (i % 2),
 * k = 2 t + 8 (i / 2) and the next one; register i of B holds k = 2 t + 8 i and the next one of column g; element e of D is
 * row g + 8 (e / 2), column 2 t + e % 2. */
DAV_FN double dav_half_of(unsigned pair, int high) { return (double)dav_float(high ? pair & 0xffff0000u : pair << 16); }
DAV_FN void dav_mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
    DavMachine *m = dav_machine;
    unsigned me = m->thread, warp = me & ~31u, lane = me & 31u;
    memcpy(m->a[me], a, sizeof a);
    memcpy(m->b[me], b, sizeof b);
    m->sync_lanes(0xffffffffu);
    for (unsigned e = 0; e < 4; e++) {
        unsigned row = lane / 4 + e / 2 * 8, col = lane % 4 * 2 + e % 2;
        double sum = (double)d[e];
        for (unsigned k = 0; k < 16; k++) {
            unsigned t = k % 8 / 2, upper = k / 8;
            unsigned of_a = m->a[warp + row % 8 * 4 + t][upper * 2 + row / 8], of_b = m->b[warp + col * 4 + t][upper];
            sum += dav_half_of(of_a, (int)k % 2) * dav_half_of(of_b, (int)k % 2);
        }
        d[e] = (float)sum;
    }
    m->sync_lanes(0xffffffffu);
}

typedef unsigned char *dav_place;
DAV_FN dav_place dav_place_of(unsigned char *shared) { return shared; }
DAV_FN unsigned dav_kept(unsigned x) { return x; }
DAV_FN dav_place dav_kept(dav_place x) { return x; }
template <int N> struct dav_words { unsigned at[N]; };
template <int N> DAV_FN dav_words<N> dav_load_words(dav_place p, dav_words<N> w)
{
    if ((unsigned long long)p % (4 * N))
        __builtin_trap();
    for (int i = 0; i < N; i++)
        w.at[i] = ((const unsigned *)p)[i];
    return w;
}

/* A device faults where the place is no multiple of the words' bytes. */
typedef unsigned __attribute__((may_alias)) DavWord;
template <int N> DAV_FN dav_words<N> dav_read_words(const void *p, dav_words<N> w)
{
    if ((unsigned long long)p % (4 * N))
        __builtin_trap();
    for (int i = 0; i < N; i++)
        w.at[i] = ((const DavWord *)p)[i];
    return w;
}
template <int N> DAV_FN void dav_write_words(void *p, dav_words<N> w)
{
    if ((unsigned long long)p % (4 * N))
        __builtin_trap();
    for (int i = 0; i < N; i++)
        ((DavWord *)p)[i] = w.at[i];
}

/* ---- copies that happen when they are waited for; until then their place holds poison ---- */
enum { DAV_MAX_COPIES = 256 };
struct DavCopies {
    struct { unsigned char *to; const void *from; int bytes, group; } copy[DAV_MAX_COPIES];
    int count, group;
};
static DavCopies dav_copies[DAV_MAX_THREADS];

DAV_FN void dav_copy_part(dav_place to, const void *from, int bytes)
{
    DavCopies &c = dav_copies[dav_machine->thread];
    const bool in_memory = (const char *)from >= dav_machine->memory && (const char *)from + bytes <= dav_machine->memory_end;
    if (c.count == DAV_MAX_COPIES || bytes < 0 || (bytes && !in_memory) || bytes > 16 || ((unsigned long long)to & 15) || (bytes && ((unsigned long long)from & 15)))
        __builtin_trap(); /* misaligned, not in device memory, or never waited for */
    memset(to, 0xff, 16);
    c.copy[c.count].to = (unsigned char *)to;
    c.copy[c.count].from = from;
    c.copy[c.count].bytes = bytes;
    c.copy[c.count++].group = c.group;
}
DAV_FN void dav_copy_line(dav_place to, const void *from, unsigned there) { dav_copy_part(to, from, there ? 16 : 0); }
DAV_FN void dav_copy_commit() { dav_copies[dav_machine->thread].group++; }
template <int N> DAV_FN void dav_copy_wait()
{
    DavCopies &c = dav_copies[dav_machine->thread];
    int left = 0;
    for (int i = 0; i < c.count; i++)
        if (c.copy[i].group >= c.group - N) {
            c.copy[left++] = c.copy[i];
        } else {
            memset(c.copy[i].to, 0, 16);
            memcpy(c.copy[i].to, c.copy[i].from, (size_t)c.copy[i].bytes);
        }
    c.count = left;
}

/* PTX ISA, "Warp-level matrix load instruction: ldmatrix". */
DAV_FN unsigned short dav_matrix_element(unsigned warp, unsigned matrix, unsigned row, unsigned col)
{
    unsigned short x;
    memcpy(&x, (const unsigned char *)dav_machine->row[warp + matrix * 8 + row] + 2 * col, sizeof x);
    return x;
}
DAV_FN void dav_load_four(unsigned (&r)[4], const void *row, bool across)
{
    DavMachine *m = dav_machine;
    unsigned me = m->thread, warp = me & ~31u, lane = me & 31u, far = lane / 4, near = lane % 4 * 2;
    if ((unsigned long long)row & 15)
        __builtin_trap();
    m->row[me] = row;
    m->sync_lanes(0xffffffffu);
    for (unsigned i = 0; i < 4; i++) {
        unsigned low = across ? dav_matrix_element(warp, i, near, far) : dav_matrix_element(warp, i, far, near);
        unsigned high = across ? dav_matrix_element(warp, i, near + 1, far) : dav_matrix_element(warp, i, far, near + 1);
        r[i] = low | high << 16;
    }
    m->sync_lanes(0xffffffffu);
}
DAV_FN void dav_load_matrices(unsigned (&r)[4], dav_place row) { dav_load_four(r, row, false); }
DAV_FN void dav_load_matrices_across(unsigned (&r)[4], dav_place row) { dav_load_four(r, row, true); }

/* 10 bits of mantissa, to nearest: cvt.rn.tf32.f32 (sm_90), ties to even, and cvt.rna.tf32.f32, ties away from 0. */
DAV_FN unsigned dav_to_tf32(float x)
{
    unsigned b = dav_bits(x), half = DAV_LEVEL >= 90 ? 0xfffu + (b >> 13 & 1u) : 0x1000u;
    return (b & 0x7f800000u) == 0x7f800000u ? b : (b + half) & ~0x1fffu;
}
/* PTX ISA, "Matrix fragments for mma.m16n8k8" (tf32): register i of A holds row g + 8 (i % 2), k = t + 4 (i / 2); register i of B
 * k = t + 4 i of column g; D as above. */
DAV_FN void dav_mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
    DavMachine *m = dav_machine;
    unsigned me = m->thread, warp = me & ~31u, lane = me & 31u;
    memcpy(m->a[me], a, sizeof a);
    memcpy(m->b[me], b, sizeof b);
    m->sync_lanes(0xffffffffu);
    for (unsigned e = 0; e < 4; e++) {
        unsigned row = lane / 4 + e / 2 * 8, col = lane % 4 * 2 + e % 2;
        double sum = (double)d[e];
        for (unsigned k = 0; k < 8; k++)
            sum += (double)dav_float(m->a[warp + row % 8 * 4 + k % 4][k / 4 * 2 + row / 8]) * (double)dav_float(m->b[warp + col * 4 + k % 4][k / 4]);
        d[e] = (float)sum;
    }
    m->sync_lanes(0xffffffffu);
}

/* How the driver calls a kernel: from an array of pointers to its parameters. */
template <int... I> struct DavIndices {};
template <int N, int... I> struct DavCount : DavCount<N - 1, N - 1, I...> {};
template <int... I> struct DavCount<0, I...> { typedef DavIndices<I...> All; };
template <class... A, int... I> DAV_FN void dav_call_at(void (*f)(A...), void **p, DavIndices<I...>) { f(*(A *)p[I]...); }
template <class... A> DAV_FN void dav_call(void (*f)(A...), void **p)
{
    dav_call_at(f, p, typename DavCount<(int)sizeof...(A)>::All());
}
/* Bytes of each parameter, then 0. */
template <class F> struct DavSizes;
template <class... A> struct DavSizes<void(A...)> { static constexpr int at[] = {(int)sizeof(A)..., 0}; };
#endif
