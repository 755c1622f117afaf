/* The machine under generated kernels: all that is CUDA's own, inline PTX included.  The same names for a CPU, for tests, are in
 * tests/cuda_standin/machine.h; what stands on these names is in prelude.cu and is the same for both. */
#define DAV_FN static __device__ __forceinline__
#define DAV_MEMBER __device__ __forceinline__
#define DAV_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
#define DAV_ENTRY(name)
#define DAV_CONSTANT __grid_constant__ /* a parameter that is read where it lies */

DAV_FN unsigned dav_thread() { return threadIdx.x; }
DAV_FN unsigned dav_block() { return blockIdx.x; }
DAV_FN unsigned dav_blocks() { return gridDim.x; }

/* Memory of a block, undefined when it starts. */
#define DAV_SHARED(name, bytes) __shared__ __align__(16) unsigned char name[bytes]
/* As many bytes of it as the launch says. */
#define DAV_SHARED_BY_LAUNCH(name) extern __shared__ __align__(16) unsigned char name[]

DAV_FN void dav_sync_block() { __syncthreads(); }
DAV_FN void dav_sync_lanes(unsigned mask) { __syncwarp(mask); }
DAV_FN unsigned dav_shuffle(unsigned mask, unsigned v, int lane) { return __shfl_sync(mask, v, lane); }

DAV_FN float dav_fma(float x, float y, float z) { return __fmaf_rn(x, y, z); }
DAV_FN double dav_fma(double x, double y, double z) { return __fma_rn(x, y, z); }
DAV_FN unsigned dav_bits(float x) { return __float_as_uint(x); }
DAV_FN float dav_float(unsigned x) { return __uint_as_float(x); }
DAV_FN unsigned long long dav_bits(double x) { return (unsigned long long)__double_as_longlong(x); }
DAV_FN double dav_double(unsigned long long x) { return __longlong_as_double((long long)x); }

/* A place in a block's shared memory, to which offsets in bytes are added. */
typedef unsigned dav_place;
DAV_FN unsigned dav_kept(unsigned x) /* in a register: not to be computed anew where it is used */
{
    asm volatile("" : "+r"(x));
    return x;
}
DAV_FN dav_place dav_place_of(const void *shared) { return dav_kept((unsigned)__cvta_generic_to_shared(shared)); }
template <int N> struct dav_words { unsigned at[N]; };
DAV_FN dav_words<1> dav_load_words(dav_place p, dav_words<1> w)
{
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(w.at[0]) : "r"(p) : "memory");
    return w;
}
DAV_FN dav_words<4> dav_load_words(dav_place p, dav_words<4> w)
{
    asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];" : "=r"(w.at[0]), "=r"(w.at[1]), "=r"(w.at[2]), "=r"(w.at[3]) : "r"(p) : "memory");
    return w;
}

/* The same from any memory, and to it; the place is a multiple of the words' bytes. */
DAV_FN dav_words<1> dav_read_words(const void *p, dav_words<1>) { return {{*(const unsigned *)p}}; }
DAV_FN dav_words<2> dav_read_words(const void *p, dav_words<2>)
{
    const uint2 v = *(const uint2 *)p;
    return {{v.x, v.y}};
}
DAV_FN dav_words<4> dav_read_words(const void *p, dav_words<4>)
{
    const uint4 v = *(const uint4 *)p;
    return {{v.x, v.y, v.z, v.w}};
}
DAV_FN void dav_write_words(void *p, dav_words<1> w) { *(unsigned *)p = w.at[0]; }
DAV_FN void dav_write_words(void *p, dav_words<2> w) { *(uint2 *)p = make_uint2(w.at[0], w.at[1]); }
DAV_FN void dav_write_words(void *p, dav_words<4> w) { *(uint4 *)p = make_uint4(w.at[0], w.at[1], w.at[2], w.at[3]); }

#if __CUDA_ARCH__ >= 800
/* 16 bytes to shared memory, of which `bytes` are read and the others 0; complete after a commit and a wait. */
DAV_FN void dav_copy_part(dav_place to, const void *from, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
/* All 16 where there is any bit, else none: a predicate of the instruction. */
DAV_FN void dav_copy_line(dav_place to, const void *from, unsigned there)
{
    asm volatile("{ .reg .pred p; .reg .b32 n; setp.ne.u32 p, %2, 0; selp.b32 n, 16, 0, p; cp.async.cg.shared.global [%0], [%1], 16, n; }" ::"r"(to),
                 "l"(from), "r"(there)
                 : "memory");
}
DAV_FN void dav_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Until all but the N groups committed last are there, of this thread's. */
template <int N> DAV_FN void dav_copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/* Four 8x8 of 16 bits: lane l names row l % 8 of matrix l / 8 and gets of matrix i row l / 4, columns l % 4 * 2 and the next; across:
 * of column l / 4, rows l % 4 * 2 and the next. */
DAV_FN void dav_load_matrices(unsigned (&r)[4], dav_place row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
DAV_FN void dav_load_matrices_across(unsigned (&r)[4], dav_place row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

/* To nearest.  From sm_90 on ties to even, in one instruction; before, away from 0, in two (no NaN may become a number). */
DAV_FN unsigned dav_to_tf32(float x)
{
    unsigned r;
#if __CUDA_ARCH__ >= 900
    asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
#else
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
#endif
    return r;
}
/* d += a b for a 16x8 of A, 8x8 of B in tf32: PTX ISA, "Matrix fragments for mma.m16n8k8". */
DAV_FN void dav_mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else /* named in the prelude, used by no kernel of these levels */
DAV_FN void dav_copy_part(dav_place, const void *, int) {}
DAV_FN void dav_copy_line(dav_place, const void *, unsigned) {}
DAV_FN void dav_copy_commit() {}
template <int N> DAV_FN void dav_copy_wait() {}
DAV_FN void dav_load_matrices(unsigned (&)[4], dav_place) {}
DAV_FN void dav_load_matrices_across(unsigned (&)[4], dav_place) {}
DAV_FN unsigned dav_to_tf32(float) { return 0; }
DAV_FN void dav_mma_tf32(float (&)[4], const unsigned (&)[4], const unsigned (&)[2]) {}
DAV_FN void dav_mma_bf16(float (&)[4], const unsigned (&)[4], const unsigned (&)[2]) {}
#endif

/* d += a b for a 16x16 of A, 16x8 of B in bf16 pairs: PTX ISA, "Matrix fragments for mma.m16n8k16". */
#if __CUDA_ARCH__ >= 800
DAV_FN void dav_mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
