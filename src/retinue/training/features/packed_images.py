"""Training images that were made small (`data.packed`), kept beside cached features: one file of
pixels for what one training made, found by path, size and time of each image's file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retinue.data import complaints
from retinue.data.dimensions import dimensions, upright
from retinue.data.packed import Small, SmallImages, is_packed, read, size_of
from retinue.data.remembered import fact
from retinue.errors import BadImageError
from retinue.sample import Preprocessing, Sample
from retinue.training.features.cache import FeatureCache
from retinue.training.features.keys import pixel_code, space_key
from retinue.training.features.layouts import Pieces, Rows, as_text
from retinue.training.features.segments import NotWrittenError

_LOOKED_AT = 256
"""Images whose sizes tell how much room all take."""
_MARGIN = 1.25
"""More than so many times that is not written."""
_AHEAD = 64
"""Images that are made at a time."""


@dataclass(frozen=True)
class Packed:
    """What came of packing."""

    images: int
    """That are found in the cache."""
    of: int
    """That could be."""
    spaces: tuple[str, ...]
    """The folders in the cache."""


class PackedImages:
    """A `Store` of the images that are `side` pixels or less at their shorter side, seen as `how`
    says. Close it."""

    def __init__(self, cache: FeatureCache, side: int, how: Preprocessing) -> None:
        facts = {
            "packed": side,
            "background": list(how.background),
            "depth": how.depth,
            **pixel_code(),
        }
        self._cache = cache
        self.side = side
        """At most so many pixels."""
        self._how = how
        self._space = cache.space(space_key(facts, {}), Pieces())
        self._names: npt.NDArray[np.bytes_] = np.zeros(0, "S16")
        self._rows: Rows = np.zeros(0, np.int64)
        self._damaged: dict[bytes, Sample] = {}

    def find(self, sample: Sample) -> Small | None:
        """See `Store`; whether its bytes are what was written is looked at."""
        key = fact(sample)
        if key is None or not len(self._names):
            return None
        name = as_text([key])[0]
        at = int(self._names.searchsorted(name))
        if at == len(self._names) or self._names[at] != name:
            return None
        piece = self._space.piece(int(self._rows[at]))
        small = None if piece is None else read(piece, sample.key)
        if small is None:
            self._damaged[key] = sample
        return small

    def take(self, samples: Sequence[Sample]) -> tuple[Packed, Rows]:
        """Hold what there is of `samples`; and the positions of those that there is not, each image
        once."""
        keys = np.zeros((len(samples), 16), np.uint8)
        known = np.zeros(len(samples), np.bool_)
        for k, sample in enumerate(samples):
            if is_packed(sample) and (key := fact(sample)) is not None:
                keys[k] = np.frombuffer(key, np.uint8)
                known[k] = True
        positions = np.flatnonzero(known)
        names, first = np.unique(as_text(keys[positions]), return_index=True)
        self._space.refresh()
        found = self._space.find(names.view(np.uint8).reshape(-1, 16))
        there = found >= 0
        self._names, self._rows = names[there], found[there]
        packed = Packed(int(there.sum()), len(names), (self._space.name,))
        return packed, np.sort(positions[first[~there]])

    def fill(
        self, samples: Sequence[Sample], absent: Rows, workers: int, each: Callable[[int], None]
    ) -> str | None:
        """Make and keep what is `absent` of `samples`; or why that was not done, or not all. `each`
        is told how many there are, now and then, and may raise: what is done by then is kept.
        Images that cannot be read are left out."""
        need = self._need(samples, absent, workers)
        why = self._cache.make_room(need)
        if why is not None:
            return why
        written = 0
        try:
            with self._space.writer(len(absent)) as writer:
                for done, (key, small) in enumerate(self._made(samples, absent, workers), 1):
                    if key is not None and small is not None:
                        piece = small.written()
                        written += len(piece)
                        if written > _MARGIN * need:
                            return f"they need more than the estimated {need / 1e9:.1f} GB"
                        writer.add(key, piece)
                    if done % _AHEAD == 0 or done == len(absent):
                        each(done)
        except NotWrittenError as error:
            return error.what
        return None

    def close(self) -> None:
        """Let go of the files; what was found to be damaged is made anew first."""
        damaged, self._damaged = list(self._damaged.values()), {}
        if damaged:
            self.fill(damaged, np.arange(len(damaged)), 1, lambda done: None)
        self._names, self._rows = self._names[:0], self._rows[:0]
        self._space.close()

    def _need(self, samples: Sequence[Sample], absent: Rows, workers: int) -> int:
        """About how many bytes they take, by the headers of some."""
        chosen = [samples[k] for k in absent[:: max(len(absent) // _LOOKED_AT, 1)].tolist()]
        found = dimensions([s.key for s in chosen], [s.read for s in chosen], max(workers, 1))
        sizes = [size_of((w, h), self.side) for w, h in upright(found).tolist() if w and h]
        mean = sum(w * h for w, h in sizes) / max(len(sizes), 1)
        return round(Pieces().bytes_of(len(absent)) + len(absent) * (3 * mean + 16))

    def _made(
        self, samples: Sequence[Sample], absent: Rows, workers: int
    ) -> Iterator[tuple[bytes | None, Small | None]]:
        """Their keys and images in order, some at a time."""
        images = SmallImages(self.side)

        def make(position: int) -> tuple[bytes | None, Small | None]:
            sample = samples[position]
            key = fact(sample)  # before its bytes: what is changed meanwhile has another
            try:
                return key, images.made(sample, self._how)
            except BadImageError:  # whoever reads it is told
                return key, None

        with complaints.told_once(), ThreadPoolExecutor(max(workers, 1)) as pool:
            for start in range(0, len(absent), _AHEAD):
                yield from pool.map(make, absent[start : start + _AHEAD].tolist())
