#include "runtime/tensorboard.h"
#include <string.h>

uint32_t crc32c(const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (0x82f63b78u & (0u - (c & 1)));
    }
    return ~c;
}

/* ---- protobuf: (field << 3 | wire type), then the value ---- */

static void varint(Buf *b, uint64_t v)
{
    unsigned char byte;
    do {
        byte = (unsigned char)((v & 127) | (v > 127 ? 128 : 0));
        buf_add(b, &byte, 1);
    } while (v >>= 7);
}

static void little_endian(Buf *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)(v >> (8 * i));
        buf_add(b, &byte, 1);
    }
}

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static void key(Buf *b, unsigned field, unsigned wire)
{
    varint(b, field << 3 | wire);
}

static void field_bytes(Buf *b, unsigned field, const void *p, size_t n)
{
    key(b, field, BYTES);
    varint(b, n);
    buf_add(b, p, n);
}

static void field_double(Buf *b, unsigned field, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, 8);
    key(b, field, FIXED64);
    little_endian(b, bits, 8);
}

static void field_float(Buf *b, unsigned field, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    key(b, field, FIXED32);
    little_endian(b, bits, 4);
}

static uint32_t masked_crc(const void *p, size_t n)
{
    uint32_t c = crc32c(p, n);
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

static void record(Buf *out, const Buf *event)
{
    size_t start = out->len;
    little_endian(out, event->len, 8);
    little_endian(out, masked_crc(out->at + start, 8), 4);
    buf_add(out, event->at, event->len);
    little_endian(out, masked_crc(event->at, event->len), 4);
}

/* Event: wall_time 1, step 2, file_version 3, summary 5. */
void tensorboard_version(Buf *out, double wall_time)
{
    static const char version[] = "brain.Event:2";
    Buf event = {0};
    field_double(&event, 1, wall_time);
    field_bytes(&event, 3, version, sizeof version - 1);
    record(out, &event);
    buf_free(&event);
}

/* Summary: value 1; Summary.Value: tag 1, simple_value 2. */
void tensorboard_scalar(Buf *out, double wall_time, int64_t step, const char *tag, double value)
{
    Buf item = {0}, summary = {0}, event = {0};
    field_bytes(&item, 1, tag, strlen(tag));
    field_float(&item, 2, (float)value);
    field_bytes(&summary, 1, item.at, item.len);
    field_double(&event, 1, wall_time);
    key(&event, 2, VARINT);
    varint(&event, (uint64_t)step);
    field_bytes(&event, 5, summary.at, summary.len);
    record(out, &event);
    buf_free(&item);
    buf_free(&summary);
    buf_free(&event);
}
