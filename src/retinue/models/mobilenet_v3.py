"""MobileNetV3 (Howard et al., 2019, "Searching for MobileNetV3").

MobileNetV2's blocks, found by search, with squeeze-excitation in some and hard-swish in the deeper
ones; the last layers work on the pooled features (section 5.1, figure 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Literal, NamedTuple

from torch import Tensor, nn

from retinue.models.blocks import (
    Activation,
    ConvNormAct,
    DropPath,
    GlobalPool,
    SqueezeExcite,
    hard_swish,
    initialise,
    make_divisible,
    relu,
)
from retinue.models.network import Level, Network, Unit, stage_units
from retinue.models.registry import NetworkEntry
from retinue.sample import Preprocessing


class Row(NamedTuple):
    """A row, that is a block, of the paper's tables 1 and 2."""

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    act: Activation
    stride: int


class Variant(NamedTuple):
    """A network of the paper: its blocks, the width of the head's hidden layer, and which stage
    (a run of blocks equally wide) ends which feature level."""

    rows: Sequence[Row]
    hidden: int
    levels: dict[int, int]


# fmt: off
SMALL = Variant(
    rows=(
        Row(3,  16,  16, True,  relu,       2),
        Row(3,  72,  24, False, relu,       2),
        Row(3,  88,  24, False, relu,       1),
        Row(5,  96,  40, True,  hard_swish, 2),
        Row(5, 240,  40, True,  hard_swish, 1),
        Row(5, 240,  40, True,  hard_swish, 1),
        Row(5, 120,  48, True,  hard_swish, 1),
        Row(5, 144,  48, True,  hard_swish, 1),
        Row(5, 288,  96, True,  hard_swish, 2),
        Row(5, 576,  96, True,  hard_swish, 1),
        Row(5, 576,  96, True,  hard_swish, 1),
    ),
    hidden=1024,
    levels={0: 2, 1: 3, 3: 4, 4: 5},
)
LARGE = Variant(
    rows=(
        Row(3,  16,  16, False, relu,       1),
        Row(3,  64,  24, False, relu,       2),
        Row(3,  72,  24, False, relu,       1),
        Row(5,  72,  40, True,  relu,       2),
        Row(5, 120,  40, True,  relu,       1),
        Row(5, 120,  40, True,  relu,       1),
        Row(3, 240,  80, False, hard_swish, 2),
        Row(3, 200,  80, False, hard_swish, 1),
        Row(3, 184,  80, False, hard_swish, 1),
        Row(3, 184,  80, False, hard_swish, 1),
        Row(3, 480, 112, True,  hard_swish, 1),
        Row(3, 672, 112, True,  hard_swish, 1),
        Row(5, 672, 160, True,  hard_swish, 2),
        Row(5, 960, 160, True,  hard_swish, 1),
        Row(5, 960, 160, True,  hard_swish, 1),
    ),
    hidden=1280,
    levels={1: 2, 2: 3, 4: 4, 5: 5},
)
# fmt: on
STEM = 16
"""Channels of the stem, whatever the width."""


