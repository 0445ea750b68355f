"""Measures of agreement: by hand, against plain arithmetic, and where they could break."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from retinue.evaluation import boxes as plain
from retinue.tasks.detection.overlap import (
    Overlap,
    covered_matrix,
    iou_matrix,
    overlap,
    size_iou,
)

KINDS = get_args(Overlap)

# 4×2 and 2×4 pixels.
WIDE, TALL = [0.0, 0.0, 4.0, 2.0], [2.0, 0.0, 4.0, 4.0]


def _of(kind: Overlap, first: list[float], second: list[float]) -> float:
    return overlap(kind, torch.tensor(first), torch.tensor(second)).item()


def test_each_measure_by_hand() -> None:
    """Common 2×2 = 4, union 8 + 8 − 4 = 12, hull 4×4, centres (2, 1) and (3, 2)."""
    iou = 4 / 12
    assert _of("iou", WIDE, TALL) == pytest.approx(iou)
    assert _of("giou", WIDE, TALL) == pytest.approx(iou - (16 - 12) / 16)
    diou = iou - (1 + 1) / (16 + 16)
    assert _of("diou", WIDE, TALL) == pytest.approx(diou)
    aspect = (2 / math.pi * (math.atan(2) - math.atan(0.5))) ** 2
    assert _of("ciou", WIDE, TALL) == pytest.approx(diou - aspect**2 / (1 - iou + aspect))
    # At 45° the angle costs 1, so that the distance has γ = 2 − 1; sides differ by a half each.
    distance = 2 * (1 - math.exp(-(1 / 16)))
    shape = 2 * (1 - math.exp(-0.5)) ** 4
    assert _of("siou", WIDE, TALL) == pytest.approx(iou - (distance + shape) / 2)


def test_siou_of_boxes_along_an_axis() -> None:
    """No angle: γ = 2. Hull 8 wide, 4 apart; nothing in common."""
    distance = 1 - math.exp(-2 * (4 / 8) ** 2)
    assert _of("siou", [0, 0, 4, 4], [4, 0, 8, 4]) == pytest.approx(-distance / 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("box", [[3, 4, 50, 60], [0, 0, 0, 0], [5, 5, 5, 9], [0.5, 0.5, 0.51, 400]])
def test_equal_boxes_agree_by_1(kind: Overlap, box: list[float]) -> None:
    assert _of(kind, box, box) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_moving_and_scaling_both_changes_nothing(kind: Overlap) -> None:
    first, second = torch.tensor([10.0, 20, 50, 90]), torch.tensor([30.0, 10, 80, 70])
    once = overlap(kind, first, second)
    assert overlap(kind, first * 3 + 7, second * 3 + 7).item() == pytest.approx(once.item())
    # CIoU's trade-off is the same both ways round, too.
    assert overlap(kind, second, first).item() == pytest.approx(once.item())


_SIDE = st.sampled_from([0.0, 1e-6, 0.25, 3.0, 415.0])


@pytest.mark.parametrize("kind", KINDS)
@given(
    sides=st.tuples(_SIDE, _SIDE, _SIDE, _SIDE),
    corner=st.sampled_from([0.0, 1.0, 200.0]),
    kind_of_number=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)
def test_gradients_are_finite_without_an_area_and_in_half_precision(
    kind: Overlap,
    sides: tuple[float, float, float, float],
    corner: float,
    kind_of_number: torch.dtype,
) -> None:
    width, height, other_width, other_height = sides
    first = torch.tensor([1.0, 1, 1 + width, 1 + height], dtype=kind_of_number, requires_grad=True)
    second = torch.tensor([corner, 1, corner + other_width, 1 + other_height])
    value = overlap(kind, first, second.to(kind_of_number))
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert value.item() <= 1 + 1e-6
    value.backward()
    assert first.grad is not None
    assert first.grad.isfinite().all()


def test_a_box_without_an_area_is_drawn_towards_its_object() -> None:
    box = torch.tensor([15.0, 15, 15, 15], requires_grad=True)
    overlap("ciou", box, torch.tensor([0.0, 0, 30, 30])).backward()
    assert box.grad is not None
    # Larger agrees better: left and top outwards, right and bottom outwards.
    assert (box.grad[:2] < 0).all()
    assert (box.grad[2:] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_differences(kind: Overlap) -> None:
    rng = torch.Generator().manual_seed(0)
    low = torch.rand(6, 2, generator=rng, dtype=torch.float64) * 20
    size = torch.rand(6, 2, generator=rng, dtype=torch.float64) * 30 + 5
    first = torch.cat([low, low + size], 1).requires_grad_()
    second = first.detach().roll(1, 0) + 0.37

    def differs(boxes: Tensor) -> Tensor:
        a, b = (torch.atan2(s[:, 2] - s[:, 0], s[:, 3] - s[:, 1]) for s in (boxes, second))
        return (2 / math.pi * (a - b)).square()

    # CIoU's trade-off is taken as it stands (Zheng et al., 2020, equation 12).
    start = differs(first).detach()
    fixed = start / (1 - overlap("iou", first, second).detach() + start)

    def measured(boxes: Tensor) -> Tensor:
        if kind == "ciou":
            return overlap("diou", boxes, second) - fixed * differs(boxes)
        return overlap(kind, boxes, second)

    assert torch.allclose(measured(first), overlap(kind, first, second), atol=1e-12)
    assert torch.autograd.gradcheck(measured, (first,), eps=1e-6, atol=1e-6)
    (ours,) = torch.autograd.grad(overlap(kind, first, second).sum(), first)
    (theirs,) = torch.autograd.grad(measured(first).sum(), first)
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_matrices_are_those_of_numpy() -> None:
    rng = np.random.default_rng(1)
    low, size = rng.uniform(0, 50, (9, 2)), rng.uniform(1, 40, (9, 2))
    some = np.concatenate([low, low + size], 1)
    a, b = torch.tensor(some[:4]), torch.tensor(some[4:])
    assert iou_matrix(a, b).numpy() == pytest.approx(plain.iou_matrix(some[:4], some[4:]))
    assert covered_matrix(a, b).numpy() == pytest.approx(plain.covered_matrix(some[:4], some[4:]))


def test_sizes_agree_as_if_boxes_had_a_corner_in_common() -> None:
    found = size_iou(torch.tensor([[4.0, 2.0], [0.0, 9.0]]), torch.tensor([2.0, 4.0]))
    assert found.tolist() == pytest.approx([4 / 12, 0])
    assert size_iou(torch.zeros(2), torch.zeros(2)).item() == 0
