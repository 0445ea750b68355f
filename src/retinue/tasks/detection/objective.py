"""What a detector learns by: where its boxes lie, whether there is an object, and of which class.

The sums and what they are divided by are those of the published EfficientNet-YOLOv3 platform in
its Keras and its PyTorch version; see `LossOptions` for what these differ in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from retinue.errors import UsageError
from retinue.tasks.detection import assignment
from retinue.tasks.detection.assignment import Matches, Targets
from retinue.tasks.detection.decoding import Anchors, Grid, boxes, grid, in_a_row
from retinue.tasks.detection.loss_options import LossOptions as LossOptions
from retinue.tasks.detection.loss_options import weights_of_classes as weights_of_classes
from retinue.tasks.detection.overlap import overlap
from retinue.tasks.objective import Losses, Objective


class DetectionObjective(Objective):
    """Overlap of the boxes, and binary cross entropy of objectness and classes."""

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        anchors: Anchors,
        strides: Sequence[int],
        classes: int,
        options: LossOptions | None = None,
        scale_xy: Sequence[float] | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.anchors = anchors
        self.strides = tuple(strides)
        self.classes = classes
        self.options = LossOptions() if options is None else options
        self.scale_xy = scale_xy
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(
        self, outputs: dict[str, Any], targets: dict[str, Any], taught: Any = None
    ) -> Losses:
        """`box`, `objectness` and `class`: pairs (n, levels) of sums and counts, so that each level
        is divided by its own objects (classes: by objects times classes; objectness: by objects and
        what is taught that it is none) over the whole batch, and the levels are added up.

        `outputs["levels"]`: raw maps, see `decoding`; `targets` as `Boxes` collates them in pixels
        of the network's input, with `not_exhaustive`, int64 (n, k), if there is any: classes for
        which the image is not exhaustively labelled, padded with −1. Where two objects claim one
        prediction, the better fit has it. Objects that are `difficult` or a `crowd` are not learnt,
        and their places are not taught to be empty; of an image that `known` (n,) is False for
        nothing is learnt at all. The loss of an object's class is multiplied by the weight of that
        class.
        """
        if "xyxy" not in targets:
            raise UsageError("training needs images with boxes")
        if taught is not None:
            raise UsageError("detection does not learn from a teacher", where="key teacher")
        levels, chosen = outputs["levels"], self.options
        where = grid(levels, self.anchors, self.strides, self.scale_xy)
        raw = in_a_row(levels, self.anchors)
        if raw.shape[-1] != 5 + self.classes:
            raise UsageError(
                f"a network of {raw.shape[-1] - 5} classes for {self.classes}",
                where="key network",
                mend="build it with the task's classes",
            )
        there = Targets.of_batch(targets)
        unsure = self._unsure(targets)
        with torch.no_grad():
            placed = boxes(raw, where)
            matches = self._matches(there, where, placed, raw)
            negative = assignment.negatives(
                matches,
                there,
                where,
                placed,
                ignore_above=chosen.ignore_above,
                same_level=chosen.ignore_by == "level",
            )
            if "known" in targets:
                negative &= targets["known"].unsqueeze(1)
            if unsure is not None:
                negative &= ~self._may_be(unsure, raw)
        # What is not matched must not reach the loss, whatever it is.
        wide = matches.prediction.unsqueeze(-1).expand(-1, -1, raw.shape[-1])
        picked = torch.where(matches.matched.unsqueeze(-1), raw.gather(1, wide), 0)
        own = there.xyxy.gather(1, matches.item.unsqueeze(-1).expand(-1, -1, 4))
        agreement = overlap(chosen.overlap, boxes(picked, where, matches.prediction), own)
        level = where.level[matches.prediction]
        at = _one_of(level, len(levels)) & matches.matched.unsqueeze(-1)
        number = at.sum(1)
        box = torch.where(matches.matched, 1 - agreement, 0)
        labels = there.of.gather(1, matches.item)
        label, counted = self._class_loss(picked[..., 5:], labels, unsure)
        objectness, considered = self._objectness(raw[..., 4], matches, negative, agreement, where)
        return Losses(
            {
                "box": (chosen.box_weight * _by_level(box, at), number),
                "objectness": (objectness, considered),
                "class": (
                    chosen.class_weight * self.classes / 80 * _by_level(label, at),
                    _by_level(counted, at),
                ),
            },
            {},
        )

    def _matches(self, there: Targets, where: Grid, placed: Tensor, raw: Tensor) -> Matches:
        chosen = self.options
        if chosen.assignment == "ratio":
            return assignment.ratio(there, where, most=chosen.ratio, neighbours=chosen.neighbours)
        if chosen.assignment == "dynamic":
            return assignment.dynamic(there, where, placed, raw)
        return assignment.best(there, where)

    def _unsure(self, targets: dict[str, Any]) -> Tensor | None:
        """bool (n, classes): those that may be in the image unlabelled; None: none in any."""
        listed = targets.get("not_exhaustive")
        if listed is None or not listed.shape[1]:
            return None
        place = torch.where(listed >= 0, listed, self.classes)
        row = torch.zeros(len(listed), self.classes + 1, dtype=torch.bool, device=listed.device)
        return row.scatter(1, place, True)[:, : self.classes]

    def _may_be(self, unsure: Tensor, raw: Tensor) -> Tensor:
        """bool (n, P), or (n, 1) for all: the predictions that may be of an unlabelled object."""
        if self.options.not_exhaustive == "image":
            return unsure.any(1, keepdim=True)
        return unsure.gather(1, raw[..., 5:].argmax(-1))

    def _class_loss(
        self, logits: Tensor, labels: Tensor, unsure: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Of logits (n, S, classes) the loss of each slot, (n, S), and of how many classes it is.
        An object of another class may be one of the `unsure` classes as well."""
        smoothing = self.options.label_smoothing
        hot = _one_of(labels, self.classes)
        wanted = hot.to(logits.dtype) * (1 - smoothing) + smoothing / self.classes
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        if self.class_weights is not None:
            loss = loss * self.class_weights[labels].unsqueeze(-1)
        if unsure is None:
            return loss.sum(-1), torch.full_like(loss[..., 0], float(self.classes))
        known = hot | ~unsure.unsqueeze(1)
        return torch.where(known, loss, 0).sum(-1), known.sum(-1).float()

    def _objectness(
        self, logits: Tensor, matches: Matches, negative: Tensor, agreement: Tensor, where: Grid
    ) -> tuple[Tensor, Tensor]:
        """Of logits (n, P) the sums and counts of each level, (n, levels)."""
        chosen, count = self.options, len(where)
        aim = matches.matched.to(logits.dtype)
        if chosen.objectness_target == "overlap":
            aim = aim * agreement.detach().clamp(0, 1)
        positive = matches.spread(matches.matched.int(), count).bool()
        wanted = matches.spread(aim, count)
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        if chosen.focal_gamma:
            # Above 0, where a power below 1 has no slope.
            error = (wanted - logits.sigmoid()).abs().clamp(min=1e-6)
            loss = loss * error.pow(chosen.focal_gamma)
        if chosen.focal_alpha is not None:
            alpha = chosen.focal_alpha
            loss = loss * torch.where(positive, alpha, 1 - alpha)
        considered = positive | negative
        loss = torch.where(considered, loss, 0)
        sums = [
            factor * part.sum(1)
            for factor, part in zip(
                self._objectness_factors(where), torch.split(loss, where.counts, 1), strict=True
            )
        ]
        counts = [part.sum(1) for part in torch.split(considered.float(), where.counts, 1)]
        return torch.stack(sums, 1), torch.stack(counts, 1)

    def _objectness_factors(self, where: Grid) -> list[float]:
        """Of each level."""
        given = self.options.balance
        missing = len(where.shapes) - len(given)
        balance = (given[0],) * missing + given[max(-missing, 0) :]
        tall, wide, _ = where.shapes[0]
        area = tall * wide * where.strides[0] ** 2
        factor = self.options.objectness_weight * area / 416**2
        return [factor * one for one in balance]


def _one_of(index: Tensor, count: int) -> Tensor:
    """`index` (…) as bool (…, count). `F.one_hot` would look at the values first."""
    return index.unsqueeze(-1) == torch.arange(count, device=index.device)


def _by_level(values: Tensor, at: Tensor) -> Tensor:
    """Sums (n, levels) of `values` (n, S), which belong to the levels `at` (n, S, levels)."""
    return (values.unsqueeze(-1) * at).sum(1)
