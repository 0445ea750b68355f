"""The loss at its borders; the published one has a file of its own."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from raw_maps import MANY, STRIDES, Truth, collated, objective_of, random_maps, total_loss
from reads import no_reads
from torch import Tensor

from retinue.data.targets.boxes import Boxes
from retinue.errors import UsageError
from retinue.evaluation.boxes import iou
from retinue.options.overrides import parse_overrides
from retinue.sample import Batch, Sample
from retinue.tasks.detection.anchors import PUBLISHED
from retinue.tasks.detection.decoding import decode
from retinue.tasks.detection.objective import DetectionObjective, LossOptions
from retinue.tasks.detection.suppression import suppress
from retinue.tasks.detection.task import Detection, DetectionOptions
from retinue.training.losses import portion_loss
from retinue.training.recipe import load_recipe


def test_weights_and_balance_multiply_their_part() -> None:
    levels, targets = random_maps(2, 96, 160, 3), collated(MANY)
    _, once = total_loss(objective_of(3)({"levels": levels}, targets))
    chosen = {"box_weight": 0.5, "objectness_weight": 10.0, "class_weight": 3.0}
    _, more = total_loss(objective_of(3, **chosen)({"levels": levels}, targets))
    for name, factor in {"box": 10, "objectness": 2, "class": 3}.items():
        assert more[f"loss_{name}"].item() == pytest.approx(factor * once[f"loss_{name}"].item())
    sums, _ = objective_of(3, balance=(1, 1, 1))({"levels": levels}, targets).parts["objectness"]
    own, _ = objective_of(3)({"levels": levels}, targets).parts["objectness"]
    assert (own / sums)[0].tolist() == pytest.approx([4, 1, 0.4])


@pytest.mark.parametrize(("levels", "balance"), [(2, [1, 0.4]), (4, [4, 4, 1, 0.4])])
def test_balance_counts_from_the_coarsest_level(levels: int, balance: list[float]) -> None:
    strides = [32 >> k for k in reversed(range(levels))]
    objective = DetectionObjective(anchors=[[(10.0, 10.0)]] * levels, strides=strides, classes=1)
    maps = [torch.zeros(1, 6, 64 // s, 64 // s) for s in strides]
    sums, counts = objective({"levels": maps}, collated([[]])).parts["objectness"]
    assert counts[0].tolist() == [(64 // s) ** 2 for s in strides]
    each = (sums / counts)[0] / (5 * 64 * 64 / 416**2 * math.log(2))
    assert each.tolist() == pytest.approx(balance)


def test_what_fills_the_batch_is_in_neither_sums_nor_counts() -> None:
    levels = random_maps(2, 96, 160, 3)
    alone = [level[:1] for level in levels]
    whole, _ = total_loss(
        objective_of(3)({"levels": levels}, collated(MANY)), torch.tensor([1.0, 0.0])
    )
    part, _ = total_loss(objective_of(3)({"levels": alone}, collated(MANY[:1])))
    assert whole.item() == pytest.approx(part.item(), rel=1e-6)


def test_who_computes_which_images_changes_nothing() -> None:
    """An image with many objects and one with few on a process each: as both on one."""
    levels = random_maps(2, 96, 160, 3)
    losses = objective_of(3)({"levels": levels}, collated(MANY))
    whole, _ = total_loss(losses)
    each = []
    for k in range(2):
        mine = objective_of(3)(
            {"levels": [v[k : k + 1] for v in levels]}, collated(MANY[k : k + 1])
        )
        counts = iter([part[1].sum(0) for part in losses.parts.values()])
        loss, _ = portion_loss(
            mine,
            torch.ones(1),
            2.0,
            portions=1,
            processes=2,
            over_all=lambda _, counts=counts: next(counts),
        )
        each.append(loss.item())
    assert sum(each) / 2 == pytest.approx(whole.item(), rel=1e-6)


def test_two_objects_that_claim_one_prediction_do_not_blend() -> None:
    """Both are nearest to the anchor 116×90, in cell (2, 1): the one that fits it better is learnt,
    whole, whichever comes first; of two that fit alike, the first."""
    better, worse = ([12, 4, 128, 92], 0), ([20, 14, 120, 90], 2)
    levels = random_maps(1, 96, 160, 3)
    alone = objective_of(3)({"levels": levels}, collated([[better]])).parts  # type: ignore[list-item]
    for both in ([better, worse], [worse, better]):
        parts = objective_of(3)({"levels": levels}, collated([both])).parts  # type: ignore[list-item]
        for name in ("box", "class"):
            assert torch.equal(parts[name][0], alone[name][0])
            assert torch.equal(parts[name][1], alone[name][1])
        assert parts["box"][1].tolist() == [[0, 0, 1]]
    twice = [(better[0], 1), (better[0], 2)]
    first = objective_of(3)({"levels": levels}, collated([twice[:1]])).parts  # type: ignore[list-item]
    parts = objective_of(3)({"levels": levels}, collated([twice])).parts  # type: ignore[list-item]
    assert torch.equal(parts["class"][0], first["class"][0])


def test_an_image_of_which_nothing_is_known_teaches_nothing() -> None:
    """Beside one with boxes: it is not one without objects."""
    levels = random_maps(2, 96, 160, 3)
    box = Boxes.made([[10, 10, 50, 60]], [1])
    nothing_there = Boxes.collate([box, Boxes.made([], [])])
    losses = objective_of(3)({"levels": levels}, nothing_there)
    assert losses.parts["objectness"][1][1].sum() > 0
    for several in ((), (2,)):
        other = Boxes.made([[10, 10, 50, 60]], [1], not_exhaustive=several)
        losses = objective_of(3)({"levels": levels}, Boxes.collate([other, None]))
        for sums, counts in losses.parts.values():
            assert (sums[1].tolist(), counts[1].tolist()) == ([0, 0, 0], [0, 0, 0])
            assert counts[0].sum() > 0


@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_regions_are_neither_learnt_nor_taught_to_be_empty(flag: str) -> None:
    """The left half is one: of predictions at their anchors' sizes, those of which more than half
    lies in it have no objectness loss."""
    levels = [torch.zeros(1, 3 * 7, 64 // s, 128 // s) for s in STRIDES]
    region = collated([[([0, 0, 64, 64], 0)]], **{flag: [True]})
    parts = objective_of(2)({"levels": levels}, region).parts
    assert parts["box"][1].tolist() == [[0, 0, 0]]
    by_hand = []
    for anchors, stride in zip(PUBLISHED, STRIDES, strict=True):
        count = 0
        for w, h in anchors:
            for row, column in np.ndindex(64 // stride, 128 // stride):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                wide = min(x + w / 2, 64) - max(x - w / 2, 0)
                tall = min(y + h / 2, 64) - max(y - h / 2, 0)
                count += not max(wide, 0) * tall > 0.5 * w * h
        by_hand.append(count)
    assert parts["objectness"][1].tolist() == [by_hand]
    assert by_hand[0] < 3 * 8 * 16  # otherwise nothing was ignored


def test_what_is_not_exhaustively_labelled_is_not_taught_to_be_absent() -> None:
    """Class 1 may be in the first image anywhere; of the second everything is known. Predictions
    take themselves for class 1 on the finest level, for class 0 elsewhere."""
    levels = [torch.zeros(2, 3, 8, 64 // s, 64 // s) for s in STRIDES]
    levels[0][:, :, 6] = 1.0
    levels[1][:, :, 5] = levels[2][:, :, 5] = 1.0
    maps = [level.flatten(1, 2) for level in levels]
    box = [[20, 20, 45, 30]]
    targets = Boxes.collate(
        [Boxes.made(box, [2], not_exhaustive=(1,)), Boxes.made(box, [2])],
    )
    objective = objective_of(3, ignore_above=1.0)
    parts = objective({"levels": maps}, targets).parts
    # Of the finest level's 192 the object's own is left.
    assert parts["objectness"][1].tolist() == [[1, 48, 12], [192, 48, 12]]
    # Class loss of the object: two classes of three, and all three.
    assert parts["class"][1].tolist() == [[2, 0, 0], [3, 0, 0]]
    soft = math.log1p(math.e) / 80 * 3
    assert parts["class"][0][:, 0].tolist() == pytest.approx(
        [3 / 80 * 2 * math.log(2), 3 / 80 * 2 * math.log(2) + soft]
    )
    whole = objective_of(3, ignore_above=1.0, not_exhaustive="image")({"levels": maps}, targets)
    assert whole.parts["objectness"][1].tolist() == [[1, 0, 0], [192, 48, 12]]
    # Unless an object is of that class itself: then it is known.
    targets["of"][:] = 1
    assert objective({"levels": maps}, targets).parts["class"][1][0].tolist() == [3, 0, 0]


@pytest.mark.parametrize("rule", ["best", "ratio", "dynamic"])
def test_no_objects_in_the_batch_teach_that_there_are_none(rule: str) -> None:
    levels = [level.requires_grad_() for level in random_maps(2, 64, 96, 3)]
    targets = Boxes.collate([Boxes.made([], [])] * 2)
    total, shown = total_loss(objective_of(3, assignment=rule)({"levels": levels}, targets))
    assert shown["loss_box"].item() == shown["loss_class"].item() == 0
    total.backward()
    for level in levels:
        assert level.grad is not None
        each = level.grad.unflatten(1, (3, 8))
        assert (each[:, :, 4] > 0).all()
        assert (each[:, :, :4] == 0).all()
        assert (each[:, :, 5:] == 0).all()


@pytest.mark.parametrize("rule", ["best", "ratio", "dynamic"])
def test_a_thousand_objects_beside_an_image_with_one(rule: str) -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 130, (1000, 2))
    xyxy = np.concatenate([low, low + rng.uniform(2, 60, (1000, 2))], 1)
    truth = [Boxes.made(xyxy, rng.integers(0, 3, 1000).tolist()), Boxes.made([[1, 1, 9, 9]], [0])]
    levels = [level.requires_grad_() for level in random_maps(2, 192, 192, 3)]
    losses = objective_of(3, assignment=rule)({"levels": levels}, Boxes.collate(truth))
    total, _ = total_loss(losses)
    total.backward()
    assert total.isfinite()
    assert all(level.grad is not None and level.grad.isfinite().all() for level in levels)
    matched = losses.parts["box"][1].sum(1)
    assert 100 < matched[0] <= 2268
    assert matched[1] >= 1


@pytest.mark.parametrize("rule", ["best", "ratio", "dynamic"])
@pytest.mark.parametrize(
    "box",
    [
        [90, 30, 102, 34],  # its centre on the right border
        [40, 60, 52, 68],  # on the lower one
        [-20, -20, 20, 20],
        [96, 64, 96, 64],
        [0, 0, 0, 0],
        [0, 10, 96, 10],
        [-500, -500, 600, 600],
    ],
    ids=str,
)
def test_boxes_on_the_border_and_without_an_area(rule: str, box: list[float]) -> None:
    levels = [level.requires_grad_() for level in random_maps(1, 64, 96, 2)]
    losses = objective_of(2, assignment=rule, neighbours=rule == "ratio")(
        {"levels": levels}, collated([[(box, 1)]])
    )
    total, _ = total_loss(losses)
    total.backward()
    assert total.isfinite()
    assert all(level.grad is not None and level.grad.isfinite().all() for level in levels)
    if rule == "best":
        assert losses.parts["box"][1].sum() == 1


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [0.0, 1.0, 60.0])
def test_half_precision_and_extreme_maps_have_finite_gradients(
    kind: torch.dtype, size: float
) -> None:
    levels = [(level * size).to(kind).requires_grad_() for level in random_maps(2, 96, 160, 3)]
    total, _ = total_loss(objective_of(3)({"levels": levels}, collated(MANY)))
    assert total.dtype == torch.float32
    total.backward()
    assert total.isfinite()
    assert all(level.grad is not None and level.grad.isfinite().all() for level in levels)


@pytest.mark.parametrize(
    "options",
    [
        {"overlap": "giou"},
        {"overlap": "siou", "assignment": "ratio", "neighbours": True},
        {"overlap": "diou", "focal_gamma": 2.0, "label_smoothing": 0.1},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_gradients_are_those_of_differences(options: dict[str, Any]) -> None:
    objective = objective_of(2, **options)
    levels = [v.double().requires_grad_() for v in random_maps(1, 32, 64, 2, seed=5)]
    targets = collated([[([3, 4, 15, 20], 0), ([5, 2, 60, 30], 1)]])

    def total(*maps: Tensor) -> Tensor:
        parts = objective({"levels": list(maps)}, targets).parts
        return torch.stack([s.sum() / c.sum() for s, c in parts.values()])

    assert torch.autograd.gradcheck(total, levels, eps=1e-6, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("rule", ["best", "ratio", "dynamic"])
def test_nothing_is_read_back_from_the_device(rule: str) -> None:
    objective = objective_of(3, assignment=rule, neighbours=rule == "ratio")
    levels = [level.requires_grad_() for level in random_maps(2, 96, 160, 3)]
    targets = {**collated(MANY), "not_exhaustive": torch.tensor([[1], [-1]])}
    objective({"levels": levels}, targets)  # copies the grid, once a size
    with no_reads():
        parts = objective({"levels": levels}, targets).parts.values()
        sum((sums.sum() / counts.sum() for sums, counts in parts), start=torch.zeros(())).backward()


def test_a_grid_made_in_evaluation_serves_training() -> None:
    levels = [torch.randn(1, 18, 224 // s, 288 // s) for s in STRIDES]
    with torch.inference_mode():
        objective_of(1)({"levels": levels}, collated([[([1, 1, 40, 40], 0)]]))
    levels = [level.requires_grad_() for level in levels]
    total_loss(objective_of(1)({"levels": levels}, collated([[([1, 1, 40, 40], 0)]])))[0].backward()
    assert levels[0].grad is not None


@pytest.mark.parametrize(
    ("rule", "measure"),
    [("best", "ciou"), ("best", "siou"), ("ratio", "giou"), ("dynamic", "ciou")],
)
def test_what_is_learnt_is_what_is_found(rule: str, measure: str) -> None:
    """Maps that follow the loss alone end as the objects that they were to learn, in place and
    class: assignment, decoding and suppression mean the same by them."""
    truth: list[Truth] = [[([20, 30, 60, 70], 1), ([70, 8, 150, 90], 0), ([5, 5, 17, 16], 2)]]
    rng = torch.Generator().manual_seed(1)
    levels = [
        (torch.randn(1, 24, 96 // s, 160 // s, generator=rng) * 0.1).requires_grad_()
        for s in STRIDES
    ]
    objective = objective_of(3, assignment=rule, overlap=measure, box_weight=1.0)
    optimiser = torch.optim.Adam(levels, lr=0.1)
    for _ in range(150):
        total, _ = total_loss(objective({"levels": levels}, collated(truth)))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    batch = Batch(
        torch.zeros(1, 3, 96, 160, dtype=torch.uint8),
        [Sample("one")],
        np.zeros(1, np.int64),
        torch.ones(1),
        np.eye(3)[None],
        np.array([[160, 96]]),
    )
    maps = [level.detach() for level in levels]
    (found,) = decode(maps, batch, anchors=PUBLISHED, strides=STRIDES, confidence=0.5)
    kept = suppress(found, confidence=0.5, iou=0.5, max_boxes=10)
    assert len(kept) == 3
    for corners, of in truth[0]:
        (row,) = np.flatnonzero(kept.of == of)
        if rule == "best":
            assert kept.xyxy[row] == pytest.approx(corners, abs=1)
        # Others are learnt in cells, too, from which their centres cannot quite be reached.
        assert iou(kept.xyxy[row].astype(np.float64), np.array(corners)) > 0.65


def test_what_cannot_be_learnt_from_is_refused() -> None:
    levels = random_maps(1, 64, 64, 3)
    with pytest.raises(UsageError, match="images with boxes"):
        objective_of(3)({"levels": levels}, {"label": torch.zeros(1)})
    with pytest.raises(UsageError, match="network of 3 classes for 5"):
        objective_of(5)({"levels": levels}, collated([[]]))
    with pytest.raises(UsageError, match="teacher"):
        objective_of(3)({"levels": levels}, collated([[]]), levels)


def test_balanced_weights_come_from_the_boxes_and_stay_with_the_model() -> None:
    """Of 4 boxes 3 are of the first class, 1 of the second, none of the third."""
    samples = [
        Sample("a", target=Boxes.made([[0, 0, 9, 9]] * 3, [0, 0, 1])),
        Sample("b", target=Boxes.made([[0, 0, 9, 9]], [0])),
        Sample("c"),
    ]
    options = DetectionOptions(loss=LossOptions(class_weights="balanced"))
    task = Detection.prepared(("a", "b", "c"), options, samples)
    weights = task.state()["class_weights"]
    assert weights == pytest.approx([4 / 9, 4 / 3, 4 / 3])
    assert Detection(task.classes, options, task.state()).state()["class_weights"] == weights
    plain = Detection.prepared(("a", "b", "c"), DetectionOptions(), samples)
    assert "class_weights" not in plain.state()


def test_weights_are_one_for_each_class() -> None:
    three = DetectionOptions(loss=LossOptions(class_weights=[1, 2, 0.5]))
    assert len(Detection.sketch(three).classes) == 3
    assert Detection(("a", "b", "c"), three).state()["class_weights"] == [1, 2, 0.5]
    with pytest.raises(UsageError, match="3 weights for 2 classes"):
        Detection(("a", "b"), three)
    none = DetectionOptions(loss=LossOptions(class_weights=[0, 0]))
    with pytest.raises(UsageError, match="all zero"):
        Detection(("a", "b"), none)


def test_the_page_on_the_loss_names_options_that_there_are() -> None:
    page = (Path(__file__).parents[3] / "docs" / "detection-loss.md").read_text("utf-8")
    (line,) = re.findall(r"```\n(retinue train .*?)```", page, re.DOTALL)
    _, _, name, *words = shlex.split(line.replace("\\\n", " "))
    overrides = parse_overrides([word for word in words if not word.startswith("data=")])
    versions = [load_recipe(name, given) for given in ({}, overrides)]
    keras, pytorch = (DetectionOptions.model_validate(v.task_options) for v in versions)
    assert (keras.loss.overlap, keras.loss.ignore_by, keras.several_classes) == (
        "ciou",
        "level",
        True,
    )
    assert (pytorch.loss.overlap, pytorch.loss.ignore_by) == ("giou", "all")
    assert not pytorch.several_classes
    decayed = [
        [(s.optimizer.weight_decay, s.optimizer.decay_from) for s in v.stages] for v in versions
    ]
    assert decayed == [[(1e-3, None), (1e-3, "neck")], [(5e-4, None), (5e-4, None)]]
    table = page.split("## Options of the loss")[1].split("##")[0]
    for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)[1:]:
        for name in re.findall(r"`(\w+)", row):
            assert name in LossOptions.model_fields


@pytest.mark.parametrize("rule", ["best", "ratio", "dynamic"])
def test_autocast_changes_nothing(rule: str) -> None:
    levels, targets = random_maps(2, 96, 160, 3), collated(MANY)
    plain, _ = total_loss(objective_of(3, assignment=rule)({"levels": levels}, targets))
    with torch.autocast("cpu", torch.bfloat16):
        half, _ = total_loss(objective_of(3, assignment=rule)({"levels": levels}, targets))
    assert half.item() == plain.item()


def test_an_option_without_effect_is_refused() -> None:
    assert LossOptions(assignment="ratio", neighbours=True).neighbours
    with pytest.raises(ValueError, match="neighbours has no effect without assignment: ratio"):
        LossOptions(neighbours=True)
