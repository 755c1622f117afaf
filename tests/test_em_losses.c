/* The losses of the M-step against their gradients written out by hand, in f64. */
#include "dav/dav.h"
#include "frontend/net.h"
#include "runtime/program.h"
#include "support/cuda.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { L = 3, V = 2, ROWS = 8 };

static void write_losses(DavNet *n, const void *context, int64_t rows)
{
    const double *kl = context;
    DavVal logits = dav_input(n, "logits", DAV_F32, 1, L, V + 1), logp0 = dav_input(n, "logp0", DAV_F32, 1, L, V);
    DavVal x = dav_input(n, "x", DAV_I64, rows, L), next = dav_input(n, "next", DAV_I64, rows, L);
    DavVal weight = dav_input(n, "weight", DAV_F32, rows), share = dav_input(n, "share", DAV_F32, rows);
    DavVal logp = dav_masked_logp(logits);
    DavVal each = dav_add(dav_masked_loss(logp, x, next), dav_mul(*kl, dav_masked_kl(logp, logp0, x, share)));
    DavVal total = dav_sum(dav_mul(weight, each));
    dav_output(n, "total", total);
    dav_output(n, "grad", dav_grad(total, logits));
}

/* The program's floats are those of the device: doubles under interp64, else f32. */
static void put(void *to, const double *from, int n, bool f32)
{
    for (int i = 0; i < n; i++)
        if (f32)
            ((float *)to)[i] = (float)from[i];
        else
            ((double *)to)[i] = from[i];
}

static double get(const void *from, int i, bool f32)
{
    return f32 ? ((const float *)from)[i] : ((const double *)from)[i];
}

static void exact_on(const char *device, double tolerance)
{
    const bool f32 = strcmp(device, "interp64") != 0;
    const double lambda = 0.7, c = 0.4;
    Arena *arena = arena_new();
    Err err = {0};
    DavNet *net = net_new(arena, &err, "losses");
    write_losses(net, &lambda, ROWS);
    Program *p = program_compile(&err, net->g, &(ProgramOptions){.compile = {.precision = DAV_F32}, .device = device});
    if (!p)
        fail_msg("%s", err.text);
    double logits[L][V + 1] = {{0.3, -1.1, 2}, {-0.4, 0.9, 0.1}, {1.3, 0.2, -3}}, logp0[L][V], weight[ROWS], share[ROWS];
    double total, grad[L * (V + 1)], want[L][V + 1] = {{0}}, pr[L][V], sum = 0;
    int64_t x[ROWS][L], next[ROWS][L];
    for (int l = 0; l < L; l++)
        for (int k = 0; k < V; k++) {
            pr[l][k] = exp(logits[l][k]) / (exp(logits[l][0]) + exp(logits[l][1]));
            logp0[l][k] = log(k ? 0.3 + 0.1 * l : 0.7 - 0.1 * l);
        }
    for (int i = 0; i < ROWS; i++) {
        weight[i] = 0.1 + 0.07 * i;
        share[i] = c;
        for (int l = 0; l < L; l++) {
            x[i][l] = (i + l) % 4 == 3 ? 1 : V; /* some positions are filled already */
            next[i][l] = x[i][l] != V ? x[i][l] : (i >> l & 1) ? V : (i + l) % 2;
            if (x[i][l] != V)
                continue;
            double kl = pr[l][0] * (log(pr[l][0]) - logp0[l][0]) + pr[l][1] * (log(pr[l][1]) - logp0[l][1]);
            sum += weight[i] * lambda * c * kl;
            if (next[i][l] != V)
                sum -= weight[i] * log(pr[l][next[i][l]]);
            for (int k = 0; k < V; k++) {
                want[l][k] += weight[i] * lambda * c * pr[l][k] * (log(pr[l][k]) - logp0[l][k] - kl);
                if (next[i][l] != V)
                    want[l][k] += weight[i] * (pr[l][k] - (next[i][l] == k));
            }
        }
    }
    double logits_in[L * (V + 1)], logp0_in[L * V], weight_in[ROWS], share_in[ROWS];
    put(logits_in, logits[0], L * (V + 1), f32);
    put(logp0_in, logp0[0], L * V, f32);
    put(weight_in, weight, ROWS, f32);
    put(share_in, share, ROWS, f32);
    void *in[6], *out[2];
    const struct { const char *name; void *at; } ins[] = {{"logits", logits_in}, {"logp0", logp0_in}, {"x", x}, {"next", next},
                                                          {"weight", weight_in}, {"share", share_in}};
    for (int i = 0; i < 6; i++)
        in[program_input(p, ins[i].name)] = ins[i].at;
    out[program_output(p, "total")] = &total;
    out[program_output(p, "grad")] = grad;
    if (!program_run(p, &err, in, out, 1, 1))
        fail_msg("%s", err.text);
    assert_true(fabs(get(&total, 0, f32) - sum) < tolerance);
    for (int l = 0; l < L; l++)
        for (int k = 0; k <= V; k++)
            assert_true(fabs(get(grad, l * (V + 1) + k, f32) - want[l][k]) < tolerance);
    program_free(p);
    net_free(net);
    arena_free(arena);
}

static void losses_have_the_exact_gradients(void **state)
{
    (void)state;
    exact_on("interp64", 1e-10);
    exact_on("cpu", 1e-5);
}

static void on_cuda(void **state)
{
    (void)state;
    cuda_or_skip();
    exact_on("cuda", 1e-5);
}

int main(void)
{
    cuda_choose();
    const struct CMUnitTest tests[] = {cmocka_unit_test(losses_have_the_exact_gradients), cmocka_unit_test(on_cuda)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
