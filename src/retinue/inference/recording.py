"""Drawn frames to a video, with the times that they had."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from retinue.errors import RetinueError
from retinue.files import replacing
from retinue.sample import Pixels

SUFFIX = ".mp4"
_CODEC = "mp4v"
"""MPEG-4 part 2, which OpenCV writes everywhere without parts under the GPL."""
_LONGEST_PAUSE = 10.0
"""Seconds for which a frame is shown at most until the next one comes."""
_FASTEST = 120.0


class Recording:
    """A file that takes its name when it is closed; also a context manager.

    A frame is shown until the next one's time: where frames are far apart, or come at any time, it
    is written several times. Those of another size, as after a stream's reconnection, are scaled to
    the first one's.
    """

    def __init__(self, place: Path, rate: float) -> None:
        """`rate`: frames a second."""
        self.place = place
        self._rate = min(max(rate, 1.0), _FASTEST)
        self._replacing = replacing(place, suffix=SUFFIX)
        self._temporary = self._replacing.__enter__()
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0
        self._start = 0.0

    def __enter__(self) -> Recording:
        return self

    def add(self, pixels: Pixels, time: float) -> None:
        """The next frame, RGB uint8 (height, width, 3), of `time` in seconds."""
        if self._writer is None:
            self._open(pixels, time)
        assert self._writer is not None
        shown = _even(pixels)
        if shown.shape[1::-1] != self._size:
            shown = np.asarray(cv2.resize(shown, self._size, interpolation=cv2.INTER_AREA))
        image = np.ascontiguousarray(shown[..., ::-1])
        due = round((time - self._start) * self._rate) + 1 - self._written
        for _ in range(min(max(due, 1), int(_LONGEST_PAUSE * self._rate))):
            self._writer.write(image)
            self._written += 1

    def _open(self, pixels: Pixels, time: float) -> None:
        height, width = _even(pixels).shape[:2]
        self._size, self._start = (width, height), time
        codec = cv2.VideoWriter.fourcc(*_CODEC)
        name = str(self._temporary)
        self._writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, codec, self._rate, self._size)
        if not self._writer.isOpened():
            raise RetinueError(
                f"a video of {width} × {height} pixels cannot be written",
                where=str(self.place),
                mend="leave --draw out",
            )

    def close(self) -> None:
        """All frames were added."""
        self.__exit__(None, None, None)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self.__exit__(_Abandoned, _Abandoned(), None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        elif error is None:
            self.abandon()  # no frame came
            return
        if error is None and not self._whole():
            self.abandon()
            raise RetinueError(
                "the video could not be written as a whole",
                where=str(self.place),
                mend="free some space or choose another folder with --out",
            )
        self._replacing.__exit__(kind, error, trace)

    def _whole(self) -> bool:
        """Whether all frames are there: OpenCV writes to a full disk without a word."""
        capture = cv2.VideoCapture(str(self._temporary))
        found = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        capture.release()
        return found >= self._written


class _Abandoned(Exception):  # noqa: N818 - nobody sees it
    pass


def _even(pixels: Pixels) -> Pixels:
    """With sides that the codec takes: it would cut the last row or column off."""
    height, width = pixels.shape[:2]
    if not (height % 2 or width % 2):
        return pixels
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
