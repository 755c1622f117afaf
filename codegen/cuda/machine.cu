/* The machine under generated kernels: all that is CUDA's own, inline PTX included.  The same names for a CPU, for tests, are in
 * tests/cuda_standin/machine.h; what stands on these names is in prelude.cu and is the same for both. */
#define DAV_FN static __device__ __forceinline__
#define DAV_MEMBER __device__ __forceinline__
#define DAV_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
#define DAV_ENTRY(name)

DAV_FN unsigned dav_thread() { return threadIdx.x; }
DAV_FN unsigned dav_block() { return blockIdx.x; }
DAV_FN unsigned dav_blocks() { return gridDim.x; }

/* Memory of a block, undefined when it starts. */
#define DAV_SHARED(name, bytes) __shared__ __align__(16) unsigned char name[bytes]

DAV_FN void dav_sync_block() { __syncthreads(); }
DAV_FN void dav_sync_lanes(unsigned mask) { __syncwarp(mask); }
DAV_FN unsigned dav_shuffle(unsigned mask, unsigned v, int lane) { return __shfl_sync(mask, v, lane); }

DAV_FN float dav_fma(float x, float y, float z) { return __fmaf_rn(x, y, z); }
DAV_FN double dav_fma(double x, double y, double z) { return __fma_rn(x, y, z); }
DAV_FN unsigned dav_bits(float x) { return __float_as_uint(x); }
DAV_FN float dav_float(unsigned x) { return __uint_as_float(x); }
DAV_FN unsigned long long dav_bits(double x) { return (unsigned long long)__double_as_longlong(x); }
DAV_FN double dav_double(unsigned long long x) { return __longlong_as_double((long long)x); }

/* d += a b for a 16x16 of A, 16x8 of B in bf16 pairs: PTX ISA, "Matrix fragments for mma.m16n8k16". */
#if __CUDA_ARCH__ >= 800
DAV_FN void dav_mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
