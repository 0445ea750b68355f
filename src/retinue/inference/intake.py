"""How images come to what a predictor asks: framed and normalised as a network takes them, or whole
to an export that does all of that itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from torch import Tensor

from retinue.data import geometry
from retinue.data.colour import Colour
from retinue.data.loader import in_order
from retinue.data.views import EvalView, Seen, View, open_image, turn
from retinue.errors import BadImageError
from retinue.sample import BatchPlan, ImageSize, Pixels, Preprocessing, Row, Sample, Size


class Intake(Protocol):
    """From samples to what an engine takes."""

    view: View
    """How each is shown on the canvas of its plan."""

    def plans(self, samples: Iterable[Sample], batch_size: int) -> Iterator[BatchPlan]:
        """Batches of at most `batch_size`, in order."""
        ...

    def inputs(self, images: Tensor) -> Tensor:
        """Of uint8 images (n, 3, height, width) what the engine takes."""
        ...


class Framed:
    """As networks take them: of one size, normalised."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.view: View = EvalView(preprocessing)
        self._size = preprocessing.size
        self._colour = Colour(preprocessing)

    def plans(self, samples: Iterable[Sample], batch_size: int) -> Iterator[BatchPlan]:
        """See `Intake`."""
        return in_order(samples, batch_size, self._size)

    def inputs(self, images: Tensor) -> Tensor:
        """See `Intake`: float32 (n, 3, height, width)."""
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
        return images.permute(0, 2, 3, 1).contiguous()


class WholeView:
    """All of the upright image, or of the sample's part of it, pixel by pixel."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def cast(self, position: int, *, key: int, epoch: int) -> tuple[int, ...]:
        """See `View`."""
        return (position,)

    def see(
        self, samples: Sequence[Sample], sizes: Sequence[ImageSize], *, key: int = 0,
        epoch: int = 0, size: Size,
    ) -> Seen:  # fmt: skip
        """See `View`."""
        x, y = (0, 0) if samples[0].part is None else samples[0].part[:2]
        matrix = geometry.translate(-round(x), -round(y))
        target = samples[0].target
        shown = None if target is None else target.through(matrix, size)
        return Seen(shown, geometry.inverse(matrix), sizes[0])

    def render(
        self, samples: Sequence[Sample], *, key: int = 0, epoch: int = 0, size: Size, out: Pixels
    ) -> tuple[Seen, list[ImageSize]]:
        """See `View`."""
        encoded = open_image(samples[0], self.preprocessing)
        image = turn(encoded.decode().image, encoded.orientation)
        x, y = (0, 0) if samples[0].part is None else map(round, samples[0].part[:2])
        part = image[y : y + size[0], x : x + size[1]]
        if part.shape[:2] != size:
            raise BadImageError({encoded.path: "its size is not what its header says"})
        out[...] = part
        return self.see(samples, [encoded.size], size=size), [encoded.size]
