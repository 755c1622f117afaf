/* The model (docs/cuda.md, "Predictions"): time = launch + max(bytes / bandwidth reached, operations / rate reached).
 * The fractions of the peaks below are assumptions about code as this generator writes it, not measurements of it. */
#include "codegen/cuda/predict.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double launch_seconds = 1.5e-6;  /* from one kernel of a graph to the next */
static const double memory_reached = 0.85;    /* of the data sheet's bandwidth, by kernels with enough under way */
static const double memory_latency = 0.8e-6;  /* under load: bandwidth times it is what must be under way (Little's law) */
static const double bytes_of_thread = 32;     /* that a thread has under way */
static const double copied_ahead = 0.5;       /* of a product's panels in shared memory: the stages that are not multiplied now */
static const double l2_faster = 2;            /* what fits into half of the L2 is found there, at this many times the bandwidth */
static const double library_reached = 0.60;   /* by cuBLASLt, of either peak: the lower end of what is reported of an H100 */
/* mma.sync with stages of cp.async, as CUTLASS' kernels for sm_80 have them: those of others reach 0.8 to 0.95 of the peak of sm_80 and
 * sm_89; on Hopper only wgmma reaches the peak and mma.sync less, of sm_100 nothing is known.  Of that two thirds to
 * three quarters in large tiles: sums of a few hundred steps, rows of one image at a time.  Tiles below 100 x 128 (f32: 64 x 64) read their
 * panels more often than they multiply. */
static const double tensor_reached = 0.60, hopper_reached = 0.45, small_tensor_reached = 0.30;
static const double fma_reached = 0.60, small_fma_reached = 0.45;
static const double scalar_reached = 0.25;    /* elementwise code, index arithmetic beside it */
enum { ASSUMED_REGS = 128 };

typedef struct Limits { int sm, warps, blocks, shared, reserved; } Limits; /* of a multiprocessor; reserved: of shared memory a block */
/* CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". */
static const Limits limits[] = {
    {75, 32, 16, 65536, 0},     {80, 64, 32, 167936, 1024},  {86, 48, 16, 102400, 1024}, {89, 48, 24, 102400, 1024},
    {90, 64, 32, 233472, 1024}, {100, 64, 32, 233472, 1024}, {120, 48, 24, 102400, 1024},
};

static const Limits *limits_of(int sm)
{
    const Limits *best = &limits[0];
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (limits[i].sm <= sm)
            best = &limits[i];
    return best;
}

static bool number_before(const char *log, const char *words, int *value)
{
    const char *at = strstr(log, words);
    if (!at)
        return false;
    while (at > log && at[-1] >= '0' && at[-1] <= '9')
        at--;
    return sscanf(at, "%d", value) == 1;
}

bool cuda_use_of_log(const char *log, CudaUse *use)
{
    *use = (CudaUse){0};
    number_before(log, " bytes spill stores", &use->spill_bytes);
    number_before(log, " bytes smem", &use->shared_bytes);
    return use->known = number_before(log, " registers", &use->regs);
}

CudaUse cuda_use_assumed(void)
{
    return (CudaUse){.regs = ASSUMED_REGS};
}

int cuda_blocks_per_sm(const CudaTarget *t, int threads, int regs, int shared_bytes)
{
    const Limits *l = limits_of(t->sm);
    int warps = (threads + 31) / 32, of_warp = (regs * 32 + 255) / 256 * 256, shared = shared_bytes + l->reserved;
    int blocks = l->warps / warps;
    int by_regs = of_warp > 0 ? t->regs / of_warp / warps : blocks, by_shared = shared > 0 ? l->shared / shared : blocks;
    blocks = by_regs < blocks ? by_regs : blocks;
    blocks = by_shared < blocks ? by_shared : blocks;
    return blocks < l->blocks ? blocks : l->blocks;
}

static DavDtype product_dtype(const Graph *k) /* bool: no product */
{
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == OP_TILE_CONTRACT) {
            DavDtype t = (DavDtype)node_of(k, k_tile_contract_of(k, v).a)->dtype;
            return t == DAV_U32 ? DAV_BF16 : t;
        }
    return DAV_BOOL;
}

double cuda_peak_of(const CudaTarget *t, const Graph *kernel)
{
    DavDtype p = product_dtype(kernel);
    return p == DAV_BF16 && t->bf16_s > 0 ? t->bf16_s : p == DAV_F32 && t->tf32 && t->tf32_s > 0 ? t->tf32_s : t->f32_s;
}

static int64_t widest_tile(const Graph *k)
{
    int64_t widest = 0;
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == OP_TILE && attr_i(node_of(k, v), A_MR) * attr_i(node_of(k, v), A_NR) > widest)
            widest = attr_i(node_of(k, v), A_MR) * attr_i(node_of(k, v), A_NR);
    return widest;
}

