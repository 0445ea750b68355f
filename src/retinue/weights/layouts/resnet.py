"""ResNet's and ResNeXt's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from retinue.weights.layout import (
    CAFFE,
    Layout,
    Origin,
    Shapes,
    StateDict,
    blue_first,
    keras_origins,
    own_head,
    rename,
)


def torchvision(shapes: Shapes) -> dict[str, Origin]:
    """torchvision's and timm's: `layer1.0.conv1`, `layer1.0.downsample.0` …"""
    rules = [(r"stem\.conv\.", "conv1."), (r"stem\.norm\.", "bn1."), (r"head\.fc\.", "fc.")]
    for i in range(4):
        ours, theirs = rf"stages\.{i}\.(\d+)\.", rf"layer{i + 1}.\1."
        rules += [
            (ours + r"conv(\d)\.conv\.", theirs + r"conv\2."),
            (ours + r"conv(\d)\.norm\.", theirs + r"bn\2."),
            (ours + r"shortcut\.conv\.", theirs + "downsample.0."),
            (ours + r"shortcut\.norm\.", theirs + "downsample.1."),
        ]
    return rename(shapes, rules)


def transformers(shapes: Shapes, *, prefix: str) -> dict[str, Origin]:
    """`resnet.encoder.stages.0.layers.0.layer.0.convolution`; a backbone lacks the `resnet.`"""
    rules = [(r"head\.fc\.", "classifier.1.")]
    for ours, theirs in (("conv", "convolution"), ("norm", "normalization")):
        rules.append((rf"stem\.{ours}\.", f"{prefix}embedder.embedder.{theirs}."))
        at = rf"{prefix}encoder.stages.\1.layers.\2."
        rules.append((rf"stages\.(\d)\.(\d+)\.shortcut\.{ours}\.", f"{at}shortcut.{theirs}."))
        for k in (1, 2, 3):
            block = rf"stages\.(\d)\.(\d+)\.conv{k}\.{ours}\."
            rules.append((block, f"{at}layer.{k - 1}.{theirs}."))
    return rename(shapes, rules)


def keras(shapes: Shapes) -> dict[str, Origin]:
    """`conv2_block1_1_conv`, the shortcut `conv2_block1_0_conv`; convolutions with biases, and
    images with blue first."""

    def layer(module: str) -> str:
        if module == "head.fc":
            return "predictions"
        *place, kind = module.split(".")
        kind = "bn" if kind == "norm" else kind
        if place == ["stem"]:
            return f"conv1_{kind}"
        _, stage, block, conv = place
        number = 0 if conv == "shortcut" else int(conv.removeprefix("conv"))
        return f"conv{int(stage) + 2}_block{int(block) + 1}_{number}_{kind}"

    def folded(norm: str) -> str:
        return layer(norm.removesuffix("norm") + "conv")

    origins = keras_origins(shapes, layer, folded=folded)
    return {**origins, "stem.conv.weight": blue_first(origins["stem.conv.weight"])}


WITHIN = "layer_with_weights-0/"
"""Where the network is in a model that has layers on top of it."""


def course(shapes: Shapes, *, prefix: str) -> dict[str, Origin]:
    """A checkpoint of TensorFlow's, whose names are ways through the model as a course builds it:
    stem, norm, four stages of blocks with `conv1`, `bn1` … and a `downsample`."""
    outside = {"stem.conv": 0, "stem.norm": 1}
    inside = {"conv": "0", "norm": "1"}

    def layer(module: str) -> str:
        if module.startswith("head."):
            return module
        if module in outside:
            return f"{prefix}layer_with_weights-{outside[module]}"
        _, stage, block, part, kind = module.split(".")
        at = f"{prefix}layer_with_weights-{int(stage) + 2}/layer_with_weights-{block}"
        if part == "shortcut":
            return f"{at}/downsample/layer_with_weights-{inside[kind]}"
        return f"{at}/{part if kind == 'conv' else part.replace('conv', 'bn')}"

    return keras_origins(shapes, layer)


def named(shapes: Shapes) -> dict[str, Origin]:
    """The weights that the same course starts from, by the names that TF-Slim's lead to:
    `block1/unit_1/conv1/kernel`, `block1/unit_1/shortcut/BatchNorm/gamma`."""

    def layer(module: str) -> str:
        if module == "head.fc":
            return "logits"
        *place, kind = module.split(".")
        norm = "/BatchNorm" if kind == "norm" else ""
        if place == ["stem"]:
            return f"conv1{norm}"
        _, stage, block, part = place
        at = f"block{int(stage) + 1}/unit_{int(block) + 1}"
        if part == "shortcut":
            return f"{at}/shortcut{norm or '/conv1'}"
        return f"{at}/{part}{norm}"

    return keras_origins(shapes, layer)


COURSE: Mapping[str, Any] = {
    "source": "tensorflow",
    "family": "resnet",
    "arguments": {"stride_on": "3x3", "same_padding": True},
    "preprocessing": {
        "mean": tuple(value / 255 for value in (123.68, 116.78, 103.94)),
        "std": (1 / 255, 1 / 255, 1 / 255),
        "fit": "squash",
    },
}


def _on_top(state: StateDict, prefix: str) -> list[str]:
    """The dense layers on top of the network, in order: beside it, or after its stages."""
    beside, first = ("", 1) if prefix else (prefix, 6)
    found: list[str] = []
    while f"{beside}layer_with_weights-{first + len(found)}/kernel" in state:
        found.append(f"{beside}layer_with_weights-{first + len(found)}")
    return found


def _named_head(state: StateDict, shapes: Shapes, *, prefix: str) -> StateDict:
    *hidden, last = _on_top(state, prefix) or [""]
    names = {name: f"hidden.{k}" for k, name in enumerate(hidden)}
    return own_head(state, {**names, last: "fc" if hidden else ""}) if last else state


def _told_head(state: StateDict, *, prefix: str) -> dict[str, Any]:
    hidden = [state[f"{name}/kernel"].shape[1] for name in _on_top(state, prefix)[:-1]]
    dropped = {"input_dropout": 0.5, "dropout": 0.5}
    return {"head": {"name": "mlp", "hidden": hidden, **dropped}} if hidden else {}


LAYOUTS = (
    *(
        Layout(
            source=source,
            family="resnet",
            marks=("conv1.weight", "bn1.weight", "layer1.0.conv1.weight"),
            origins=torchvision,
            arguments={"stride_on": "3x3"},
        )
        for source in ("torchvision", "timm")
    ),
    # The published ones are v1.5; that another is not, only a folder's configuration tells.
    *(
        Layout(
            source="transformers",
            family="resnet",
            marks=(
                f"{prefix}embedder.embedder.convolution.weight",
                f"{prefix}encoder.stages.0.layers.0.layer.0.convolution.weight",
            ),
            origins=partial(transformers, prefix=prefix),
            arguments={"stride_on": "3x3"},
        )
        for prefix in ("resnet.", "")
    ),
    Layout(
        source="keras",
        family="resnet",
        marks=("conv1_conv/kernel", "conv1_bn/gamma", "conv2_block1_0_conv/kernel"),
        origins=keras,
        arguments={"stride_on": "1x1", "norm_eps": 1.001e-5},
        preprocessing=CAFFE,
    ),
    *(
        Layout(
            **COURSE,
            marks=(
                f"{prefix}layer_with_weights-0/kernel",
                f"{prefix}layer_with_weights-1/gamma",
                f"{prefix}layer_with_weights-2/layer_with_weights-0/conv1/kernel",
                f"{prefix}layer_with_weights-5/layer_with_weights-0/bn1/gamma",
            ),
            origins=partial(course, prefix=prefix),
            prepare=partial(_named_head, prefix=prefix),
            tells=partial(_told_head, prefix=prefix),
        )
        for prefix in (WITHIN, "")
    ),
    Layout(
        **COURSE,
        marks=("conv1/kernel", "conv1/BatchNorm/gamma", "block1/unit_1/conv1/kernel"),
        origins=named,
    ),
)
