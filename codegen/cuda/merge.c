/* One launch for several kernels: each is a device function, blocks are dealt out to them in order.  Here are two launches
 * of part0, of 16 blocks and 3 buffers each, and one of part1, of 4 blocks and 2 buffers:
 *
 *     extern "C" __global__ void kernel(const dav_pointers<8> all)
 *     {
 *         unsigned block = dav_block();
 *         if (block < 32u)
 *             return part0(block % 16u, all.at + 0 + block / 16u * 3u);
 *         block -= 32u;
 *         part1(block % 4u, all.at + 6 + block / 4u * 2u);
 *     }
 */
#include "codegen/cuda/merge.h"
#include "codegen/cuda/emit.h"
#include <stdio.h>

enum { SMALL_SCRATCH = 1 << 10 };

static bool has_product(const Graph *k)
{
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == OP_TILE_CONTRACT)
            return true;
    return false;
}

/* Kernels of little shared memory share a launch when their blocks are alike; products, and those of more, only with equal ones; those
 * of most (attention) with none. */
uint64_t cuda_launch_class(const Graph *kernel)
{
    KernelShape s = kernel_shape(kernel);
    if (s.scratch && !s.shared)
        return 0;
    if (has_product(kernel) || s.scratch > SMALL_SCRATCH)
        return graph_hash(kernel) | UINT64_C(1) << 63;
    return (uint64_t)s.threads;
}

int cuda_buffer_count(const Graph *kernel)
{
    int n = 0;
    for (Val v = 1; v < kernel->n; v++)
        n += node_of(kernel, v)->op == OP_BUF && attr_i(node_of(kernel, v), A_ROLE) != BUF_SCRATCH;
    return n;
}

static void call_part(Buf *text, int i, const CudaPart *p, const CudaLaunch *l, int first, bool last)
{
    long long blocks = l->blocks > 0 ? l->blocks : 1;
    if (!last)
        buf_printf(text, "    if (block < %lldu)\n        return ", (long long)l->blocks * p->count);
    else
        buf_str(text, "    ");
    buf_printf(text, "part%d(block %% %lldu, all.at + %d + block / %lldu * %du);\n", i, blocks, first, blocks,
               cuda_buffer_count(p->kernel));
    if (!last)
        buf_printf(text, "    block -= %lldu;\n", (long long)l->blocks * p->count);
}

void cuda_group_source(const CudaTarget *t, const CudaPart *part, int n, const char *symbol, Buf *text,
                       CudaLaunch *launch)
{
    CudaLaunch *of = mem_alloc(mem_mul((size_t)n, sizeof *of));
    int pointers = 0, first = 0;
    char name[32];
    *launch = (CudaLaunch){0};
    cuda_prologue(text);
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "part%d", i);
        cuda_function(t, part[i].kernel, name, true, text, &of[i]);
        launch->threads = of[i].threads;
        launch->blocks += of[i].blocks * part[i].count;
        launch->shared_bytes = of[i].shared_bytes > launch->shared_bytes ? of[i].shared_bytes : launch->shared_bytes;
        pointers += part[i].count * cuda_buffer_count(part[i].kernel);
    }
    buf_printf(text,
               "DAV_KERNEL(%d) %s(const DAV_CONSTANT dav_pointers<%d> all)\n{\n    unsigned block = dav_block();\n",
               launch->threads, symbol, pointers);
    for (int i = 0; i < n; i++) {
        call_part(text, i, &part[i], &of[i], first, i == n - 1);
        first += part[i].count * cuda_buffer_count(part[i].kernel);
    }
    buf_str(text, "}\n");
    mem_free(of);
}
