"""ResNet's and ResNeXt's checkpoints."""

from __future__ import annotations

from functools import partial

from retinue.weights.layout import CAFFE, Layout, Origin, Shapes, blue_first, keras_origins, rename


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
)
