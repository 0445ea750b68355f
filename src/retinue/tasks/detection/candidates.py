"""What a detector says of one image before suppression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retinue.sample import ImageSize


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Boxes with a class and a score each, many of them of the same object; a row a candidate."""

    xyxy: npt.NDArray[np.float32]
    """(k, 4): x1, y1, x2, y2 in pixels of the upright original."""
    score: npt.NDArray[np.float32]
    """(k,): between 0 and 1."""
    of: npt.NDArray[np.int64]
    """(k,): index of the class."""
    size: ImageSize
    """Width and height of the original."""

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, picked: npt.NDArray[np.int64 | np.bool_]) -> Candidates:
        """Those at the places `picked`, in that order; or where it is True."""
        return Candidates(self.xyxy[picked], self.score[picked], self.of[picked], self.size)

    @classmethod
    def none(cls, size: ImageSize) -> Candidates:
        """Of an image in which nothing was found."""
        return cls(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), size
        )


def merged(parts: Sequence[Candidates]) -> Candidates:
    """All those of several views, tiles or models of one image, of which there is at least one.
    Raises ValueError where they are of images of different sizes."""
    sizes = {part.size for part in parts}
    if len(sizes) != 1:
        raise ValueError(f"candidates of images of {len(sizes)} sizes: {sorted(sizes)}")
    return Candidates(
        np.concatenate([part.xyxy for part in parts]),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.of for part in parts]),
        parts[0].size,
    )
