"""The types that flow between the rooms of the house: `Sample`, `Target`, `Row`, `Batch`, `Result`.

Pixels are RGB uint8. Coordinates are x, y in pixels, with pixel centres at +½, so that an image
reaches from 0, 0 to width, height.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from retinue.arrays import ImageSize as ImageSize
from retinue.arrays import Matrix as Matrix
from retinue.arrays import Pixels as Pixels
from retinue.arrays import Polygon as Polygon
from retinue.arrays import Read as Read
from retinue.arrays import Rectangle as Rectangle
from retinue.arrays import Size as Size

if TYPE_CHECKING:  # whatever only reads images need not wait for torch
    from torch import Tensor

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
LARGEST_SIDE = 1 << 14
"""Of a network's input, in pixels: a batch of two such images is 6 GB."""
SMALLEST_TILE = 16
"""The smallest side of a part of an image that is looked at by itself, in pixels."""
SMALLEST_CROP = 0.01
"""The smallest `crop_fraction`."""


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
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB 0–255 behind transparent pixels."""
    depth: int = 16
    """Bits that 16-bit grey images use, 8–16: 12 for values up to 4095. Higher ones are white."""

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


class Target(ABC):
    """What is known of one image, and how it goes along with what is done to the image.

    Immutable. Coordinates are in pixels of the upright original, or of a canvas once they have
    gone `through` a matrix. Classes are names until a data set has settled their order, then
    indices: `remap` leads from the one to the other, and from one order to another.
    """

    places: ClassVar[bool] = False
    """Whether it says where something is: then it speaks of everything that shows on a canvas,
    whatever share of the canvas' classes a source has."""
    exclusive: ClassVar[bool] = False
    """Whether it is of just one of the classes: where there is a single one, there is then nothing
    to be told apart."""

    @abstractmethod
    def names(self) -> tuple[str | int, ...]:
        """The classes that occur in it, each once."""

    def mentioned(self) -> tuple[str | int, ...]:
        """Those of which it says anything, each once: beside `names` also classes that may occur
        in the image or not."""
        return self.names()

    def marks(self) -> Sequence[tuple[str | int, tuple[float, float, float, float], bool]]:
        """What it says of places: class, x1, y1, x2, y2, and whether it is only a hint, which is
        not to be learnt."""
        return ()

    @abstractmethod
    def remap(self, classes: Mapping[Any, int]) -> Self | None:
        """With other classes for the present ones. What is not among them falls away; None where
        nothing is left to learn from."""

    def leaving_open(self, classes: Sequence[int]) -> Self:
        """As it is where the data set never speaks of `classes`, which a model knows beside its
        own: whoever tells all that there is has told everything about them, too."""
        return self

    def through(
        self,
        matrix: Matrix,
        size: Size,
        region: Rectangle | Polygon | None = None,
        covered: Sequence[Rectangle | Polygon] = (),
    ) -> Self:
        """As it is seen on a canvas of `size` (height, width) that the image came to by `matrix`,
        as far as it shows in `region` of the canvas (None: all of it) and is not `covered`."""
        return self

    @abstractmethod
    def fingerprint(self) -> str:
        """A short text that differs wherever anything differs."""

    def agrees(self, other: Target) -> bool:
        """Whether both can be right of the same image."""
        return self.fingerprint() == other.fingerprint()

    @abstractmethod
    def stratum(self) -> str:
        """What splits and samplers keep even."""

    @classmethod
    @abstractmethod
    def mix(cls, parts: Sequence[tuple[Self, float]]) -> Self:
        """Of one canvas that shows several images, each with its share of it. The shares add up
        to 1; what has none is not there."""

    @classmethod
    @abstractmethod
    def collate(cls, targets: Sequence[Self | None]) -> dict[str, Tensor]:
        """Those of a batch as tensors of n rows each, padded where lengths differ. None: nothing is
        known of that image."""

    @classmethod
    @abstractmethod
    def mix_batch(
        cls, targets: dict[str, Tensor], partner: Tensor, share: Tensor
    ) -> dict[str, Tensor]:
        """Those of a batch in which image k keeps `share[k]` (float32) and has the rest from image
        `partner[k]` (int64). Raises UsageError for a kind that cannot be mixed."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""

    @classmethod
    @abstractmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Sample:
    """One image with what is known of it. The image is read when it is needed."""

    key: str
    """The file, or a name for an image that comes from elsewhere. Of a data set, the file's path is
    absolute: the same from whatever folder the data set is opened."""
    read: Read | None = None
    """Where the image comes from; None: the file that `key` names."""
    target: Target | None = None
    weight: float = 1.0
    """How much this sample counts in the loss."""
    name: str = ""
    """What it is called within its data set, wherever that lies; empty: as its key."""
    shard: str = ""
    """The file that holds its image among others, best read one after the other; empty: none."""
    part: Rectangle | None = None
    """What of the upright image is framed as if it were all there is, x1, y1, x2, y2 in its pixels;
    what lies around it may show at its edges. None: all of it. The target speaks of the whole."""

    def frame(self, size: ImageSize) -> ImageSize:
        """Width and height of its part of an image of `size` (width, height)."""
        if self.part is None:
            return size
        x1, y1, x2, y2 = self.part
        return round(x2 - x1), round(y2 - y1)


class Row(NamedTuple):
    """One row of a batch, as planned: which images it is made of."""

    key: int
    """Keys the random draws, together with the epoch."""
    samples: tuple[Sample, ...]
    """Its own first, then those that are pasted into it."""
    weight: float = 1.0
    """How much it counts; 0: it only fills the batch."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A batch before anything is read."""

    rows: Sequence[Row]
    size: Size
    """Of the network's input."""
    epoch: int = 0
    """The epoch, or the number of a view: keys the random draws."""
    total: float = 1.0
    """The weight of the whole optimiser step that this is a part of, over all processes."""


