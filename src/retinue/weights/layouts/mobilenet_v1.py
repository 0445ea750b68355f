"""MobileNetV1's checkpoints."""

from __future__ import annotations

from retinue.weights.background import without_background
from retinue.weights.layout import TENSORFLOW, Layout, Origin, Shapes, blocks, keras_origins, rename


def timm(shapes: Shapes) -> dict[str, Origin]:
    """`blocks.STAGE.I.conv_dw` and `.conv_pw`, our stages and blocks."""
    ours, theirs = r"stages\.(\d+\.\d+)\.", r"blocks.\1."
    return rename(
        shapes,
        [
            (r"stem\.conv\.", "conv_stem."),
            (r"stem\.norm\.", "bn1."),
            (ours + r"depthwise\.conv\.", theirs + "conv_dw."),
            (ours + r"depthwise\.norm\.", theirs + "bn1."),
            (ours + r"pointwise\.conv\.", theirs + "conv_pw."),
            (ours + r"pointwise\.norm\.", theirs + "bn2."),
            (r"head\.fc\.", "classifier."),
        ],
    )


def keras(shapes: Shapes) -> dict[str, Origin]:
    """Blocks numbered through from 1: `conv_dw_N`, `conv_dw_N_bn`, `conv_pw_N`, `conv_pw_N_bn`;
    the classifier is a convolution.

    Its depthwise convolutions of stride 2 pad (0, 1) whatever the size, which is TensorFlow's SAME
    padding where maps have even sides, as they have at every published size of the input.
    """
    numbers = {f"{stage}.{i}": n for n, (stage, i) in enumerate(blocks(shapes), start=1)}

    def layer(module: str) -> str:
        known = {"stem.conv": "conv1", "stem.norm": "conv1_bn", "head.fc": "conv_preds"}
        if module in known:
            return known[module]
        _, stage, i, conv, part = module.split(".")
        name = {"depthwise": "conv_dw", "pointwise": "conv_pw"}[conv]
        return f"{name}_{numbers[f'{stage}.{i}']}" + ("_bn" if part == "norm" else "")

    return keras_origins(shapes, layer)


def transformers(shapes: Shapes) -> dict[str, Origin]:
    """Convolutions numbered through, `layer.2N` depthwise and `layer.2N+1` pointwise; the classes
    are TensorFlow's."""
    rules = [(r"stem\.", "mobilenet_v1.conv_stem.")]
    for n, (stage, i) in enumerate(blocks(shapes)):
        ours, theirs = rf"stages\.{stage}\.{i}\.", "mobilenet_v1.layer."
        rules.append((ours + r"depthwise\.", f"{theirs}{2 * n}."))
        rules.append((ours + r"pointwise\.", f"{theirs}{2 * n + 1}."))
    inner = [
        (rf"{ours}{part}\.", f"{theirs}{layer}.")
        for ours, theirs in rules
        for part, layer in (("conv", "convolution"), ("norm", "normalization"))
    ]
    trunk = {key: shape for key, shape in shapes.items() if not key.startswith("head.")}
    return {**rename(trunk, inner), **without_background(shapes)}


LAYOUTS = (
    Layout(
        source="timm",
        family="mobilenet_v1",
        marks=("conv_stem.weight", "blocks.0.0.conv_dw.weight", "blocks.3.5.conv_pw.weight"),
        origins=timm,
        preprocessing={"interpolation": "bicubic"},
    ),
    Layout(
        source="keras",
        family="mobilenet_v1",
        marks=("conv1/kernel", "conv_dw_1/depthwise_kernel", "conv_pw_13/kernel"),
        origins=keras,
        arguments=TENSORFLOW,
    ),
    Layout(
        source="transformers",
        family="mobilenet_v1",
        marks=(
            "mobilenet_v1.conv_stem.convolution.weight",
            "mobilenet_v1.layer.25.convolution.weight",
        ),
        origins=transformers,
        arguments=TENSORFLOW,
    ),
)
