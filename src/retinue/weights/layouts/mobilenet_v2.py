"""MobileNetV2's checkpoints."""

from __future__ import annotations

from retinue.weights.layout import Layout, Origin, Shapes, rename
from retinue.weights.mobile import TIMM_MOBILE_MARKS, blocks, timm_mobile


def torchvision(shapes: Shapes) -> dict[str, Origin]:
    """A flat `features.0…18`, layers by position; the projection is not nested."""
    rules = [(r"stem\.conv\.", "features.0.0."), (r"stem\.norm\.", "features.0.1.")]
    flat = 0
    for flat, (stage, i) in enumerate(blocks(shapes), start=1):
        ours, theirs = rf"stages\.{stage}\.{i}\.", f"features.{flat}.conv."
        expanded = f"stages.{stage}.{i}.expand.conv.weight" in shapes
        nested = ("expand", "depthwise") if expanded else ("depthwise",)
        for k, layer in enumerate(nested):
            rules.append((rf"{ours}{layer}\.conv\.", f"{theirs}{k}.0."))
            rules.append((rf"{ours}{layer}\.norm\.", f"{theirs}{k}.1."))
        rules.append((ours + r"project\.conv\.", f"{theirs}{len(nested)}."))
        rules.append((ours + r"project\.norm\.", f"{theirs}{len(nested) + 1}."))
    rules += [
        (r"top\.conv\.", f"features.{flat + 1}.0."),
        (r"top\.norm\.", f"features.{flat + 1}.1."),
        (r"head\.fc\.", "classifier.1."),
    ]
    return rename(shapes, rules)


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
)
