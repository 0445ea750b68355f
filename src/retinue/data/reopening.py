"""Images of which several views are rendered one soon after the other: each is read once, and
decoded once for each scale that its views need."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from retinue.data.decode import Decoded
from retinue.data.views import Opening, Source, TrainView, View
from retinue.sample import ImageSize, Matrix, Preprocessing, Sample, Size

LARGEST = 6_000_000
"""Bytes that an image, and its pixels at a scale, may take to be kept: what is larger is read or
decoded again, so that all that is kept has a bound."""


@contextmanager
def reopening(view: View, most: int) -> Iterator[None]:
    """Meanwhile `view`, if it is for training, keeps up to `most` images, those opened last."""
    if not isinstance(view, TrainView):
        yield
        return
    before = view.opening
    view.opening = _Reopening(before, most)
    try:
        yield
    finally:
        view.opening = before


class _Reopening(Opening):
    """Opens as `opening` does. Called from several threads at once: two of them may read the same
    image, and either's is as good."""

    def __init__(self, opening: Opening, most: int) -> None:
        self._opening = opening
        self._most = most
        self._kept: OrderedDict[int, tuple[Sample, _Kept]] = OrderedDict()
        self._turn = threading.Lock()

    def open(self, sample: Sample, how: Preprocessing) -> Source:
        """See `Opening`."""
        with self._turn:
            found = self._kept.get(id(sample))
            if found is not None:
                self._kept.move_to_end(id(sample))
                return found[1]
        source = self._opening.open(sample, how)
        if source.nbytes > LARGEST:
            return source
        opened = _Kept(source)
        with self._turn:  # the sample is held, too, or another one might come by its identity
            self._kept[id(sample)] = sample, opened
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return opened

    def frame(self, sample: Sample, size: ImageSize) -> tuple[ImageSize, Matrix]:
        """See `Opening`."""
        return self._opening.frame(sample, size)


class _Kept:
    """`source` with what was decoded of it, by scale."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._decoded: dict[int, Decoded] = {}

    @property
    def size(self) -> ImageSize:
        """See `Source`."""
        return self._source.size

    @property
    def nbytes(self) -> int:
        """See `Source`."""
        return self._source.nbytes + sum(d.image.nbytes for d in list(self._decoded.values()))

    def scale(self, at_least: Size | None) -> int:
        """See `Source`."""
        return self._source.scale(at_least)

    def decode(self, at_least: Size | None = None) -> Decoded:
        """See `Source`."""
        scale = self.scale(at_least)
        found = self._decoded.get(scale)
        if found is None:
            found = self._source.decode(at_least)
            if found.image.nbytes <= LARGEST:
                self._decoded[scale] = found
        return found
