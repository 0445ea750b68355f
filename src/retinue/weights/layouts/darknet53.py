"""DarkNet-53's checkpoints: Darknet's own, and timm's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from retinue.errors import RetinueError
from retinue.weights.darknet import FLOATS
from retinue.weights.layout import Layout, Origin, Shapes, rename

STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
"""Channels and residual blocks of each stage."""


def timm(shapes: Shapes) -> dict[str, Origin]:
    """`stages.I.conv_down` and `stages.I.blocks.J`; the classifier is named as ours is."""
    rules = [(r"stem\.conv\.", "stem.conv1.conv."), (r"stem\.norm\.", "stem.conv1.bn.")]
    for i, (_, blocks) in enumerate(STAGES):
        rules.append((rf"stages\.{i}\.0\.conv\.", f"stages.{i}.conv_down.conv."))
        rules.append((rf"stages\.{i}\.0\.norm\.", f"stages.{i}.conv_down.bn."))
        for j in range(blocks):
            ours, theirs = rf"stages\.{i}\.{j + 1}\.", f"stages.{i}.blocks.{j}."
            rules.append((ours + r"conv(\d)\.conv\.", theirs + r"conv\1.conv."))
            rules.append((ours + r"conv(\d)\.norm\.", theirs + r"conv\1.bn."))
    return rename(shapes, [*rules, (r"head\.fc\.", "head.fc.")])


def convolutions() -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Our module and the shape of its kernel, in the order of the forward pass."""
    channels = 32
    yield "stem", (channels, 3, 3, 3)
    for i, (width, blocks) in enumerate(STAGES):
        yield f"stages.{i}.0", (width, channels, 3, 3)
        for j in range(1, blocks + 1):
            yield f"stages.{i}.{j}.conv1", (width // 2, width, 1, 1)
            yield f"stages.{i}.{j}.conv2", (width, width // 2, 3, 3)
        channels = width


def cut(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Darknet's floats as tensors of our names: of each convolution its norm's shift, scale, mean
    and variance, then its kernel; at last the classifier's bias and weight.

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

    needed = sum(4 * shape[0] + math.prod(shape) for _, shape in convolutions())
    width = STAGES[-1][0]
    classes, odd = divmod(len(floats) - needed, width + 1)
    if classes < 0 or odd:
        raise RetinueError(
            f"the weights belong to another network: {len(floats):,} floats, where darknet53 has"
            f" {needed:,} and {width + 1:,} for each class",
            mend="choose the network that they were made for",
        )
    for module, kernel in convolutions():
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
