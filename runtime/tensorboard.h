/* TensorBoard event file: TFRecords (length, masked crc32c, bytes, masked crc32c) of hand-encoded Event messages, as
 * tensorflow/core/util/event.proto and framework/summary.proto number their fields. */
#pragma once
#include "base/text.h"

/* Each appends one whole record to `out`; wall_time in seconds since 1970. */
void tensorboard_version(Buf *out, double wall_time); /* the record every file starts with */
void tensorboard_scalar(Buf *out, double wall_time, int64_t step, const char *tag, double value); /* stored as f32 */

uint32_t crc32c(const void *bytes, size_t n); /* Castagnoli, reflected 0x82f63b78 */
