"""Which samples make up which batch: samplers by name, each an endless stream of batches.

An epoch is `steps` batches of the stream. Every batch depends on the seed and its number alone
(`data.random`), so that a training may begin anywhere in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from retinue.data.options import (
    BalancedOptions,
    ClassPairsOptions,
    RepeatFactorOptions,
    ShardsOptions,
    ShuffledOptions,
    WeightedOptions,
)
from retinue.data.population import Indices, Population, grouped
from retinue.data.random import draw
from retinue.errors import UsageError
from retinue.options import Options


def _shuffle(n: int, seed: int, number: int) -> Indices:
    return draw(seed, number, 0, "epoch plan").permutation(n).astype(np.int64)


Own = TypeVar("Own", bound=Options)


class Sampler(ABC, Generic[Own]):
    """An endless stream of global batches: processes and accumulation steps divide them.

    `batch_size` is cut to the number of samples. `epoch_steps`: how many steps an epoch has;
    epochs then follow each other in the stream, wherever a pass over the samples ends. Raises
    ValueError if there is nothing to draw from, UsageError for what these samples do not allow.
    """

    options_type: ClassVar[type[Options]]

    @classmethod
    def name(cls) -> str:
        """That of its options."""
        return str(cls.options_type.model_fields["name"].default)

    def __init__(
        self,
        options: Own,
        population: Population,
        *,
        batch_size: int,
        seed: int = 0,
        epoch_steps: int | None = None,
    ) -> None:
        n = len(population)
        if n < 1 or batch_size < 1:
            raise ValueError(f"cannot plan batches of {batch_size} from {n} samples")
        self.options = options
        self.population = population
        self.batch_size = min(batch_size, n)
        self.seed = seed
        self.pass_steps = n // self.batch_size
        """Steps of a pass over the samples, which an epoch is by default."""
        self.weighs = False
        """Whether samples are drawn in proportion to their weights: each draw then counts 1."""
        self._prepare(batch_size)
        self.steps = epoch_steps or self.pass_steps
        """Steps of an epoch."""

    def _prepare(self, batch_size: int) -> None:
        """Whatever is worked out once; `batch_size` as it was asked for."""

    def epoch(self, epoch: int) -> Iterator[Indices]:
        """The batches of one epoch: int64 (batch_size,) positions."""
        return islice(self.stream(epoch * self.steps), self.steps)

    @abstractmethod
    def stream(self, first: int) -> Iterator[Indices]:
        """Batches without end, from number `first` on."""


_SAMPLERS: dict[str, type[Sampler[Any]]] = {}
S = TypeVar("S", bound=type[Sampler[Any]])


def register_sampler(sampler: S) -> S:
    """Makes a sampler known by its options' name. Raises ValueError if that is taken."""
    if sampler.name() in _SAMPLERS:
        raise ValueError(f"sampler {sampler.name()!r} is already registered")
    _SAMPLERS[sampler.name()] = sampler
    return sampler


def make_sampler(
    options: Options,
    population: Population,
    *,
    batch_size: int,
    seed: int = 0,
    epoch_steps: int | None = None,
) -> Sampler[Any]:
    """The sampler whose options these are. For the rest, see `Sampler`."""
    sampler = next(s for s in _SAMPLERS.values() if s.options_type is type(options))
    return sampler(options, population, batch_size=batch_size, seed=seed, epoch_steps=epoch_steps)


class _Passes(Sampler[Own]):
    """A stream of passes over the samples, each cut into `pass_steps` batches; what does not fill
    a batch waits for another pass's order."""

    def stream(self, first: int) -> Iterator[Indices]:
        number, step = divmod(first, self.pass_steps)
        while True:
            order = self._order(number)
            for k in range(step, self.pass_steps):
                yield order[k * self.batch_size : (k + 1) * self.batch_size]
            number, step = number + 1, 0

    @abstractmethod
    def _order(self, number: int) -> Indices:
        """The positions of one pass."""


@register_sampler
class Shuffled(_Passes[ShuffledOptions]):
    """Every sample once a pass, each pass in another order."""

    options_type = ShuffledOptions

    def _order(self, number: int) -> Indices:
        return _shuffle(len(self.population), self.seed, number)


