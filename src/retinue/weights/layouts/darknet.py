"""Detectors' weights in Darknet's own files: floats, layer after layer as the `.cfg` has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from retinue.weights.darknet import FLOATS, cut
from retinue.weights.layout import Layout, Shapes, StateDict, blocks, from_floats


def as_described(shapes: Shapes) -> list[str]:
    """Of a network that a `.cfg` describes: `layers.N` with a norm, `layers.N.conv` or
    `layers.N.out` with a bias."""
    found = (re.match(r"layers\.(\d+)\.(conv|out)\.weight$", key) for key in shapes)
    modules = sorted((int(m[1]), m[2]) for m in found if m)
    return [
        f"layers.{i}" if f"layers.{i}.norm.weight" in shapes else f"layers.{i}.{kernel}"
        for i, kernel in modules
    ]


def above_backbone() -> list[str]:
    """YOLOv3's neck and head level by level, the coarsest first: five convolutions, the head, and
    the one that leads to the next level."""
    modules = []
    for level in (2, 1, 0):
        modules += [f"neck.narrow.{level}"] if level < 2 else []
        modules += [f"neck.blocks.{level}.{k}" for k in range(5)]
        modules += [f"head.convs.{level}", f"head.outs.{level}"]
    return modules


def yolov3(shapes: Shapes) -> list[str]:
    """DarkNet-53, then what is above it."""
    trunk = ["backbone.stem"]
    for i, j in blocks({key.removeprefix("backbone."): s for key, s in shapes.items()}):
        block = f"backbone.stages.{i}.{j}"
        trunk += [block] if j == 0 else [f"{block}.conv1", f"{block}.conv2"]
    return [*trunk, *above_backbone()]


def yolov3_tiny(shapes: Shapes) -> list[str]:
    """The backbone, the coarser level, then the finer one."""
    trunk = ["backbone.stem", *(f"backbone.stages.{i}.0.1" for i in range(6))]
    coarse = ["neck.narrow", "head.convs.1", "head.outs.1"]
    return [*trunk, *coarse, "neck.lateral", "head.convs.0", "head.outs.0"]


EPSILON = 1e-6
"""What Darknet adds to the standard deviation."""


def _layout(family: str, layers: Callable[[Shapes], Sequence[str]], **arguments: Any) -> Layout:
    def in_file_order(state: StateDict, shapes: Shapes) -> dict[str, Tensor]:
        order = layers(shapes)
        of_classes = [layer for layer in order if re.search(r"\.outs?(\.\d+)?$", layer)]
        network = "the .cfg's network" if family == "darknet" else family
        return cut(state[FLOATS], shapes, order, of_classes=of_classes, network=network)

    return Layout(
        source="darknet",
        family=family,
        marks=(FLOATS,),
        origins=from_floats,
        prepare=in_file_order,
        arguments={"norm_eps": EPSILON, **arguments},
        names_a_network=family != "darknet",
    )


LAYOUTS = (
    _layout("darknet", as_described),
    _layout(
        "yolov3",
        yolov3,
        backbone="darknet53",
        backbone_arguments={"slope": 0.1, "norm_eps": EPSILON},
    ),
    _layout("yolov3_tiny", yolov3_tiny),
)
