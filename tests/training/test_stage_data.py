"""From plans to batches on the device, and a step that waits for nothing."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from reads import DeviceReadError, steps_without_reads
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import retinue
from retinue.data import tones
from retinue.data.colour import Colour
from retinue.data.loader import Loader
from retinue.data.mixing import Mixing
from retinue.data.options import AugmentOptions, ColourOptions, MixingOptions, RandAugmentOptions
from retinue.data.policies import Policy
from retinue.data.targets.boxes import Boxes
from retinue.data.targets.one_class import OneClass
from retinue.data.targets.several_labels import SeveralLabels
from retinue.data.views import EvalView, TrainView
from retinue.sample import Batch, BatchPlan, Preprocessing, Row, Sample, Target
from retinue.training.feeds import ImageFeed, image_feed
from retinue.training.options import StageOptions
from retinue.training.recipe import load_recipe
from retinue.training.trainer import Trainer
from retinue.transfer import on_device

HOW = Preprocessing(size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
CPU = torch.device("cpu")


def _samples(targets: list[Target | None]) -> list[Sample]:
    """Each of one colour, 25 brighter than the one before."""
    images = [np.full((16, 16, 3), 25 * k, np.uint8) for k in range(len(targets))]
    return [
        Sample(str(k), lambda image=image: image, target)  # type: ignore[misc]
        for k, (image, target) in enumerate(zip(images, targets, strict=True))
    ]


def _plan(samples: list[Sample], weights: list[float] | None = None) -> BatchPlan:
    weights = weights or [1.0] * len(samples)
    return BatchPlan([Row(k, (s,), weights[k]) for k, s in enumerate(samples)], (8, 8))


def _feed(
    samples: list[Sample], options: MixingOptions, device: str = "cpu", **colour: float
) -> ImageFeed:
    view = TrainView(AugmentOptions(horizontal_flip=0, mixing=options), HOW, 0)
    mixing = Mixing(options, 0)
    colours = Colour(HOW, ColourOptions(**colour))  # type: ignore[arg-type]
    return ImageFeed(Loader(view, samples, workers=0), colours, torch.device(device), mixing)


def _shares(targets: dict[str, Tensor], classes: int) -> Tensor:
    """(n, classes) of a label, another, and the share of the first."""
    eye = torch.eye(classes)
    share = targets["share"][:, None]
    return eye[targets["label"]] * share + eye[targets["other"]] * (1 - share)


@pytest.mark.parametrize("quarter_mask", [0.0, 0.5])
def test_mixed_images_bring_mixed_labels(quarter_mask: float) -> None:
    """A masked quarter, painted in the mean colour, is no matter of the label."""
    samples = _samples([OneClass(k, 9) for k in range(9)])
    options = MixingOptions(mixup=0.4, cutmix=1.0, quarter_mask=quarter_mask)
    feed = _feed(samples, options)
    (batch,) = feed.batches([_plan(samples)])
    feed.mixing = None
    (plain,) = feed.batches([_plan(samples)])
    masked = (plain.inputs[:, 0] == 0).float().mean((1, 2)) >= 0.25
    masked[0] = False  # black all over
    assert masked.any() == (quarter_mask > 0)
    labels = _shares(batch.targets, 9)
    assert torch.allclose(labels.sum(1), torch.ones(9))
    whole = ~masked & ~masked.roll(1)  # nor mixed with one that is masked
    assert (labels[whole].max(1).values < 0.99).any()
    expected = labels @ torch.arange(9.0) * 25 / 255
    assert torch.allclose(batch.inputs.mean((1, 2, 3))[whole], expected[whole], atol=1e-3)
    assert "other" not in plain.targets
    assert plain.targets["label"].tolist() == list(range(9))


def test_soft_labels_are_mixed_row_by_row() -> None:
    samples = _samples([OneClass(0, 2, (0.75, 0.25)), OneClass(1, 2)])
    (batch,) = _feed(samples, MixingOptions(mixup=1.0)).batches([_plan(samples)])
    share = batch.inputs.mean((1, 2, 3)) / 25 * 255  # of the second, in each
    wanted = torch.stack([0.75 * (1 - share), 0.25 + 0.75 * share], 1)
    assert torch.allclose(batch.targets["label"], wanted, atol=1e-3)
    assert 0 < share[0] < 1


def test_padding_is_mixed_into_nothing() -> None:
    samples = _samples([OneClass(k, 4) for k in range(4)])
    feed = _feed(samples, MixingOptions(mixup=1.0))
    (batch,) = feed.batches([_plan(samples, [1.0, 0.0, 1.0, 1.0])])
    changed = batch.targets["share"] < 1
    assert changed.tolist() == [True, False, False, True]
    assert batch.inputs[1].mean() == pytest.approx(25 / 255)
    assert batch.inputs[2].mean() == pytest.approx(50 / 255)


# --- what lies on the device ---------------------------------------------------------------------

KINDS: list[list[Target | None]] = [
    [OneClass(0, 3), None, OneClass(2, 3)],
    [OneClass(0, 3, (0.5, 0.25, 0.25)), OneClass(1, 3)],
    [SeveralLabels((0, 2), 3), None, SeveralLabels((), 3, (1,))],
    [
        Boxes.made([[0, 0, 4, 4]], [1]),
        Boxes.made([], []),
        Boxes.made([[1, 1, 3, 3]] * 3, [0, 1, 2]),
    ],
    [None, None],
]


@pytest.mark.parametrize("targets", KINDS)
def test_only_tensors_go_to_a_device_and_none_of_them_is_of_float64(
    targets: list[Target | None],
) -> None:
    """Not every device has such numbers; geometry, which needs them, stays on the host."""
    samples = _samples(targets)
    (batch,) = Loader(EvalView(HOW), samples, workers=0).batches([_plan(samples)])
    moved = on_device(batch, "meta")  # where nothing can be read back
    for each in fields(Batch):
        ours, theirs = getattr(moved, each.name), getattr(batch, each.name)
        values = ours.values() if each.name == "targets" else [ours]
        if each.name in ("images", "weight", "targets"):
            assert all(value.device.type == "meta" for value in values)
            assert all(value.dtype != torch.float64 for value in values)
        else:
            assert ours is theirs or ours == theirs, each.name
            assert not isinstance(ours, Tensor)
    assert moved.targets.keys() == batch.targets.keys()
    assert batch.to_original.dtype == np.float64
    assert all(value.device == CPU for value in batch.targets.values())


class _NoListsToADevice(TorchFunctionMode):
    """A tensor made of a list there is copied from memory that is not pinned: the host waits."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor):
            assert out.device == CPU, f"{func.__name__} makes a tensor of a list on a device"
        return out


