"""DarkNet-53's checkpoints."""

from __future__ import annotations

from retinue.weights.layout import Layout, Origin, Shapes, rename

STAGES = (1, 2, 8, 8, 4)
"""Residual blocks of each stage."""


def timm(shapes: Shapes) -> dict[str, Origin]:
    """`stages.I.conv_down` and `stages.I.blocks.J`; the classifier is named as ours is."""
    rules = [(r"stem\.conv\.", "stem.conv1.conv."), (r"stem\.norm\.", "stem.conv1.bn.")]
    for i, blocks in enumerate(STAGES):
        rules.append((rf"stages\.{i}\.0\.conv\.", f"stages.{i}.conv_down.conv."))
        rules.append((rf"stages\.{i}\.0\.norm\.", f"stages.{i}.conv_down.bn."))
        for j in range(blocks):
            ours, theirs = rf"stages\.{i}\.{j + 1}\.", f"stages.{i}.blocks.{j}."
            rules.append((ours + r"conv(\d)\.conv\.", theirs + r"conv\1.conv."))
            rules.append((ours + r"conv(\d)\.norm\.", theirs + r"conv\1.bn."))
    return rename(shapes, [*rules, (r"head\.fc\.", "head.fc.")])


LAYOUTS = (
    Layout(
        source="timm",
        family="darknet53",
        marks=("stem.conv1.conv.weight", "stages.4.blocks.3.conv2.conv.weight"),
        origins=timm,
        arguments={"slope": 0.01},
    ),
)
