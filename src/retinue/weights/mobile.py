"""What the layouts of the mobile families share."""

from __future__ import annotations

import re

from retinue.weights.layout import Origin, Shapes, rename


def blocks(shapes: Shapes) -> list[tuple[int, int]]:
    """The (stage, number) of every block, in order."""
    found = (re.match(r"stages\.(\d+)\.(\d+)\.", key) for key in shapes)
    return sorted({(int(m[1]), int(m[2])) for m in found if m})


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
