"""MobileNetV3's checkpoints."""

from __future__ import annotations

from torch import Tensor

from retinue.weights.layout import Layout, Origin, Shapes, blocks, keras_origins, rename
from retinue.weights.mobile import timm_mobile, torchvision_block, torchvision_ends


def torchvision(shapes: Shapes) -> dict[str, Origin]:
    """A flat `features.N`, layers by position."""
    numbered = blocks(shapes)
    rules = torchvision_ends(top=len(numbered) + 1)
    for flat, (stage, i) in enumerate(numbered, start=1):
        rules += torchvision_block(shapes, f"stages.{stage}.{i}.", f"features.{flat}.block.")
    rules += [(r"head\.hidden\.", "classifier.0."), (r"head\.fc\.", "classifier.3.")]
    return rename(shapes, rules)


def _squeezed(weight: Tensor) -> Tensor:
    return weight.flatten(1)


def _as_convolution(weight: Tensor) -> tuple[Tensor, ...]:
    return (weight[:, :, None, None],)


def timm(shapes: Shapes) -> dict[str, Origin]:
    """Our top is a last stage of theirs, and the hidden layer of our head is their `conv_head`, a
    1×1 convolution after the pooling."""
    chain = {key: shape for key, shape in shapes.items() if key.startswith(("stem.", "stages."))}
    last = blocks(shapes)[-1][0] + 1
    rest = {key: shape for key, shape in shapes.items() if key not in chain}
    rules = [
        (r"top\.conv\.", f"blocks.{last}.0.conv."),
        (r"top\.norm\.", f"blocks.{last}.0.bn1."),
        (r"head\.hidden\.", "conv_head."),
        (r"head\.fc\.", "classifier."),
    ]
    hidden = Origin(("conv_head.weight",), _squeezed, _as_convolution)
    return {**timm_mobile(chain), **rename(rest, rules), "head.hidden.weight": hidden}


def keras(shapes: Shapes) -> dict[str, Origin]:
    """Blocks numbered through, the first one without its number: `expanded_conv_N_depthwise_bn`."""
    return _keras(shapes, between="_", norm="_bn", conv="conv", logits="logits")


def keras_2(shapes: Shapes) -> dict[str, Origin]:
    """The same with slashes, as in the published files: `expanded_conv_N/depthwise/BatchNorm`."""
    return _keras(shapes, between="/", norm="/BatchNorm", conv="Conv", logits="Logits")


def _keras(shapes: Shapes, *, between: str, norm: str, conv: str, logits: str) -> dict[str, Origin]:
    outside = {
        "stem": conv,
        "top": f"{conv}_1",
        "head.hidden": f"{conv}_2",
        "head.fc": logits,
    }
    inside = {
        "squeeze.reduce": f"squeeze_excite{between}{conv}",
        "squeeze.expand": f"squeeze_excite{between}{conv}_1",
    }
    numbers = {f"{stage}.{i}": n for n, (stage, i) in enumerate(blocks(shapes))}

    def layer(module: str) -> str:
        suffix = norm if module.endswith(".norm") else ""
        module = module.removesuffix(".norm").removesuffix(".conv")
        if module in outside:
            return outside[module] + suffix
        _, stage, i, part = module.split(".", 3)
        n = numbers[f"{stage}.{i}"]
        block = f"expanded_conv_{n}" if n else "expanded_conv"
        return block + between + inside.get(part, part) + suffix

    return keras_origins(shapes, layer)


KERAS_ARGUMENTS = {"same_padding": True}
KERAS_PREPROCESSING = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
"""What the Rescaling that begins Keras' networks does to bytes."""

LAYOUTS = (
    Layout(
        source="torchvision",
        family="mobilenet_v3",
        marks=(
            "features.0.0.weight",
            "features.1.block.0.0.weight",
            "features.4.block.2.fc1.weight",
        ),
        origins=torchvision,
    ),
    # The files of its `tf_` networks have the same keys, but need same_padding=True, norm_eps=1e-3.
    Layout(
        source="timm",
        family="mobilenet_v3",
        marks=("conv_stem.weight", "conv_head.bias", "blocks.0.0.conv_dw.weight"),
        origins=timm,
        arguments={"norm_eps": 1e-5},
        preprocessing={"interpolation": "bicubic"},
    ),
    Layout(
        source="keras",
        family="mobilenet_v3",
        marks=("conv/kernel", "conv_bn/gamma", "expanded_conv_depthwise/depthwise_kernel"),
        origins=keras,
        arguments=KERAS_ARGUMENTS,
        preprocessing=KERAS_PREPROCESSING,
    ),
    Layout(
        source="tf-keras",
        family="mobilenet_v3",
        marks=("Conv/kernel", "Conv/BatchNorm/gamma", "expanded_conv/depthwise/depthwise_kernel"),
        origins=keras_2,
        arguments=KERAS_ARGUMENTS,
        preprocessing=KERAS_PREPROCESSING,
    ),
)
