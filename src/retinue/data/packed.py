"""Training images made small beforehand: what `data.packed` means for their pixels.

An image whose shorter side is longer than `side` is decoded, turned upright and averaged down to
that, once, as if the decoder had such a scale: matrices and targets are those of the original. A
`Store` may keep what came of it; where it has nothing, the same pixels are computed from the file.
So a training does not depend on what any cache holds.

Only images that are decoded from a file are made small, and only where all of them is looked at:
parts of larger ones (`Sample.part`) and arrays stay as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np

from retinue.arrays import ImageSize, Matrix, Pixels, Size
from retinue.data import geometry
from retinue.data.decode import Decoded, Encoded
from retinue.data.sources.member import Member
from retinue.data.views import Opening, Source, open_image, turn
from retinue.sample import Preprocessing, Sample

FACTOR = 1.5
"""How much longer the shorter side is than the largest input that the recipe trains on: a random
crop of more than 44 % of the area then still has a pixel for each of the input's."""
_HEADER = struct.Struct("<4I")
"""Width and height of the upright original, and of the pixels that follow."""


def side_of(packed: Literal["off", "auto"] | int, inputs: Sequence[Size]) -> int | None:
    """How long the shorter side is at most; None: images stay as they are. `inputs`: height and
    width of all that is trained on."""
    if packed == "off":
        return None
    if packed == "auto":
        return round(FACTOR * max(max(size) for size in inputs))
    return packed


def size_of(original: ImageSize, side: int) -> ImageSize:
    """Width and height that an upright original of this width and height is made small to: what is
    small already stays as it is."""
    width, height = original
    scale = min(1.0, side / min(width, height))
    return max(round(width * scale), 1), max(round(height * scale), 1)


@dataclass(frozen=True, slots=True)
class Small:
    """An image made small; a `Source`."""

    path: str
    size: ImageSize
    """Of the upright original."""
    image: Pixels
    """uint8 (height, width, 3), upright."""

    @property
    def nbytes(self) -> int:
        """See `data.views.Source`."""
        return self.image.nbytes

    def scale(self, at_least: Size | None) -> int:
        """See `data.views.Source`."""
        return 1

    def decode(self, at_least: Size | None = None) -> Decoded:
        """All that there is."""
        height, width = self.image.shape[:2]
        return Decoded(self.image, _scaled((width, height), self.size), self.size)

    def written(self) -> bytes:
        """As `read` reads it."""
        height, width = self.image.shape[:2]
        return _HEADER.pack(*self.size, width, height) + self.image.tobytes()


def read(written: bytes | bytearray, path: str) -> Small | None:
    """What `Small.written` gave; None for anything else."""
    if len(written) <= _HEADER.size:
        return None
    wide, tall, width, height = _HEADER.unpack_from(written)
    if len(written) != _HEADER.size + 3 * width * height:
        return None
    pixels = np.frombuffer(written, np.uint8, offset=_HEADER.size)
    return Small(path, (wide, tall), pixels.reshape(height, width, 3))


def made_small(encoded: Encoded, side: int) -> Small:
    """Decodes it. Raises `BadImageError`."""
    width, height = size_of(encoded.size, side)
    decoded = encoded.decode((height, width))
    corners = np.array([decoded.image.shape[1::-1], (0, 0)], np.float64)
    reached = geometry.apply(decoded.to_original, corners)
    if not np.allclose(abs(reached[0] - reached[1]), encoded.size):
        decoded = encoded.decode()  # the last block of the scaled one reaches beyond the original
    image = np.ascontiguousarray(turn(decoded.image, encoded.orientation))
    if image.shape[:2] != (height, width):
        shrunk = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        image = np.asarray(shrunk, dtype=np.uint8)
    return Small(encoded.path, encoded.size, image)


def _scaled(of: ImageSize, to: ImageSize) -> Matrix:
    return geometry.scale(to[0] / of[0], to[1] / of[1])


def is_packed(sample: Sample) -> bool:
    """Whether its image is made small."""
    return sample.part is None and (sample.read is None or isinstance(sample.read, Member))


class Store(Protocol):
    """Keeps images that were made small."""

    def find(self, sample: Sample) -> Small | None:
        """That of the sample, as its file is now; None: it has to be made."""


class SmallImages(Opening):
    """Opens samples' images small, from the `store` if they are there. Called from several threads
    at once."""

    def __init__(self, side: int, store: Store | None = None) -> None:
        self.side = side
        self.store = store

    def open(self, sample: Sample, how: Preprocessing) -> Source:
        """See `Opening`."""
        if not is_packed(sample):
            return super().open(sample, how)
        found = None if self.store is None else self.store.find(sample)
        return found or self.made(sample, how)

    def made(self, sample: Sample, how: Preprocessing) -> Small:
        """That of its file. Raises `BadImageError`."""
        return made_small(open_image(sample, how), self.side)

    def frame(self, sample: Sample, size: ImageSize) -> tuple[ImageSize, Matrix]:
        """See `Opening`: crops are drawn on whole pixels of what was made small."""
        if not is_packed(sample):
            return super().frame(sample, size)
        small = size_of(size, self.side)
        return small, _scaled(size, small)