@register_sampler
class Weighted(Sampler[WeightedOptions]):
    """With replacement, in proportion to weights or to a power of the inverse class frequency."""

    options_type = WeightedOptions

    _BLOCK = 64
    """So many batches are drawn at a time."""

    def _prepare(self, batch_size: int) -> None:
        share = self.population.weight
        self.weighs = self.options.power is None
        if self.options.power is not None:
            counts = self.population.strata.counts
            # Relative to the largest class, so that no power overflows.
            relative = counts[self.population.stratum] / counts.max()
            share = relative**-self.options.power
        self._cumulative = np.cumsum(share)
        if self._cumulative[-1] <= 0:
            raise UsageError(
                "no sample can be drawn: all weights are 0", mend="sampler.name=shuffled"
            )
        self._last = int(np.flatnonzero(share)[-1])

    def stream(self, first: int) -> Iterator[Indices]:
        number, skipped = divmod(first, self._BLOCK)
        while True:
            rng = draw(self.seed, 0, number, "weighted")
            where = rng.random(self._BLOCK * self.batch_size) * self._cumulative[-1]
            drawn = np.empty(len(where), dtype=np.int64)
            ascending = np.argsort(where)  # looking up neighbours is five times as fast
            # A sample of weight 0 has no room between its neighbours; `right` passes over it.
            drawn[ascending] = np.searchsorted(self._cumulative, where[ascending], side="right")
            drawn = np.minimum(drawn, self._last)  # `where` may have been rounded up to the sum
            yield from drawn.reshape(self._BLOCK, -1)[skipped:]
            number, skipped = number + 1, 0


