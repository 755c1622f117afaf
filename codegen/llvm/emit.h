/* Emission of one kernel as LLVM IR: what the files of this folder share.
 *
 * A kernel is emitted as single program, multiple data: inside a vector loop the body is emitted for `width` lanes at once.  A
 * value there is uniform (an LLVM scalar), linear (an i64: the scalar of lane 0 and a constant stride by the lane) or varying
 * (an LLVM vector).  bf16 and f16 values are held as f32 that the narrow type can represent exactly; i64 lanes whose range is
 * known to fit are held as i32. */
#pragma once
#include "codegen/codegen.h"
#include "codegen/ranges.h"
#include <llvm-c/Core.h>

enum { MAX_UNROLL = 4, MAX_TILE_ROWS = 32, MAX_TILE_VECS = 16 };

typedef struct Lane {
    LLVMValueRef v; /* scalar or vector */
    bool varying;
    int64_t stride; /* linear where not 0: v is lane 0's */
} Lane;

/* Where an accumulator lives: one variable, and inside of a vector loop that joins it, partial ones by lane. */
typedef struct Acc {
    LLVMValueRef var;
    bool varying;                  /* made inside of a vector loop: var has lanes */
    LLVMValueRef part[MAX_UNROLL]; /* while the vector loop that joins it is emitted; else NULL */
} Acc;

typedef struct Tile {
    LLVMValueRef acc[MAX_TILE_ROWS][MAX_TILE_VECS]; /* variables of `lanes` f32 */
    LLVMValueRef memory; /* where it is instead of in variables, [row][vec]; NULL: there */
    Val first;           /* the product that makes its contents; 0: it starts as zeros */
    int mr, nr, lanes, vecs;
} Tile;

/* The function being emitted; math.c and its tests need no more than this. */
typedef struct Fn {
    const CpuTarget *target;
    LLVMContextRef cx;
    LLVMModuleRef mod;
    LLVMBuilderRef b;
    LLVMValueRef fn;
    LLVMTypeRef i1, i8, i16, i32, i64, f32, f64, ptr;
    int width;
} Fn;

/* Where a tile goes that is stored as it is; stride in bytes from row to row. */
typedef struct Place { LLVMValueRef at; int64_t stride; } Place;

typedef struct Emit {
    Fn f;
    const Graph *k;
    Arena *arena;
    LLVMBasicBlockRef entry; /* variables are made here */
    Lane *val;
    Acc **acc;
    Tile **tile;
    Range *range;
    Val *end; /* of for and if nodes */
    LLVMValueRef *buf;
    Val vector_loop;   /* 0 outside */
    LLVMValueRef mask; /* lanes that run; NULL: all */
    int part;          /* which partial accumulator takes updates */
    int chunk;         /* column chunk of a tile's epilogue, -1 outside */
    int64_t row;       /* unused unless in a row loop */
    Place place;       /* while such a tile is emitted; else NULL */
    LLVMValueRef registers; /* of AMX: what configures them, or stands for them; NULL: not used */
} Emit;

/* ---- fn.c: short names ---- */
LLVMTypeRef ll_vec(const Fn *f, LLVMTypeRef elem);             /* elem, or a vector of width of it */
LLVMTypeRef ll_like(const Fn *f, LLVMTypeRef elem, LLVMValueRef v); /* elem with as many lanes as v has */
int ll_lanes(LLVMValueRef v);                                  /* 1 for scalars */
LLVMValueRef ll_i64(const Fn *f, int64_t v);
LLVMValueRef ll_num(LLVMTypeRef t, double v);                /* constant of a float or integer type, splat */
LLVMValueRef ll_int(LLVMTypeRef t, int64_t v);
LLVMValueRef ll_splat(const Fn *f, LLVMValueRef scalar, int lanes);
LLVMValueRef ll_lane_ids(const Fn *f, LLVMTypeRef elem, int64_t stride); /* <0, s, 2s, ...> */
LLVMValueRef ll_call1(const Fn *f, const char *intrinsic, LLVMValueRef x);
LLVMValueRef ll_call2(const Fn *f, const char *intrinsic, LLVMValueRef x, LLVMValueRef y);
LLVMValueRef ll_intrinsic(const Fn *f, const char *name, LLVMTypeRef *over, int nover, LLVMValueRef *arg, int narg);
LLVMValueRef ll_fma(const Fn *f, LLVMValueRef x, LLVMValueRef y, LLVMValueRef z); /* product and sum apart where no FMA is */
LLVMValueRef ll_select(const Fn *f, LLVMValueRef c, LLVMValueRef x, LLVMValueRef y);
LLVMValueRef ll_shuffle(const Fn *f, LLVMValueRef x, LLVMValueRef y, const int *index, int n);
/* 16 vectors of 16 as a matrix: bit b of the column changes places with bit b of the row. */
void ll_transpose(const Fn *f, LLVMValueRef *v);
LLVMBasicBlockRef ll_block(const Fn *f, const char *name);
void ll_enter(const Fn *f, LLVMBasicBlockRef bb);
/* if (cond) { ... }: open gives the block that ll_endif goes on in. */
LLVMBasicBlockRef ll_if(const Fn *f, LLVMValueRef cond);
void ll_endif(const Fn *f, LLVMBasicBlockRef done);
/* for (iv = lo; iv < hi; iv += step): open gives iv, close ends the body. */
typedef struct Loop { LLVMBasicBlockRef body, done; LLVMValueRef iv, step, hi; } Loop;
Loop ll_loop(const Fn *f, LLVMValueRef lo, LLVMValueRef hi, int64_t step);
void ll_loop_end(const Fn *f, Loop *l);

