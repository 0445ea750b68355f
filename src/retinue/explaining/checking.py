"""Whether a map matters: what becomes of the answer when what it points at goes, or comes.

Deletion and insertion (Petsiuk et al., 2018, "RISE", section 4.2): pixels of the network's input
are painted over in the map's order, the warmest first, or come back into a blurred image; the score
of the class over the share of pixels is a curve, and the area below it the figure. The predictor
answers as it always does, whatever it is made of.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinue.arrays import ImageSize
from retinue.data.geometry import translate
from retinue.errors import UsageError
from retinue.explaining.explanation import Explanation
from retinue.explaining.looking import seen
from retinue.inference.predictor import Predictor, Source, as_sample
from retinue.sample import Batch, Pixels

STEPS = 32
"""Parts of the image that go, or come, one after the other."""
_AT_ONCE = 16
_BLUR = 16
"""The blur's standard deviation is this part of the input's longer side."""

Heatmap = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Check:
    """How the score of the class goes as pixels do."""

    deleted: tuple[float, ...]
    """The score with none of the pixels painted over, with the warmest, … with all of them."""
    inserted: tuple[float, ...]
    """The score with none of the pixels in the blurred image, … with all of them."""

    @property
    def deletion(self) -> float:
        """The area below `deleted`, between 0 and 1: low where the map finds what matters."""
        return _area(self.deleted)

    @property
    def insertion(self) -> float:
        """The area below `inserted`, between 0 and 1: high where the map finds what matters."""
        return _area(self.inserted)


def check(
    predictor: Predictor,
    image: Source,
    heat: Explanation | Heatmap,
    target: str | None = None,
    *,
    steps: int = STEPS,
) -> Check:
    """How well `heat`, (height, width) of the upright `image`, or an explanation of it, tells what
    matters for the class `target`, by default the explanation's own.

    Pixels that are equally warm go in a random order, always the same one. Raises UsageError for a
    map of another size, and where no class is meant; BadImageError.
    """
    if isinstance(heat, Explanation):
        target, heat = target or heat.target, heat.heat
    if target not in predictor.classes:
        raise UsageError(
            "the check needs to know for which class" if not target else f"no class {target!r}",
            where="key target",
            mend="name one of the model's classes",
        )
    if steps < 1:
        raise UsageError(
            f"the check needs at least one step, not {steps}",
            where="key steps",
            mend="take 1 or more",
        )
    of = predictor.classes.index(target)
    batch = seen(predictor, as_sample(image, "the image"))
    width, height = batch.original_size[0].tolist()
    if heat.shape != (height, width):
        raise UsageError(
            f"a map of {heat.shape[1]} × {heat.shape[0]} pixels, and an image of {width} × {height}"
        )
    order = _order(heat, batch)
    pixels = batch.images[0].permute(1, 2, 0).numpy()
    grey = np.rint(255 * np.array(predictor.preprocessing.mean)).clip(0, 255).astype(np.uint8)
    blank = np.broadcast_to(grey, pixels.shape)
    blurred = cv2.GaussianBlur(pixels, (0, 0), max(pixels.shape[:2]) / _BLUR)
    return Check(
        _curve(predictor, batch, of, pixels, blank, order, steps),
        _curve(predictor, batch, of, np.asarray(blurred, np.uint8), pixels, order, steps),
    )


def centre_map(size: ImageSize) -> Heatmap:
    """What one would say without having looked: that the middle matters. (height, width) of an
    image of `size` (width, height), a Gaussian whose standard deviation is a quarter of each
    side."""
    column, row = ((np.arange(side) + 0.5) / side - 0.5 for side in size)
    heat: Heatmap = np.exp(-8 * (row[:, None] ** 2 + column**2)).astype(np.float32)
    return heat


def _order(heat: Heatmap, batch: Batch) -> npt.NDArray[np.int64]:
    """The places of the input's pixels that show the image, the warmest first."""
    back = translate(-0.5, -0.5) @ batch.to_original[0] @ translate(0.5, 0.5)
    how, size = back[:2] / back[2, 2], (batch.images.shape[3], batch.images.shape[2])
    flags = cv2.WARP_INVERSE_MAP  # the matrix leads from the input to the image
    warm = cv2.warpAffine(heat, how, size, flags=flags | cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_REPLICATE).ravel()  # fmt: skip
    shows = cv2.warpAffine(np.ones(heat.shape, np.uint8), how, size,
                           flags=flags | cv2.INTER_NEAREST).ravel()  # fmt: skip
    places = np.flatnonzero(shows)
    places = np.random.default_rng(0).permutation(places)
    order: npt.NDArray[np.int64] = places[np.argsort(-warm[places], kind="stable")]
    return order


def _curve(
    predictor: Predictor,
    batch: Batch,
    of: int,
    begin: Pixels,
    end: Pixels,
    order: npt.NDArray[np.int64],
    steps: int,
) -> tuple[float, ...]:
    """The score of class `of` with more and more pixels of `end` in place of those of `begin`."""
    counts = np.linspace(0, len(order), steps + 1).round().astype(int)
    scores: list[float] = []
    for some in np.array_split(counts, -(-len(counts) // _AT_ONCE)):
        shown = np.repeat(begin[None], len(some), 0)
        for picture, count in zip(shown, some.tolist(), strict=True):
            places = np.unravel_index(order[:count], begin.shape[:2])
            picture[places] = end[places]
        tensor = torch.from_numpy(shown).permute(0, 3, 1, 2)  # channels-last memory
        for finding in predictor.findings(_repeated(batch, tensor)):
            scores.append(float(predictor.task.class_scores(finding)[of]))
    return tuple(scores)


def _repeated(batch: Batch, images: Tensor) -> Batch:
    """The one image of `batch` as other `images`."""
    count = len(images)
    return replace(
        batch,
        images=images,
        samples=batch.samples * count,
        keys=batch.keys.repeat(count),
        weight=batch.weight.repeat(count),
        to_original=batch.to_original.repeat(count, 0),
        original_size=batch.original_size.repeat(count, 0),
        targets={},
    )


def _area(curve: tuple[float, ...]) -> float:
    ends = (curve[0] + curve[-1]) / 2
    return (sum(curve) - ends) / (len(curve) - 1)
