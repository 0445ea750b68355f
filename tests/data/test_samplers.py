"""Samplers draw as often as they say, from any step on, and quickly."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from retinue.data import samplers as module
from retinue.data.options import (
    BalancedOptions,
    ClassPairsOptions,
    RepeatFactorOptions,
    SamplerOptions,
    ShardsOptions,
    ShuffledOptions,
    SideRange,
    WeightedOptions,
)
from retinue.data.population import Population
from retinue.data.random import draw
from retinue.data.samplers import Sampler, make_sampler, register_sampler
from retinue.data.sizes import SizePlan
from retinue.data.targets.one_class import OneClass
from retinue.errors import UsageError
from retinue.options import Options
from retinue.sample import Sample

EVERY: list[Options] = [
    ShuffledOptions(),
    WeightedOptions(),
    WeightedOptions(power=1),
    BalancedOptions(),
    ClassPairsOptions(images=2),
    RepeatFactorOptions(threshold=0.2),
    ShardsOptions(window=7),
]


def population(*counts: int, shards: int = 3) -> Population:
    """Classes of so many samples each; weights 1, 2, 3, 1, …; shards in turn."""
    stratum = np.repeat(np.arange(len(counts)), counts)
    n = len(stratum)
    return Population(stratum, 1.0 + np.arange(n) % 3, np.arange(n) % shards)


def drawn(options: Options, people: Population, *, epochs: int = 1, **how: Any) -> list[np.ndarray]:
    sampler = make_sampler(options, people, **how)
    return [batch for epoch in range(epochs) for batch in sampler.epoch(epoch)]


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Deviation in standard deviations of the chi-square distribution, about."""
    degrees = len(counts) - 1
    return (((counts - expected) ** 2 / expected).sum() - degrees) / np.sqrt(2 * degrees)


# What all have in common


@pytest.mark.parametrize("options", EVERY, ids=repr)
@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=3, max_size=6),
    batch=st.integers(1, 3).map(lambda k: 2 * k),
    epoch=st.integers(0, 3),
    epoch_steps=st.none() | st.integers(1, 5),
    seed=st.integers(0, 3),
)
def test_from_any_step_on_and_the_same_every_time(
    options: Options,
    counts: list[int],
    batch: int,
    epoch: int,
    epoch_steps: int | None,
    seed: int,
) -> None:
    people = population(*counts)
    how: dict[str, Any] = {"batch_size": batch, "seed": seed, "epoch_steps": epoch_steps}
    sampler = make_sampler(options, people, **how)
    whole = list(sampler.epoch(epoch))
    assert len(whole) == sampler.steps == (epoch_steps or sampler.pass_steps) >= 1
    for positions in whole:
        assert positions.dtype == np.int64
        assert positions.shape == (sampler.batch_size,)
        assert positions.min() >= 0
        assert positions.max() < len(people)
    for start in range(sampler.steps + 1):
        # Another sampler, so that nothing is remembered.
        again = make_sampler(options, people, **how).stream(epoch * sampler.steps + start)
        rest = list(itertools.islice(again, sampler.steps - start))
        assert len(rest) == len(whole) - start
        assert all(np.array_equal(a, b) for a, b in zip(rest, whole[start:], strict=True))


@pytest.mark.parametrize("options", EVERY, ids=repr)
def test_epochs_and_seeds_differ_and_epochs_go_on(options: Options) -> None:
    people = population(30, 20, 10, 40)
    first = drawn(options, people, batch_size=8, seed=1)
    for how in ({"seed": 2}, {"seed": 1, "epoch": 1}):
        epoch = how.pop("epoch", 0)
        other = list(make_sampler(options, people, batch_size=8, **how).epoch(epoch))
        assert not np.array_equal(np.stack(first[:9]), np.stack(other[:9]))
    # Epochs of another length are other cuts of the same stream.
    short = drawn(options, people, epochs=5, batch_size=8, seed=1, epoch_steps=4)
    long = drawn(options, people, epochs=2, batch_size=8, seed=1, epoch_steps=10)
    assert np.array_equal(np.stack(short), np.stack(long))


