"""The types that flow between the rooms of the house: `Sample`, `Batch`, `Result`.

Pixels are RGB uint8. Boxes are ``x1, y1, x2, y2`` in pixels, with pixel centres at +½, so that a
box around a whole image is ``0, 0, width, height``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of a network; evaluation, prediction and export share it."""

    size: tuple[int, int] = (224, 224)
    """Height and width of the network's input, in pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Per-channel mean, of values between 0 and 1."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per-channel standard deviation, of values between 0 and 1."""
    interpolation: Interpolation = "bicubic"
    fit: Literal["crop", "squash", "letterbox"] = "crop"
    """`crop`: the largest centred window of the input's shape, times `crop_fraction`; `squash`:
    the whole image, its aspect ratio given up; `letterbox`: the whole image, padded."""
    crop_fraction: float = 0.875
    """Side of the centre crop as a fraction of the resized image's (`crop` only)."""
    pad_value: int = 114
    """Grey of the padding, 0–255 (`letterbox` only)."""

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width that the resized image covers before its middle is cut out (`crop`
        only): whole pixels, rounded down as torchvision and timm do."""
        height, width = (math.floor(side / self.crop_fraction + 1e-9) for side in self.size)
        return height, width

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """The inverse of `as_dict`."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with what is known of it. The image is read when it is needed."""

    path: str
    """The file, or a name for an image that came from memory."""
    image: bytes | npt.NDArray[np.uint8] | None = None
    """Encoded bytes, or RGB uint8 of shape (height, width, 3); None: read the file `path`."""
    label: int | None = None
    """Index into the classes."""
    boxes: npt.NDArray[np.float32] | None = None
    """(n, 4) `x1, y1, x2, y2` in pixels of the upright image."""
    box_labels: npt.NDArray[np.int64] | None = None
    """(n,) indices into the classes."""
    weight: float = 1.0
    """How much this sample counts in the loss."""


@dataclass(slots=True)
class Batch:
    """Images of one size with their targets. `images`, `index` and `paths` are always there."""

    images: Tensor
    """uint8 (n, 3, height, width), channels-last memory."""
    index: Tensor
    """int64 (n,): the position of each sample in its split; keys the random draws."""
    paths: list[str]
    epoch: int = 0
    """The epoch, or the view's number; keys the random draws."""
    weight: Tensor | None = None
    """float32 (n,)"""
    labels: Tensor | None = None
    """int64 (n,), or float32 (n, classes) of soft labels, each row adding up to 1."""
    boxes: Tensor | None = None
    """float32 (n, most, 4) in pixels of the network's input, padded with zeros."""
    box_labels: Tensor | None = None
    """int64 (n, most)"""
    box_mask: Tensor | None = None
    """bool (n, most): True where there is a box."""
    to_original: Tensor | None = None
    """float64 (n, 3, 3): from pixels of the network's input to pixels of the original image."""
    original_size: Tensor | None = None
    """int64 (n, 2): width and height of the original, upright image."""
    inputs: Any = None
    """What the network takes: float32 (n, 3, height, width) normalised images, or the cached
    output of a frozen trunk (a tensor or a tuple of tensors)."""

    def __len__(self) -> int:
        return len(self.paths)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on `device`."""
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class Box:
    """An object found: `xyxy` in pixels of the original image, `score` between 0 and 1."""

    name: str
    score: float
    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Result:
    """What was recognised in one image: classes with scores (best first), or boxes."""

    path: str
    classes: list[tuple[str, float]] = field(default_factory=list)
    boxes: list[Box] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The line of `predictions.jsonl`."""
        if self.boxes is not None:
            boxes = [{"name": b.name, "score": b.score, "xyxy": list(b.xyxy)} for b in self.boxes]
            return {"path": self.path, "boxes": boxes}
        return {"path": self.path, "classes": [{"name": n, "score": s} for n, s in self.classes]}
