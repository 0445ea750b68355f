"""EfficientNet's checkpoints."""

from __future__ import annotations

from retinue.weights.layout import Layout, Origin, Shapes, rename
from retinue.weights.mobile import TIMM_MOBILE_MARKS, blocks, timm_mobile


def torchvision(shapes: Shapes) -> dict[str, Origin]:
    """`features.STAGE.I.block.K`, layers by position."""
    rules = [(r"stem\.conv\.", "features.0.0."), (r"stem\.norm\.", "features.0.1.")]
    for stage, i in blocks(shapes):
        ours, theirs = rf"stages\.{stage}\.{i}\.", f"features.{stage + 1}.{i}.block."
        expanded = f"stages.{stage}.{i}.expand.conv.weight" in shapes
        layers = ("expand", "depthwise", "squeeze", "project")[0 if expanded else 1 :]
        for k, layer in enumerate(layers):
            rules += [
                (rf"{ours}{layer}\.reduce\.", f"{theirs}{k}.fc1."),
                (rf"{ours}{layer}\.expand\.", f"{theirs}{k}.fc2."),
                (rf"{ours}{layer}\.conv\.", f"{theirs}{k}.0."),
                (rf"{ours}{layer}\.norm\.", f"{theirs}{k}.1."),
            ]
    rules += [
        (r"top\.conv\.", "features.8.0."),
        (r"top\.norm\.", "features.8.1."),
        (r"head\.fc\.", "classifier.1."),
    ]
    return rename(shapes, rules)


def efficientnet_pytorch(shapes: Shapes) -> dict[str, Origin]:
    """The port of the TensorFlow checkpoints (EfficientNet-PyTorch, and the Lite wheels), whose
    `_blocks.N` are numbered through."""
    rules = [(r"stem\.conv\.", "_conv_stem."), (r"stem\.norm\.", "_bn0.")]
    for flat, (stage, i) in enumerate(blocks(shapes)):
        ours, theirs = rf"stages\.{stage}\.{i}\.", f"_blocks.{flat}._"
        for k, layer in enumerate(("expand", "depthwise", "project")):
            rules.append((rf"{ours}{layer}\.conv\.", f"{theirs}{layer}_conv."))
            rules.append((rf"{ours}{layer}\.norm\.", f"{theirs}bn{k}."))
        rules.append((ours + r"squeeze\.(\w+)\.", theirs + r"se_\1."))
    rules += [
        (r"top\.conv\.", "_conv_head."),
        (r"top\.norm\.", "_bn1."),
        (r"head\.fc\.", "_fc."),
    ]
    return rename(shapes, rules)


LAYOUTS = (
    Layout(
        source="torchvision",
        family="efficientnet",
        marks=("features.0.0.weight", "features.1.0.block.0.0.weight", "features.8.0.weight"),
        origins=torchvision,
    ),
    Layout(
        source="timm",
        family="efficientnet",
        marks=TIMM_MOBILE_MARKS,
        origins=timm_mobile,
    ),
    Layout(
        source="efficientnet-pytorch",
        family="efficientnet",
        marks=("_conv_stem.weight", "_blocks.0._depthwise_conv.weight"),
        origins=efficientnet_pytorch,
    ),
)
