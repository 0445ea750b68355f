"""Shares of pixels are shares of labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rows import plan_of, sample_of
from torch import Tensor
from torch.nn import functional as F

from retinue.data import mixing as module
from retinue.data.colour import Colour
from retinue.data.loader import Loader
from retinue.data.mixing import Mixing, MixPlan
from retinue.data.options import AugmentOptions, MixingOptions
from retinue.data.random import draw
from retinue.data.targets.one_class import OneClass
from retinue.data.views import TrainView
from retinue.sample import Preprocessing

SIZE = 32


def constants(n: int) -> Tensor:
    """Images that are all k."""
    inputs = torch.arange(n).float()[:, None, None, None].expand(n, 3, SIZE, SIZE).clone()
    return inputs.contiguous(memory_format=torch.channels_last)


def dense(targets: dict[str, Tensor], classes: int) -> Tensor:
    """(n, classes): the shares that a label, what it was mixed with, and its own share mean."""
    label = targets["label"]
    if label.is_floating_point():
        return label
    own = F.one_hot(label, classes).float()
    if "other" not in targets:
        return own
    share = targets["share"][:, None]
    return own * share + F.one_hot(targets["other"], classes) * (1 - share)


def mixed_labels(label: Tensor, plan: MixPlan, classes: int) -> Tensor:
    there = plan.on(label.device)
    return dense(OneClass.mix_batch({"label": label}, there.partner, there.share), classes)


class Whole:
    """Plan, pixels and labels together, as training puts them."""

    def __init__(self, options: MixingOptions, classes: int, seed: int) -> None:
        self.mixing, self.classes = Mixing(options, seed), classes

    def __call__(
        self,
        inputs: Tensor,
        label: Tensor | None = None,
        *,
        usable: list[bool] | None = None,
        epoch: int = 0,
    ) -> tuple[Tensor, Tensor]:
        n = len(inputs)
        fine = np.ones(n, bool) if usable is None else np.array(usable)
        plan = self.mixing.plan(np.arange(n), epoch, fine, (SIZE, SIZE))
        label = torch.arange(n) if label is None else label
        return self.mixing.apply(inputs, plan), mixed_labels(label, plan, self.classes)


def one_by_one(
    options: MixingOptions, seed: int, keys: list[int], epoch: int, usable: list[bool], x: Tensor
) -> tuple[Tensor, list[float]]:
    """An image at a time: its pixels, and its own share of them."""
    n, _, height, width = x.shape
    result, shares = x.clone(), [1.0] * n
    for k, key in enumerate(keys):
        rng = draw(seed, epoch, key, "mixing")
        chance, which, at_x, at_y = rng.random(4)
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
        assert torch.equal(mixed, expected)
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        assert plan.share.tolist() == np.float32(shares).tolist()


@pytest.mark.parametrize("on_cpu", [True, False])
def test_planar_memory_and_half_precision(on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_on_cpu", lambda inputs: on_cpu)
    inputs = constants(8)
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
    there = plan.on(labels.device)
    mixed = OneClass.mix_batch({"label": labels}, there.partner, there.share)
    assert {name: tuple(value.shape) for name, value in mixed.items()} == {
        "label": (8,), "other": (8,), "share": (8,),
    }  # fmt: skip
    assert sent == [1]


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_plan_by_hand(on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_on_cpu", lambda inputs: on_cpu)
    inputs = constants(4)
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
    assert mixed_labels(torch.arange(4), plan, 4).tolist() == [
        [0.25, 0, 0.75, 0],
        [0.25, 0.75, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]


def test_what_does_not_change_is_not_copied() -> None:
    inputs = constants(3)
    mixing = Mixing(MixingOptions(mixup=1.0, cutmix=1.0), 0)
    plan = mixing.plan(np.arange(3), 0, np.array([True, False, False]), (SIZE, SIZE))
    assert mixing.apply(inputs, plan) is inputs


@pytest.mark.parametrize("on_cpu", [True, False])
def test_padding_is_not_looked_at(on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_on_cpu", lambda inputs: on_cpu)
    inputs = constants(4)
    inputs[3] = torch.nan
    mixing = Mixing(MixingOptions(mixup=0.4, cutmix=1.0), 0)
    plan = mixing.plan(np.arange(4), 0, np.array([True, True, True, False]), (SIZE, SIZE))
    assert plan.mixes
    assert mixing.apply(inputs, plan)[:3].isfinite().all()


@pytest.mark.parametrize(
    "options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}]
)
def test_labels_follow_pixels(options: dict[str, float]) -> None:
    inputs, labels = constants(16), torch.arange(16)
    mixed, soft = Whole(MixingOptions(**options), 16, seed=0)(inputs, labels)
    assert torch.allclose(soft.sum(1), torch.ones(16))
    # The mean of each image, of constants, is the mean of the labels that went into it.
    expected = soft @ torch.arange(16).float()
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), expected, atol=1e-3)
    assert torch.equal(inputs, constants(16))
    assert torch.equal(labels, torch.arange(16))
    assert (soft.max(1).values < 0.999).float().mean() > 0.5


def test_cutmix_takes_one_rectangle() -> None:
    mixed, _ = Whole(MixingOptions(cutmix=1.0), 8, seed=3)(constants(8))
    for k in range(8):
        other = (mixed[k, 0] != k).nonzero()
        if len(other):
            sides = other.max(0).values - other.min(0).values + 1
            assert len(other) == sides.prod()
            assert (mixed[k, 0][mixed[k, 0] != k] == (k - 1) % 8).all()


def test_draws_are_keyed() -> None:
    inputs = constants(8)
    mixing = Whole(MixingOptions(mixup=1.0), 8, seed=0)
    first, _ = mixing(inputs)
    assert torch.equal(mixing(inputs)[0], first)
    assert not torch.equal(mixing(inputs, epoch=1)[0], first)
    assert not torch.equal(Whole(mixing.mixing.options, 8, seed=1)(inputs)[0], first)


def test_probability() -> None:
    _, soft = Whole(MixingOptions(mixup=1.0, probability=0.25), 400, seed=0)(constants(400))
    assert 0.18 < (soft.max(1).values < 1).float().mean() < 0.32


def test_dropped_images_are_not_mixed() -> None:
    inputs, usable = constants(6), [True, False, True, True, True, False]
    mixed, soft = Whole(MixingOptions(mixup=1.0), 6, seed=0)(inputs, usable=usable)
    for k in (0, 1, 2, 5):  # itself or its partner is dropped
        assert soft[k, k] == 1
    assert torch.equal(mixed[1], inputs[1])
    assert torch.equal(mixed[5], inputs[5])


def test_soft_labels_and_single_images() -> None:
    labels = torch.tensor([[0.5, 0.5, 0], [0, 0, 1.0]])
    _, soft = Whole(MixingOptions(mixup=1.0), 3, seed=0)(constants(2), labels)
    assert torch.allclose(soft.sum(1), torch.ones(2))
    inputs = constants(1)
    mixed, soft = Whole(MixingOptions(mixup=1.0), 3, seed=0)(inputs)
    assert torch.equal(mixed, inputs)
    assert soft.tolist() == [[1, 0, 0]]


def test_quarter_mask() -> None:
    """Painted with the picture, in the colour that becomes 0: the label stays."""
    n, settings = 300, Preprocessing(size=(SIZE, SIZE))
    options = AugmentOptions(mixing=MixingOptions(quarter_mask=0.5))
    white = np.full((SIZE, SIZE, 3), 255, np.uint8)
    samples = [sample_of(white, f"{k}", OneClass(1, 2)) for k in range(n)]
    loader = Loader(TrainView(options, settings, seed=0), samples, workers=0)
    (batch,) = loader.batches([plan_of(samples)])
    assert batch.targets["label"].tolist() == [1] * n
    masked = Colour(settings).normalised(batch.images)
    zero = masked[:, 0].abs() < 0.01  # half a grey level
    assert (masked[:, 0][~zero] > 2).all()
    share = zero.float().mean(dim=(1, 2))
    assert set(share.tolist()) == {0.0, 0.25}
    assert 0.4 < (share > 0).float().mean() < 0.6
    half = SIZE // 2
    corners = zero.reshape(n, 2, half, 2, half).float().mean(dim=(2, 4)).reshape(n, 4)
    assert set(np.unique(corners)) == {0.0, 1.0}
    assert (corners.sum(0) > 15).all()


def test_a_mask_changes_nothing_of_how_a_batch_is_mixed() -> None:
    plans = [
        Mixing(MixingOptions(mixup=0.4, cutmix=1.0, quarter_mask=chance), 3).plan(
            np.arange(40), 2, np.ones(40, bool), (SIZE, SIZE)
        )
        for chance in (0.0, 1.0)
    ]
    assert np.array_equal(plans[0].share, plans[1].share)
    assert np.array_equal(plans[0].boxes, plans[1].boxes)


def test_mixes_pixels() -> None:
    assert not AugmentOptions().mixes_pixels
    for name in ("mixup", "cutmix"):
        assert AugmentOptions(mixing=MixingOptions(**{name: 0.1})).mixes_pixels
    masked = AugmentOptions(mixing=MixingOptions(quarter_mask=0.1), horizontal_flip=0.0)
    assert not masked.mixes_pixels  # one image at a time
    assert masked.draws
