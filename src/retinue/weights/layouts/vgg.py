"""VGG's checkpoints."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

from torch import Tensor

from retinue.weights.flattened import flattened
from retinue.weights.layout import (
    CAFFE,
    DIVIDED,
    Layout,
    Origin,
    Shapes,
    blue_first,
    in_order,
    keras_origins,
    rename,
)

STAGES = ("stem", *(f"stages.{i}" for i in range(4)))
"""Our names of the five stages."""


def features(shapes: Shapes) -> list[tuple[str, str]]:
    """`features.N`, numbered through all layers: also norms, ReLUs and poolings."""
    rules, position = [], 0
    for stage in STAGES:
        j = 0
        while f"{stage}.{j}.conv.weight" in shapes:
            ours = re.escape(f"{stage}.{j}.")
            rules.append((rf"{ours}conv\.", f"features.{position}."))
            rules.append((rf"{ours}norm\.", f"features.{position + 1}."))
            position += 3 if f"{stage}.{j}.norm.weight" in shapes else 2
            j += 1
        position += 1  # the pooling
    return rules


def torchvision(shapes: Shapes) -> dict[str, Origin]:
    """The linear layers are `classifier.0`, `.3` and `.6`."""
    head = [
        (r"head\.fc6\.", "classifier.0."),
        (r"head\.fc7\.", "classifier.3."),
        (r"head\.fc\.", "classifier.6."),
    ]
    return rename(shapes, [*features(shapes), *head])


def timm(shapes: Shapes) -> dict[str, Origin]:
    """The hidden layers are convolutions, 7×7 and 1×1, of one place."""
    head = [
        (r"head\.fc6\.", "pre_logits.fc1."),
        (r"head\.fc7\.", "pre_logits.fc2."),
        (r"head\.fc\.", "head.fc."),
    ]
    origins = rename(shapes, [*features(shapes), *head])
    for layer, side in (("fc6", 7), ("fc7", 1)):
        key = f"head.{layer}.weight"
        origins[key] = replace(origins[key], join=_linear, split=partial(_convolution, side=side))
    return origins


def _linear(kernel: Tensor) -> Tensor:
    return kernel.flatten(1)


def _convolution(weight: Tensor, *, side: int) -> tuple[Tensor, ...]:
    return (weight.reshape(len(weight), -1, side, side),)


def keras(shapes: Shapes) -> dict[str, Origin]:
    """`block3_conv2`, `fc1`, `fc2`, `predictions`; images with blue first."""
    layers = {"head.fc6": "fc1", "head.fc7": "fc2", "head.fc": "predictions"}

    def layer(module: str) -> str:
        if module in layers:
            return layers[module]
        stage, j, kind = module.rsplit(".", 2)
        return f"block{STAGES.index(stage) + 1}_{kind}{int(j) + 1}"

    origins = keras_origins(shapes, layer)
    channels = shapes["stages.3.0.conv.weight"][0]
    return {
        **origins,
        "stem.0.conv.weight": blue_first(origins["stem.0.conv.weight"]),
        "head.fc6.weight": flattened(origins["head.fc6.weight"], channels),
    }


def unnamed(shapes: Shapes) -> dict[str, Origin]:
    """As it is taught with Keras: layers without names of their own, which are numbered."""
    blocks = [f"{stage}.{j}" for stage in STAGES for j in range(len(shapes))]
    kinds = {
        "conv2d": [f"{b}.conv" for b in blocks if f"{b}.conv.weight" in shapes],
        "batch_normalization": [f"{b}.norm" for b in blocks if f"{b}.norm.weight" in shapes],
        "dense": ["head.fc6", "head.fc7", "head.fc"],
    }
    origins = keras_origins(shapes, in_order(kinds).__getitem__)
    channels = shapes["stages.3.0.conv.weight"][0]
    return {**origins, "head.fc6.weight": flattened(origins["head.fc6.weight"], channels)}


LAYOUTS = (
    Layout(
        source="torchvision",
        family="vgg",
        marks=("features.0.weight", "classifier.0.weight", "classifier.3.weight"),
        origins=torchvision,
    ),
    Layout(
        source="timm",
        family="vgg",
        marks=("features.0.weight", "pre_logits.fc1.weight", "pre_logits.fc2.weight"),
        origins=timm,
    ),
    Layout(
        source="keras",
        family="vgg",
        marks=("block1_conv1/kernel", "block5_conv1/kernel"),
        origins=keras,
        preprocessing=CAFFE,
    ),
    Layout(
        source="keras",
        family="vgg",
        marks=(*(f"conv2d_{k}/kernel" for k in range(1, 8)), "conv2d/kernel", "dense/kernel"),
        origins=unnamed,
        preprocessing=DIVIDED,
    ),
)
