"""What is written of every image beside the list: pictures with something painted on them, videos
of those, and what was found cut out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from retinue.data.sources.walking import DRAWN_MARK
from retinue.files import replacing, sweep
from retinue.inference import recording
from retinue.inference.naming import Names
from retinue.inference.predictor import Heat, original
from retinue.inference.recording import Recording
from retinue.inference.video import USUAL_RATE
from retinue.sample import ImageSize, Part, Pixels, Result, Sample
from retinue.tasks.results import FrameResult
from retinue.text import as_file_name

SAVED_AS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
"""Suffixes of pictures that keep their format; others become PNG."""


class Shown:
    """An image that has a result, at hand for who wants its pixels."""

    def __init__(
        self, sample: Sample, *, heat: tuple[Heat, ...] = (), rate: float = USUAL_RATE
    ) -> None:
        self._sample = sample
        self._pixels: Pixels | None = None
        self.heat = heat
        """As of `Answer`."""
        self.rate = rate
        """Of a frame's video, frames a second."""

    def pixels(self) -> Pixels:
        """The upright original, RGB uint8 (height, width, 3); decoded once, when it is asked
        for."""
        if self._pixels is None:
            self._pixels = original(self._sample)
        return self._pixels

    def size(self) -> ImageSize:
        """Width and height of it."""
        height, width = self.pixels().shape[:2]
        return width, height


Paint = Callable[[Result, Shown], Pixels]
"""The picture that is to be saved."""


class Extra(Protocol):
    """Something that is written of every image."""

    def add(self, result: Result, shown: Shown) -> None:
        """The next image."""
        ...

    def ended(self) -> None:
        """The video of the last results has ended."""
        ...

    def close(self) -> list[Path]:
        """All were added; the files to name, or the folder of those of one image each."""
        ...

    def leave(self) -> None:
        """Close what is open, whether all went well or not."""
        ...


class Painted:
    """Each picture with something painted on it, in the folders that they came from; the frames of
    a video become a video."""

    def __init__(self, out: Path, paint: Paint, names: Names) -> None:
        """`out`: a folder of their own, in which no search for pictures looks; `names`: of what is
        in it."""
        self._out, self._paint, self._names = out, paint, names
        self._swept: set[Path] = set()
        self._recording: Recording | None = None
        self._pictures = False
        self._videos: list[Path] = []
        out.mkdir(exist_ok=True)
        (out / DRAWN_MARK).touch()

    def add(self, result: Result, shown: Shown) -> None:
        """See `Extra`."""
        painted = self._paint(result, shown)
        if not isinstance(result, FrameResult):
            place = self._out / self._names.of(result, SAVED_AS, otherwise=".png")
            save(place, painted, self._swept)
            self._pictures = True
            return
        if self._recording is None:
            place = self._out / self._names.of(result.result, (recording.SUFFIX,),
                                               otherwise=recording.SUFFIX)  # fmt: skip
            place.parent.mkdir(parents=True, exist_ok=True)
            sweep(place.parent)
            self._recording = Recording(place, shown.rate)
            self._videos.append(place)
        self._recording.add(painted, result.time)

    def ended(self) -> None:
        """See `Extra`."""
        if self._recording is not None:
            finished, self._recording = self._recording, None
            finished.close()

    def close(self) -> list[Path]:
        """See `Extra`."""
        self.ended()
        return [*([self._out] if self._pictures else []), *self._videos]

    def leave(self) -> None:
        """See `Extra`."""
        if self._recording is not None:
            self._recording.abandon()


class Cut:
    """What was found, cut out: a picture each, in a folder a class."""

    def __init__(self, out: Path, names: Callable[[str], Names]) -> None:
        """`out`: a folder of their own; `names`: of what is in a folder within it."""
        self._out, self._names = out, names
        self._folders: dict[str, str] = {}
        self._swept: set[Path] = set()
        out.mkdir(exist_ok=True)
        (out / DRAWN_MARK).touch()

    def add(self, result: Result, shown: Shown) -> None:
        """See `Extra`."""
        for number, part in enumerate(result.parts(), 1):
            window = pixels_of(part, shown.size())
            if window is None:
                continue
            x1, y1, x2, y2 = window
            folder = self._folder(part.name)
            # A frame's number stands before that of what is in it; it has no format of its own.
            named = self._names(folder).of(result, SAVED_AS, otherwise=".png", tag=f"-{number}")
            place = self._out / folder / named
            save(place, shown.pixels()[y1:y2, x1:x2], self._swept, quality=95)

    def _folder(self, name: str) -> str:
        """One that every system can have, for this class alone."""
        if name not in self._folders:
            taken = {folder.casefold() for folder in self._folders.values()}
            wanted = folder = as_file_name(name, "class")
            number = 1
            while folder.casefold() in taken:
                number += 1
                folder = f"{wanted}-{number}"
            self._folders[name] = folder
        return self._folders[name]

    def ended(self) -> None:
        """See `Extra`."""

    def close(self) -> list[Path]:
        """See `Extra`."""
        return [self._out] if self._folders else []

    def leave(self) -> None:
        """See `Extra`."""


def pixels_of(part: Part, size: ImageSize) -> tuple[int, int, int, int] | None:
    """The whole pixels x1, y1, x2, y2 that show anything of `part`, in an image of `size` (width,
    height); None where it lies outside."""
    x1, y1 = (max(math.floor(value), 0) for value in part.xyxy[:2])
    x2, y2 = (min(math.ceil(v), side) for v, side in zip(part.xyxy[2:], size, strict=True))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def save(place: Path, image: Pixels, swept: set[Path], *, quality: int = 92) -> None:
    """Write RGB `image` as a whole, as the suffix of `place` says; what killed processes left in
    its folder goes, if that is not among the `swept`."""
    if place.parent not in swept:
        swept.add(place.parent)
        sweep(place.parent)
    with replacing(place) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(
            temporary, format=SAVED_AS[place.suffix.lower()], quality=quality
        )
