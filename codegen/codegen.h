/* Kernel IR to machine code for the CPU, through LLVM.
 *
 * A Jit belongs to one CPU level.  jit_compile turns kernels into functions; equal kernels (graph_hash) become one.  Objects are
 * kept in a cache folder: a file an object, keyed by everything that its bytes depend on. */
#pragma once
#include "ir/kernel.h"

/* Runs iterations [lo, hi) of the kernel's parallel loop (numbered from 0 whatever its bounds, see kernel_trip).
 * bufs: by buffer index, each aligned to its element at least (64 bytes is best).
 * scratch: private memory of this thread, KernelCode.scratch_bytes, aligned to 64. */
typedef void (*KernelFn)(void *const *bufs, int64_t lo, int64_t hi, void *scratch);

typedef struct KernelCode {
    KernelFn fn; /* lives as long as the Jit */
    int64_t scratch_bytes;
    int64_t code_bytes; /* instructions and constants */
    double compile_ms;  /* LLVM's time, or the cache's; 0 for a kernel equal to an earlier one */
    bool from_cache;
    const char *miss_reason; /* why it did not come from the cache; NULL when it did */
    int same_as;             /* index of the earlier equal kernel of this call, -1: none */
} KernelCode;

enum { AMX_TILE_ROWS = 16 };

/* What the code generator knows of a machine. */
typedef struct CpuTarget {
    const char *name;     /* x86-64, haswell, skylake-avx512, cooperlake, sapphirerapids, neon */
    const char *triple;   /* of LLVM */
    const char *cpu;      /* LLVM's name */
    const char *features; /* LLVM's feature string beyond cpu */
    int vector_bytes;     /* of a vector register */
    int nregs;            /* vector registers */
    bool fma, avx512, avx512_bf16, amx;
    bool amx_emulated; /* for tests: tile products by vector code, on machines without AMX */
    int mr, nr; /* best register tile of f32: rows, columns; also for bf16 */
} CpuTarget;

/* The best level that this machine has, or `forced` (NULL: the environment's DAV_CPU, then the machine's).  A level that the
 * machine lacks, or an unknown one, is a user's error that says what is missing. */
bool cpu_target(Err *err, const char *forced, CpuTarget *out);
/* Any level, runnable here or not (for jit_text and jit_object). */
bool cpu_target_named(Err *err, const char *name, CpuTarget *out);
int cpu_target_count(void);
const char *cpu_target_name(int i);
/* The first thing that a level needs and this machine lacks; NULL: runs here. */
const char *cpu_target_lacks(const char *name);

typedef struct Jit Jit;
/* cache_dir NULL: no cache.  NULL with err set when LLVM cannot serve the target. */
Jit *jit_new(Err *err, const CpuTarget *target, const char *cache_dir);
void jit_free(Jit *j);
const CpuTarget *jit_target(const Jit *j);
/* Compiles kernels[0..n) on up to `threads` threads (0: all). */
bool jit_compile(Jit *j, Err *err, const Graph *const *kernels, int n, int threads, KernelCode *out);

/* Registers and spills of a kernel, counted in its assembly: the different vector registers that its instructions name, and
 * the stores that LLVM marks as a spill; one of 16 bytes or more is a vector's, a smaller one a pointer's or a number's. */
typedef struct AsmCount { int vector_registers, vector_spills, scalar_spills; } AsmCount;
AsmCount asm_count(const char *assembly, const CpuTarget *target);
/* LLVM IR, assembly and its counts of one kernel (each may be NULL). */
bool jit_text(const CpuTarget *target, Err *err, const Graph *kernel, Buf *llvm_ir, Buf *assembly, AsmCount *count);
/* A relocatable object that defines `symbol` as a KernelFn: for other machines. */
bool jit_object(const CpuTarget *target, Err *err, const Graph *kernel, const char *symbol, Buf *object);

/* DAV_CACHE_DIR, else $XDG_CACHE_HOME/dav, else $HOME/.cache/dav; false when none of them is set. */
bool jit_cache_dir(Buf *out);
const char *jit_llvm_version(void);
