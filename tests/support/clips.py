"""Small videos, made here: sound ones, damaged ones, and captures that are no videos at all."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def write(
    path: Path, frames: Sequence[np.ndarray[Any, Any]], *, rate: float = 25.0, codec: str = "mp4v"
) -> Path:
    """`frames`, RGB, as a video."""
    height, width = frames[0].shape[:2]
    fourcc = cv2.VideoWriter.fourcc(*codec)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, rate, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def numbered(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray[Any, Any]]:
    """Frames of `size` (width, height), each as bright as its number: 8 a step."""
    return [np.full((size[1], size[0], 3), 8 * number, np.uint8) for number in range(count)]


def number(pixels: np.ndarray[Any, Any]) -> int:
    """Of one of the `numbered` frames, whatever the codec made of it."""
    return round(float(pixels.mean()) / 8)


def turned(path: Path) -> Path:
    """The MP4 at `path`, marked as stored on its side: to be turned clockwise by a quarter."""
    content = bytearray(path.read_bytes())
    start = content.find(b"tkhd") + 4 + 4 + 20 + 8 + 8
    old = struct.unpack(">9i", content[start : start + 36])
    assert old == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    turn = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    content[start : start + 36] = struct.pack(">9i", *turn)
    path.write_bytes(content)
    return path


def damaged(path: Path, which: int) -> Path:
    """The MJPG at `path`, its frame `which` overwritten with zeros."""
    content = bytearray(path.read_bytes())
    starts = [k for k in range(len(content) - 3) if content[k : k + 3] == b"\xff\xd8\xff"]
    content[starts[which] : starts[which + 1] - 8] = bytes(starts[which + 1] - 8 - starts[which])
    path.write_bytes(content)
    return path


class Capture:
    """In place of `cv2.VideoCapture`: what `reads` gives, an image in BGR, or None for a frame that
    cannot be read; `stamps` in milliseconds."""

    def __init__(
        self,
        reads: Iterable[Any],
        *,
        stamps: Sequence[float] | None = None,
        rate: float = 25.0,
        said: float = 0.0,
        opened: bool = True,
    ) -> None:
        self._reads: Iterator[Any] = iter(reads)
        self._stamps = list(stamps) if stamps is not None else None
        self._at = -1
        self._properties = {cv2.CAP_PROP_FPS: rate, cv2.CAP_PROP_FRAME_COUNT: said}
        self._opened = opened
        self._image: Any = None
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802
        return self._opened

    def grab(self) -> bool:
        self._image = next(self._reads, None)
        if self._image is not None:
            self._at += 1
        return self._image is not None

    def retrieve(self) -> tuple[bool, Any]:
        return True, self._image

    def get(self, what: int) -> float:
        if what == cv2.CAP_PROP_POS_MSEC:
            return self._at * 40.0 if self._stamps is None else self._stamps[self._at]
        return float(self._properties.get(what, 0.0))

    def release(self) -> None:
        self.released = True
