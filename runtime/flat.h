/* Flat arrays of f32 (parameters, gradients, moments: runtime/params.h) of which devices keep copies.
 *
 * To the host it is an array.  A program of the CPU reads and writes it; one of another device, when an input is bound to it
 * (program_bind), works on the copy there: made when it is first needed, one a device, shared by all its programs, and sent only
 * when the host has written since.  Whoever touches the array on the host says so: flat_read before reading, flat_wrote after
 * writing; programs of the CPU that are bound do, too.  Where no device has a copy both do nothing.  Not for two threads at once, as any array. */
#pragma once
#include "base/err.h"
#include <stdint.h>

enum { FLAT_ALIGN = 16 }; /* elements, 64 bytes: where something that a program is bound to may begin */

/* n zeros, aligned to 64 bytes. */
float *flat_new(int64_t n);
void flat_free(float *flat); /* NULL is fine; after the programs that are bound to it */
/* Makes the host's copy the newest one; false: the device does not give it back. */
bool flat_read(Err *err, const float *flat);
/* The host has written; what it has not written must have been read before. */
void flat_wrote(float *flat);

/* ---- for programs of CUDA devices ---- */
typedef struct CudaDevice CudaDevice;
/* Where the device's copy lies; brought up to date by copies on the stream. */
bool flat_on_device(Err *err, float *flat, const CudaDevice *device, void *stream, uint64_t *at);
/* A program has written the device's copy: no other one is up to date.  With DAV_CUDA_POISON set the host's is overwritten, so that
 * whoever forgets flat_read sees it. */
void flat_device_wrote(float *flat, const CudaDevice *device);
