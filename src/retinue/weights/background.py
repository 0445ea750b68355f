"""TensorFlow's 1,001 classes of ImageNet: the usual 1,000, in their order, after a background."""

from __future__ import annotations

import logging

from torch import Tensor

from retinue.weights.layout import Origin, Shapes

log = logging.getLogger("retinue")

WITH_BACKGROUND = 1001


def without_background(shapes: Shapes) -> dict[str, Origin]:
    """`head.fc` from a `classifier` whose first of 1,001 rows is a background, which is left out.

    A classifier of any other width, and one of ours that is to have 1,001 classes, is taken as it
    is. On the way back there is no background.
    """
    origins = {}
    for name in ("weight", "bias"):
        whole = shapes[f"head.fc.{name}"][0] == WITH_BACKGROUND

        def join(rows: Tensor, *, whole: bool = whole, name: str = name) -> Tensor:
            if whole or len(rows) != WITH_BACKGROUND:
                return rows
            if name == "weight":
                log.info("the first of the checkpoint's 1,001 classes, a background, is left out")
            return rows[1:]

        origins[f"head.fc.{name}"] = Origin((f"classifier.{name}",), join)
    return origins
