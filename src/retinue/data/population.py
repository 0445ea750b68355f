"""What samplers and composers know of a split: numbers about its samples, never the samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retinue.data.samples import Samples
from retinue.sample import Sample, Target

Indices = npt.NDArray[np.int64]


class Strata(NamedTuple):
    """The positions of a split, stratum after stratum."""

    order: Indices
    """(n,) all positions; those of a stratum stand together, ascending."""
    starts: Indices
    """(strata,) where in `order` each stratum begins."""
    counts: Indices
    """(strata,) how many positions each has; 0 for a code that does not occur."""

    def members(self, stratum: int) -> Indices:
        """The positions of one stratum, ascending."""
        start = self.starts[stratum]
        return self.order[start : start + self.counts[stratum]]


@dataclass(frozen=True, eq=False)
class Population:
    """The `n` samples of a split. Raises ValueError where lengths or codes are wrong."""

    stratum: Indices
    """int64 (n,): the code ≥ 0 of what each sample is balanced by, such as its class."""
    weight: npt.NDArray[np.float64]
    """float64 (n,), ≥ 0."""
    shard: Indices | None = None
    """int64 (n,): the code of the file that each sample lies in, if they lie in shards."""
    shown: Indices | None = None
    """int64 (m, 2): a row (position, class) for each class that a sample shows, where there may be
    several; None: the stratum alone."""
    places: bool = False
    """Whether what is known of any sample says where in the image something is."""

    def __post_init__(self) -> None:
        n = len(self.stratum)
        for name in ("weight", "shard"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise ValueError(f"{n} strata, but {len(values)} of {name}")
        if n and (self.stratum.min() < 0 or self.weight.min() < 0):
            raise ValueError("strata and weights must not be negative")

    @classmethod
    def of(
        cls,
        strata: Iterable[str],
        weights: Iterable[float] | None = None,
        shards: Iterable[str] | None = None,
        names: Sequence[Iterable[str | int]] | None = None,
        *,
        places: bool = False,
    ) -> Population:
        """From each sample's stratum, weight (default: 1), shard, and names of what it shows."""
        stratum = _codes(strata)
        weight = np.ones(len(stratum)) if weights is None else np.fromiter(weights, np.float64)
        shown = None
        if names is not None:
            once = [sorted(set(map(str, here))) for here in names]
            positions = np.repeat(np.arange(len(once)), [len(here) for here in once])
            shown = np.stack([positions, _codes(name for here in once for name in here)], axis=1)
        return cls(stratum, weight, None if shards is None else _codes(shards), shown, places)

    @classmethod
    def of_samples(cls, samples: Sequence[Sample]) -> Population:
        """The same of `samples`; of those held by columns none is made."""
        if isinstance(samples, Samples):
            return cls._of_columns(samples)
        shards = [sample.shard for sample in samples]
        return cls.of(
            ("" if s.target is None else s.target.stratum() for s in samples),
            (s.weight for s in samples),
            shards=None if "" in shards else shards,
            names=[_shown(sample.target) for sample in samples],
            places=any(s.target is not None and s.target.places for s in samples),
        )

    @classmethod
    def _of_columns(cls, samples: Samples) -> Population:
        # The last one is that of samples of which nothing is known.
        said = [*(target.stratum() for target in samples.targets), ""]
        shown = [*(sorted(set(map(str, _shown(t)))) for t in samples.targets), []]
        place = np.where(samples.target < 0, len(said) - 1, samples.target)
        there = np.unique(place).tolist()
        code = {text: k for k, text in enumerate(sorted({said[p] for p in there}))}
        stratum = np.array([code.get(text, 0) for text in said], np.int64)[place]
        name = {text: k for k, text in enumerate(sorted({n for p in there for n in shown[p]}))}
        counts = np.array([len(names) for names in shown], np.int64)
        codes = np.array([name.get(n, 0) for names in shown for n in names], np.int64)
        each = counts[place]
        start = (np.cumsum(counts) - counts)[place]
        within = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
        rows = np.stack(
            [np.repeat(np.arange(len(place)), each), codes[np.repeat(start, each) + within]], axis=1
        )
        weight = np.ones(len(place)) if samples.weight is None else samples.weight
        shards = None if samples.shard is None or "" in samples.shard else _codes(samples.shard)
        return cls(stratum, weight, shards, rows, any(t.places for t in samples.targets))

    def __len__(self) -> int:
        return len(self.stratum)

    @cached_property
    def strata(self) -> Strata:
        """The positions, grouped by stratum."""
        return grouped(self.stratum)


def _shown(target: Target | None) -> Iterable[str | int]:
    """What an image counts as showing: of shares of classes that exclude each other the largest."""
    if target is None:
        return ()
    return (target.stratum(),) if target.exclusive else target.names()


def grouped(codes: Indices) -> Strata:
    """Positions of equal codes together."""
    counts = np.bincount(codes).astype(np.int64)
    return Strata(
        np.argsort(codes, kind="stable").astype(np.int64), np.cumsum(counts) - counts, counts
    )


def _codes(names: Iterable[str]) -> Indices:
    """0, 1 … in the order of the sorted names, so that the samples' order does not matter."""
    values = list(names)
    code = {name: k for k, name in enumerate(sorted(set(values)))}
    return np.fromiter((code[name] for name in values), np.int64, len(values))
