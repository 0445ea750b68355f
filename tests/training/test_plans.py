"""Which rows each step takes, and what each counts, whoever takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.data.options import (
    AugmentOptions,
    BalancedOptions,
    ShuffledOptions,
    WeightedOptions,
)
from retinue.data.population import Population
from retinue.data.samplers import make_sampler
from retinue.data.targets.one_class import OneClass
from retinue.data.views import EvalView, TrainView, View
from retinue.sample import BatchPlan, Preprocessing, Sample
from retinue.training.plans import StepPlans, in_turn

HOW = Preprocessing(size=(8, 8))


def _samples(weights: list[float], classes: int = 1) -> list[Sample]:
    return [
        Sample(str(k), target=OneClass(k % classes, classes), weight=w)
        for k, w in enumerate(weights)
    ]


def _plans(
    weights: list[float],
    *,
    batch_size: int = 8,
    seed: int = 3,
    sampler: Any = None,
    classes: int = 1,
    epoch_steps: int | None = None,
    view: View | None = None,
    **shared: int,
) -> StepPlans:
    samples = _samples(weights, classes)
    strata = [sample.target.stratum() for sample in samples if sample.target is not None]
    drawn = make_sampler(
        sampler or ShuffledOptions(),
        Population.of(strata, weights),
        batch_size=batch_size,
        seed=seed,
        epoch_steps=epoch_steps,
    )
    view = view or EvalView(HOW)
    return StepPlans(samples, drawn, view, lambda epoch, step: (8, 8 + step), **shared)


def _own(plan: BatchPlan) -> list[int]:
    """The positions of a plan's rows."""
    return [int(row.samples[0].key) for row in plan.rows]


def _shares(plan: BatchPlan) -> list[float]:
    return [row.weight / plan.total for row in plan.rows]


def test_shares_of_a_step_add_up_to_one_and_follow_the_weights() -> None:
    (plan,) = _plans([1.0, 3.0], batch_size=2).epoch(0)
    assert dict(zip(_own(plan), _shares(plan), strict=True)) == {0: 0.25, 1: 0.75}


@pytest.mark.parametrize(
    "sampler", [ShuffledOptions(), WeightedOptions(), WeightedOptions(power=0)]
)
def test_a_weight_counts_once_however_samples_are_drawn(sampler: Any) -> None:
    """Weights 1 and 3: what the second ones count in an epoch is three times the first ones'."""
    plans = _plans([1.0, 3.0] * 20, sampler=sampler, epoch_steps=1500)
    counted = [0.0, 0.0]
    for plan in plans.epoch(0):
        assert plan.total == pytest.approx(sum(row.weight for row in plan.rows))
        for position, row in zip(_own(plan), plan.rows, strict=True):
            counted[position % 2] += row.weight
    assert counted[1] / counted[0] == pytest.approx(3, rel=0.05)