static double reached(const CudaTarget *t, const Graph *kernel)
{
    DavDtype p = product_dtype(kernel);
    bool tensor = (p == DAV_BF16 && t->bf16_s > 0) || (p == DAV_F32 && t->tf32 && t->tf32_s > 0);
    int64_t widest = widest_tile(kernel);
    if (p == DAV_BOOL)
        return scalar_reached;
    if (!tensor)
        return widest > 64 * 64 ? fma_reached : small_fma_reached;
    return widest < 100 * 128 || t->sm == 100 ? small_tensor_reached : t->sm == 90 ? hopper_reached : tensor_reached;
}

/* The share of its bandwidth that a multiprocessor with so many blocks keeps busy: its threads' loads, and what a product's stages of
 * cp.async bring meanwhile. */
static double share_of_bandwidth(const CudaTarget *t, const CudaLaunch *l, const Graph *kernel, double blocks)
{
    bool copies = t->sm >= 80 && product_dtype(kernel) != DAV_BOOL;
    double of_block = l->threads * bytes_of_thread + (copies ? l->shared_bytes * copied_ahead : 0);
    return fmin(1, blocks * of_block / (t->bytes_s * memory_reached / t->sms * memory_latency));
}

/* A launch of that cost; `kernel` tells what kind of work it is. */
static CudaForecast forecast(const CudaTarget *t, const CudaLaunch *l, const CudaUse *use, const Graph *kernel, KernelCost c)
{
    CudaForecast f = {.bound = "launch"};
    if (l->blocks == 0)
        return f;
    f.blocks_per_sm = cuda_blocks_per_sm(t, l->threads, use->regs, use->shared_bytes + l->shared_bytes);
    if (f.blocks_per_sm < 1) /* would not launch; ptxas bounds registers, so it is shared memory */
        f.blocks_per_sm = 1;
    f.occupancy = (double)f.blocks_per_sm * ((l->threads + 31) / 32) / limits_of(t->sm)->warps;
    f.waves = (double)l->blocks / ((double)t->sms * f.blocks_per_sm);
    double active = fmin((double)l->blocks / t->sms, f.blocks_per_sm); /* blocks a multiprocessor, on average */
    double busy = fmin(1, (double)l->blocks / t->sms);                 /* multiprocessors that have a block */
    double tail = f.waves > 1 ? f.waves / ceil(f.waves) : 1;
    double rate = t->bytes_s * (c.bytes <= (double)t->l2_bytes / 2 ? l2_faster : 1);
    f.memory_s = c.bytes / (rate * memory_reached * fmin(busy, share_of_bandwidth(t, l, kernel, active)));
    f.compute_s = c.flops / (cuda_peak_of(t, kernel) * reached(t, kernel) * busy * tail);
    return f;
}

static CudaForecast with_launch(CudaForecast f)
{
    f.launch_s = launch_seconds;
    double work = fmax(f.memory_s, f.compute_s);
    f.seconds = f.launch_s + work;
    f.bound = work < f.launch_s ? "launch" : f.memory_s > f.compute_s ? "memory" : "compute";
    return f;
}

CudaForecast cuda_forecast(const CudaTarget *t, const CudaLaunch *l, const CudaUse *use, const Graph *kernel)
{
    return l->blocks == 0 ? forecast(t, l, use, kernel, (KernelCost){0}) : with_launch(forecast(t, l, use, kernel, kernel_cost(kernel)));
}

/* Together they fill the device as one kernel of their sizes would; each still takes as long as it does alone. */
CudaForecast cuda_forecast_group(const CudaTarget *t, const CudaLaunch *l, const CudaUse *use, const CudaPart *part, const CudaLaunch *of,
                                 int n)
{
    KernelCost sum = {0};
    double memory_s = 0, compute_s = 0;
    for (int i = 0; i < n; i++) {
        KernelCost c = kernel_cost(part[i].kernel);
        CudaForecast alone = forecast(t, &of[i], use, part[i].kernel, c);
        sum.bytes += part[i].count * c.bytes;
        sum.flops += part[i].count * c.flops;
        memory_s = fmax(memory_s, alone.memory_s);
        compute_s = fmax(compute_s, alone.compute_s);
    }
    CudaForecast f = forecast(t, l, use, part[0].kernel, sum);
    f.memory_s = fmax(f.memory_s, memory_s);
    f.compute_s = fmax(f.compute_s, compute_s);
    return l->blocks == 0 ? f : with_launch(f);
}

CudaForecast cuda_forecast_library(const CudaTarget *t, const Graph *kernel)
{
    KernelCost c = kernel_cost(kernel);
    double rate = t->bytes_s * (c.bytes <= (double)t->l2_bytes / 2 ? l2_faster : 1);
    return with_launch((CudaForecast){.memory_s = c.bytes / (rate * memory_reached),
                                      .compute_s = c.flops / (cuda_peak_of(t, kernel) * library_reached)});
}

double cuda_floor(const CudaTarget *t, double bytes, double seconds_at_peak)
{
    return launch_seconds + fmax(bytes / t->bytes_s, seconds_at_peak);
}
