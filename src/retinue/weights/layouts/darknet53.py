"""DarkNet-53's checkpoints: Darknet's own, and timm's."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retinue.errors import RetinueError
from retinue.weights.darknet import FLOATS
from retinue.weights.layout import Layout, Origin, Shapes, StateDict, blocks, rename


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


def cut(state: StateDict, shapes: Shapes) -> dict[str, Tensor]:
    """Darknet's floats as tensors of our names, in the order of the forward pass, which is that of
    `shapes`: of each convolution its norm's shift, scale, mean and variance, then its kernel; at
    last the classifier's bias and weight.

    `darknet53.conv.74` ends before the classifier.

    Raises:
        RetinueError: too few floats, or more than a classifier of any number of classes has.
    """
    floats = state[FLOATS]
    tensors: dict[str, Tensor] = {}
    at = 0

    def take(key: str, *shape: int) -> None:
        nonlocal at
        size = math.prod(shape)
        tensors[key] = floats[at : at + size].reshape(shape)
        at += size

    kernels: Shapes = {
        key.removesuffix(".conv.weight"): shape for key, shape in shapes.items() if len(shape) == 4
    }
    out, _, *sides = kernels["stem"]
    kernels = {**kernels, "stem": (out, 3, *sides)}  # theirs see colours, whatever ours sees
    needed = sum(4 * shape[0] + math.prod(shape) for shape in kernels.values())
    width = shapes["head.fc.weight"][1]
    classes, odd = divmod(len(floats) - needed, width + 1)
    if classes < 0 or odd:
        raise RetinueError(
            f"the weights belong to another network: {len(floats):,} floats, where darknet53 has"
            f" {needed:,} and {width + 1:,} for each class",
            mend="choose the network that they were made for",
        )
    for module, kernel in kernels.items():
        for name in ("bias", "weight", "running_mean", "running_var"):
            take(f"{module}.norm.{name}", kernel[0])
        take(f"{module}.conv.weight", *kernel)
    if classes:
        take("head.fc.bias", classes)
        take("head.fc.weight", classes, width)
    return tensors


def darknet(shapes: Shapes) -> dict[str, Origin]:
    """The names that `cut` gives."""
    return {
        key: Origin((key,), torch.clone, None)
        for key in shapes
        if not key.endswith("num_batches_tracked")
    }


LAYOUTS = (
    # Images are values from 0 to 1 there, and not normalised.
    Layout(
        source="darknet",
        family="darknet53",
        marks=(FLOATS,),
        origins=darknet,
        prepare=cut,
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