@register_sampler
class Balanced(Sampler[BalancedOptions]):
    """Rounds in which every stratum comes once, in random order, with the next of its samples;
    each stratum shows all of its samples, in random order, before it shows one again."""

    options_type = BalancedOptions

    _BLOCK = 65_536
    """So many draws, or one round if that is longer, are planned at a time."""

    def stream(self, first: int) -> Iterator[Indices]:
        strata = np.flatnonzero(self.population.strata.counts)
        rounds = max(1, min(self._BLOCK, len(self.population)) // len(strata))
        queues = [_Queue(self.population, int(stratum), self.seed) for stratum in strata]
        number, skipped = divmod(first * self.batch_size, rounds * len(strata))
        ready = np.zeros(0, np.int64)
        while True:
            while len(ready) < self.batch_size:
                block = np.stack(
                    [queue.taken(number * rounds, (number + 1) * rounds) for queue in queues],
                    axis=1,
                )
                rng = draw(self.seed, 0, number, "balanced rounds")
                ready = np.concatenate([ready, rng.permuted(block, axis=1).ravel()[skipped:]])
                number, skipped = number + 1, 0
            yield ready[: self.batch_size]
            ready = ready[self.batch_size :]


class _Queue:
    """The samples of one stratum, shuffled anew for every time around."""

    def __init__(self, population: Population, stratum: int, seed: int) -> None:
        self._members = population.strata.members(stratum)
        self._stratum = stratum
        self._seed = seed
        # Small strata are shuffled for several times around at once: a generator costs.
        self._around = max(1, 64 // len(self._members))
        self._number = -1
        self._chunk = self._members

    def taken(self, start: int, end: int) -> Indices:
        """Those whose turn is `start` … `end` − 1."""
        length = self._around * len(self._members)
        parts = []
        while start < end:
            number, offset = divmod(start, length)
            if number != self._number:
                rng = draw(self._seed, number, self._stratum, "balanced stratum")
                table = np.tile(self._members, (self._around, 1))
                self._number, self._chunk = number, rng.permuted(table, axis=1).ravel()
            parts.append(self._chunk[offset : offset + end - start])
            start += len(parts[-1])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@register_sampler
class ClassPairs(Sampler[ClassPairsOptions]):
    """Classes without replacement, in proportion to their number of samples, and `images`
    different samples of each; with replacement in a class that has fewer.

    The samples of a class stand together. `batch_size` is not cut: it is classes times images.
    """

    options_type = ClassPairsOptions

    def _prepare(self, batch_size: int) -> None:
        images = self.options.images
        self._classes = self.options.classes or batch_size // images
        if self._classes * images != batch_size:
            said = f"{self._classes} × " if self.options.classes else "a multiple of "
            raise UsageError(
                f"class_pairs needs a batch_size of {said}{images}, not {batch_size}",
                where="key sampler",
                mend=f"batch_size={max(self._classes, 1) * images}",
            )
        counts = self.population.strata.counts
        self._present = np.flatnonzero(counts)
        if len(self._present) < self._classes:
            raise UsageError(
                f"class_pairs wants {self._classes} classes in a batch, but there are only "
                f"{len(self._present)}",
                where="key sampler",
                mend=f"batch_size={len(self._present) * images}",
            )
        self.batch_size = batch_size
        self.pass_steps = max(len(self.population) // batch_size, 1)

    def stream(self, first: int) -> Iterator[Indices]:
        number = first
        while True:
            yield self._batch(draw(self.seed, 0, number, "class pairs"))
            number += 1

    def _batch(self, rng: np.random.Generator) -> Indices:
        counts = self.population.strata.counts
        # The first K of independent exponential waiting times with these rates are K draws without
        # replacement in proportion to the rates (Efraimidis & Spirakis, 2006).
        waiting = rng.exponential(size=len(self._present)) / counts[self._present]
        first = np.argpartition(waiting, self._classes - 1)[: self._classes]
        chosen = self._present[first[np.argsort(waiting[first])]]
        room = counts[chosen]
        images = self.options.images
        drawn = np.zeros((self._classes, images), np.int64)
        for k, chance in enumerate(rng.random((images, self._classes))):
            # Floyd's sampling without replacement (Bentley & Floyd, 1987), for all classes at once.
            last = room - images + k
            pick = (chance * (last + 1)).astype(np.int64)
            seen = (drawn[:, :k] == pick[:, None]).any(axis=1)
            distinct = np.where(seen, last, pick)
            drawn[:, k] = np.where(room >= images, distinct, (chance * room).astype(np.int64))
        places = self.population.strata.starts[chosen][:, None] + drawn
        positions: Indices = self.population.strata.order[places.ravel()]
        return positions


@register_sampler
class RepeatFactor(_Passes[RepeatFactorOptions]):
    """A pass has sample i on average r_i = max(1, √(t / f)) times, f being the share of samples
    that show its rarest class (Gupta et al., "LVIS", 2019, appendix).

    r_i rounded down or up, drawn anew each pass.
    """

    options_type = RepeatFactorOptions

    def _prepare(self, batch_size: int) -> None:
        population = self.population
        shown = population.shown
        rows, classes = (
            (np.arange(len(population)), population.stratum) if shown is None else shown.T
        )
        frequency = np.bincount(classes) / len(population)
        factor = np.ones(len(population))
        with np.errstate(divide="ignore"):
            of_class = np.sqrt(self.options.threshold / frequency)
        np.maximum.at(factor, rows, of_class[classes])
        self.factor = factor
        """float64 (n,), ≥ 1: how often each sample comes in a pass, on average."""
        # The least that a pass can have.
        self.pass_steps = int(factor.sum()) // self.batch_size

    def _order(self, number: int) -> Indices:
        rng = draw(self.seed, number, 0, "repeat factor")
        # Systematic sampling along a random order: each count is right on average, and their sum
        # is the same in every pass, but for 1 (and 1e-9, so that rounding never takes one away).
        order = rng.permutation(len(self.population))
        reached = np.floor(np.cumsum(self.factor[order]) + rng.random() + 1e-9)
        repeated = np.repeat(order, np.diff(reached, prepend=0).astype(np.int64))
        return rng.permutation(repeated).astype(np.int64)


@register_sampler
class Shards(_Passes[ShardsOptions]):
    """Every sample once a pass: shards in a random order, one after the other, and of the next
    `window` samples always a random one.

    Whoever reads shard after shard never holds more than `window` samples.
    """

    options_type = ShardsOptions

    def _prepare(self, batch_size: int) -> None:
        if self.population.shard is None:
            raise UsageError(
                "these samples do not lie in shards",
                where="key sampler",
                mend="sampler.name=shuffled",
            )
        self._shards = grouped(self.population.shard)

    def _order(self, number: int) -> Indices:
        rng = draw(self.seed, number, 0, "shards")
        shards = rng.permutation(np.flatnonzero(self._shards.counts))
        incoming = np.concatenate([self._shards.members(int(shard)) for shard in shards])
        n, window = len(incoming), min(self.options.window, len(incoming))
        # At time t, whatever lies in a random place of the window goes out, and the sample
        # `window + t` takes that place.
        place = rng.integers(window, size=n - window)
        held = np.arange(window)
        by_place = np.argsort(place, kind="stable")
        again = np.flatnonzero(np.diff(place[by_place]) == 0)
        out = place.copy()
        out[by_place[again + 1]] = window + by_place[again]
        held[place] = window + np.arange(n - window)  # the last one to take a place stays
        outgoing: Indices = incoming[np.concatenate([out, rng.permutation(held)])]
        return outgoing
