"""Bytes of a TensorBoard event file, written from the public format alone; prints the C array of tests/test_runlog.c.

Format: TFRecord = u64 length, masked crc32c of it, payload, masked crc32c of it; payload = tensorflow.Event.
With the package tensorboard installed, `python3 tensorboard_events.py FILE` reads an event file back and prints its scalars.
"""
import struct
import sys


def crc32c(data):
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82F63B78 if i & 1 else 0)
        table.append(i)
    c = 0xFFFFFFFF
    for b in data:
        c = c >> 8 ^ table[(c ^ b) & 255]
    return c ^ 0xFFFFFFFF


def masked(data):
    c = crc32c(data)
    return struct.pack("<I", ((c >> 15 | c << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(event):
    head = struct.pack("<Q", len(event))
    return head + masked(head) + event + masked(event)


def varint(v):
    out = b""
    while v > 127:
        out += bytes([v & 127 | 128])
        v >>= 7
    return out + bytes([v])


def scalar(wall, step, tag, value):
    item = b"\x0a" + varint(len(tag)) + tag + b"\x15" + struct.pack("<f", value)
    summary = b"\x0a" + varint(len(item)) + item
    return b"\x09" + struct.pack("<d", wall) + b"\x10" + varint(step) + b"\x2a" + varint(len(summary)) + summary


def main():
    if len(sys.argv) > 1:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        for e in EventFileLoader(sys.argv[1]).Load():
            for v in e.summary.value:
                print(e.step, v.tag, v.tensor.float_val[0] if v.HasField("tensor") else v.simple_value)
        return
    assert crc32c(b"123456789") == 0xE3069283
    data = record(b"\x09" + struct.pack("<d", 1.5) + b"\x1a\x0dbrain.Event:2")
    data += record(scalar(2.5, 300, b"round/elbo", -0.1))
    print(",\n".join(", ".join(f"0x{b:02x}" for b in data[i : i + 16]) for i in range(0, len(data), 16)))


main()
