/* Reverse-mode differentiation of graphs; inside of passes/ alone.
 *
 * A sweep walks one graph backwards from given values and appends the nodes of the cotangents to the same graph, so that
 * forward values are shared by name and a result can be differentiated again. */
#pragma once
#include "ir/graph.h"

typedef struct Sweep {
    Graph *g;
    int n;           /* values below n take part; those from n on are cotangents made by this sweep */
    Val *ct;         /* cotangent of a value so far; 0: none yet */
    Val **result_ct; /* of a tuple: cotangents of its results, NULL: none yet */
    bool *needed;    /* depends on what is differentiated for */
} Sweep;

/* Adds c to the cotangent of x, when x is needed. */
void sweep_give(Sweep *s, Val x, Val c);
/* Does x take a cotangent?  (A rule need not build one otherwise.) */
bool sweep_wants(const Sweep *s, Val x);

/* grad[i] = d (sum over k of <seed[k], y[k]>) / d x[i]; zeros where nothing depends on x[i]. */
void graph_vjp(Graph *g, const Val *y, const Val *seed, int ny, const Val *x, int nx, Val *grad);

/* Gives cotangents to the operands of v, whose own is ct (0 for a tuple: see result_ct). */
typedef void (*GradRule)(Sweep *s, Val v, Val ct);
extern const GradRule grad_rule[OP_COUNT];
bool op_has_grad(Op op);

/* passes/contract_grad.c: cotangent of operand o (0 or 1) of the contraction v. */
Val contract_grad(Graph *g, Val v, int o, Val ct);

/* passes/attention_grad.c: cotangents of the operands of attention and of attention_grad. */
void attention_vjp(Sweep *s, Val v);
void attention_grad_vjp(Sweep *s, Val v);

/* passes/loop_grad.c */
void loop_grad(Sweep *s, Val loop);
/* A loop whose body also stacks every carried value as it comes into an iteration; differentiating needs those. */
Val loop_stacking(Graph *g, const Graph *body, const Val *arg, int narg, int64_t trip, int carry, int scan);