def test_lazily() -> None:
    for options in EVERY:
        sampler = make_sampler(options, population(9, 9, 9), batch_size=4, epoch_steps=10**12)
        assert len(list(itertools.islice(sampler.epoch(3), 20))) == 20


def test_nothing_to_draw_from() -> None:
    with pytest.raises(ValueError, match="cannot plan batches of 4 from 0 samples"):
        make_sampler(ShuffledOptions(), population(), batch_size=4)
    with pytest.raises(ValueError, match="cannot plan batches of 0 from 3 samples"):
        make_sampler(ShuffledOptions(), population(3), batch_size=0)


def test_every_name_has_options_and_a_sampler() -> None:
    union, *_ = get_args(SamplerOptions)
    known = {options.model_fields["name"].default for options in get_args(union)}
    assert known == set(module._SAMPLERS)
    with pytest.raises(ValueError, match="'balanced' is already registered"):

        @register_sampler
        class Again(Sampler[BalancedOptions]):
            options_type = BalancedOptions


@pytest.fixture(scope="module")
def two_million() -> Population:
    rng = np.random.default_rng(0)
    n = 2_000_000
    stratum = np.minimum(rng.geometric(0.005, n), 1000)
    return Population(stratum, rng.random(n), rng.integers(0, 1000, n))


@pytest.mark.parametrize("name", sorted(module._SAMPLERS))
def test_two_million_samples(name: str, two_million: Population) -> None:
    options = TypeAdapter(SamplerOptions).validate_python({"name": name})
    start = time.process_time()
    sampler = make_sampler(options, two_million, batch_size=1024)
    assert sum(len(batch) for batch in sampler.epoch(0)) > 1_900_000
    assert time.process_time() - start < 2


# Shuffled


def epoch_plan(n: int, batch: int, *, seed: int, epoch: int = 0) -> list[np.ndarray]:
    """Frozen: how an epoch is shuffled and cut, but for a last batch that is not full."""
    order = draw(seed, epoch, 0, "epoch plan").permutation(n)
    return [order[start : start + batch] for start in range(0, n - batch + 1, batch)]


@pytest.mark.parametrize(("n", "batch"), [(23, 5), (20, 5), (7, 32), (1, 1)])
def test_shuffled_is_the_epoch_plan(n: int, batch: int) -> None:
    sampler = make_sampler(ShuffledOptions(), population(n), batch_size=batch, seed=3)
    for epoch in range(3):
        plan = epoch_plan(n, min(batch, n), seed=3, epoch=epoch)
        found = list(sampler.epoch(epoch))
        assert len(found) == len(plan) == sampler.steps
        assert all(np.array_equal(a, b) for a, b in zip(found, plan, strict=True))
        assert len(np.unique(np.concatenate(found))) == len(found) * min(batch, n)


def test_shuffled_epochs_of_other_lengths() -> None:
    plan = epoch_plan(10, 3, seed=0)
    plan += epoch_plan(10, 3, seed=0, epoch=1)
    sampler = make_sampler(ShuffledOptions(), population(10), batch_size=3, epoch_steps=4)
    found = list(sampler.epoch(0)) + list(sampler.epoch(1))[:2]
    assert all(np.array_equal(a, b) for a, b in zip(found, plan, strict=True))


# Weighted


def test_weighted_in_proportion() -> None:
    weight = np.array([0.0, 1, 2, 0, 3, 4, 0])
    people = Population(np.zeros(7, np.int64), weight)
    batches = drawn(WeightedOptions(), people, epochs=4000, batch_size=5, seed=1)
    counts = np.bincount(np.concatenate(batches), minlength=7)
    assert (counts[weight == 0] == 0).all()
    assert chi_square(counts[weight > 0], weight[weight > 0] / 10 * counts.sum()) < 4