@dataclass(slots=True)
class Batch:
    """Images of one size with their targets. What a device never needs stays on the host, as NumPy
    arrays: geometry is in float64, which not every device has."""

    images: Tensor
    """uint8 (n, 3, height, width), channels-last memory. This and `weight` are NumPy arrays where
    whoever asks computes without PyTorch (`data.loader.Loader`)."""
    samples: list[Sample]
    """The one that each row shows; of several, the row's own."""
    keys: npt.NDArray[np.int64]
    """(n,): key the random draws."""
    weight: Tensor
    """float32 (n,): how much each row counts, 0 where it only fills the batch."""
    to_original: Matrix
    """float64 (n, 3, 3): from pixels of the network's input to pixels of the original image."""
    original_size: npt.NDArray[np.int64]
    """(n, 2): width and height of the original, upright image."""
    epoch: int = 0
    total: float = 1.0
    """As in the plan."""
    targets: dict[str, Any] = field(default_factory=dict)
    """What the samples' kind of target collates to: tensors, n rows each."""
    inputs: Any = None
    """What the network takes: float32 (n, 3, height, width) normalised images, or the cached
    output of a frozen trunk (a tensor or a tuple of tensors)."""

    def __len__(self) -> int:
        return len(self.samples)


class Part(Protocol):
    """Something that was found in an image, and where."""

    @property
    def name(self) -> str:
        """Of its class."""

    @property
    def score(self) -> float:
        """Between 0 and 1."""

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 in pixels of the upright original."""

    @property
    def track(self) -> int | None:
        """Of a thing that is followed through a video, its number there, from 1; None: of nothing
        that is sure to be one."""


class Result(ABC):
    """What was recognised in one image. Each task has its own kind."""

    path: str

    def called(self) -> str:
        """What a person calls the image."""
        return self.path

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """The line of `predictions.jsonl`."""

    @abstractmethod
    def columns(self) -> list[str]:
        """The header of `predictions.csv`, `path` first."""

    @abstractmethod
    def rows(self) -> list[list[Any]]:
        """Its rows of `predictions.csv`; without any, it gets one with the path alone."""

    @abstractmethod
    def fields(self) -> list[str]:
        """Its fields in `predictions.txt`, after the path."""

    @abstractmethod
    def answers(self) -> list[tuple[str, float]]:
        """(name, score) of what a person wants to see first."""

    def told(self) -> list[str]:
        """The same in a few words each, short enough for a line."""
        return [f"{name} {score:.1%}" for name, score in self.answers()]

    def parts(self) -> Sequence[Part]:
        """What was found at a place of its own, best first; of a task without `places`, nothing."""
        return ()
