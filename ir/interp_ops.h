/* The interpreter's tensors and ops; for ir/interp*.c alone. */
#pragma once
#include "ir/interp.h"

typedef struct Tensor {
    Type t; /* as it is stored */
    void *data;
} Tensor;

/* One node without a region: operands x, results into out.  `work` has interp_work_bytes() of zeroed memory. */
void interp_op(const Graph *g, const Node *n, const Tensor *x, Tensor *out, void *work);
size_t interp_work_bytes(const Node *n, const Tensor *x, const Tensor *out);

/* ---- elements ---- */
double get_f64(const Tensor *t, int64_t i);
int64_t get_i64(const Tensor *t, int64_t i); /* of an integer or bool */
void put_f64(Tensor *t, int64_t i, double v); /* rounds to the float dtype; v != 0 for bool */
void put_i64(Tensor *t, int64_t i, int64_t v); /* wraps */
int64_t int_saturate(DavDtype t, double v);   /* towards 0, to the range of t; NaN gives 0 */
int64_t count_of(const Tensor *t);
void strides_of(const Type *t, int64_t stride[IR_MAX_RANK]);
/* The next index in row-major order; false after the last one. */
bool next_index(int64_t at[IR_MAX_RANK], const Type *t);

size_t interp_contract_bytes(const Tensor *a, const Tensor *b, const Tensor *out);
void interp_contract(const ContractSpec *s, const Tensor *a, const Tensor *b, Tensor *out, void *work);
/* attention, attention_grad: out has the tuple's results; work zeroed. */
size_t interp_attention_bytes(const Node *n, const Tensor *x);
void interp_attention(const Node *n, const Tensor *x, Tensor *out, void *work);
void interp_move(const Node *n, const Tensor *x, Tensor *out); /* shape ops, gather */
