"""EfficientNet (Tan & Le, 2019, "EfficientNet: Rethinking Model Scaling for CNNs").

B0 is found by search; B1–B8 and L2 scale its width, depth and input together. Lite (Google, 2020)
leaves out squeeze-excitation and swaps SiLU for ReLU6, as mobile accelerators like it. The `tf_`
networks compute as TensorFlow does, which checkpoints trained there need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from retinue.errors import UsageError
from retinue.models.blocks import (
    Activation,
    ClassifierHead,
    ConvNormAct,
    DropPath,
    SqueezeExcite,
    initialise,
    make_divisible,
    relu6,
    silu,
)
from retinue.models.network import Level, Network, Unit, stage_units
from retinue.models.registry import NetworkEntry
from retinue.sample import Preprocessing


class Stage(NamedTuple):
    """A row of the paper's table 1."""

    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel: int


STAGES: Sequence[Stage] = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)
LEVELS = {1: 2, 2: 3, 4: 4, 6: 5}
"""Which stage ends which feature level; the last one is before the top convolution."""
SQUEEZE = 0.25
"""Width of the squeeze, of the block's input channels."""


class MBConv(nn.Module):
    """Expand, filter by channel, weigh the channels, project linearly; narrow ends are added."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        expansion: int,
        expand: bool,
        stride: int,
        kernel: int,
        squeeze: bool,
        act: Activation,
        drop_path: float,
        same_padding: bool,
        norm_eps: float,
        norm_momentum: float,
    ) -> None:
        super().__init__()
        conv = partial(
            ConvNormAct,
            same_padding=same_padding,
            norm_eps=norm_eps,
            norm_momentum=norm_momentum,
        )
        wide = in_channels * expansion
        self.expand = conv(in_channels, wide, act=act) if expand else nn.Identity()
        self.depthwise = conv(wide, wide, kernel=kernel, stride=stride, groups=wide, act=act)
        self.squeeze = (
            SqueezeExcite(wide, max(1, int(in_channels * SQUEEZE)), act=act)
            if squeeze
            else nn.Identity()
        )
        self.project = conv(wide, channels)
        self.residual = stride == 1 and in_channels == channels
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + self.drop_path(y) if self.residual else y


class EfficientNet(Network):
    """`width` and `depth` scale channels and repeats.

    `lite`: stem, top and the repeats of the first and last stage keep B0's size. `expand_always`:
    the first stage's blocks, which do not widen the map, have the 1×1 convolution before the
    filter, too, as some implementations do.
    `same_padding` and `norm_eps=1e-3` are TensorFlow's; so is `norm_momentum=0.01`, the share of a
    new batch in the statistics, which they were trained with. `drop_path_blocks`: among how many
    blocks stochastic depth rises to its rate; None: as many as there are. Keras versions divide by
    B0's 16 whatever the depth, so that deeper ones end above the rate.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        lite: bool = False,
        expand_always: bool = False,
        same_padding: bool = False,
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
        drop_path: float = 0.2,
        drop_path_blocks: int | None = None,
    ) -> None:
        super().__init__()
        act = relu6 if lite else silu
        conv = partial(
            ConvNormAct,
            act=act,
            same_padding=same_padding,
            norm_eps=norm_eps,
            norm_momentum=norm_momentum,
        )
        channels = 32 if lite else make_divisible(32 * width)
        self.stem = conv(in_channels, channels, kernel=3, stride=2)
        repeats = [math.ceil(stage.repeats * depth) for stage in STAGES]
        if lite:
            repeats[0], repeats[-1] = STAGES[0].repeats, STAGES[-1].repeats
        self.stages = nn.ModuleList()
        self._channels: list[int] = []
        blocks_before = 0
        divisor = drop_path_blocks or sum(repeats)
        if drop_path * (sum(repeats) - 1) / divisor >= 1:
            raise UsageError(
                f"drop_path={drop_path} over {divisor} blocks always drops the {sum(repeats)}th",
                mend="take a smaller rate, or leave out drop_path_blocks",
            )
        for stage, repeat in zip(STAGES, repeats, strict=True):
            blocks = []
            for i in range(repeat):
                block = MBConv(
                    channels,
                    channels := make_divisible(stage.channels * width),
                    expansion=stage.expansion,
                    expand=expand_always or stage.expansion > 1,
                    stride=stage.stride if i == 0 else 1,
                    kernel=stage.kernel,
                    squeeze=not lite,
                    act=act,
                    drop_path=drop_path * (blocks_before + i) / divisor,
                    same_padding=same_padding,
                    norm_eps=norm_eps,
                    norm_momentum=norm_momentum,
                )
                blocks.append(block)
            self.stages.append(nn.Sequential(*blocks))
            self._channels.append(channels)
            blocks_before += repeat
        top = 1280 if lite else make_divisible(1280 * width)
        self.top = conv(channels, top)
        self.head = ClassifierHead(top, num_classes, dropout=dropout)
        initialise(self)

    def units(self) -> list[Unit]:
        stages = stage_units(self.stages, LEVELS)
        return [Unit("stem", self.stem), *stages, Unit("top", self.top)]

    @property
    def feature_levels(self) -> list[Level]:
        return [Level(k, self._channels[i], 2**k) for i, k in LEVELS.items()]


