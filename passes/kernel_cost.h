/* What a kernel does, counted from its loops: for scheduling, predictions and reports. */
#pragma once
#include "ir/kernel.h"

typedef struct KernelCost {
    double flops; /* 2 a multiply-add of a tile, 1 an elementwise operation, an accumulation */
    double bytes; /* every buffer once */
} KernelCost;
KernelCost kernel_cost(const Graph *k);
