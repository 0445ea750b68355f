"""What can be chosen of what a detector learns by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from retinue.options import Options
from retinue.tasks.state import checked_weights

Rule = Literal["best", "ratio", "dynamic"]
Overlap = Literal["iou", "giou", "diou", "ciou", "siou"]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


class LossOptions(Options):
    """What a detector learns by. The published Keras version: `ignore_by: level`; the PyTorch
    version: `overlap: giou`."""

    assignment: Rule = "best"
    """Which predictions learn an object. `best`: the one whose anchor fits best, as published;
    `ratio`: all whose anchors fit well enough (YOLOv5); `dynamic`: those that cost least at the
    time (SimOTA; Ge et al., 2021)."""
    ratio: Annotated[float, Field(gt=1)] = 4.0
    """With `ratio`: width and height differ from the anchor's by a smaller factor than this."""
    neighbours: bool = False
    """With `ratio`: the two nearest of the cells beside the object's own learn it, too. Made for
    networks whose centres reach beyond a cell (`scale_xy` of 2)."""
    ignore_above: Share = 0.5
    """A prediction that overlaps an object by more is not taught that there is none."""
    ignore_by: Literal["all", "level"] = "all"
    """Which objects that holds for: all, as in the PyTorch version, or those of the prediction's
    own level, as in the Keras version."""
    not_exhaustive: Literal["class", "image"] = "class"
    """What is not taught that there is no object, in images that are not exhaustively labelled for
    all classes: predictions that take themselves for one of these classes, or none at all."""
    overlap: Overlap = "ciou"
    """How far a box agrees with its object: `ciou` as in the Keras version, `giou` as in the
    PyTorch version, or `iou`, `diou`, `siou`."""
    box_weight: Weight = 0.05
    """Of the boxes in the loss."""
    objectness_weight: Weight = 5.0
    """Of objectness, for an input of 416×416 pixels; in proportion to the area for others."""
    class_weight: Weight = 1.0
    """Of the classes, if there are 80; in proportion to their number for others."""
    balance: Annotated[tuple[Weight, ...], Field(min_length=1)] = (4.0, 1.0, 0.4)
    """Of objectness on each level, the coarsest last: a network of two has the last two of them,
    and levels that are finer than all have the first."""
    objectness_target: Literal["one", "overlap"] = "one"
    """What objectness is to be where there is an object: 1, as published, or how far the box agrees
    with it by now."""
    focal_gamma: Weight = 0.0
    """How much less objectness learns from what it knows: the loss is multiplied by the error to
    this power (Lin et al., 2017); 0: not at all."""
    focal_alpha: Share | None = None
    """Weight of objects in objectness, 1 − this for the rest; none: both have 1."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a class label that is spread evenly over all classes."""
    class_weights: Literal["none", "balanced"] | list[Weight] = "none"
    """How much an object counts in the loss of the classes. `balanced`: boxes / (classes × boxes of
    its class), so that every class counts the same in sum; or a number per class, in the order of
    the classes."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> LossOptions:
        if self.neighbours and self.assignment != "ratio":
            raise ValueError("neighbours has no effect without assignment: ratio")
        return self


def weights_of_classes(
    wanted: Literal["balanced"] | Sequence[float], counts: Sequence[int]
) -> list[float]:
    """A number for each class, of which there are `counts` boxes. A class without any is in no
    loss; its weight only has to be finite. Raises UsageError for weights that do not fit."""
    if wanted == "balanced":
        return [sum(counts) / (len(counts) * max(count, 1)) for count in counts]
    weights = [float(weight) for weight in wanted]
    return checked_weights(weights, len(counts), "class_weights")
