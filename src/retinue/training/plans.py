"""Which rows each step of a stage takes, shared out to processes and portions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.data.samplers import Sampler
from retinue.data.views import View
from retinue.sample import BatchPlan, Row, Sample, Size

SizeOf = Callable[[int, int], Size]
"""(epoch, step) → height and width of that step's images."""


class StepPlans:
    """The plans of a stage's steps for one of several processes.

    Every step takes a batch of the whole job. It is dealt to `accumulate` portions and, within
    each, to the processes; what a short batch leaves open is filled up with rows of weight 0. So
    the sum of a step's gradients does not depend on how many processes and portions there are.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        sampler: Sampler[Any],
        view: View,
        size_of: SizeOf,
        *,
        accumulate: int = 1,
        world: int = 1,
        rank: int = 0,
    ) -> None:
        self.samples = samples
        self.sampler = sampler
        self.view = view
        self.size_of = size_of
        self.accumulate = accumulate
        self.world = world
        self.rank = rank

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return self.sampler.steps

    @property
    def batch_size(self) -> int:
        """Images of a step, over all processes and portions."""
        return self.sampler.batch_size

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[BatchPlan]:
        """`accumulate` plans a step, from step `start` on."""
        seen = np.zeros(len(self.samples), np.int64)
        for step, positions in enumerate(self.sampler.epoch(epoch)):
            # A sample that comes again in the epoch is looked at in another way.
            keys = _numbered(positions, seen)
            if step >= start:
                yield from self._dealt(positions, keys, epoch, self.size_of(epoch, step))

    def _dealt(
        self,
        positions: npt.NDArray[np.int64],
        keys: npt.NDArray[np.int64],
        epoch: int,
        size: Size,
    ) -> Iterator[BatchPlan]:
        count = len(positions)
        filled = count + -count % (self.accumulate * self.world)
        where = np.resize(np.arange(count), filled)
        # A weight counts once, in how often its sample is drawn or in the loss.
        own = 1.0 if self.sampler.weighs else None
        weights = np.array([own or self.samples[p].weight for p in positions.tolist()])
        total = float(weights.sum())
        mine = np.arange(filled).reshape(self.accumulate, self.world, -1)[:, self.rank]
        for portion in mine:
            rows = []
            for k in portion.tolist():
                position, key = int(positions[where[k]]), int(keys[where[k]])
                cast = self.view.cast(position, key=key, epoch=epoch)
                weight = float(weights[k]) if k < count else 0.0
                rows.append(Row(key, tuple(self.samples[p] for p in cast), weight))
            yield BatchPlan(rows, size, epoch, total)


def _numbered(
    positions: npt.NDArray[np.int64], seen: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """position + n × (times it came before); `seen` (n,) counts on."""
    keys = np.empty(len(positions), np.int64)
    for k, position in enumerate(positions.tolist()):
        keys[k] = position + len(seen) * seen[position]
        seen[position] += 1
    return keys


def in_turn(
    samples: Sequence[Sample], size: Size, batch_size: int, *, world: int, rank: int
) -> list[BatchPlan]:
    """The plans of a split in order, dealt to the processes; each batch has one length on all of
    them. Every image counts once, whatever its weight in training."""
    whole = max(batch_size // world, 1) * world
    plans = []
    for start in range(0, len(samples), whole):
        positions = np.arange(start, min(start + whole, len(samples)))
        filled = np.concatenate([positions, np.resize(positions, -len(positions) % world)])
        real = np.arange(len(filled)) < len(positions)
        mine = np.arange(len(filled)).reshape(world, -1)[rank].tolist()
        rows = [Row(int(filled[k]), (samples[filled[k]],), float(real[k])) for k in mine]
        plans.append(BatchPlan(rows, size, total=float(len(positions))))
    return plans