class Variant(NamedTuple):
    """Scaling (width, depth, size of the input), dropout, and facts."""

    width: float
    depth: float
    size: int
    dropout: float
    parameters: int
    macs: int


# fmt: off
VARIANTS = {
    "b0":    Variant(1.0, 1.0, 224, 0.2,   5_288_548,     385_814_752),
    "b1":    Variant(1.0, 1.1, 240, 0.2,   7_794_184,     686_802_832),
    "b2":    Variant(1.1, 1.2, 260, 0.3,   9_109_994,     993_561_872),
    "b3":    Variant(1.2, 1.4, 300, 0.3,  12_233_232,   1_827_141_392),
    "b4":    Variant(1.4, 1.8, 380, 0.4,  19_341_616,   4_393_771_024),
    "b5":    Variant(1.6, 2.2, 456, 0.4,  30_389_784,  10_266_384_752),
    "b6":    Variant(1.8, 2.6, 528, 0.5,  43_040_704,  19_067_593_536),
    "b7":    Variant(2.0, 3.1, 600, 0.5,  66_347_960,  37_745_884_192),
    "b8":    Variant(2.2, 3.6, 672, 0.5,  87_413_142,  62_597_461_568),
    "l2":    Variant(4.3, 5.3, 800, 0.5, 480_309_308, 475_703_653_280),
    "lite0": Variant(1.0, 1.0, 224, 0.2,   4_652_008,     385_187_552),
    "lite1": Variant(1.0, 1.1, 240, 0.2,   5_416_680,     600_185_232),
    "lite2": Variant(1.1, 1.2, 260, 0.3,   6_092_072,     859_736_272),
    "lite3": Variant(1.2, 1.4, 280, 0.3,   8_197_096,   1_383_321_872),
    "lite4": Variant(1.4, 1.8, 300, 0.3,  13_006_568,   2_553_034_336),
}
# fmt: on


def _entry(variant: str, *, tensorflow: bool) -> NetworkEntry:
    v = VARIANTS[variant]
    lite = variant.startswith("lite")
    name = f"{'tf_' if tensorflow else ''}efficientnet_{variant}"
    preprocessing = Preprocessing(
        size=(v.size, v.size), crop_fraction=round(v.size / (v.size + 32), 4)
    )
    if lite and tensorflow:
        preprocessing = replace(preprocessing, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return NetworkEntry(
        name=name,
        family="efficientnet",
        build=partial(
            EfficientNet,
            width=v.width,
            depth=v.depth,
            lite=lite,
            same_padding=tensorflow,
            norm_eps=1e-3 if tensorflow else 1e-5,
            dropout=v.dropout,
        ),
        as_backbone={"norm_momentum": 0.01} if tensorflow else {},
        preprocessing=preprocessing,
        parameters=v.parameters,
        macs=v.macs,
        paper="Tan & Le, 2019, https://arxiv.org/abs/1905.11946",
        reference=f"timm {name}",
    )


ENTRIES = [_entry(v, tensorflow=tensorflow) for tensorflow in (False, True) for v in VARIANTS]