@pytest.mark.parametrize(
    ("power", "shares"), [(0, [0.8, 0.1, 0.1]), (1, [1 / 3] * 3), (0.5, [0.5858, 0.2071, 0.2071])]
)
def test_weighted_by_class_frequency(power: float, shares: list[float]) -> None:
    # At the power ½, shares are as √8 : √1 : √1.
    people = population(80, 10, 10)
    batches = drawn(WeightedOptions(power=power), people, epochs=200, batch_size=50)
    counts = np.bincount(people.stratum[np.concatenate(batches)])
    assert chi_square(counts, np.array(shares) * counts.sum()) < 4


def test_weights_that_are_all_zero() -> None:
    people = Population(np.zeros(4, np.int64), np.zeros(4))
    with pytest.raises(UsageError, match="all weights are 0"):
        make_sampler(WeightedOptions(), people, batch_size=2)


# Balanced


def test_balanced_rounds() -> None:
    people = population(2, 5, 1)
    batches = drawn(BalancedOptions(), people, epochs=60, batch_size=4, seed=1)
    stream = np.concatenate(batches)
    rounds = people.stratum[stream].reshape(-1, 3)
    assert (np.sort(rounds, axis=1) == [0, 1, 2]).all()
    assert len({tuple(order) for order in rounds.tolist()}) == 6
    # Each class shows all of its samples before it shows one again.
    for stratum, count in enumerate((2, 5, 1)):
        own = stream[people.stratum[stream] == stratum]
        whole = own[: len(own) // count * count].reshape(-1, count)
        assert (np.sort(whole, axis=1) == np.sort(whole[0])).all()
    fives = stream[people.stratum[stream] == 1][:150].reshape(-1, 5)
    assert len({tuple(order) for order in fives.tolist()}) > 15


def test_balanced_passes_over_codes_that_do_not_occur() -> None:
    people = Population(np.array([4, 4, 9]), np.ones(3))
    stream = np.concatenate(drawn(BalancedOptions(), people, epochs=40, batch_size=2))
    assert Counter(people.stratum[stream].tolist()) == {4: 40, 9: 40}


def test_balanced_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from retinue.data.samplers import Balanced

    people = population(70, 3, 9)
    monkeypatch.setattr(Balanced, "_BLOCK", 10)
    stream = np.concatenate(drawn(BalancedOptions(), people, epochs=20, batch_size=41))
    assert (np.bincount(people.stratum[stream]) >= 40 * 41 // 3 - 1).all()
    own = stream[people.stratum[stream] == 0]
    assert sorted(own[:70]) == sorted(own[70:140]) == list(range(70))
    late = next(make_sampler(BalancedOptions(), people, batch_size=41).stream(35))
    assert np.array_equal(late, stream[35 * 41 : 36 * 41])


# Class pairs


def test_class_pairs() -> None:
    people = population(50, 30, 10, 6, 4)
    sampler = make_sampler(ClassPairsOptions(images=3), people, batch_size=9, seed=2)
    assert sampler.steps == 11
    for batch in itertools.islice(sampler.stream(0), 300):
        groups = people.stratum[batch].reshape(3, 3)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0].tolist())) == 3
        assert len(set(batch.tolist())) == 9  # different images of each class


def test_classes_without_replacement_by_frequency() -> None:
    """Of classes a, b, c of 1/2, 1/3, 1/6, two are drawn one after the other: {a, b} with
    ½·⅔ + ⅓·¾ = 7/12, {a, c} with ½·⅓ + ⅙·⅗ = 4/15, {b, c} with ⅓·¼ + ⅙·⅖ = 3/20."""
    people = population(6, 4, 2)
    sampler = make_sampler(ClassPairsOptions(images=1, classes=2), people, batch_size=2, seed=1)
    pairs = Counter(
        tuple(sorted(people.stratum[batch].tolist()))
        for batch in itertools.islice(sampler.stream(0), 4000)
    )
    expected = {(0, 1): 7 / 12, (0, 2): 4 / 15, (1, 2): 3 / 20}
    counts = np.array([pairs[pair] for pair in expected])
    assert chi_square(counts, np.array(list(expected.values())) * 4000) < 4


