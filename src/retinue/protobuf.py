"""Protocol buffers without their schema, and the checksum that TensorFlow's files have.

A message is fields in any order: a number, how the value is written, the value. Nothing is taken on
trust: lengths are compared with what is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""How a value is written."""
_MOVED = 0xA282EAD8


class Malformed(ValueError):  # noqa: N818 - it says what the bytes are
    """What is no message, or one that is cut off."""


class Piece(NamedTuple):
    """Bytes of a message, and where they begin in it."""

    content: bytes
    at: int


def fields(piece: Piece) -> Iterator[tuple[int, int, Piece | int]]:
    """Number, kind and value of each field of a message. Raises Malformed."""
    content, at = piece.content, 0
    while at < len(content):
        tag, at = varint(content, at)
        wire = tag & 7
        if wire == VARINT:
            number, at = varint(content, at)
            yield tag >> 3, wire, number
            continue
        if wire == BYTES:
            length, at = varint(content, at)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise Malformed(f"a field is written in a way that there is not ({wire})")
        if length > len(content) - at:
            raise Malformed("it is cut off")
        yield tag >> 3, wire, Piece(content[at : at + length], piece.at + at)
        at += length


def pieces(piece: Piece) -> Iterator[tuple[int, Piece]]:
    """Number and value of those fields that hold bytes. Raises Malformed."""
    for number, wire, value in fields(piece):
        if wire == BYTES:
            assert isinstance(value, Piece)
            yield number, value


def varint(content: bytes, at: int) -> tuple[int, int]:
    """The whole number at `at`, from 0 to 2⁶⁴ − 1, and where it ends. Raises Malformed."""
    value = shift = 0
    while at < len(content) and shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
        shift += 7
    raise Malformed("it is cut off")


def signed(number: int) -> int:
    """A whole number that may be negative, of what `varint` gives."""
    return number - (1 << 64) if number >> 63 else number


def masked(content: bytes) -> int:
    """The CRC-32C of `content` as TensorFlow writes it: rotated by 15 bits, moved by a constant."""
    crc: int = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + _MOVED) & 0xFFFFFFFF