@given(
    count=st.integers(1, 70),
    world=st.sampled_from([1, 2, 4]),
    accumulate=st.sampled_from([1, 2]),
    seed=st.integers(0, 5),
)
def test_processes_and_portions_change_nothing_of_what_a_step_counts(
    count: int, world: int, accumulate: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = list(rng.uniform(0.1, 2, count))
    whole = _plans(weights, seed=seed)
    ranks = [
        list(_plans(weights, seed=seed, world=world, accumulate=accumulate, rank=rank).epoch(1))
        for rank in range(world)
    ]
    steps = list(whole.epoch(1))
    assert len(steps) == whole.steps
    for step, plan in enumerate(steps):
        wanted = dict(zip(_own(plan), _shares(plan), strict=True))
        got: dict[int, float] = dict.fromkeys(wanted, 0.0)
        lengths = set()
        for mine in ranks:
            assert len(mine) == accumulate * whole.steps
            for portion in mine[step * accumulate : (step + 1) * accumulate]:
                lengths.add(len(portion.rows))
                assert portion.size == plan.size
                for p, share in zip(_own(portion), _shares(portion), strict=True):
                    got[p] += share
        assert got == pytest.approx(wanted, rel=1e-9)
        assert len(lengths) == 1  # every process has as much to do


def test_starting_later_gives_the_rest_of_the_same_epoch() -> None:
    plans = _plans([1.0] * 40, accumulate=2)
    whole = list(plans.epoch(2))
    assert len(whole) == 10
    assert list(plans.epoch(2, start=3)) == whole[6:]
    assert [plan.size for plan in whole[::2]] == [(8, 8 + step) for step in range(5)]


def test_every_sample_is_in_an_epoch_at_most_once() -> None:
    seen = [p for plan in _plans([1.0] * 43).epoch(0) for p in _own(plan)]
    assert len(seen) == len(set(seen)) == 40


def test_a_sample_that_comes_again_is_looked_at_in_another_way() -> None:
    """Its keys are position, position + n, position + 2 n …, also where the epoch is taken up
    later, and of each process."""
    changes: dict[str, Any] = {
        "sampler": BalancedOptions(), "classes": 2, "batch_size": 4, "epoch_steps": 9
    }  # fmt: skip
    whole = list(_plans([1.0] * 6, **changes).epoch(0))
    keys: dict[int, list[int]] = {}
    for plan in whole:
        for row in plan.rows:
            keys.setdefault(int(row.samples[0].key), []).append(row.key)
    assert keys == {p: [p + 6 * k for k in range(6)] for p in range(6)}
    assert list(_plans([1.0] * 6, **changes).epoch(0, start=5)) == whole[5:]
    parts = [list(_plans([1.0] * 6, **changes, world=2, rank=r).epoch(0)) for r in (0, 1)]
    for step, plan in enumerate(whole):
        assert [*parts[0][step].rows, *parts[1][step].rows] == plan.rows


def test_what_fills_a_batch_up_weighs_nothing() -> None:
    """Three samples in a batch of three, dealt to four."""
    rows = [
        row
        for rank in range(4)
        for plan in _plans([2.0, 1.0, 1.0], batch_size=3, world=4, rank=rank).epoch(0)
        for row in plan.rows
    ]
    assert sorted(row.weight for row in rows) == [0.0, 1.0, 1.0, 2.0]
    (filling,) = (row for row in rows if row.weight == 0)
    assert filling.key == rows[0].key


def test_rows_show_whom_the_view_casts() -> None:
    augment = AugmentOptions(mosaic=1.0)
    samples = Population.of(["a"] * 10)
    plans = _plans([1.0] * 10, view=TrainView(augment, HOW, 0, samples))
    (plan,) = plans.epoch(0)
    for row in plan.rows:
        assert len(row.samples) == 4
        assert int(row.samples[0].key) == row.key
    others = {tuple(s.key for s in row.samples[1:]) for row in plan.rows}
    assert len(others) > 1


@given(count=st.integers(0, 40), batch_size=st.integers(1, 12), world=st.sampled_from([1, 2, 3]))
def test_a_split_in_turn_has_every_image_once_whatever_its_weight(
    count: int, batch_size: int, world: int
) -> None:
    samples = _samples([0.0, 5.0, 1.0] * 20)[:count]
    ranks = [in_turn(samples, (8, 8), batch_size, world=world, rank=r) for r in range(world)]
    assert len({len(mine) for mine in ranks}) == 1
    real, order = [], []
    for batches in zip(*ranks, strict=True):
        assert len({len(plan.rows) for plan in batches}) == 1  # of one length on all of them
        assert len(batches[0].rows) <= max(batch_size, 1)
        rows = [row for plan in batches for row in plan.rows]
        real += [int(row.samples[0].key) for row in rows if row.weight > 0]
        order += [row.key for row in rows if row.weight > 0]
        assert {row.weight for row in rows} <= {0.0, 1.0}
        assert batches[0].total == sum(row.weight for row in rows)
    assert real == order == list(range(count))
