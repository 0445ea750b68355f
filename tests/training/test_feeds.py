from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinue.data.colour import Colour
from retinue.data.loader import Loader
from retinue.data.mixing import Mixing
from retinue.data.options import AugmentOptions, MixingOptions
from retinue.data.views import TrainView
from retinue.sample import Preprocessing, Sample
from retinue.training.feeds import ImageFeed, StepPlan


def _plan(weights: list[float], **changes: int) -> StepPlan:
    options = {"batch_size": 8, "accumulate": 1, "world": 1, "rank": 0, "seed": 3, **changes}
    return StepPlan(np.array(weights), **options)


def test_shares_of_a_step_add_up_to_one_and_follow_the_weights() -> None:
    plan = _plan([1.0, 3.0], batch_size=2)
    (positions,), (shares,) = plan.epoch(0)
    assert dict(zip(positions.tolist(), shares.tolist(), strict=True)) == {0: 0.25, 1: 0.75}


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
    whole = _plan(weights, seed=seed)
    positions, shares = whole.epoch(1)
    for step in range(whole.steps):
        wanted: dict[int, float] = {}
        for p, s in zip(positions[step], shares[step], strict=True):
            wanted[int(p)] = wanted.get(int(p), 0) + float(s)
        got: dict[int, float] = {}
        for rank in range(world):
            part = _plan(weights, seed=seed, world=world, accumulate=accumulate, rank=rank)
            mine, share = part.epoch(1)
            for portion in range(step * accumulate, (step + 1) * accumulate):
                for p, s in zip(mine[portion], share[portion], strict=True):
                    got[int(p)] = got.get(int(p), 0) + float(s) / world
        assert got == pytest.approx(wanted, rel=1e-5)


def test_starting_later_gives_the_rest_of_the_same_epoch() -> None:
    plan = _plan([1.0] * 40)
    whole, _ = plan.epoch(2)
    rest, _ = plan.epoch(2, start=3)
    assert [r.tolist() for r in rest] == [w.tolist() for w in whole[3:]]


def test_every_sample_is_in_an_epoch_at_most_once() -> None:
    positions, _ = _plan([1.0] * 43).epoch(0)
    seen = np.concatenate(positions).tolist()
    assert len(seen) == len(set(seen)) == 40


def test_mixed_images_bring_mixed_labels() -> None:
    images = [np.full((16, 16, 3), 60 * k, np.uint8) for k in range(4)]
    samples = [Sample(str(k), image, label=k) for k, image in enumerate(images)]
    how = Preprocessing(size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
    view = TrainView(AugmentOptions(horizontal_flip=0), how, 0)
    options = MixingOptions(mixup=0.4, cutmix=1.0, quarter_mask=0.5)
    feed = ImageFeed(
        Loader(samples, view, workers=0), Colour(how), torch.device("cpu"), Mixing(options, 0), 4
    )
    (batch,) = feed.batches([np.arange(4)], epoch=0)
    assert batch.labels is not None
    assert torch.allclose(batch.labels.sum(1), torch.ones(4))
    assert (batch.labels.max(1).values < 0.99).any()
    expected = batch.labels @ torch.arange(4.0) * 60 / 255
    masked = (batch.inputs[:, 0] == 0).float().mean((1, 2)) >= 0.25
    found = batch.inputs.mean((1, 2, 3))
    assert torch.allclose(found[~masked], expected[~masked], atol=1e-3)
    assert 0 < masked.sum() < 4
