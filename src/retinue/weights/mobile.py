"""What the layouts of the mobile families share."""

from __future__ import annotations

import re

from retinue.weights.layout import Origin, Shapes, blocks, rename


def torchvision_ends(top: int) -> list[tuple[str, str]]:
    """The rules for their first convolution, and for the last one, `features.TOP`."""
    return [
        (r"stem\.conv\.", "features.0.0."),
        (r"stem\.norm\.", "features.0.1."),
        (r"top\.conv\.", f"features.{top}.0."),
        (r"top\.norm\.", f"features.{top}.1."),
    ]


def torchvision_block(shapes: Shapes, ours: str, theirs: str) -> list[tuple[str, str]]:
    """The rules for one block of theirs, whose layers are numbered as far as it has them.

    `ours` and `theirs` are the prefixes `stages.0.0.` and `features.1.0.block.`.
    """
    present = {key.removeprefix(ours).partition(".")[0] for key in shapes if key.startswith(ours)}
    rules = []
    layers = [x for x in ("expand", "depthwise", "squeeze", "project") if x in present]
    for k, layer in enumerate(layers):
        at = re.escape(f"{ours}{layer}.")
        rules += [
            (rf"{at}reduce\.", f"{theirs}{k}.fc1."),
            (rf"{at}expand\.", f"{theirs}{k}.fc2."),
            (rf"{at}conv\.", f"{theirs}{k}.0."),
            (rf"{at}norm\.", f"{theirs}{k}.1."),
        ]
    return rules


TIMM_MOBILE_MARKS = ("conv_stem.weight", "blocks.0.0.conv_dw.weight", "blocks.0.0.conv_pw.weight")


def timm_mobile(shapes: Shapes) -> dict[str, Origin]:
    """MobileNetV2's and EfficientNet's (also Lite and `tf_`): `blocks.STAGE.I.conv_pw` …"""
    rules = [(r"stem\.conv\.", "conv_stem."), (r"stem\.norm\.", "bn1.")]
    for stage, i in blocks(shapes):
        ours, theirs = rf"stages\.{stage}\.{i}\.", f"blocks.{stage}.{i}."
        expanded = f"stages.{stage}.{i}.expand.conv.weight" in shapes
        layers = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        if not expanded:
            layers = {"depthwise": "conv_dw", "project": "conv_pw"}
        for k, (layer, conv) in enumerate(layers.items(), start=1):
            rules.append((rf"{ours}{layer}\.conv\.", f"{theirs}{conv}."))
            rules.append((rf"{ours}{layer}\.norm\.", f"{theirs}bn{k}."))
        rules.append((ours + r"squeeze\.(\w+)\.", theirs + r"se.conv_\1."))
    rules += [
        (r"top\.conv\.", "conv_head."),
        (r"top\.norm\.", "bn2."),
        (r"head\.fc\.", "classifier."),
    ]
    return rename(shapes, rules)
