"""Shares of pixels are shares of labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from retinue.data import mixing as module
from retinue.data.mixing import Mixing, MixPlan, mix_labels
from retinue.data.options import AugmentOptions, MixingOptions
from retinue.data.quarters import drawn_quarters, mask_quarters
from retinue.data.random import draw
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


class Whole:
    """Plan, pixels, labels and quarters together, as training puts them."""

    def __init__(self, options: MixingOptions, classes: int, seed: int) -> None:
        self.mixing, self.classes = Mixing(options, seed), classes

    def __call__(self, inputs: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        options, keys = self.mixing.options, batch.index.numpy()
        usable = np.ones(len(batch), bool) if batch.weight is None else batch.weight.numpy() > 0
        if options.mixup or options.cutmix:
            plan = self.mixing.plan(keys, batch.epoch, usable, (SIZE, SIZE))
            inputs = self.mixing.apply(inputs, plan)
            batch = replace(batch, labels=mix_labels(batch.labels, self.classes, plan))
        quarters = drawn_quarters(keys, batch.epoch, self.mixing.seed, options.quarter_mask)
        return mask_quarters(inputs, np.where(usable, quarters, -1)), batch


def one_by_one(
    options: MixingOptions, seed: int, keys: list[int], epoch: int, usable: list[bool], x: Tensor
) -> tuple[Tensor, list[float]]:
    """An image at a time: its pixels, and its own share of them; the quarter masked last."""
    n, _, height, width = x.shape
    result, shares = x.clone(), [1.0] * n
    for k, key in enumerate(keys):
        rng = draw(seed, epoch, key, "mixing")
        chance, which, at_x, at_y, masks = rng.random(5)
        quarter = int(rng.integers(4)) if masks < options.quarter_mask else None
        mixes = (options.mixup or options.cutmix) and chance < options.probability
        if mixes and n > 1 and usable[k] and usable[k - 1]:
            cut = options.cutmix > 0 and (options.mixup == 0 or which < 0.5)
            alpha = options.cutmix if cut else options.mixup
            own = float(rng.beta(alpha, alpha))
            if cut:
                rows, columns = height * np.sqrt(1 - own) / 2, width * np.sqrt(1 - own) / 2
                y0, y1 = (round(min(max(at_y * height + d, 0), height)) for d in (-rows, rows))
                x0, x1 = (round(min(max(at_x * width + d, 0), width)) for d in (-columns, columns))
                result[k, :, y0:y1, x0:x1] = x[k - 1, :, y0:y1, x0:x1]
                shares[k] = 1 - (y1 - y0) * (x1 - x0) / (height * width)
            else:
                result[k] = torch.lerp(x[k - 1], x[k], own)
                shares[k] = own
        if quarter is not None and usable[k]:
            half_h, half_w = height // 2, width // 2
            rows_ = slice(None, half_h) if quarter < 2 else slice(half_h, None)
            columns_ = slice(None, half_w) if quarter % 2 == 0 else slice(half_w, None)
            result[k, :, rows_, columns_] = 0
    return result, shares


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (7, 9), (17, 5)])
@pytest.mark.parametrize(
    "options",
    [
        {"mixup": 0.8},
        {"cutmix": 1.0},
        {"mixup": 0.4, "cutmix": 1.0, "probability": 0.8},
        {"mixup": 0.4, "cutmix": 1.0, "quarter_mask": 0.5},
    ],
)
def test_the_batch_at_once_is_bit_for_bit_each_image_in_turn(
    options: dict[str, float],
    size: tuple[int, int],
    on_cpu: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_on_cpu", lambda inputs: on_cpu)
    chosen = MixingOptions(**options)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(12, 3, *size, generator=generator)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    keys, usable = np.arange(100, 112), np.ones(12, bool)
    usable[[3, 11]] = False
    for epoch in range(4):
        expected, shares = one_by_one(chosen, 5, keys.tolist(), epoch, usable.tolist(), inputs)
        plan = Mixing(chosen, 5).plan(keys, epoch, usable, size)
        mixed = Mixing(chosen, 5).apply(inputs, plan)
        quarters = drawn_quarters(keys, epoch, 5, chosen.quarter_mask)
        mixed = mask_quarters(mixed, np.where(usable, quarters, -1))
        assert torch.equal(mixed, expected)
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        assert plan.share.tolist() == np.float32(shares).tolist()


@pytest.mark.parametrize("on_cpu", [True, False])
def test_planar_memory_and_half_precision(on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_on_cpu", lambda inputs: on_cpu)
    inputs, _ = constants(8)
    mixing = Mixing(MixingOptions(mixup=0.4, cutmix=1.0), 0)
    plan = mixing.plan(np.arange(8), 0, np.ones(8, bool), (SIZE, SIZE))
    expected = mixing.apply(inputs, plan)
    planar = inputs.contiguous(memory_format=torch.contiguous_format)
    assert torch.equal(mixing.apply(planar, plan), expected)
    half = mixing.apply(inputs.bfloat16(), plan)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), expected, atol=0.1)


def test_a_plan_is_sent_once_and_nothing_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device there are no values that could be read."""
    sent = []
    send = module.all_to_device
    monkeypatch.setattr(module, "all_to_device", lambda *a: sent.append(1) or send(*a))
    mixing = Mixing(MixingOptions(mixup=0.4, cutmix=1.0), 0)
    plan = mixing.plan(np.arange(8), 0, np.ones(8, bool), (SIZE, SIZE))
    inputs = torch.empty(8, 3, SIZE, SIZE, device="meta")
    assert mixing.apply(inputs, plan).shape == inputs.shape
    labels = torch.empty(8, dtype=torch.int64, device="meta")
    assert mix_labels(labels, 5, plan).shape == (8, 5)
    assert mask_quarters(inputs, np.zeros(8, np.int64)).shape == inputs.shape
    assert sent == [1]


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_plan_by_hand(on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_on_cpu", lambda inputs: on_cpu)
    inputs, _ = constants(4)
    plan = MixPlan(
        partner=np.array([2, 0, 2, 3]),
        share=np.array([0.25, 0.75, 1, 1], np.float32),
        boxes=np.array([[0, 0, 0, 0], [0, 0, 16, 16], [0, 0, 0, 0], [0, 0, 0, 0]]),
    )
    mixed = Mixing(MixingOptions(), 0).apply(inputs, plan)
    assert mixed[0].unique().tolist() == [1.5]
    assert mixed[1, :, :16, :16].unique().tolist() == [0.0]
    assert mixed[1].mean() == 0.75
    assert torch.equal(mixed[2:], inputs[2:])
    assert mix_labels(torch.arange(4), 4, plan).tolist() == [
        [0.25, 0, 0.75, 0],
        [0.25, 0.75, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]


def test_what_does_not_change_is_not_copied() -> None:
    inputs, _ = constants(3)
    mixing = Mixing(MixingOptions(mixup=1.0, cutmix=1.0), 0)
    plan = mixing.plan(np.arange(3), 0, np.array([True, False, False]), (SIZE, SIZE))
    assert mixing.apply(inputs, plan) is inputs
    assert mask_quarters(inputs, np.full(3, -1)) is inputs


@pytest.mark.parametrize("on_cpu", [True, False])
def test_padding_is_not_looked_at(on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_on_cpu", lambda inputs: on_cpu)
    inputs, _ = constants(4)
    inputs[3] = torch.nan
    mixing = Mixing(MixingOptions(mixup=0.4, cutmix=1.0), 0)
    plan = mixing.plan(np.arange(4), 0, np.array([True, True, True, False]), (SIZE, SIZE))
    assert plan.mixes
    assert mixing.apply(inputs, plan)[:3].isfinite().all()


@pytest.mark.parametrize(
    "options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}]
)
def test_labels_follow_pixels(options: dict[str, float]) -> None:
    inputs, batch = constants(16)
    mixed, soft = Whole(MixingOptions(**options), 16, seed=0)(inputs, batch)
    assert torch.allclose(soft.labels.sum(1), torch.ones(16))
    # The mean of each image, of constants, is the mean of the labels that went into it.
    expected = soft.labels @ torch.arange(16).float()
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), expected, atol=1e-3)
    assert torch.equal(inputs, constants(16)[0])
    assert torch.equal(batch.labels, torch.arange(16))
    assert (soft.labels.max(1).values < 0.999).float().mean() > 0.5


def test_cutmix_takes_one_rectangle() -> None:
    inputs, batch = constants(8)
    mixed, _ = Whole(MixingOptions(cutmix=1.0), 8, seed=3)(inputs, batch)
    for k in range(8):
        other = (mixed[k, 0] != k).nonzero()
        if len(other):
            sides = other.max(0).values - other.min(0).values + 1
            assert len(other) == sides.prod()
            assert (mixed[k, 0][mixed[k, 0] != k] == (k - 1) % 8).all()


def test_draws_are_keyed() -> None:
    inputs, batch = constants(8)
    mixing = Whole(MixingOptions(mixup=1.0, quarter_mask=0.5), 8, seed=0)
    first, _ = mixing(inputs, batch)
    assert torch.equal(mixing(inputs, batch)[0], first)
    assert not torch.equal(mixing(*constants(8, epoch=1))[0], first)
    assert not torch.equal(Whole(mixing.mixing.options, 8, seed=1)(inputs, batch)[0], first)


def test_probability() -> None:
    inputs, batch = constants(400)
    _, soft = Whole(MixingOptions(mixup=1.0, probability=0.25), 400, seed=0)(inputs, batch)
    assert 0.18 < (soft.labels.max(1).values < 1).float().mean() < 0.32


def test_dropped_images_are_not_mixed() -> None:
    inputs, batch = constants(6, weight=[1, 0, 1, 1, 1, 0])
    mixed, soft = Whole(MixingOptions(mixup=1.0, quarter_mask=1.0), 6, seed=0)(inputs, batch)
    for k in (0, 1, 2, 5):  # itself or its partner is dropped
        assert soft.labels[k, k] == 1
    assert torch.equal(mixed[1], inputs[1])
    assert torch.equal(mixed[5], inputs[5])


def test_soft_labels_and_single_images() -> None:
    inputs, batch = constants(2)
    batch.labels = torch.tensor([[0.5, 0.5, 0], [0, 0, 1.0]])
    _, soft = Whole(MixingOptions(mixup=1.0), 3, seed=0)(inputs, batch)
    assert torch.allclose(soft.labels.sum(1), torch.ones(2))
    inputs, batch = constants(1)
    mixed, soft = Whole(MixingOptions(mixup=1.0), 3, seed=0)(inputs, batch)
    assert torch.equal(mixed, inputs)
    assert soft.labels.tolist() == [[1, 0, 0]]


def test_quarter_mask() -> None:
    n = 300
    inputs = torch.ones(n, 3, SIZE, SIZE)
    batch = Batch(inputs.byte(), torch.arange(n), [""] * n, labels=torch.zeros(n).long())
    masked, same = Whole(MixingOptions(quarter_mask=0.5), 2, seed=0)(inputs, batch)
    assert torch.equal(same.labels, batch.labels)
    zero = masked[:, 0] == 0
    share = zero.float().mean(dim=(1, 2))
    assert set(share.tolist()) == {0.0, 0.25}
    assert 0.4 < (share > 0).float().mean() < 0.6
    half = SIZE // 2
    corners = zero.reshape(n, 2, half, 2, half).float().mean(dim=(2, 4)).reshape(n, 4)
    assert set(np.unique(corners)) == {0.0, 1.0}
    assert (corners.sum(0) > 15).all()


def test_mixes_pixels() -> None:
    assert not AugmentOptions().mixes_pixels
    for name in ("mixup", "cutmix", "quarter_mask"):
        assert AugmentOptions(mixing=MixingOptions(**{name: 0.1})).mixes_pixels
