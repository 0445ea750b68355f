"""JPEG: its segments, and the one rule on which files are sound.

A file is sound if libjpeg decodes it without a warning: what a decoder only warns of (data that
ends early, bad codes, bytes left over) is damage in the picture. The whole stream is read at any
scale, so the answer is the same at each. Bytes after the end marker belong to something else
(Motion Photos, multi-picture files) and are not looked at. What libjpeg also warns of and cannot be
seen in the picture is put right in memory before it is decoded once more: bytes between segments
ahead of the picture, a few zeros of padding behind its data, and odd version numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg

from retinue.arrays import Pixels

_PADDING = 64
"""Zeros behind the data that are taken for padding; where more are left over, a part is missing."""
_MENDS = 8
_NEXT = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_SOS, _EOI, _APP0, _APP14 = 0xDA, 0xD9, 0xE0, 0xEE
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})


class Segment(NamedTuple):
    """A marker and what belongs to it."""

    marker: int
    start: int
    """Where its content begins, behind marker and length."""
    end: int


class Header(NamedTuple):
    """What a JPEG says before its pixels."""

    height: int
    width: int
    colours: str
    """As libjpeg-turbo calls it: `YCbCr`, `RGB`, `Gray`, `CMYK` or `YCCK`."""


def is_jpeg(source: bytes) -> bool:
    """By content, whatever the name says."""
    return source[:3] == b"\xff\xd8\xff"


def segments(source: bytes) -> Iterator[Segment]:
    """Those ahead of the picture, the first scan's header as the last."""
    at = 2
    while True:
        at = source.find(b"\xff", at)
        while 0 <= at < len(source) - 3 and source[at + 1] == 0xFF:
            at += 1
        if not 0 <= at < len(source) - 3:
            return
        marker = source[at + 1]
        if marker == _EOI:
            return
        if marker == 0 or marker in _BARE:
            at += 2
            continue
        end = min(at + 2 + max(int.from_bytes(source[at + 2 : at + 4], "big"), 2), len(source))
        yield Segment(marker, at + 4, end)
        if marker == _SOS:
            return
        at = end


def frame_size(source: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG says it has, of its beginning; None where its frame begins
    later, or has its height elsewhere."""
    for segment in segments(source):
        if segment.marker in _FRAMES:
            content = source[segment.start + 1 : segment.start + 5]
            height, width = int.from_bytes(content[:2], "big"), int.from_bytes(content[2:], "big")
            return (width, height) if len(content) == 4 and width and height else None
    return None


def read_header(source: bytes) -> Header | None:
    """None for a JPEG that is not for `decode`."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(source, strict=False)
    except ValueError:
        return None
    # Lossless ones have no scales, and libjpeg-turbo's attempt at one ends the process.
    if any(segment.marker in _LOSSLESS for segment in segments(source)):
        return None
    return Header(height, width, colours)


def decode(source: bytes, header: Header, shrink: int = 1) -> Pixels:
    """uint8 (height, width, 3) RGB, or (height, width, 4) CMYK; of the sides divided by `shrink`
    (1, 2, 4 or 8), rounded up. Raises `ValueError` for a file that is not sound."""
    height, width = -(-header.height // shrink), -(-header.width // shrink)
    colours = "CMYK" if header.colours in ("CMYK", "YCCK") else "RGB"
    # The least size that the decoder accepts is the exact scale, for any but tiny images.
    least = (height, width) if shrink > 1 else (0, 0)
    for left in reversed(range(_MENDS)):
        try:
            image: Pixels = simplejpeg.decode_jpeg(
                source, colours, min_height=least[0], min_width=least[1]
            )
            break
        except ValueError as error:
            mended = _mended(source, str(error)) if left else None
            if mended is None:
                raise
            source = mended
    if image.shape[:2] != (height, width):
        raise ValueError(f"decoded to {image.shape[:2]} instead of {(height, width)}")
    if colours == "CMYK":
        return np.subtract(255, image)  # all write it inverted, as Adobe does
    return image


def _mended(source: bytes, warning: str) -> bytes | None:
    """Without the cause of a warning that means no damage; None if it may mean some."""
    for words, mend in _HARMLESS.items():
        if words in warning:
            mended = mend(source, warning)
            return None if mended == source else mended
    return None


def _without_left_over(source: bytes, warning: str) -> bytes:
    """Without bytes between the segments ahead of the picture, or else without the zeros that the
    warning counts."""
    head = list(segments(source))
    start = head[-1].end if head and head[-1].marker == _SOS else len(source)
    parts, at = [source[:2]], 2
    for segment in head:
        parts.append(source[segment.start - 4 : segment.end])
        at = segment.end
    tidy = b"".join(parts) + source[at:]
    if len(tidy) < len(source):
        return tidy
    found = _LEFT_OVER.search(warning)
    if found is None or not 0 < int(found[1]) <= _PADDING:
        return source
    zeros = bytes(int(found[1]))
    marker = re.escape(bytes([0xFF, int(found[2], 16)]))
    place = re.compile(re.escape(zeros) + marker).search(source, start)
    if place is None:
        return source
    return source[: place.start()] + source[place.start() + len(zeros) :]


def _with_version(source: bytes, _: str) -> bytes:
    for s in segments(source):
        if s.marker == _APP0 and source[s.start : s.start + 5] == b"JFIF\0":
            return source[: s.start + 5] + b"\1\2" + source[s.start + 7 :]
    return source


def _with_transform(source: bytes, _: str) -> bytes:
    """What libjpeg takes an unknown one for: the usual one for the number of components."""
    four = any(
        s.marker in _FRAMES and source[s.start + 5 : s.start + 6] == b"\4" for s in segments(source)
    )
    for s in segments(source):
        if s.marker == _APP14 and source[s.start : s.start + 5] == b"Adobe":
            return source[: s.start + 11] + (b"\2" if four else b"\1") + source[s.start + 12 :]
    return source


def _with_whole_scans(source: bytes, _: str) -> bytes:
    """Sequential scans hold all coefficients, whatever their headers say."""
    at = next((s.start - 4 for s in segments(source) if s.marker == _SOS), -1)
    while at >= 0:
        end = at + 2 + int.from_bytes(source[at + 2 : at + 4], "big")
        source = source[: end - 3] + b"\x00\x3f\x00" + source[end:]
        following = _NEXT.search(source, end)
        while following is not None and following[0][-1] not in (_SOS, _EOI):
            length = int.from_bytes(source[following.end() : following.end() + 2], "big")
            following = _NEXT.search(source, following.end() + length)
        ends = following is None or following[0][-1] == _EOI
        at = -1 if ends or following is None else following.end() - 2
    return source


_HARMLESS: dict[str, Callable[[bytes, str], bytes]] = {
    "extraneous bytes": _without_left_over,
    "JFIF revision": _with_version,
    "Adobe color transform": _with_transform,
    "Invalid SOS": _with_whole_scans,
}
