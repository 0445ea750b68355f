"""The hybrid Vision Transformer's checkpoints."""

from __future__ import annotations

from functools import partial

from retinue.weights.layout import Layout, Origin, Shapes
from retinue.weights.transformer import (
    GOOGLE_BLOCK,
    GOOGLE_MARKS,
    GOOGLE_PRE_LOGITS,
    TIMM_BLOCK,
    TIMM_MARKS,
    TIMM_PRE_LOGITS,
    WIDTHS,
    google,
    timm,
    with_pre_logits,
)

STAGE = r"stages\.(\d+)\.(\d+)\."
RESNET = r"patch_embed.backbone.stages.\1.blocks.\2."

TIMM = Layout(
    source="timm",
    family="hybrid_vit",
    marks=(*TIMM_MARKS, "patch_embed.backbone.stem.conv.weight"),
    origins=partial(
        timm,
        embedding="embed",
        before=[
            (r"stem\.", "patch_embed.backbone.stem."),
            (STAGE + r"conv(\d)\.(conv|norm)\.", RESNET + r"\4\3."),
            (STAGE + r"shortcut\.", RESNET + "downsample."),
        ],
    ),
)


def google_hybrid(shapes: Shapes) -> dict[str, Origin]:
    """The ResNet's `conv_root`, `block1/unit1/conv1` … and the transformer's names."""
    before = [(r"stem\.conv\.", "conv_root/"), (r"stem\.norm\.", "gn_root/")]
    for i in range(3):  # numbered from 1 there
        for j in range(9):
            ours, theirs = rf"stages\.{i}\.{j}\.", f"block{i + 1}/unit{j + 1}/"
            before += [
                (ours + r"conv(\d)\.conv\.", theirs + r"conv\1/"),
                (ours + r"conv(\d)\.norm\.", theirs + r"gn\1/"),
                (ours + r"shortcut\.conv\.", theirs + "conv_proj/"),
                (ours + r"shortcut\.norm\.", theirs + "gn_proj/"),
            ]
    return google(shapes, embedding="embed", before=before)


GOOGLE = Layout(
    source="google",
    family="hybrid_vit",
    marks=(*GOOGLE_MARKS, "conv_root/kernel"),
    origins=google_hybrid,
)

LAYOUTS = (
    *with_pre_logits(TIMM, TIMM_PRE_LOGITS, TIMM_BLOCK, WIDTHS[-1:]),
    *with_pre_logits(GOOGLE, GOOGLE_PRE_LOGITS, GOOGLE_BLOCK, WIDTHS[-1:]),
)
