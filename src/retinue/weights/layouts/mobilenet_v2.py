"""MobileNetV2's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from retinue.weights.background import without_background
from retinue.weights.layout import TENSORFLOW, Layout, Origin, Shapes, blocks, keras_origins, rename
from retinue.weights.mobile import TIMM_MOBILE_MARKS, timm_mobile, torchvision_ends


def torchvision(shapes: Shapes) -> dict[str, Origin]:
    """A flat `features.0…18`, layers by position; the projection is not nested."""
    numbered = blocks(shapes)
    rules = [*torchvision_ends(top=len(numbered) + 1), (r"head\.fc\.", "classifier.1.")]
    for flat, (stage, i) in enumerate(numbered, start=1):
        ours, theirs = rf"stages\.{stage}\.{i}\.", f"features.{flat}.conv."
        expanded = f"stages.{stage}.{i}.expand.conv.weight" in shapes
        nested = ("expand", "depthwise") if expanded else ("depthwise",)
        for k, layer in enumerate(nested):
            rules.append((rf"{ours}{layer}\.conv\.", f"{theirs}{k}.0."))
            rules.append((rf"{ours}{layer}\.norm\.", f"{theirs}{k}.1."))
        rules.append((ours + r"project\.conv\.", f"{theirs}{len(nested)}."))
        rules.append((ours + r"project\.norm\.", f"{theirs}{len(nested) + 1}."))
    return rename(shapes, rules)


def keras(shapes: Shapes, *, classifier: str = "predictions") -> dict[str, Origin]:
    """Blocks numbered through, the first one `expanded_conv_`, the others `block_N_`."""
    numbers = {f"{stage}.{i}": n for n, (stage, i) in enumerate(blocks(shapes))}
    known = {
        "stem.conv": "Conv1",
        "stem.norm": "bn_Conv1",
        "top.conv": "Conv_1",
        "top.norm": "Conv_1_bn",
        "head.fc": classifier,
    }

    def layer(module: str) -> str:
        if module in known:
            return known[module]
        _, stage, i, conv, part = module.split(".")
        n = numbers[f"{stage}.{i}"]
        prefix = f"block_{n}_" if n else "expanded_conv_"
        return prefix + conv + ("_BN" if part == "norm" else "")

    return keras_origins(shapes, layer)


def transformers(shapes: Shapes) -> dict[str, Origin]:
    """Blocks numbered through from the second, the first one is in the stem; the classes are
    TensorFlow's."""
    theirs = "mobilenet_v2."
    rules = [(r"stem\.", f"{theirs}conv_stem.first_conv."), (r"top\.", f"{theirs}conv_1x1.")]
    layers = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
    for n, (stage, i) in enumerate(blocks(shapes)):
        block = f"{theirs}layer.{n - 1}." if n else f"{theirs}conv_stem."
        for layer, name in layers.items():
            rules.append((rf"stages\.{stage}\.{i}\.{layer}\.", f"{block}{name}."))
    inner = [
        (rf"{ours}{part}\.", f"{theirs}{name}.")
        for ours, theirs in rules
        for part, name in (("conv", "convolution"), ("norm", "normalization"))
    ]
    trunk = {key: shape for key, shape in shapes.items() if not key.startswith("head.")}
    return {**rename(trunk, inner), **without_background(shapes)}


KERAS_MARKS = ("Conv1/kernel", "bn_Conv1/gamma", "block_16_project/kernel")
FROM_TENSORFLOW: Mapping[str, Any] = {
    "arguments": TENSORFLOW,
    "preprocessing": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
}

LAYOUTS = (
    Layout(
        source="torchvision",
        family="mobilenet_v2",
        marks=("features.0.0.weight", "features.1.conv.0.0.weight", "features.18.0.weight"),
        origins=torchvision,
    ),
    Layout(
        source="timm",
        family="mobilenet_v2",
        marks=TIMM_MOBILE_MARKS,
        origins=timm_mobile,
    ),
    Layout(
        source="keras",
        family="mobilenet_v2",
        marks=KERAS_MARKS,
        origins=keras,
        **FROM_TENSORFLOW,
    ),
    # Keras 2, of which are the published files, calls the classifier otherwise; without it, a
    # file may be of either.
    Layout(
        source="tf-keras",
        family="mobilenet_v2",
        marks=(*KERAS_MARKS, "Logits/kernel"),
        origins=partial(keras, classifier="Logits"),
        **FROM_TENSORFLOW,
    ),
    Layout(
        source="transformers",
        family="mobilenet_v2",
        marks=(
            "mobilenet_v2.conv_stem.first_conv.convolution.weight",
            "mobilenet_v2.layer.15.reduce_1x1.convolution.weight",
        ),
        origins=transformers,
        **FROM_TENSORFLOW,
    ),
)
