"""Xception's checkpoints: Keras Applications', and timm's port of them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from retinue.weights.layout import (
    TENSORFLOW,
    Layout,
    Origin,
    Shapes,
    StateDict,
    keras_origins,
    own_head,
    rename,
)

# The network's blocks in order, as their places among our stages.
BLOCKS = ("0.0", "1.0", *(f"2.{i}" for i in range(9)), "3.0")


def timm(shapes: Shapes) -> dict[str, Origin]:
    """`blockN.rep.K`, layers by position among the ReLUs; the first block begins without one."""
    rules = [(rf"stem\.conv{k}\.conv\.", f"conv{k}.") for k in (1, 2)]
    rules += [(rf"stem\.conv{k}\.norm\.", f"bn{k}.") for k in (1, 2)]
    for number, place in enumerate(BLOCKS, start=1):
        ours, theirs = rf"stages\.{re.escape(place)}\.", f"block{number}."
        for i in range(3):
            at = 3 * i + (number > 1)
            conv = rf"{ours}convs\.{i}\."
            rules.append((conv + r"depthwise\.", f"{theirs}rep.{at}.conv1."))
            rules.append((conv + r"pointwise\.", f"{theirs}rep.{at}.pointwise."))
            rules.append((conv + r"norm\.", f"{theirs}rep.{at + 1}."))
        rules.append((ours + r"shortcut\.conv\.", theirs + "skip."))
        rules.append((ours + r"shortcut\.norm\.", theirs + "skipbn."))
    for k in (1, 2):
        ours, theirs = rf"top\.conv{k}\.", f"conv{k + 2}."
        rules.append((ours + r"depthwise\.", theirs + "conv1."))
        rules.append((ours + r"pointwise\.", theirs + "pointwise."))
        rules.append((ours + r"norm\.", f"bn{k + 2}."))
    return rename(shapes, [*rules, (r"head\.fc\.", "fc.")])


GATED = {"dense": "value", "dense_1": "gate", "softmax": "fc", "auxiliary": "auxiliary"}
"""The head of a contest's write-up, a gated linear unit of two layers without names and two
classifiers, and our names within that head."""


def keras(shapes: Shapes) -> dict[str, Origin]:
    """`block5_sepconv1`, which holds both filters, and `block5_sepconv1_bn`; blocks are counted
    from the stem, which is 1, to the top, which is 14. Shortcuts have numbers for names."""
    layers = {"head.fc": "predictions", **{f"head.fc.{ours}": name for name, ours in GATED.items()}}
    for k in (1, 2):
        layers[f"stem.conv{k}.conv"] = f"block1_conv{k}"
        layers[f"stem.conv{k}.norm"] = f"block1_conv{k}_bn"
        layers[f"top.conv{k}"] = f"block14_sepconv{k}"
    for number, place in enumerate(BLOCKS, start=2):
        for i in range(3):
            layers[f"stages.{place}.convs.{i}"] = f"block{number}_sepconv{i + 1}"
    for number, place in enumerate(("0.0", "1.0", "2.0", "3.0")):
        suffix = f"_{number}" if number else ""
        layers[f"stages.{place}.shortcut.conv"] = f"conv2d{suffix}"
        layers[f"stages.{place}.shortcut.norm"] = f"batch_normalization{suffix}"

    def layer(module: str) -> str:
        if module in layers:
            return layers[module]
        separable, _, part = module.rpartition(".")
        return layers[separable] + ("_bn" if part == "norm" else "")

    origins = keras_origins(shapes, layer)
    for key, origin in origins.items():
        if key.endswith(".pointwise.weight"):
            keys = tuple(k.replace("/kernel", "/pointwise_kernel") for k in origin.keys)
            origins[key] = replace(origin, keys=keys)
    return origins


MARKS = ("block1_conv1/kernel", "block2_sepconv1/depthwise_kernel")


def _gated(state: StateDict, shapes: Shapes) -> StateDict:
    """Where the network has another head, theirs is seen to be one by its names."""
    return state if "head.fc.value.weight" in shapes else own_head(state, GATED)


def _told_gate(state: StateDict) -> dict[str, Any]:
    gate = state.get("dense_1/kernel")
    width = None if gate is None else gate.shape[-1]
    return {} if width is None else {"head": {"name": "glu", "features": width, "auxiliary": True}}


LAYOUTS = (
    Layout(source="keras", family="xception", marks=MARKS, origins=keras, arguments=TENSORFLOW),
    Layout(
        source="keras",
        family="xception",
        marks=(*MARKS, "dense/kernel", "dense_1/kernel", "softmax/kernel", "auxiliary/kernel"),
        origins=keras,
        prepare=_gated,
        tells=_told_gate,
        ignored=(r"embedding(_\d+)?/",),  # the centres of classes, which are the loss's
        arguments=TENSORFLOW,
        preprocessing={"fit": "crop", "crop_fraction": 1.0},
    ),
    Layout(
        source="timm",
        family="xception",
        marks=("block1.rep.0.conv1.weight", "block12.skip.weight"),
        origins=timm,
        arguments={"same_padding": False, "norm_eps": 1e-5},
    ),
)
