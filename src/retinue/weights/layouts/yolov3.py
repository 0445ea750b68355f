"""YOLOv3 on EfficientNet as it is published for Keras."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from retinue.weights.layout import TENSORFLOW, Layout, Origin, Shapes, StateDict, keras_origins
from retinue.weights.layouts import efficientnet
from retinue.weights.layouts.darknet import above_backbone

_VARIANTS = {
    (16, 320): "b0", (23, 320): "b1", (23, 352): "b2", (26, 384): "b3",
    (32, 448): "b4", (39, 512): "b5", (45, 576): "b6", (55, 640): "b7",
}  # fmt: skip
"""EfficientNet by how many blocks it has, and how many channels its last one."""


def keras(shapes: Shapes) -> dict[str, Origin]:
    """The backbone by `keras.applications`' names; neck and head have none (`conv2d_7`,
    `batch_normalization_6`) and are numbered in the order in which they are built: level by level,
    the coarsest first; of each five convolutions, the head's two, and the one that leads to the
    next level. The head's second ones have a bias and no norm."""
    own = "backbone."
    below = {key.removeprefix(own): shape for key, shape in shapes.items() if key.startswith(own)}
    if "stages.0.0.depthwise.conv.weight" not in below:  # no EfficientNet: nothing is its
        return {}
    origins = {own + key: origin for key, origin in efficientnet.keras(below).items()}
    layers = {}
    norms = 0
    for i, module in enumerate(above_backbone()):
        name = f"conv2d_{i}" if i else "conv2d"
        if module.startswith("head.outs."):
            layers[module] = name
            continue
        layers[f"{module}.conv"] = name
        layers[f"{module}.norm"] = (
            f"batch_normalization_{norms}" if norms else "batch_normalization"
        )
        norms += 1
    above = {key: shape for key, shape in shapes.items() if not key.startswith(own)}
    return origins | keras_origins(above, layers.__getitem__)


def backbone(state: StateDict) -> Mapping[str, Any]:
    """Which EfficientNet it is on."""
    names = [key for key in state if re.match(r"block\d[a-z]+_project_conv/kernel$", key)]
    last = max(names, default="")
    variant = _VARIANTS.get((len(names), state[last].shape[-1] if names else 0))
    return {"backbone": f"tf_efficientnet_{variant}"} if variant else {}


LAYOUTS = (
    Layout(
        source="keras",
        family="yolov3",
        marks=(
            "stem_conv/kernel",
            "block1a_dwconv/depthwise_kernel",
            "block7a_se_reduce/kernel",
            "conv2d_22/bias",
            "batch_normalization_19/gamma",
        ),
        origins=keras,
        arguments={"norm_eps": 1e-3, "backbone_arguments": dict(TENSORFLOW)},
        tells=backbone,
    ),
)
