"""How images come to what a predictor asks: framed and normalised as a network takes them, or whole
to an export that does all of that itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retinue.data.loader import in_order
from retinue.data.normalising import Normalising
from retinue.data.views import EvalView, View, WholeView, open_image
from retinue.errors import BadImageError
from retinue.nested import is_tensor
from retinue.sample import BatchPlan, Preprocessing, Row, Sample, Size

if TYPE_CHECKING:
    from torch import Tensor

    from retinue.data.colour import Colour


class Intake(Protocol):
    """From samples to what an engine takes."""

    view: View
    """How each is shown on the canvas of its plan."""

    def plans(self, samples: Iterable[Sample], batch_size: int) -> Iterator[BatchPlan]:
        """Batches of at most `batch_size`, in order."""
        ...

    def inputs(self, images: Tensor) -> Tensor:
        """Of uint8 images (n, 3, height, width) what the engine takes; arrays where they are."""
        ...


class Framed:
    """As networks take them: of one size, normalised."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.view: View = EvalView(preprocessing)
        self._size = preprocessing.size
        self._how = preprocessing
        self._normalise = Normalising(preprocessing)
        self._colour: Colour | None = None

    def plans(self, samples: Iterable[Sample], batch_size: int) -> Iterator[BatchPlan]:
        """See `Intake`."""
        return in_order(samples, batch_size, self._size)

    def inputs(self, images: Tensor) -> Tensor:
        """See `Intake`: float32 (n, 3, height, width)."""
        if not is_tensor(images):
            return self._normalise(images)  # type: ignore[arg-type, return-value]
        if self._colour is None:
            from retinue.data.colour import Colour

            self._colour = Colour(self._how)
        return self._colour.normalised(images)


class Whole:
    """As they are: uint8, each of its own size, with those of the same size beside it."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.view: View = WholeView(preprocessing)
        self._how = preprocessing

    def plans(self, samples: Iterable[Sample], batch_size: int) -> Iterator[BatchPlan]:
        """See `Intake`: neighbours of one size together."""
        rows: list[Row] = []
        size: Size = (0, 0)
        for key, sample in enumerate(samples):
            own = self._size(sample)
            if rows and (own != size or len(rows) == batch_size):
                yield BatchPlan(rows, size, total=len(rows))
                rows = []
            rows.append(Row(key, (sample,)))
            size = own
            if len(rows) == batch_size:
                yield BatchPlan(rows, size, total=len(rows))
                rows = []
        if rows:
            yield BatchPlan(rows, size, total=len(rows))

    def _size(self, sample: Sample) -> Size:
        try:
            width, height = sample.frame(open_image(sample, self._how).size)
        except BadImageError:
            return 1, 1  # which the view will say
        return height, width

    def inputs(self, images: Tensor) -> Tensor:
        """See `Intake`: uint8 (n, height, width, 3)."""
        if not is_tensor(images):
            array: Any = images
            return np.ascontiguousarray(array.transpose(0, 2, 3, 1))  # type: ignore[return-value]
        return images.permute(0, 2, 3, 1).contiguous()