def test_images_of_a_class_are_equally_likely() -> None:
    people = population(7, 1)
    sampler = make_sampler(ClassPairsOptions(images=3), people, batch_size=6)
    sets = Counter()
    for batch in itertools.islice(sampler.stream(0), 3500):
        (of_first,) = [half for half in batch.reshape(2, 3) if half[0] < 7]
        sets[tuple(sorted(of_first.tolist()))] += 1
    counts = np.array(list(sets.values()))
    assert len(counts) == 35  # 7 over 3
    assert chi_square(counts, np.full(35, 100)) < 4


def test_small_classes_repeat_their_images() -> None:
    people = population(2, 2)
    sampler = make_sampler(ClassPairsOptions(images=3), people, batch_size=6)
    assert sampler.steps == 1
    seen = set()
    for batch in itertools.islice(sampler.stream(0), 50):
        assert sorted(people.stratum[batch].tolist()) == [0, 0, 0, 1, 1, 1]
        seen |= set(batch.tolist())
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("options", "batch", "message"),
    [
        ({"images": 2}, 7, "batch_size of a multiple of 2, not 7"),
        ({"images": 8}, 4, "batch_size of a multiple of 8, not 4"),
        ({"images": 2, "classes": 3}, 8, "batch_size of 3 × 2, not 8"),
        ({"images": 2}, 12, "wants 6 classes in a batch, but there are only 5"),
    ],
)
def test_class_pairs_that_cannot_be(options: dict[str, int], batch: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_sampler(ClassPairsOptions(**options), population(9, 9, 9, 9, 9), batch_size=batch)


# Repeat factor


def test_repeat_factor_known_answer() -> None:
    """Classes of 0.9, 0.09 and 0.01 at t = 0.25: √(0.25 / 0.09) = 5/3, √25 = 5."""
    people = population(90, 9, 1)
    sampler: Any = make_sampler(RepeatFactorOptions(threshold=0.25), people, batch_size=10)
    assert np.allclose(sampler.factor[[0, 90, 99]], [1, 5 / 3, 5])
    assert sampler.steps == (90 + 15 + 5) // 10
    total = np.zeros(100)
    for epoch in range(300):
        counts = np.bincount(np.concatenate(list(sampler.epoch(epoch))), minlength=100)
        assert counts[:90].max() <= 1
        assert set(counts[90:99]) <= {0, 1, 2}  # 0: what did not fill a batch
        total += counts
    # The whole pass has 110 ± 1 draws, of which 110 fill batches.
    assert abs(total[:90].mean() / 300 - 1) < 0.02
    assert abs(total[90:99].mean() / 300 - 5 / 3) < 0.03
    assert abs(total[99] / 300 - 5) < 0.1
    assert total[90:99].std() < 20  # each anew in every epoch


def test_fractions_are_right_on_average() -> None:
    """One sample of 9 has the factor √(25/81 · 9) = 5/3. Of a pass's 9⅔ draws 9 are seen: with ⅓ it
    comes once, with ⅔ twice, less a tenth of these two: 1/3 + 2/3 · 9/5 = 23/15."""
    sampler = make_sampler(RepeatFactorOptions(threshold=25 / 81), population(8, 1), batch_size=9)
    assert sampler.steps == 1
    counts = [int((next(sampler.epoch(epoch)) == 8).sum()) for epoch in range(1500)]
    assert abs(np.mean(counts) - 23 / 15) < 0.05


def test_repeat_factor_of_an_image_is_that_of_its_rarest_class() -> None:
    names = [["common"], ["common", "rare", "rare"], [], *[["common"]] * 5]
    people = Population.of(["x"] * 8, names=names)
    sampler: Any = make_sampler(RepeatFactorOptions(threshold=1), people, batch_size=1)
    common, rare = np.sqrt(8 / 7), np.sqrt(8)
    assert np.allclose(sampler.factor, [common, rare, 1, *[common] * 5])


# Shards


@settings(max_examples=60, deadline=None)
@given(
    shards=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    window=st.integers(1, 70),
    epoch=st.integers(0, 3),
)
def test_shards_never_need_more_than_the_window(shards: list[int], window: int, epoch: int) -> None:
    n = len(shards)
    people = Population(np.zeros(n, np.int64), np.ones(n), np.array(shards))
    sampler = make_sampler(ShardsOptions(window=window), people, batch_size=1)
    order = [int(batch[0]) for batch in sampler.epoch(epoch)]
    assert sorted(order) == list(range(n))  # every example exactly once
    # A reader that goes through the shards one after the other, whichever order they have.
    first_seen = list(dict.fromkeys(people.shard[order].tolist()))
    for shard_order in [first_seen] if window == 1 else itertools.permutations(set(shards)):
        incoming = [p for shard in shard_order for p in np.flatnonzero(people.shard == shard)]
        held: set[int] = set()
        read = most = 0
        for position in order:
            while position not in held:
                held.add(int(incoming[read]))
                read += 1
            most = max(most, len(held))
            held.remove(position)
        if most <= window:
            return
    pytest.fail("no order of the shards serves these examples from the window")


def test_shards_are_shuffled() -> None:
    people = Population(np.zeros(400, np.int64), np.ones(400), np.arange(400) // 100)
    sampler = make_sampler(ShardsOptions(window=1), people, batch_size=1)
    orders = Counter()
    for epoch in range(48):
        order = np.concatenate(list(sampler.epoch(epoch)))
        # A window of one leaves the examples of each shard in their order.
        assert (np.diff(order).reshape(-1)[np.diff(order // 100) == 0] == 1).all()
        orders[tuple(order[::100] // 100)] += 1
    assert len(orders) > 12
    mixed = make_sampler(ShardsOptions(window=400), people, batch_size=400)
    order = next(mixed.stream(0))
    assert abs(np.corrcoef(order, np.arange(400))[0, 1]) < 0.2


def test_shards_need_shards() -> None:
    people = Population(np.zeros(4, np.int64), np.ones(4))
    with pytest.raises(UsageError, match="do not lie in shards"):
        make_sampler(ShardsOptions(), people, batch_size=2)


# Population


def test_population_of_names() -> None:
    people = Population.of("bab", [1, 0.5, 2], ["s2", "s1", "s2"], [["x", 1], [], [1, 1]])
    assert people.stratum.tolist() == [1, 0, 1]
    assert people.weight.tolist() == [1, 0.5, 2]
    assert people.shard.tolist() == [1, 0, 1]
    assert people.shown.tolist() == [[0, 0], [0, 1], [2, 0]]
    assert people.strata.order.tolist() == [1, 0, 2]
    assert people.strata.members(1).tolist() == [0, 2]
    assert len(people) == 3
    assert Population.of("ab").weight.tolist() == [1, 1]
    for wrong in ({"weights": [1]}, {"shards": ["a"] * 3}, {"weights": [-1, 1]}):
        with pytest.raises(ValueError, match=r"strata"):
            Population.of("ab", **wrong)


# Sizes


def test_sizes_by_batch() -> None:
    plan = SizePlan(SideRange(min=64, max=130, step=32), seed=1)
    assert plan.sides == (64, 96, 128)
    sizes = [plan.size(0, batch) for batch in range(300)]
    assert min(Counter(sizes).values()) > 70
    assert set(sizes) == {(64, 64), (96, 96), (128, 128)}
    assert sizes == [plan.size(0, batch) for batch in range(300)]
    assert sizes != [plan.size(1, batch) for batch in range(300)]
    assert sizes != [SizePlan([64, 96, 128], seed=2).size(0, batch) for batch in range(300)]
    assert SizePlan([50], 0).size(3, 4) == (50, 50)
    for wrong in ([], [0, 32]):
        with pytest.raises(ValueError, match="positive"):
            SizePlan(wrong, 0)


def test_shares_of_classes_count_for_the_largest_of_them() -> None:
    soft = OneClass(1, 3, (0.1, 0.8, 0.1))
    samples = [Sample("a", target=OneClass(0, 3)), Sample("b", target=soft), Sample("c")]
    shown = Population.of_samples(samples).shown
    assert shown is not None
    assert shown.tolist() == [[0, 0], [1, 1]]
