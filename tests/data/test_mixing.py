"""Shares of pixels are shares of labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retinue.data.mixing import Mixing
from retinue.data.options import MixingOptions
from retinue.sample import Batch

SIZE = 32


def constants(n: int, *, weight: list[float] | None = None, epoch: int = 0) -> tuple:
    """Images that are all k, labelled k."""
    inputs = torch.arange(n).float()[:, None, None, None].expand(n, 3, SIZE, SIZE).clone()
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    batch = Batch(
        inputs.byte(),
        torch.arange(n),
        [""] * n,
        epoch,
        labels=torch.arange(n),
        weight=None if weight is None else torch.tensor(weight),
    )
    return inputs, batch


@pytest.mark.parametrize(
    "options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}]
)
def test_labels_follow_pixels(options: dict[str, float]) -> None:
    inputs, batch = constants(16)
    mixed, soft = Mixing(MixingOptions(**options), 16, seed=0)(inputs, batch)
    assert torch.allclose(soft.labels.sum(1), torch.ones(16))
    # The mean of each image, of constants, is the mean of the labels that went into it.
    expected = soft.labels @ torch.arange(16).float()
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), expected, atol=1e-3)
    assert torch.equal(inputs, constants(16)[0])
    assert torch.equal(batch.labels, torch.arange(16))
    assert (soft.labels.max(1).values < 0.999).float().mean() > 0.5


def test_cutmix_takes_one_rectangle() -> None:
    inputs, batch = constants(8)
    mixed, _ = Mixing(MixingOptions(cutmix=1.0), 8, seed=3)(inputs, batch)
    for k in range(8):
        other = (mixed[k, 0] != k).nonzero()
        if len(other):
            sides = other.max(0).values - other.min(0).values + 1
            assert len(other) == sides.prod()
            assert (mixed[k, 0][mixed[k, 0] != k] == (k - 1) % 8).all()


def test_draws_are_keyed() -> None:
    inputs, batch = constants(8)
    mixing = Mixing(MixingOptions(mixup=1.0, quarter_mask=0.5), 8, seed=0)
    first, _ = mixing(inputs, batch)
    assert torch.equal(mixing(inputs, batch)[0], first)
    assert not torch.equal(mixing(*constants(8, epoch=1))[0], first)
    assert not torch.equal(Mixing(mixing.options, 8, seed=1)(inputs, batch)[0], first)


def test_probability() -> None:
    inputs, batch = constants(400)
    _, soft = Mixing(MixingOptions(mixup=1.0, probability=0.25), 400, seed=0)(inputs, batch)
    assert 0.18 < (soft.labels.max(1).values < 1).float().mean() < 0.32


def test_dropped_images_are_not_mixed() -> None:
    inputs, batch = constants(6, weight=[1, 0, 1, 1, 1, 0])
    mixed, soft = Mixing(MixingOptions(mixup=1.0, quarter_mask=1.0), 6, seed=0)(inputs, batch)
    for k in (0, 1, 2, 5):  # itself or its partner is dropped
        assert soft.labels[k, k] == 1
    assert torch.equal(mixed[1], inputs[1])
    assert torch.equal(mixed[5], inputs[5])


def test_soft_labels_and_single_images() -> None:
    inputs, batch = constants(2)
    batch.labels = torch.tensor([[0.5, 0.5, 0], [0, 0, 1.0]])
    _, soft = Mixing(MixingOptions(mixup=1.0), 3, seed=0)(inputs, batch)
    assert torch.allclose(soft.labels.sum(1), torch.ones(2))
    inputs, batch = constants(1)
    mixed, soft = Mixing(MixingOptions(mixup=1.0), 3, seed=0)(inputs, batch)
    assert torch.equal(mixed, inputs)
    assert soft.labels.tolist() == [[1, 0, 0]]


def test_quarter_mask() -> None:
    n = 300
    inputs = torch.ones(n, 3, SIZE, SIZE)
    batch = Batch(inputs.byte(), torch.arange(n), [""] * n, labels=torch.zeros(n).long())
    masked, same = Mixing(MixingOptions(quarter_mask=0.5), 2, seed=0)(inputs, batch)
    assert torch.equal(same.labels, batch.labels)
    zero = masked[:, 0] == 0
    share = zero.float().mean(dim=(1, 2))
    assert set(share.tolist()) == {0.0, 0.25}
    assert 0.4 < (share > 0).float().mean() < 0.6
    half = SIZE // 2
    corners = zero.reshape(n, 2, half, 2, half).float().mean(dim=(2, 4)).reshape(n, 4)
    assert set(np.unique(corners)) == {0.0, 1.0}
    assert (corners.sum(0) > 15).all()
