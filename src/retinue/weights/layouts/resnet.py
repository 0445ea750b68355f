"""ResNet's checkpoints."""

from __future__ import annotations

from retinue.weights.layout import Layout, Origin, Shapes, rename


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


LAYOUTS = tuple(
    Layout(
        source=source,
        family="resnet",
        marks=("conv1.weight", "bn1.weight", "layer1.0.conv1.weight"),
        origins=torchvision,
    )
    for source in ("torchvision", "timm")
)
