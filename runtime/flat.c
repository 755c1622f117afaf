#include "runtime/flat.h"
#include "base/mem.h"
#include "runtime/cuda/driver.h"
#include <stdlib.h>
#include <string.h>

typedef struct Copy {
    struct Copy *next;
    CudaDevice device; /* its context is held as long as the copy */
    CuPtr at;
    bool current;
} Copy;

/* Stands before the array. */
typedef struct Head {
    size_t bytes;
    Copy *copy;
    bool host_current;
    uint64_t magic;
} Head;

enum { ROOM = 64 };
_Static_assert(sizeof(Head) <= ROOM, "the head fits before the array");
static const uint64_t magic = 0x74616c6656414400u;

static Head *head_of(const float *flat)
{
    Head *h = (Head *)(uintptr_t)((const char *)flat - ROOM);
    must(h->magic == magic);
    return h;
}

float *flat_new(int64_t n)
{
    must(n >= 0);
    const size_t bytes = mem_mul((size_t)n, sizeof(float));
    char *whole = mem_alloc_aligned(bytes + 2 * ROOM, ROOM);
    *(Head *)(void *)whole = (Head){.bytes = bytes, .host_current = true, .magic = magic};
    return (float *)(void *)(whole + ROOM);
}

static void copy_free(Copy *c)
{
    const CudaDriver *d = c->device.driver;
    if (c->device.context) {
        d->cuCtxSetCurrent(c->device.context);
        if (c->at)
            d->cuMemFree_v2(c->at);
        cuda_device_close(&c->device);
    }
    free(c);
}

void flat_free(float *flat)
{
    if (!flat)
        return;
    Head *h = head_of(flat);
    for (Copy *c = h->copy, *next; c; c = next) {
        next = c->next;
        copy_free(c);
    }
    mem_free(h);
}

/* The device gives the array back: it waits, and nothing else is under way on the stream. */
static bool fetch(Err *err, Head *h, float *flat, const Copy *c)
{
    const CudaDriver *d = c->device.driver;
    CuStream stream = NULL;
    bool ok = cuda_ok(d, err, d->cuCtxSetCurrent(c->device.context), "cuCtxSetCurrent") &&
              cuda_ok(d, err, d->cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate") &&
              cuda_ok(d, err, d->cuMemcpyDtoHAsync_v2(flat, c->at, h->bytes, stream), "fetching parameters");
    if (stream) /* also after a failure: the copy may be under way */
        ok = cuda_ok(d, ok ? err : &(Err){0}, d->cuStreamSynchronize(stream), "fetching parameters") && ok;
    if (stream)
        ok = cuda_ok(d, ok ? err : &(Err){0}, d->cuStreamDestroy_v2(stream), "cuStreamDestroy") && ok;
    h->host_current |= ok;
    return ok;
}

bool flat_read(Err *err, const float *flat)
{
    Head *h = head_of(flat);
    for (Copy *c = h->copy; c && !h->host_current; c = c->next)
        if (c->current)
            return fetch(err, h, (float *)(uintptr_t)flat, c);
    return true;
}

void flat_wrote(float *flat)
{
    Head *h = head_of(flat);
    h->host_current = true;
    for (Copy *c = h->copy; c; c = c->next)
        c->current = false;
}

static Copy *copy_on(Err *err, Head *h, const CudaDevice *device)
{
    for (Copy *c = h->copy; c; c = c->next)
        if (c->device.index == device->index)
            return c;
    Copy *c = calloc(1, sizeof *c); /* not ours to unwind: the array frees it */
    if (!c) {
        err_env(err, "out of memory");
        return NULL;
    }
    const CudaDriver *d = device->driver;
    if (cuda_device_open(&c->device, err, device->index)) {
        CuStatus status = d->cuMemAlloc_v2(&c->at, h->bytes);
        if (cuda_ok(d, err, status, "memory for parameters")) {
            c->next = h->copy;
            return h->copy = c;
        }
        err_prefix(err, "%s has no room for an array of %.1f MB that stays there", device->name, (double)h->bytes * 1e-6);
    }
    copy_free(c);
    return NULL;
}

bool flat_on_device(Err *err, float *flat, const CudaDevice *device, void *stream, uint64_t *at)
{
    Head *h = head_of(flat);
    Copy *c = copy_on(err, h, device);
    if (!c)
        return false;
    *at = c->at;
    if (c->current)
        return true;
    const CudaDriver *d = device->driver;
    return flat_read(err, flat) && cuda_ok(d, err, d->cuCtxSetCurrent(device->context), "cuCtxSetCurrent") &&
           cuda_ok(d, err, d->cuMemcpyHtoDAsync_v2(c->at, flat, h->bytes, stream), "copying parameters") && (c->current = true);
}

void flat_device_wrote(float *flat, const CudaDevice *device)
{
    Head *h = head_of(flat);
    h->host_current = false;
    for (Copy *c = h->copy; c; c = c->next)
        c->current = c->device.index == device->index;
    if (getenv("DAV_CUDA_POISON"))
        memset(flat, 0xff, h->bytes);
}