class _NoWideNumbers(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor) and value.device.type == "meta":
                assert value.dtype != torch.float64, func
        return out


@pytest.mark.parametrize(
    "options", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 0.5}]
)
def test_colour_and_mixing_read_nothing_back_and_need_no_float64(options: dict[str, float]) -> None:
    """On a device without memory, whatever is read back is an error."""
    samples = _samples([OneClass(k, 4) for k in range(4)])
    mixing = MixingOptions.model_validate(options)
    feed = _feed(samples, mixing, "meta", brightness=0.2, contrast=0.2, hue=0.1, pca_noise=0.1,
                 solarize=0.5, posterize=0.5, equalize=0.5, hsv=0.5)  # fmt: skip
    feed.colour._policy = Policy(RandAugmentOptions(operations=8), 0)
    with _NoWideNumbers(), _NoListsToADevice():
        batches = list(feed.batches([_plan(samples)] * 2))
    for batch in batches:
        assert batch.inputs.device.type == "meta"
        assert batch.inputs.dtype == torch.float32
        assert batch.inputs.shape == (4, 3, 8, 8)
        assert all(value.device.type == "meta" for value in batch.targets.values())
    with pytest.raises((RuntimeError, NotImplementedError)):
        batches[0].inputs.sum().item()


def test_no_operation_of_a_policy_makes_a_tensor_of_a_list_on_a_device() -> None:
    images = torch.zeros((2, 3, 8, 8), dtype=torch.uint8, device="meta")
    amounts = torch.ones((2, 1), device="meta")
    with _NoListsToADevice():
        for operation in (tones.solarize, tones.solarize_from, tones.posterize, tones.posterize_to,
                          tones.equalize, tones.autocontrast, tones.sharpen):  # fmt: skip
            assert operation(images, amounts).shape == images.shape
        with pytest.raises(AssertionError, match="new_tensor"):
            amounts.new_tensor([1.0])


