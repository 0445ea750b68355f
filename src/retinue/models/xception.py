"""Xception (Chollet, 2017, "Xception: Deep Learning with Depthwise Separable Convolutions").

The paper's figure 5: an entry flow of three blocks that halve the map, a middle flow of eight
that keep it, an exit flow. Channels and places are filtered apart from each other everywhere but in
the first two convolutions, and nothing bends between the two filters (section 4.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from retinue.models.blocks import (
    ClassifierHead,
    ConvNormAct,
    SameMaxPool2d,
    initialise,
    relu,
    require_size,
)
from retinue.models.network import Level, Network, Unit, stage_units
from retinue.models.registry import NetworkEntry
from retinue.sample import Preprocessing

# Widths of the separable convolutions of a block.
ENTRY = ((128, 128), (256, 256), (728, 728))
MIDDLE = ((728, 728, 728),) * 8
EXIT = (728, 1024)
TOP = (1536, 2048)
LEVELS = {0: 2, 1: 3, 2: 4}
"""Which stage ends which feature level; the fifth is the top."""
SMALLEST = 7
"""Pixels a side of which the stem's convolutions without padding leave one."""


class SeparableConv(nn.Module):
    """A 3×3 filter for each channel, a 1×1 convolution across them, batch normalisation."""

    def __init__(self, in_channels: int, channels: int, *, norm_eps: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False
        )
        self.pointwise = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.pointwise(self.depthwise(x)))
        return y


class Block(nn.Module):
    """Separable convolutions, each after a ReLU, beside a shortcut; the sum stays linear.

    With a stride of 2, max pooling halves the one and a strided 1×1 convolution the other. The
    paper's first block leaves out its first ReLU; its input has passed one already, and a second
    changes nothing.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        *,
        stride: int,
        same_padding: bool,
        norm_eps: float,
    ) -> None:
        super().__init__()
        channels = (in_channels, *widths)
        self.convs = nn.ModuleList(
            SeparableConv(before, after, norm_eps=norm_eps)
            for before, after in zip(channels, widths, strict=False)
        )
        self.pool: nn.Module = nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.pool = (
                SameMaxPool2d(3, stride) if same_padding else nn.MaxPool2d(3, stride, padding=1)
            )
            self.shortcut = ConvNormAct(in_channels, widths[-1], stride=stride, norm_eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, conv in enumerate(self.convs):
            y = conv(F.relu(y, inplace=i > 0))  # x itself is needed for the shortcut
        out: Tensor = self.pool(y) + self.shortcut(x)
        return out


class Stem(nn.Module):
    """Two 3×3 convolutions without padding, the first with a stride of 2."""

    def __init__(self, in_channels: int, *, norm_eps: float) -> None:
        super().__init__()
        conv = partial(ConvNormAct, kernel=3, padding=0, act=relu, norm_eps=norm_eps)
        self.conv1 = conv(in_channels, 32, stride=2)
        self.conv2 = conv(32, 64)

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, SMALLEST)
        y: Tensor = self.conv2(self.conv1(x))
        return y


class Top(nn.Module):
    """The exit flow's last separable convolutions, each before a ReLU; no shortcut."""

    def __init__(self, in_channels: int, *, norm_eps: float) -> None:
        super().__init__()
        self.conv1 = SeparableConv(in_channels, TOP[0], norm_eps=norm_eps)
        self.conv2 = SeparableConv(TOP[0], TOP[1], norm_eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2):
            x = F.relu(conv(x), inplace=True)
        return x


class Xception(Network):
    """The defaults are Keras', where the network and its public weights come from.

    `same_padding`: max pooling pads as TensorFlow does, an odd amount at the bottom and the right
    only; else by one on all sides. The convolutions pad alike in both. The two differ where a map's
    side is even before one of the four poolings; at 299 pixels (147, 74, 37 and 19 before them)
    that is the second. `norm_eps`: of batch normalisation. timm computes the same weights
    with `same_padding=False, norm_eps=1e-5`.
    """

    input_layer = "stem.conv1.conv"

    def __init__(
        self,
        *,
        same_padding: bool = True,
        norm_eps: float = 1e-3,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        block = partial(Block, same_padding=same_padding, norm_eps=norm_eps)
        self.stem = Stem(in_channels, norm_eps=norm_eps)
        channels = [64, *(widths[-1] for widths in ENTRY)]
        entry = [
            block(before, widths, stride=2) for before, widths in zip(channels, ENTRY, strict=False)
        ]
        middle = [block(widths[-1], widths, stride=1) for widths in MIDDLE]
        self.stages = nn.ModuleList(
            [
                nn.Sequential(entry[0]),
                nn.Sequential(entry[1]),
                nn.Sequential(entry[2], *middle),
                nn.Sequential(block(channels[-1], EXIT, stride=2)),
            ]
        )
        self.top = Top(EXIT[-1], norm_eps=norm_eps)
        self.head = ClassifierHead(TOP[-1], num_classes, dropout=dropout)
        initialise(self)

    def units(self) -> list[Unit]:
        stages = stage_units(self.stages, LEVELS)
        return [Unit("stem", self.stem), *stages, Unit("top", self.top, level=5)]

    @property
    def feature_levels(self) -> list[Level]:
        widths = (*(widths[-1] for widths in ENTRY), TOP[-1])
        return [Level(k, channels, 2**k) for k, channels in enumerate(widths, start=2)]


ENTRIES = [
    NetworkEntry(
        name="xception",
        family="xception",
        build=Xception,
        preprocessing=Preprocessing(
            size=(299, 299),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            crop_fraction=0.8975,
        ),
        parameters=22_855_952,
        macs=8_357_403_496,
        paper="Chollet, 2017, https://arxiv.org/abs/1610.02357",
        reference="keras.applications.Xception; timm legacy_xception",
    )
]
