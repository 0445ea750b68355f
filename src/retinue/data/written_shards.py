"""Shards as they are written: TFRecord files of `tf.train.Example`, and WebDataset's tar files.

Images keep their bytes. What is written beside one is what is read: its class by number and name,
and what it is called.
"""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from retinue.documents import json_text
from retinue.protobuf import masked


class Written(NamedTuple):
    """An example to be written."""

    image: bytes
    kind: str
    """Of the image: `jpeg`, `png` …"""
    size: tuple[int, int]
    """Width and height as stored."""
    label: int
    text: str
    name: str
    """What the image is called in its data set."""


@dataclass(frozen=True, slots=True)
class ShardFormat:
    """A kind of shards to write."""

    name: Callable[[str, int, int], str]
    """Of a file, from its split, its number and how many there are."""
    add: Callable[[BinaryIO, int, Written], None]
    """Writes an example, of this number in its shard, to its file."""
    end: bytes = b""
    """What a file ends in."""


# --- TFRecord -------------------------------------------------------------------------------------

Values = Sequence[bytes] | Sequence[int]


def _tfrecord(file: BinaryIO, number: int, example: Written) -> None:
    width, height = example.size
    content = encoded(
        {
            "image/encoded": [example.image],
            "image/format": [example.kind.encode()],
            "image/height": [height],
            "image/width": [width],
            "image/class/label": [example.label],
            "image/class/text": [example.text.encode()],
            "image/filename": [_as_bytes(example.name)],
        }
    )
    head = struct.pack("<Q", len(content))
    file.write(head + struct.pack("<I", masked(head)))
    file.write(content)
    file.write(struct.pack("<I", masked(content)))


def encoded(features: Mapping[str, Values]) -> bytes:
    """A `tf.train.Example` of lists of bytes or of whole numbers."""
    entries = []
    for name, values in features.items():
        if values and isinstance(values[0], bytes):
            several = b"".join(_piece(1, v) for v in values if isinstance(v, bytes))
            feature = _piece(1, several)
        else:
            packed = b"".join(_varint(v) for v in values if isinstance(v, int))
            feature = _piece(3, _piece(1, packed))
        entries.append(_piece(1, _piece(1, name.encode()) + _piece(2, feature)))
    return _piece(1, b"".join(entries))


def _piece(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _as_bytes(name: str) -> bytes:
    """Names of files need not be text."""
    return name.encode("utf-8", "surrogateescape")


# --- WebDataset -----------------------------------------------------------------------------------

_ENDINGS = {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}


def _webdataset(file: BinaryIO, number: int, example: Written) -> None:
    said = {"label": example.label, "text": example.text, "filename": example.name}
    for ending, content in (
        (_ENDINGS.get(example.kind, example.kind), example.image),
        ("cls", str(example.label).encode()),
        ("json", json_text(said).encode("utf-8", "surrogateescape")),
    ):
        info = tarfile.TarInfo(f"{number:08d}.{ending}")
        info.size = len(content)
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))


SHARDS = {
    "tfrecord": ShardFormat(
        lambda split, number, count: f"{split}-{number:05d}-of-{count:05d}.tfrecord", _tfrecord
    ),
    "webdataset": ShardFormat(
        lambda split, number, count: f"{split}-{number:06d}.tar",
        _webdataset,
        bytes(2 * tarfile.BLOCKSIZE),
    ),
}
