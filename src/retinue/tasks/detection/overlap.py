"""How far two boxes agree, as a network can learn it: IoU and what was made of it.

Boxes are x1, y1, x2, y2 in pixels, float tensors (…, 4) that broadcast against each other. All is
worked out in float32 (float64 where that comes in) whatever comes in, and boxes are taken as at
least 1/64 pixel wide and high, so that values and gradients are finite also for boxes without an
area, and stay so in float16. Two equal boxes agree by 1, in every measure. NumPy's IoU, for what is
not learnt by, is in `retinue.evaluation.boxes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from retinue.tasks.detection.loss_options import Overlap as Overlap

SMALLEST = 1 / 64
"""Pixels. The slope of CIoU's arcus tangent is at most its inverse."""


def overlap(kind: Overlap, first: Tensor, second: Tensor) -> Tensor:
    """The measure `kind` of `first` (…, 4) and `second` (…, 4): (…), at most 1."""
    return _MEASURES[kind](_pair(first, second))


def iou_matrix(first: Tensor, second: Tensor) -> Tensor:
    """IoU of each of `first` (…, n, 4) with each of `second` (…, m, 4): (…, n, m)."""
    return overlap("iou", first.unsqueeze(-2), second.unsqueeze(-3))


def covered_matrix(first: Tensor, second: Tensor) -> Tensor:
    """How much of each of `first` (…, n, 4) lies within each of `second` (…, m, 4): (…, n, m)
    shares of the first's own area."""
    pair = _pair(first.unsqueeze(-2), second.unsqueeze(-3))
    return pair.common / pair.first.area


def size_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of widths and heights (…, 2) alone, as though the boxes had one corner in common: (…). 0
    where either has no area."""
    common = torch.minimum(first, second).prod(-1)
    union = first.prod(-1) + second.prod(-1) - common
    return torch.where(union > 0, common / torch.where(union > 0, union, 1), 0)


class _Sides(NamedTuple):
    low: Tensor
    high: Tensor
    size: Tensor
    area: Tensor

    @classmethod
    def of(cls, boxes: Tensor) -> _Sides:
        low, high = boxes[..., :2], boxes[..., 2:]
        # Wide enough by value, and learnt from as though nothing had been added.
        high = high + ((high - low).clamp(min=SMALLEST) - (high - low)).detach()
        size = high - low
        return cls(low, high, size, size.prod(-1))


class _Pair(NamedTuple):
    first: _Sides
    second: _Sides
    common: Tensor
    union: Tensor

    @property
    def iou(self) -> Tensor:
        return self.common / self.union

    @property
    def hull(self) -> Tensor:
        """Width and height (…, 2) of the smallest box around both."""
        low = torch.minimum(self.first.low, self.second.low)
        return torch.maximum(self.first.high, self.second.high) - low

    @property
    def apart(self) -> Tensor:
        """From the second's centre to the first's (…, 2)."""
        (a, b) = self.first, self.second
        return (a.low + a.high - b.low - b.high) / 2


def _pair(first: Tensor, second: Tensor) -> _Pair:
    wide = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    a, b = _Sides.of(first.to(wide)), _Sides.of(second.to(wide))
    shared = torch.minimum(a.high, b.high) - torch.maximum(a.low, b.low)
    common = shared.clamp(min=0).prod(-1)
    return _Pair(a, b, common, a.area + b.area - common)


def _iou(pair: _Pair) -> Tensor:
    return pair.iou


def _giou(pair: _Pair) -> Tensor:
    """Rezatofighi et al., 2019: less the share of the hull that neither covers."""
    hull = pair.hull.prod(-1)
    return pair.iou - (hull - pair.union) / hull


def _diou(pair: _Pair) -> Tensor:
    """Zheng et al., 2020: less the squared distance of the centres, in diagonals of the hull."""
    return pair.iou - pair.apart.square().sum(-1) / pair.hull.square().sum(-1)


def _ciou(pair: _Pair) -> Tensor:
    """Zheng et al., 2020, section 3.3: DIoU less what the aspect ratios differ by."""
    (width, height), (other_width, other_height) = (
        side.size.unbind(-1) for side in (pair.first, pair.second)
    )
    turned = torch.atan2(width, height) - torch.atan2(other_width, other_height)
    aspect = (2 / math.pi * turned).square()
    trade_off = aspect / (1 - pair.iou + aspect).clamp(min=1e-7)
    return _diou(pair) - trade_off.detach() * aspect


def _siou(pair: _Pair) -> Tensor:
    """Gevorgyan, 2022: less half of what distance (the more, the less it lies along an axis) and
    shape cost."""
    apart, hull = pair.apart, pair.hull
    # sin(2·arcsin x), x the sine of the angle to an axis.
    angle = 2 * apart.abs().prod(-1) / apart.square().sum(-1).clamp(min=SMALLEST**2)
    steep = (2 - angle).unsqueeze(-1)
    distance = (1 - torch.exp(-steep * (apart / hull).square())).sum(-1)
    a, b = pair.first.size, pair.second.size
    differs = (a - b).abs() / torch.maximum(a, b)
    shape = (1 - torch.exp(-differs)).pow(4).sum(-1)
    return pair.iou - (distance + shape) / 2


_MEASURES: dict[Overlap, Callable[[_Pair], Tensor]] = {
    "iou": _iou,
    "giou": _giou,
    "diou": _diou,
    "ciou": _ciou,
    "siou": _siou,
}
