"""ResNet (He et al., 2015, "Deep Residual Learning for Image Recognition").

The bottleneck's stride is on its 3×3 convolution ("v1.5"), as in every widely used checkpoint.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from retinue.models.blocks import ClassifierHead, ConvNormAct, DropPath, initialise, relu
from retinue.models.network import Level, Network, Unit, stage_units
from retinue.models.registry import NetworkEntry
from retinue.sample import Preprocessing

# The paper's table 1: blocks of conv2_x to conv5_x.
DEPTHS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
WIDTHS = (64, 128, 256, 512)
LEVELS = {0: 2, 1: 3, 2: 4, 3: 5}


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut (figure 5, left)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int, drop_path: float) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, width, kernel=3, stride=stride, act=relu)
        self.conv2 = ConvNormAct(width, width, kernel=3)
        self.shortcut = _shortcut(in_channels, width, stride)
        self.drop_path = DropPath(drop_path)
        self.act = relu()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        out: Tensor = self.act(self.shortcut(x) + self.drop_path(y))
        return out


class Bottleneck(nn.Module):
    """1×1 down to `width`, 3×3, 1×1 up to four times that, beside a shortcut (figure 5, right)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int, drop_path: float) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, width, act=relu)
        self.conv2 = ConvNormAct(width, width, kernel=3, stride=stride, act=relu)
        self.conv3 = ConvNormAct(width, 4 * width)
        self.shortcut = _shortcut(in_channels, 4 * width, stride)
        self.drop_path = DropPath(drop_path)
        self.act = relu()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.conv2(self.conv1(x)))
        out: Tensor = self.act(self.shortcut(x) + self.drop_path(y))
        return out


def _shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    """The identity where the shapes agree, else a projection (section 3.3, option B)."""
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return ConvNormAct(in_channels, channels, stride=stride)


class Stem(nn.Module):
    """7×7 convolution and 3×3 max pooling, a stride of 2 each."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.act = relu()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(self.act(self.norm(self.conv(x))))
        return y


class ResNet(Network):
    """`depth` is one of `DEPTHS`: basic blocks below 50, bottlenecks from there."""

    def __init__(
        self,
        *,
        depth: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        block = BasicBlock if depth < 50 else Bottleneck
        self.stem = Stem(in_channels)
        self.stages = nn.ModuleList()
        channels, blocks_before, total = 64, 0, sum(DEPTHS[depth])
        for i, (width, repeats) in enumerate(zip(WIDTHS, DEPTHS[depth], strict=True)):
            blocks = []
            for j in range(repeats):
                stride = 2 if i > 0 and j == 0 else 1
                rate = drop_path * (blocks_before + j) / total
                blocks.append(block(channels, width, stride=stride, drop_path=rate))
                channels = width * block.expansion
            self.stages.append(nn.Sequential(*blocks))
            blocks_before += repeats
        self._expansion = block.expansion
        self.head = ClassifierHead(channels, num_classes, dropout=dropout)
        initialise(self)

    def units(self) -> list[Unit]:
        return [Unit("stem", self.stem), *stage_units(self.stages, LEVELS)]

    @property
    def feature_levels(self) -> list[Level]:
        return [Level(k, WIDTHS[i] * self._expansion, 2**k) for i, k in LEVELS.items()]


class Facts(NamedTuple):
    parameters: int
    macs: int


VARIANTS = {
    18: Facts(11_689_512, 1_814_073_344),
    34: Facts(21_797_672, 3_663_761_408),
    50: Facts(25_557_032, 4_089_184_256),
    101: Facts(44_549_160, 7_801_405_440),
    152: Facts(60_192_808, 11_513_626_624),
}

ENTRIES = [
    NetworkEntry(
        name=f"resnet{depth}",
        family="resnet",
        build=partial(ResNet, depth=depth),
        preprocessing=Preprocessing(interpolation="bilinear"),
        parameters=facts.parameters,
        macs=facts.macs,
        paper="He et al., 2015, https://arxiv.org/abs/1512.03385",
        reference=f"torchvision and timm resnet{depth}",
    )
    for depth, facts in VARIANTS.items()
]
