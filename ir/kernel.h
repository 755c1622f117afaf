/* Kernel IR: what a fused region becomes, and the only thing that code generators read.
 *
 * A kernel is a Graph of kernel-level nodes in program order (no_fold set).  Loops are opened by `for` and closed by `end`;
 * a value may be used in the body it was made in and deeper.  Values are scalars: the code generator gives them lanes.
 *
 *   buf    a parameter: role in, out, inout; scratch: private to one iteration of the parallel loop.  Two of role in may have one
 *          index where their dtypes differ: the same memory, read as numbers and as words of two, say
 *   for    kind parallel: exactly one, the outermost; its iterations are independent and are spread over threads (blocks)
 *          kind serial:   in order
 *          kind vector:   iterations are independent but for accumulators; run in lanes (SIMD) or by the threads of a block.
 *                         hi need not be a multiple of the width: the rest is masked.  Never nested in another vector loop.
 *          kind unroll:   in order, unrolled
 *          kind row:      over the rows of a register tile, unrolled; only around tile_get
 *   Offsets are i64 sums of products of loop variables and constants, in elements; the code generator finds the stride by
 *   the lane from the expression (0: uniform, 1: contiguous, else gather).
 *
 * tile_contract: tile[r, j] += sum over k in [0, K) of A(r, k) * B(k, j), r < mr, j < nr, f32 accumulation, FMA where the level
 * has it, k ascending.
 *   operands  %0 tile  %1 A buffer  %2 B buffer  %3 i64 offset of A without its row index  %4 i64 row index numerator of row 0
 *             %5 i64 offset of B   %6 i64 number of valid rows (rows beyond hold anything and must not be stored)  %7 i64 K
 *             %8 i64 number of valid columns of an unpacked B (columns beyond are not read and hold 0); absent: all nr
 *   nums      [a_row_step, a_div, a_ext, a_row_stride, a_k_stride, b_k_stride, b_col_stride, b_packed]
 *   Row r reads A at %3 + i_r * a_row_stride + k * a_k_stride, where i_r = (%4 + r * a_row_step) / a_div; as zeros where the
 *   division leaves a remainder or i_r is outside of [0, a_ext).  a_ext = 0: no check (always inside).
 *   b_packed = 1: B is a packed panel: [K][nr] of B's dtype (bf16: [K/2][nr][2], K odd padded with zero); else B is read at
 *   %5 + k * b_k_stride + j * b_col_stride, b_col_stride 1.
 *   Operands of u32 (both or none) are pairs of bf16, k even in the low half; K is even, and k strides go from pair to pair.
 *   A packed panel of u32 beside an A of bf16 is a packed panel of bf16 (its words are the pairs).
 *   With bf16 operands the products are exact and accumulate in f32 (pairs of k in hardware order: two-term dot, then add).
 *   Fastest: rows a constant equal to mr, in equal tiles (200 rows: 30 tiles of 6 and 4 of 5; a tile of 1 or 2 rows waits for B),
 *   K a constant, a_div 1; bf16: B packed, or the rows of A next to each other.
 *
 * What the code generator asks of a kernel:
 *   - an unpacked B in scratch has rows up to the next multiple of 16 from K on, which hold numbers (they count as 0, but are read);
 *   - bounds of loops and conditions of ifs are uniform (do not depend on a vector loop's variable);
 *   - an accumulator made outside of a vector loop and updated inside is joined at that loop's end; it is not read inside of
 *     the loop.  One that is made inside is private to the lane, of any kind (ACC_SET: a variable).  ACC_SET from outside of
 *     a vector loop is never updated inside;
 *   - tile_get: the row is a LOOP_ROW variable or a constant, the column is exactly the variable of a vector loop that starts
 *     at 0 (bounds lo 0, hi <= nr, dynamic or not, step 1);
 *   - steps of vector loops are 1;
 *   - an input buffer may share memory with an output only where each element is read by no other lane, iteration or offset
 *     than the one that writes it;
 *   - scratch buffers keep their contents for one iteration of the parallel loop and start undefined.
 * Names of buffers and of the kernel do not reach the machine code; equal kernels should name them equally (p0, p1, ...), since
 * graph_hash reads them.
 */
#pragma once
#include "ir/graph.h"

typedef enum { LOOP_PARALLEL, LOOP_SERIAL, LOOP_VECTOR, LOOP_UNROLL, LOOP_ROW } LoopKind;
typedef enum { BUF_IN, BUF_OUT, BUF_INOUT, BUF_SCRATCH } BufRole;
typedef enum { ACC_ADD, ACC_MAX, ACC_MIN, ACC_SET } AccKind;

typedef struct TileContract {
    Val tile, a, b, a_off, row0, b_off, rows, k;
    Val cols; /* 0: all nr */
    int64_t a_row_step, a_div, a_ext, a_row_stride, a_k_stride, b_k_stride, b_col_stride, b_packed;
} TileContract;

/* Builders; all append to the sequence. */
Graph *kernel_new(Arena *arena, Err *err, const char *name);
Val k_buf(Graph *k, const char *name, BufRole role, int index, Type t);
/* Whether an earlier buffer is the same memory, read as another type. */
bool k_buf_is_view(const Graph *k, Val buf);
Val k_for(Graph *k, LoopKind kind, int64_t lo, int64_t hi, int64_t step);
Val k_for_dyn(Graph *k, LoopKind kind, Val lo, Val hi, int64_t step);
void k_end(Graph *k, Val loop_or_if);
Val k_if(Graph *k, Val cond);
Val k_int(Graph *k, int64_t v);                  /* i64 constant */
Val k_num(Graph *k, DavDtype t, double v);       /* scalar constant */
Val k_op(Graph *k, Op op, Val x, Val y, Val z);  /* scalar elementwise; folds i64 constants */
Val k_cast(Graph *k, Val x, DavDtype to);
Val k_bitcast(Graph *k, Val x, DavDtype to);
/* 2^x of an f32; precision: DAV_F32, or DAV_BF16 for what becomes one. */
Val k_exp2(Graph *k, Val x, DavDtype precision);
/* Word `index` (0..3) of Philox4x32-10; key has 2, counter 4 values, all u32. */
Val k_philox(Graph *k, const Val key[2], const Val counter[4], int index);
Val k_load(Graph *k, Val buf, Val off, Val mask_or_0);
void k_store(Graph *k, Val buf, Val off, Val v, Val mask_or_0);
Val k_acc(Graph *k, DavDtype t, AccKind kind, double start);
void k_acc_update(Graph *k, Val acc, Val v);
Val k_acc_get(Graph *k, Val acc);
/* What an integer accumulator starts as: its value attribute, infinities and beyond clamped to the dtype's range. */
int64_t k_acc_start_int(const Node *acc);
Val k_tile(Graph *k, int mr, int nr);
void k_tile_contract(Graph *k, const TileContract *t);
TileContract k_tile_contract_of(const Graph *k, Val v);
Val k_tile_get(Graph *k, Val tile, Val row, Val col);
/* Trip count of the parallel loop. */
int64_t kernel_trip(const Graph *k);
/* Bytes of scratch that one thread needs; offset[v], when given (k->n entries), is where buffer v starts. */
int64_t kernel_scratch(const Graph *k, int64_t *offset);
/* The meaning of kernel IR: runs it on host memory, one element at a time.  bufs by buf index. */
void kernel_interpret(const Graph *k, void *const *bufs);