def test_images_for_cuda_are_rendered_into_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as it can be told without one: of what memory the loader asks for."""
    samples = _samples([OneClass(k, 4) for k in range(4)])
    (usual,) = Loader(EvalView(HOW), samples, workers=0).batches([_plan(samples)])
    asked: list[bool] = []
    real = torch.empty

    def empty(*shape: Any, pin_memory: bool = False, **how: Any) -> Tensor:
        asked.append(pin_memory)
        return real(*shape, **how)

    monkeypatch.setattr(torch, "empty", empty)
    loader = Loader(EvalView(HOW), samples, workers=1, pinned=True)
    (batch,) = loader.batches([_plan(samples)])
    assert asked == [True]
    assert torch.equal(batch.images, usual.images)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_a_stages_images_are_made_as_its_options_say() -> None:
    samples = _samples([OneClass(k % 2, 2) for k in range(4)])
    recipe = load_recipe({"model": {"name": "tiny"}, "stages": [{"epochs": 1}], "seed": 3})

    def mixing(**augment: Any) -> Mixing | None:
        stage = StageOptions.model_validate({"epochs": 1, "augment": augment})
        feed = image_feed(recipe, stage, samples, HOW, CPU, workers=0)
        assert feed.colour.seed == 3
        return feed.mixing

    assert mixing() is None
    assert mixing(mixing={"quarter_mask": 0.5}) is None  # that is the composer's
    mixes = mixing(mixing={"cutmix": 1.0})
    assert mixes is not None
    assert mixes.seed == 3


# --- a step --------------------------------------------------------------------------------------


def _everything(data: Path) -> dict[str, Any]:
    """A training with all that might want to look at a value."""
    augment = {
        "mixing": {"mixup": 0.2, "cutmix": 1.0},
        "colour": {"brightness": 0.2, "hue": 0.1, "hsv": 0.5},
    }
    stage = {"batch_size": 8, "steps": 3, "accumulate": 2, "clip_norm": 1.0, "augment": augment}
    cached = {"name": "head", "trainable": "head", "batch_size": 8, "steps": 2, "views": 1}
    options = {"class_weights": "balanced", "label_smoothing": 0.1}
    return tiny.recipe(data, stages=[cached, stage], task_options=options)


def test_a_step_reads_nothing_back(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, only_torch: None
) -> None:
    with steps_without_reads(monkeypatch) as done:
        retinue.train(_everything(pictures), out=tmp_path / "run", report=False, quiet=True)
    assert done == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "read",
    [
        Tensor.item,
        lambda loss: int(loss > 0),
        lambda loss: loss.detach().cpu(),
        lambda loss: bool(loss > 0),
    ],
)
def test_a_step_that_looks_at_its_loss_is_caught(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, only_torch: None, read: Any
) -> None:
    real = Trainer._loss

    def loss(self: Trainer, *arguments: Any) -> Tensor:
        value = real(self, *arguments)
        read(value)
        return value

    monkeypatch.setattr(Trainer, "_loss", loss)
    with (
        steps_without_reads(monkeypatch) as done,
        pytest.raises(DeviceReadError, match=r"test_stage_data\.py"),
    ):
        retinue.train(_everything(pictures), out=tmp_path / "run", report=False, quiet=True)
    assert done == []
