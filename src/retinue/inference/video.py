"""Videos, cameras and streams as frames, one after the other.

OpenCV decodes. What it says about a video is not believed where it can be counted: frames are
counted by reading, and the time of each is what its own stamp says. A clip that a phone has stored
on its side comes upright. Of a stream only the newest frame is given: what came while the one
before was looked at is let go.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit, urlunsplit

import cv2
import numpy as np

from retinue.data.formats import meant_as_image, suffix_of
from retinue.errors import UsageError
from retinue.sample import Pixels
from retinue.text import counted, first_line

SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv"),
        *(".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".asf", ".mjpg", ".mjpeg", ".vob"),
    }
)
"""File names that are taken for videos, in lower case."""
_CAMERA = re.compile(r"camera:(\d{1,3})")
_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "http://", "https://", "udp://", "tcp://")
_SECRET = re.compile(
    r"((?:^|[&;])[^=&;]*(?:user|login|pass|pwd|psw|token|key|secret|auth|sig)[^=&;]*=)[^&;]*",
    re.IGNORECASE,
)
"""What cameras and servers take in the query of an address."""
RATES = (1.0, 240.0)
"""Frames a second that are believed; 2,000 occur in headers, and 0."""
USUAL_RATE = 25.0
_STAMPS = 32
"""Frames whose stamps tell the rate, where the header does not."""
_TRIES = 8
"""Frames in a row that may fail before a file has ended."""
PATIENCE = 30.0
"""Seconds that a stream may be silent before it is given up."""
_PAUSE = 0.5
_TIMEOUT = 10_000
"""Milliseconds that OpenCV waits for a stream's answer."""


class Frame(NamedTuple):
    """A picture of a video."""

    number: int
    """Counted from 0, of those that could be read; skipped ones count."""
    time: float
    """Seconds since the first one."""
    pixels: Pixels
    """RGB uint8 (height, width, 3), upright."""


class Capture(Protocol):
    """What of `cv2.VideoCapture` is used."""

    def isOpened(self) -> bool: ...  # noqa: N802
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, Any]: ...
    def get(self, what: int) -> float: ...
    def release(self) -> None: ...


Opens = Callable[[], Capture]


def is_stream(source: str) -> bool:
    """A camera (`camera:0`) or an address (`rtsp://…`), which is no file, whatever is there."""
    return bool(_CAMERA.fullmatch(source)) or source.lower().startswith(_SCHEMES)


def is_video(source: str) -> bool:
    """By its name."""
    return is_stream(source) or suffix_of(source) in SUFFIXES


def shown_address(source: str) -> str:
    """Without what an address may hold of names, passwords and keys: it ends up in files."""
    if not source.lower().startswith(_SCHEMES):
        return source
    try:
        parts = urlsplit(source)
    except ValueError:  # no address; what of it is a password nobody can tell
        return f"{source.partition('://')[0]}://…"
    query = _SECRET.sub(r"\1…", parts.query)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


class Unopened(Exception):  # noqa: N818 - it says what the video is
    """Why a video cannot be opened."""


class Video:
    """A source of frames, of which there is one walk.

    `every`: only each so-many-th is given, the first one first; the others are passed over as
    cheaply as they can be.
    """

    live = False
    """Whether it goes on while nobody looks."""

    def __init__(self, address: str, *, every: int = 1) -> None:
        if every < 1:
            raise UsageError(
                f"every must be 1 or more, not {every}", where="every", mend="take 1 for all frames"
            )
        self.path = shown_address(address)
        self.every = every
        self.read = 0
        """Frames that could be read so far."""
        self.lost = 0
        """Frames that were there and could not be read."""

    @property
    def rate(self) -> float:
        """About so many frames a second are given."""
        raise NotImplementedError

    def frames(self) -> Iterator[Frame]:
        """Those that are given; closing the iterator closes the video."""
        raise NotImplementedError

    def complaint(self) -> str:
        """What was wrong with it, once it has ended; empty: nothing."""
        return ""


