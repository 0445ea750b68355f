"""ResNet (He et al., 2015, "Deep Residual Learning for Image Recognition") and ResNeXt (Xie et al.,
2016, "Aggregated Residual Transformations for Deep Neural Networks").

The bottleneck's stride is on its 3×3 convolution ("v1.5"), as in most checkpoints; `_v1`: on its
first 1×1, as in the paper and in Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

from torch import Tensor, nn

from retinue.errors import UsageError
from retinue.models.blocks import (
    ClassifierHead,
    ConvNormAct,
    DropPath,
    SameConv2d,
    SameMaxPool2d,
    initialise,
    relu,
)
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

StrideOn = Literal["3x3", "1x1"]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut (figure 5, left)."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        drop_path: float,
        norm_eps: float,
        same_padding: bool = False,
    ) -> None:
        super().__init__()
        conv = partial(ConvNormAct, norm_eps=norm_eps, same_padding=same_padding)
        self.conv1 = conv(in_channels, width, kernel=3, stride=stride, act=relu)
        self.conv2 = conv(width, width, kernel=3)
        self.shortcut = _shortcut(in_channels, width, stride, norm_eps)
        self.drop_path = DropPath(drop_path)
        self.act = relu()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        out: Tensor = self.act(self.shortcut(x) + self.drop_path(y))
        return out


class Bottleneck(nn.Module):
    """1×1 down, 3×3, 1×1 up to four times `width`, beside a shortcut (figure 5, right).

    The 3×3 has `width` channels, or `groups` of `group_width` × `width` / 64 each that see nothing
    of one another: ResNeXt's block (its figure 3c).
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        drop_path: float,
        norm_eps: float,
        groups: int = 1,
        group_width: int = 64,
        stride_on: StrideOn = "3x3",
        same_padding: bool = False,
    ) -> None:
        super().__init__()
        conv = partial(ConvNormAct, norm_eps=norm_eps, same_padding=same_padding)
        inner = width * group_width // 64 * groups
        stride1, stride2 = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = conv(in_channels, inner, stride=stride1, act=relu)
        self.conv2 = conv(inner, inner, kernel=3, stride=stride2, groups=groups, act=relu)
        self.conv3 = conv(inner, 4 * width)
        self.shortcut = _shortcut(in_channels, 4 * width, stride, norm_eps)
        self.drop_path = DropPath(drop_path)
        self.act = relu()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.conv2(self.conv1(x)))
        out: Tensor = self.act(self.shortcut(x) + self.drop_path(y))
        return out


def _shortcut(in_channels: int, channels: int, stride: int, norm_eps: float) -> nn.Module:
    """The identity where the shapes agree, else a projection (section 3.3, option B)."""
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return ConvNormAct(in_channels, channels, stride=stride, norm_eps=norm_eps)


class Stem(nn.Module):
    """7×7 convolution and 3×3 max pooling, a stride of 2 each."""

    def __init__(self, in_channels: int, *, norm_eps: float, same_padding: bool) -> None:
        super().__init__()
        conv = SameConv2d if same_padding else partial(nn.Conv2d, padding=3)
        self.conv = conv(in_channels, 64, 7, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(64, eps=norm_eps)
        self.act = relu()
        self.pool = SameMaxPool2d(3, 2) if same_padding else nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(self.act(self.norm(self.conv(x))))
        return y


class ResNet(Network):
    """`depth` is one of `DEPTHS`: basic blocks below 50, bottlenecks from there.

    The other keywords are for bottlenecks: `groups` and `group_width` (channels of a group in the
    first stage) make a ResNeXt, `stride_on` says which of their convolutions halves the map.
    `same_padding` is TensorFlow's.
    """

    def __init__(
        self,
        *,
        depth: int,
        groups: int = 1,
        group_width: int = 64,
        stride_on: StrideOn = "3x3",
        same_padding: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        block: Callable[..., nn.Module] = BasicBlock
        expansion = BasicBlock.expansion
        if depth >= 50:
            block = partial(Bottleneck, groups=groups, group_width=group_width, stride_on=stride_on)
            expansion = Bottleneck.expansion
        elif (groups, group_width, stride_on) != (1, 64, "3x3"):
            raise UsageError(
                f"a ResNet of depth {depth} has no bottlenecks",
                mend="leave groups, group_width and stride_on out",
            )
        if stride_on not in get_args(StrideOn):
            raise UsageError(f"stride_on is '3x3' or '1x1', not {stride_on!r}")
        block = partial(block, norm_eps=norm_eps, same_padding=same_padding)
        self.stem = Stem(in_channels, norm_eps=norm_eps, same_padding=same_padding)
        self.stages = nn.ModuleList()
        channels, blocks_before, total = 64, 0, sum(DEPTHS[depth])
        for i, (width, repeats) in enumerate(zip(WIDTHS, DEPTHS[depth], strict=True)):
            blocks = []
            for j in range(repeats):
                stride = 2 if i > 0 and j == 0 else 1
                rate = drop_path * (blocks_before + j) / total
                blocks.append(block(channels, width, stride=stride, drop_path=rate))
                channels = width * expansion
            self.stages.append(nn.Sequential(*blocks))
            blocks_before += repeats
        self._expansion = expansion
        self.head = ClassifierHead(channels, num_classes, dropout=dropout)
        initialise(self)

    def units(self) -> list[Unit]:
        return [Unit("stem", self.stem), *stage_units(self.stages, LEVELS)]

    @property
    def feature_levels(self) -> list[Level]:
        return [Level(k, WIDTHS[i] * self._expansion, 2**k) for i, k in LEVELS.items()]


# depth, groups, channels of a group, convolution with the stride: parameters, multiply-adds at
# 224 × 224
# fmt: off
VARIANTS: dict[str, tuple[int, int, int, StrideOn, int, int]] = {
    "resnet18":         (18,   1, 64, "3x3", 11_689_512,  1_814_073_344),
    "resnet34":         (34,   1, 64, "3x3", 21_797_672,  3_663_761_408),
    "resnet50":         (50,   1, 64, "3x3", 25_557_032,  4_089_184_256),
    "resnet101":        (101,  1, 64, "3x3", 44_549_160,  7_801_405_440),
    "resnet152":        (152,  1, 64, "3x3", 60_192_808, 11_513_626_624),
    "resnet50_v1":      (50,   1, 64, "1x1", 25_557_032,  3_857_973_248),
    "resnet101_v1":     (101,  1, 64, "1x1", 44_549_160,  7_570_194_432),
    "resnet152_v1":     (152,  1, 64, "1x1", 60_192_808, 11_282_415_616),
    "resnext50_32x4d":  (50,  32,  4, "3x3", 25_028_904,  4_230_479_872),
    "resnext101_32x8d": (101, 32,  8, "3x3", 88_791_336, 16_414_015_488),
}
# fmt: on

ENTRIES = [
    NetworkEntry(
        name=name,
        family="resnet",
        build=partial(
            ResNet, depth=depth, groups=groups, group_width=group_width, stride_on=stride_on
        ),
        preprocessing=Preprocessing(interpolation="bilinear"),
        parameters=parameters,
        macs=macs,
        paper=(
            "Xie et al., 2016, https://arxiv.org/abs/1611.05431"
            if groups > 1
            else "He et al., 2015, https://arxiv.org/abs/1512.03385"
        ),
        reference=(
            f"keras.applications ResNet{depth}"
            if stride_on == "1x1"
            else f"torchvision and timm {name}"
        ),
    )
    for name, (depth, groups, group_width, stride_on, parameters, macs) in VARIANTS.items()
]
