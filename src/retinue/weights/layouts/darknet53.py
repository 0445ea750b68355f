"""DarkNet-53's checkpoints: Darknet's own, and timm's."""

from __future__ import annotations

from torch import Tensor

from retinue.weights.darknet import FLOATS, cut
from retinue.weights.layout import (
    Layout,
    Origin,
    Shapes,
    StateDict,
    blocks,
    from_floats,
    rename,
)


def timm(shapes: Shapes) -> dict[str, Origin]:
    """`stages.I.conv_down` and `stages.I.blocks.J`; the classifier is named as ours is."""
    rules = [(r"stem\.conv\.", "stem.conv1.conv."), (r"stem\.norm\.", "stem.conv1.bn.")]
    for i, j in blocks(shapes):
        ours = rf"stages\.{i}\.{j}\."
        if j == 0:  # the strided convolution before the blocks
            theirs = f"stages.{i}.conv_down."
        else:
            ours, theirs = ours + r"conv(\d)\.", rf"stages.{i}.blocks.{j - 1}.conv\1."
        rules += [(ours + r"conv\.", theirs + "conv."), (ours + r"norm\.", theirs + "bn.")]
    return rename(shapes, [*rules, (r"head\.fc\.", "head.fc.")])


def in_file_order(state: StateDict, shapes: Shapes) -> dict[str, Tensor]:
    """Darknet's floats as tensors of our names: the order is that of the forward pass, which is
    that of `shapes`. `darknet53.conv.74` ends before the classifier."""
    layers = [key.removesuffix(".conv.weight") for key, shape in shapes.items() if len(shape) == 4]
    out, _, *sides = shapes["stem.conv.weight"]
    theirs = {
        **shapes,
        "stem.conv.weight": (out, 3, *sides),
    }  # theirs sees colours
    return cut(state[FLOATS], theirs, [*layers, "head.fc"], of_classes=["head.fc"],
               network="darknet53")  # fmt: skip


LAYOUTS = (
    # Images are values from 0 to 1 there, and not normalised.
    Layout(
        source="darknet",
        family="darknet53",
        marks=(FLOATS,),
        origins=from_floats,
        prepare=in_file_order,
        arguments={"slope": 0.1},
        preprocessing={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    ),
    Layout(
        source="timm",
        family="darknet53",
        marks=("stem.conv1.conv.weight", "stages.4.blocks.3.conv2.conv.weight"),
        origins=timm,
        arguments={"slope": 0.01},
    ),
)
