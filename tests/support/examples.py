"""TFRecord files of `tf.train.Example`, written by the formats' descriptions."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

Values = Sequence[bytes] | Sequence[float] | Sequence[int]


def crc32c(content: bytes) -> int:
    """Bit by bit (RFC 3720, appendix B)."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(content: bytes) -> bytes:
    crc = crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(content: bytes) -> bytes:
    head = struct.pack("<Q", len(content))
    return head + masked(head) + content + masked(content)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def piece(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def feature(values: Values, *, packed: bool = True) -> bytes:
    if values and isinstance(values[0], bytes):
        return piece(1, b"".join(piece(1, v) for v in values if isinstance(v, bytes)))
    if values and isinstance(values[0], float):
        floats = [struct.pack("<f", v) for v in values]
        inner = piece(1, b"".join(floats)) if packed else b"".join(b"\x0d" + v for v in floats)
        return piece(2, inner)
    numbers = [varint(v) for v in values if isinstance(v, int)]
    return piece(
        3, piece(1, b"".join(numbers)) if packed else b"".join(b"\x08" + v for v in numbers)
    )


def example(values: Mapping[str, Values], *, packed: bool = True) -> bytes:
    entries = [
        piece(1, piece(1, name.encode()) + piece(2, feature(given, packed=packed)))
        for name, given in values.items()
    ]
    return piece(1, b"".join(entries))


def write(path: Path, *examples: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(record, examples)))
    return path