def open_video(address: str, *, every: int = 1) -> Video:
    """The video, camera or stream at `address`. Raises Unopened."""
    if address.lower().startswith(("http://", "https://")):
        try:
            path = urlsplit(address).path
        except ValueError as error:
            raise Unopened(f"is no address: {first_line(error)}") from None
        if meant_as_image(path):
            raise Unopened("is the address of an image: download it first")
    opens = _opener(address)
    if not is_stream(address):
        if not os.path.exists(address):
            raise Unopened("no such file")
        return VideoFile(address, opens, every=every)
    capture = opens()
    counted_there = capture.isOpened() and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
    if counted_there and not _CAMERA.fullmatch(address):  # a file that lies elsewhere
        return VideoFile(address, lambda: capture, every=every)
    return Stream(address, opens, every=every, first=capture)


def _opener(address: str) -> Opens:
    # libav writes to the terminal on its own, and of each frame.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    _hush()
    if camera := _CAMERA.fullmatch(address):
        return lambda: cv2.VideoCapture(int(camera[1]))
    if not is_stream(address):
        return lambda: cv2.VideoCapture(address)
    waits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT,
    ]  # fmt: skip
    return lambda: cv2.VideoCapture(address, cv2.CAP_FFMPEG, waits)


def _hush() -> None:
    """What OpenCV would say of a video that it cannot open is said by us."""
    if hasattr(cv2, "setLogLevel"):  # before its release 5, and not in all of them
        cv2.setLogLevel(0)
    elif hasattr(cv2.utils, "logging"):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class VideoFile(Video):
    """One that has an end, and waits."""

    def __init__(self, address: str, opens: Opens, *, every: int = 1) -> None:
        super().__init__(address, every=every)
        self._capture = opens()
        if not self._capture.isOpened():
            self._capture.release()
            raise Unopened("cannot be opened as a video: it is damaged, or of an unknown kind")
        self._said = _believed_count(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self._known = rate if RATES[0] <= rate <= RATES[1] else None
        self._ahead: list[tuple[float, Pixels]] = []
        self._ended = False
        self._gaps = 0
        self._failed = 0
        self._before: float | None = None

    @property
    def rate(self) -> float:
        """See `Video`: what the header says where that can be, else what the first stamps say."""
        if self._known is None:
            while len(self._ahead) < _STAMPS and (one := self._next(True)) is not None:
                self._ahead.append(one)
            stamps = [stamp for stamp, _ in self._ahead]
            passed = stamps[-1] - stamps[0] if stamps else 0.0
            found = (len(stamps) - 1) / passed if passed > 0 else USUAL_RATE
            self._known = min(max(found, RATES[0]), RATES[1])
        return self._known / self.every

    def frames(self) -> Iterator[Frame]:
        """See `Video`."""
        try:
            start: float | None = None
            while True:
                number = self.read
                wanted = number % self.every == 0
                one = self._ahead.pop(0) if self._ahead else self._next(wanted)
                if one is None:
                    return
                stamp, pixels = one
                start = stamp if start is None else start
                self.read += 1
                if wanted:
                    yield Frame(number, round(stamp - start, 6), pixels)
        finally:
            self._capture.release()

    def _next(self, wanted: bool) -> tuple[float, Pixels] | None:
        """Time stamp and, if it is `wanted`, picture of the next frame that can be read."""
        failed = 0
        while failed < _TRIES and not self._ended:
            pixels = np.empty((0, 0, 3), np.uint8)
            try:
                fine = self._capture.grab()
                if fine and wanted:
                    fine, image = self._capture.retrieve()
                    if fine:
                        pixels = _rgb(image)
            except cv2.error:
                fine = False
            if fine:
                self._failed += failed
                return self._stamp(), pixels
            failed += 1
        self._ended = True
        return None

    def _stamp(self) -> float:
        """Seconds, always more than before; what the decoder left out shows as a gap."""
        usual = 1 / (self._known or USUAL_RATE)
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        before = self._before
        if before is not None:
            if not (math.isfinite(stamp) and stamp > before):
                stamp = before + usual
            elif self._known is not None:
                self._gaps += max(round((stamp - before) / usual) - 1, 0)
        elif not math.isfinite(stamp):
            stamp = 0.0
        self._before = stamp
        return stamp

    def complaint(self) -> str:
        """See `Video`. A clip whose frames come at any time has gaps and lacks nothing, and many a
        header is wrong: frames are missed where both say so, or where reading failed."""
        short = 0 if self._said is None else max(self._said - self.read - self._failed, 0)
        inside = min(short, self._gaps)
        self.lost = self._failed + inside
        said = []
        if self.lost:
            of = self.read + self.lost
            said.append(f"{counted(self.lost, 'frame')} of {of:,} could not be decoded")
        if self._said is not None and short - inside > _slack(self._said):
            said.append(
                f"it ends after {self.read + self.lost:,} frames, its header says {self._said:,}"
            )
        if not self.read:
            return "no frame of it can be decoded"
        return "; ".join(said)


def _slack(said: int) -> int:
    """Frames by which a header may be wrong about the length without a word."""
    return max(2, said // 50)


def _believed_count(said: float) -> int | None:
    return int(said) if math.isfinite(said) and 0 < said < 1e9 else None


class Stream(Video):
    """A camera or an address: a thread keeps the newest frame, and connects anew where it breaks
    off. It ends when nothing has come for `patience` seconds."""

    live = True

    def __init__(
        self,
        address: str,
        opens: Opens,
        *,
        every: int = 1,
        first: Capture | None = None,
        patience: float = PATIENCE,
        pause: float = _PAUSE,
    ) -> None:
        super().__init__(address, every=every)
        self._opens, self._patience, self._pause = opens, patience, pause
        self._first = first if first is not None else opens()
        if not self._first.isOpened():
            self._first.release()
            raise Unopened("nothing answers there")
        rate = self._first.get(cv2.CAP_PROP_FPS)
        self._rate = rate if RATES[0] <= rate <= RATES[1] else USUAL_RATE
        self.dropped = 0
        """Frames that nobody looked at, because a newer one had come."""
        self.connected = 1
        """How often a connection was made."""
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._stop = False
        self._over = False

    @property
    def rate(self) -> float:
        """See `Video`."""
        return self._rate / self.every

    def frames(self) -> Iterator[Frame]:
        """See `Video`: the newest one, each at most once."""
        thread = threading.Thread(target=self._watch, name="retinue-stream", daemon=True)
        thread.start()
        try:
            while True:
                with self._changed:
                    while self._newest is None and not self._over:
                        self._changed.wait(0.2)
                    frame, self._newest = self._newest, None
                if frame is None:
                    return
                yield frame
        finally:
            with self._changed:
                self._stop = not self._over
            thread.join(_TIMEOUT / 1000 + 1)

    def _watch(self) -> None:
        capture: Capture | None = self._first
        began = last = time.monotonic()
        try:
            while not self._stop:
                if capture is not None and self._take(capture, began):
                    last = time.monotonic()
                    continue
                if capture is not None:
                    self.lost += 1
                    capture.release()
                if time.monotonic() - last > self._patience:
                    return
                time.sleep(self._pause)
                capture = self._connected()
        finally:
            if capture is not None:
                capture.release()
            with self._changed:
                self._over = True
                self._changed.notify()

    def _take(self, capture: Capture, began: float) -> bool:
        """The next frame; False where none comes."""
        try:
            fine = capture.grab()
            number, moment = self.read, time.monotonic() - began
            if fine and number % self.every == 0:
                fine, image = capture.retrieve()
        except cv2.error:
            return False
        if not fine:
            return False
        self.read += 1
        if number % self.every == 0:
            frame = Frame(number, round(moment, 6), _rgb(image))
            with self._changed:
                self.dropped += self._newest is not None
                self._newest = frame
                self._changed.notify()
        return True

    def _connected(self) -> Capture | None:
        capture = self._opens()
        if capture.isOpened():
            self.connected += 1
            return capture
        capture.release()
        return None

    def complaint(self) -> str:
        """See `Video`: a stream that ended did not end by itself."""
        if self._stop or not self._over:
            return ""
        return f"nothing came any more after {counted(self.read, 'frame')}"


def _rgb(image: Any) -> Pixels:
    """uint8 (height, width, 3) of what OpenCV gives: grey, BGR or BGRA."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        pixels = (pixels / max(np.iinfo(pixels.dtype).max // 255, 1)).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[..., 2::-1])