/* ---- values.c ---- */
LLVMTypeRef elem_type(const Emit *e, Val v);            /* of a value's lanes */
LLVMValueRef as_scalar(Emit *e, Val v);                 /* dies when it varies */
LLVMValueRef as_lanes(Emit *e, Val v);                  /* vector inside of a vector loop, scalar outside */
LLVMValueRef as_index(Emit *e, Val v, bool narrow);     /* lanes of an i64 as i32 or i64 */
bool is_uniform(const Emit *e, Val v);
bool fits_i32(const Emit *e, Val v);
LLVMValueRef emit_variable(Emit *e, LLVMTypeRef t, const char *name);
void emit_elementwise(Emit *e, Val v);
void emit_cast(Emit *e, Val v);
void emit_bitcast(Emit *e, Val v);
void emit_exp2(Emit *e, Val v);
void emit_philox(Emit *e, Val v);

/* ---- memory.c ---- */
void emit_load(Emit *e, Val v);
void emit_store(Emit *e, Val v);
LLVMTypeRef memory_type(const Fn *f, DavDtype t);
LLVMValueRef load_masked(const Fn *f, LLVMTypeRef elem, LLVMValueRef ptr, LLVMValueRef mask, unsigned align);
LLVMValueRef element_ptr(const Fn *f, LLVMTypeRef elem, LLVMValueRef base, LLVMValueRef off);
LLVMValueRef widen_memory(const Fn *f, DavDtype t, LLVMValueRef v);  /* from what memory holds to lanes */
LLVMValueRef narrow_memory(const Fn *f, DavDtype t, LLVMValueRef v); /* back; exact */
LLVMValueRef round_to(const Fn *f, DavDtype t, LLVMValueRef f32);    /* f32 that t can represent */

/* ---- accumulators.c ---- */
void emit_acc(Emit *e, Val v);
void emit_acc_update(Emit *e, Val v);
void emit_acc_get(Emit *e, Val v);
void acc_parts_open(Emit *e, Val acc, int parts);
void acc_parts_close(Emit *e, Val acc, int parts);
LLVMValueRef num_max(const Fn *f, LLVMValueRef x, LLVMValueRef y, bool unsig); /* as op max */
LLVMValueRef num_min(const Fn *f, LLVMValueRef x, LLVMValueRef y, bool unsig);

/* ---- tile.c ---- */
void emit_tile(Emit *e, Val v);
void emit_tile_contract(Emit *e, Val v);
void emit_tile_get(Emit *e, Val v);

/* ---- transposed.c ---- */
bool emit_transposed(Emit *e, Val serial_loop); /* the loop's work where it turns columns into rows; false: it does not */

/* ---- amx_store.c ---- */
bool amx_store(Emit *e, Val row_loop); /* the loop's work and the product before it; false: it is not such a loop */

/* ---- amx.c: around a kernel's body ---- */
void amx_begin(Emit *e);
void amx_end(Emit *e);

/* ---- math.c: float lanes (f32 or f64) in, same out ---- */
LLVMValueRef math_exp(const Fn *f, LLVMValueRef x);
LLVMValueRef math_exp2(const Fn *f, LLVMValueRef x, DavDtype precision); /* of f32 */
LLVMValueRef math_expm1(const Fn *f, LLVMValueRef x);
LLVMValueRef math_log(const Fn *f, LLVMValueRef x);
LLVMValueRef math_log1p(const Fn *f, LLVMValueRef x);
LLVMValueRef math_sin(const Fn *f, LLVMValueRef x);
LLVMValueRef math_cos(const Fn *f, LLVMValueRef x);
LLVMValueRef math_atan(const Fn *f, LLVMValueRef x);
LLVMValueRef math_tanh(const Fn *f, LLVMValueRef x);
LLVMValueRef math_erf(const Fn *f, LLVMValueRef x);
LLVMValueRef math_round(const Fn *f, LLVMValueRef x); /* to nearest even */
LLVMValueRef math_floor(const Fn *f, LLVMValueRef x);
LLVMValueRef math_ceil(const Fn *f, LLVMValueRef x);

/* ---- kernel.c ---- */
void emit_range(Emit *e, Val from, Val to); /* the nodes [from, to) */
/* Adds the kernel to the module as `void symbol(ptr bufs, i64 lo, i64 hi, ptr scratch)`. */
void emit_kernel(Arena *arena, LLVMBuilderRef b, const CpuTarget *target, LLVMModuleRef mod, const Graph *k, const char *symbol);

/* ---- object.c ---- */
/* A compile thread's own LLVM: a context and a target machine. */
typedef struct Worker Worker;
Worker *worker_new(Err *err, const CpuTarget *target);
void worker_free(Worker *w);
bool worker_object(Worker *w, Err *err, const Graph *k, const char *symbol, Buf *object);
bool worker_text(Worker *w, Err *err, const Graph *k, const char *symbol, Buf *ir, Buf *assembly);