class InvertedResidual(nn.Module):
    """Expand, filter by channel, weigh the channels, project linearly; narrow ends are added
    (figure 4)."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        expanded: int,
        kernel: int,
        stride: int,
        squeeze: bool,
        act: Activation,
        drop_path: float,
        conv: partial[ConvNormAct],
    ) -> None:
        super().__init__()
        self.expand = (
            conv(in_channels, expanded, act=act) if expanded != in_channels else nn.Identity()
        )
        self.depthwise = conv(
            expanded, expanded, kernel=kernel, stride=stride, groups=expanded, act=act
        )
        self.squeeze = (
            # A quarter of the expanded width (section 5.3), unlike EfficientNet's.
            SqueezeExcite(expanded, make_divisible(expanded / 4), act=relu, gate=nn.Hardsigmoid)
            if squeeze
            else nn.Identity()
        )
        self.project = conv(expanded, channels)
        self.residual = stride == 1 and in_channels == channels
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + self.drop_path(y) if self.residual else y


class Head(nn.Module):
    """Global average pooling, a hidden layer, dropout, linear: a map (n, c, h, w), or its pooled
    form (n, c), to logits (n, classes)."""

    def __init__(self, channels: int, hidden: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.pool = GlobalPool()
        self.hidden = nn.Linear(channels, hidden)
        self.act = hard_swish()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.dropout(self.act(self.hidden(self.pool(x)))))
        return y


class MobileNetV3(Network):
    """`width` multiplies the channels of the blocks and, above 1, of the head's hidden layer.

    The norms' momentum is the paper's (section 6.1.1), their epsilon that of TensorFlow and
    torchvision; most of timm's checkpoints have 1e-5. `same_padding` is TensorFlow's.
    """

    def __init__(
        self,
        *,
        variant: Literal["small", "large"],
        width: float = 1.0,
        same_padding: bool = False,
        norm_eps: float = 1e-3,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        rows, hidden, self._levels = {"small": SMALL, "large": LARGE}[variant]
        conv = partial(
            ConvNormAct, same_padding=same_padding, norm_eps=norm_eps, norm_momentum=0.01
        )
        channels = published = STEM  # after and before `width`
        depth = 0
        self.stem = conv(in_channels, channels, kernel=3, stride=2, act=hard_swish)
        self.stages = nn.ModuleList()
        self._channels: list[int] = []
        for _, stage in groupby(rows, key=lambda row: row.channels):
            blocks = []
            for row in stage:
                block = InvertedResidual(
                    channels,
                    make_divisible(row.channels * width),
                    # tables 1 and 2 give channels; `width` keeps their ratio to the input's
                    expanded=make_divisible(channels * row.expanded / published),
                    kernel=row.kernel,
                    stride=row.stride,
                    squeeze=row.squeeze,
                    act=row.act,
                    drop_path=drop_path * depth / len(rows),
                    conv=conv,
                )
                blocks.append(block)
                channels, published = make_divisible(row.channels * width), row.channels
                depth += 1
            self.stages.append(nn.Sequential(*blocks))
            self._channels.append(channels)
        top = make_divisible(6 * channels)
        self.top = conv(channels, top, act=hard_swish)
        hidden = make_divisible(hidden * max(width, 1.0))
        self.head = Head(top, hidden, num_classes, dropout=dropout)
        initialise(self)

    def units(self) -> list[Unit]:
        stages = stage_units(self.stages, self._levels)
        return [Unit("stem", self.stem), *stages, Unit("top", self.top)]

    @property
    def feature_levels(self) -> list[Level]:
        return [Level(k, self._channels[i], 2**k) for i, k in self._levels.items()]


# name: variant, width, parameters, multiply-adds at 224 × 224
VARIANTS: dict[str, tuple[Literal["small", "large"], float, int, int]] = {
    "mobilenet_v3_small": ("small", 1.0, 2_542_856, 56_510_400),
    "mobilenet_v3_small_050": ("small", 0.5, 1_593_224, 24_188_688),
    "mobilenet_v3_small_075": ("small", 0.75, 2_041_872, 43_399_344),
    "mobilenet_v3_large": ("large", 1.0, 5_483_032, 216_589_760),
    "mobilenet_v3_large_075": ("large", 0.75, 3_993_528, 154_560_624),
}

ENTRIES = [
    NetworkEntry(
        name=name,
        family="mobilenet_v3",
        build=partial(MobileNetV3, variant=variant, width=width),
        preprocessing=Preprocessing(interpolation="bilinear"),
        parameters=parameters,
        macs=macs,
        paper="Howard et al., 2019, https://arxiv.org/abs/1905.02244",
        reference=(f"torchvision {name}; " if width == 1 else "")
        + f"timm mobilenetv3_{variant}_{round(100 * width):03}",
    )
    for name, (variant, width, parameters, macs) in VARIANTS.items()
]
