"""Boxes that are left after suppression as a part of the graph.

Greedy suppression of the `CANDIDATES` best: whoever overlaps a better one that is kept goes.
Without a loop, which not every format has: each of `ROUNDS` rounds is right for one more link of a
chain of boxes that overlap each other (see `retinue.tasks.detection.suppression`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from retinue.tasks.detection import decoding
from retinue.tasks.ending import Ending, Placed

CANDIDATES = 512
"""That come to suppression."""
ROUNDS = 24


class Suppressed(Ending):
    """Raw maps to `boxes`, float32 (n, k, 4): x1, y1, x2, y2 in pixels of the image, best first;
    their `scores`, float32 (n, k), and `classes`, int64 (n, k). Rows beyond `count`, int64 (n,),
    are zeros."""

    def __init__(
        self,
        *,
        classes: int,
        anchors: decoding.Anchors,
        strides: Sequence[int],
        scale_xy: Sequence[float] | None,
        least: float | Sequence[float],
        iou: float,
        max_boxes: int,
        class_wise: bool,
        by_distance: bool,
        several_classes: bool,
    ) -> None:
        super().__init__()
        self.anchors, self.strides, self.scale_xy = anchors, strides, scale_xy
        each = [least] * classes if isinstance(least, float | int) else list(least)
        self.register_buffer("least", torch.tensor(each, dtype=torch.float32))
        self.iou, self.max_boxes, self.classes = iou, max_boxes, classes
        self.class_wise, self.by_distance = class_wise, by_distance
        self.several_classes = several_classes

    least: Tensor

    def forward(self, outputs: Any, placed: Placed) -> dict[str, Tensor]:
        """See `Ending`."""
        levels = outputs["levels"]
        where = decoding.grid(levels, self.anchors, self.strides, self.scale_xy)
        raw = decoding.in_a_row(levels, self.anchors)
        all_boxes = decoding.boxes(raw, where)
        scores = raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid()  # (n, P, classes)
        if not self.several_classes:
            best = scores.argmax(2, keepdim=True)
            scores = torch.where(torch.arange(self.classes) == best, scores, -1.0)
        scores = torch.where(scores >= self.least, scores, -1.0)
        most = min(CANDIDATES, scores.shape[1] * scores.shape[2])
        score, at = scores.flatten(1).topk(most)
        row, of = at // self.classes, at % self.classes
        xyxy = torch.gather(all_boxes, 1, row.unsqueeze(-1).expand(-1, -1, 4))
        xyxy = self._in_image(xyxy, placed)
        shown = (xyxy[..., 2] > xyxy[..., 0]) & (xyxy[..., 3] > xyxy[..., 1])
        able = (score > 0) & shown
        kept = self._kept(xyxy, of, able)
        score = torch.where(kept, score, torch.zeros_like(score))
        answers = min(self.max_boxes, most)
        score, order = score.topk(answers)
        there = (score > 0).long()
        xyxy = torch.gather(xyxy, 1, order.unsqueeze(-1).expand(-1, -1, 4))
        return {
            "boxes": xyxy * there.unsqueeze(-1),
            "scores": score,
            "classes": torch.gather(of, 1, order) * there,
            "count": there.sum(1),
        }

    def _in_image(self, xyxy: Tensor, placed: Placed) -> Tensor:
        scale, shift, size = (torch.cat([pair, pair]) for pair in placed)
        return torch.minimum((xyxy * scale + shift).clamp(min=0), size)

    def _kept(self, xyxy: Tensor, of: Tensor, able: Tensor) -> Tensor:
        """bool (n, k): of boxes in order of their scores, which stay."""
        first, second = xyxy.unsqueeze(2), xyxy.unsqueeze(1)  # (n, k, 1, 4), (n, 1, k, 4)
        low = torch.maximum(first[..., :2], second[..., :2])
        high = torch.minimum(first[..., 2:], second[..., 2:])
        width, height = (high - low).clamp(min=0).unbind(-1)
        sides = (xyxy[..., 2:] - xyxy[..., :2]).clamp(min=0)
        area = sides[..., 0] * sides[..., 1]
        common = width * height
        shares = common / (area.unsqueeze(2) + area.unsqueeze(1) - common).clamp(min=1e-9)
        if self.by_distance:
            shares = shares - _distances(first, second)
        close = shares > self.iou
        if self.class_wise:
            close = close & (of.unsqueeze(2) == of.unsqueeze(1))
        place = torch.arange(xyxy.shape[1])
        above = (
            close & (place.unsqueeze(1) < place)
        ).float()  # row j drops column i, if it is kept
        kept = able.float()
        for _ in range(ROUNDS):
            dropped = torch.matmul(kept.unsqueeze(1), above).squeeze(1)
            kept = able.float() * (dropped < 0.5).float()
        return kept > 0.5


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the box around both."""
    apart = ((first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]) / 2) ** 2
    around = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(
        first[..., :2], second[..., :2]
    )
    return apart.sum(-1) / (around**2).sum(-1).clamp(min=1e-9)
