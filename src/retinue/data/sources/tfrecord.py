"""TensorFlow's TFRecord files and the `tf.train.Example` in their records, without TensorFlow.

A record is its length (8 bytes, little-endian), a checksum of that, its bytes, and a checksum of
those; checksums are CRC-32C, rotated by 15 bits and moved by a constant. An Example is a protocol
buffer: names, each with a list of bytes, of floats or of whole numbers. Nothing is taken on trust:
lengths are compared with what is left of the file, and a record that makes no sense is named.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinue.files import open_file
from retinue.protobuf import (
    BYTES,
    FIXED32,
    VARINT,
    Malformed,
    Piece,
    fields,
    masked,
    pieces,
    signed,
    varint,
)

LARGEST = 1 << 29
"""Bytes of a record; TensorFlow's own limit for a message is 2 GB."""
_HEAD, _FOOT = 12, 4
_COMPRESSED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""How files that TensorFlow compressed begin (GZIP, ZLIB): no record could be read by itself."""


_CUT = "the file ends within it, and whatever came after it is lost"
NAMED = re.compile(
    r"(\.(tf)?rec(ord)?s?(-\d+-of-\d+)?|-\d+-of-\d+)(\.gz|\.gzip|\.zlib)?$", re.IGNORECASE
)
"""How such files are called; of those that are compressed it can only be said that they are."""


class BadRecord(ValueError):  # noqa: N818 - it says what the record is
    """Why a record cannot be used."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a file."""

    number: int
    """From 1."""
    offset: int
    """Where its bytes begin in the file."""
    content: bytes
    error: str = ""
    """Why it cannot be used; then it has no content."""
    last: bool = False
    """Whether it cannot be told where a next one would begin."""


def records(path: Path) -> Iterator[Record]:
    """All records of the file at `path`, broken ones among them. Raises OSError."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        offset = number = 0
        while offset < size:
            number += 1
            head = file.read(_HEAD)
            if len(head) < _HEAD:
                yield Record(number, offset, b"", _CUT, last=True)
                return
            length, check = struct.unpack("<QI", head)
            if masked(head[:8]) != check:
                what = "the checksum of its length is wrong: this is no TFRecord file"
                if number > 1:
                    what = "the checksum of its length is wrong, and no later one can be found"
                elif head.startswith(_COMPRESSED):
                    what = "the file is compressed as a whole: write it without compression"
                yield Record(number, offset, b"", what, last=True)
                return
            if length > size - offset - _HEAD - _FOOT:
                yield Record(number, offset, b"", _CUT, last=True)
                return
            start = offset + _HEAD
            offset = start + length + _FOOT
            if length > LARGEST:
                yield Record(number, start, b"", f"it has more than {LARGEST >> 20} MB")
                file.seek(offset)
                continue
            content = file.read(length)
            (check,) = struct.unpack("<I", file.read(_FOOT))
            if masked(content) != check:
                yield Record(number, start, b"", "its checksum is wrong")
                continue
            yield Record(number, start, content)


def is_compressed(path: Path) -> bool:
    """Whether the file is compressed as a whole. Raises OSError."""
    with open_file(path) as file:
        head = file.read(_HEAD)
    whole = len(head) == _HEAD and masked(head[:8]) == struct.unpack("<I", head[8:])[0]
    return head.startswith(_COMPRESSED) and not whole


def first(said: dict[str, Feature], key: str) -> Piece | None:
    """The first value of a feature of bytes, where it has one."""
    values = said.get(key) or [None]
    return values[0] if isinstance(values[0], Piece) else None


# --- tf.train.Example -----------------------------------------------------------------------------


Feature = list[Piece] | list[float] | list[int]


def example(content: bytes) -> dict[str, Feature]:
    """Name → list of an Example's features. Raises BadRecord."""
    try:
        return dict(_features(Piece(content, 0)))
    except Malformed as error:
        raise BadRecord(f"it is no tf.train.Example, or one that is cut off ({error})") from error


def _features(piece: Piece) -> Iterator[tuple[str, Feature]]:
    entries = (of for field, inner in pieces(piece) if field == 1 for of in pieces(inner))
    for entry in (each for field, each in entries if field == 1):
        name, feature = "", Piece(b"", 0)
        for part, value in pieces(entry):
            if part == 1:
                name = value.content.decode("utf-8", "backslashreplace")
            elif part == 2:
                feature = value
        yield name, _feature(feature)


def _feature(piece: Piece) -> Feature:
    for kind, values in pieces(piece):
        if kind == 1:
            return [value for field, value in pieces(values) if field == 1]
        if kind == 2:
            return _floats(values)
        if kind == 3:
            return _integers(values)
    return []


def _floats(piece: Piece) -> list[float]:
    found: list[float] = []
    for field, wire, value in fields(piece):
        if field == 1 and wire in (BYTES, FIXED32):  # packed, or one by one
            assert isinstance(value, Piece)
            if len(value.content) % 4:
                raise BadRecord("a list of floats ends within one")
            found += np.frombuffer(value.content, "<f4").tolist()
    return found


def _integers(piece: Piece) -> list[int]:
    found: list[int] = []
    for field, wire, value in fields(piece):
        if field != 1:
            continue
        if wire == VARINT:
            assert isinstance(value, int)
            found.append(signed(value))
        elif isinstance(value, Piece):
            at = 0
            while at < len(value.content):
                number, at = varint(value.content, at)
                found.append(signed(number))
    return found
