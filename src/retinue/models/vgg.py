"""VGG (Simonyan and Zisserman, 2014, "Very Deep Convolutional Networks for Large-Scale Image
Recognition"), also with batch normalisation after each convolution."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from retinue.models.blocks import HiddenLayersHead, initialise, relu, require_size
from retinue.models.network import Level, Network, Unit, stage_units
from retinue.models.registry import NetworkEntry
from retinue.sample import Preprocessing

# The paper's table 1, columns A, B, D and E: convolutions in each of the five stages.
DEPTHS: dict[int, list[int]] = {
    11: [1, 1, 2, 2, 2],
    13: [2, 2, 2, 2, 2],
    16: [2, 2, 3, 3, 3],
    19: [2, 2, 4, 4, 4],
}
WIDTHS = (64, 128, 256, 512, 512)
LEVELS = {0: 2, 1: 3, 2: 4, 3: 5}
"""The level that each stage after the stem ends in, pooled: C2 is what papers call pool2."""


class Conv(nn.Module):
    """3×3 convolution with bias (also before the norm, as in every published checkpoint), norm,
    ReLU and, as a stage's last, 2×2 max pooling."""

    def __init__(self, in_channels: int, channels: int, *, norm: bool, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.act = relu()
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(self.act(self.norm(self.conv(x))))
        return y


class Stem(nn.Sequential):
    """The first stage."""

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, 32)  # what five poolings leave a pixel of
        for layer in self:
            x = layer(x)
        return x


class VGG(Network):
    """`depth` is one of `DEPTHS`.

    Images of any size from 32 × 32: the last map, 7 × 7 at the native 224, is averaged on a grid
    of that size. `dropout` is the probability behind each of the two hidden layers.
    """

    input_layer = "stem.0.conv"

    def __init__(
        self,
        *,
        depth: int,
        norm: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        stages = []
        channels = in_channels
        for width, repeats in zip(WIDTHS, DEPTHS[depth], strict=True):
            stage = []
            for j in range(repeats):
                stage.append(Conv(channels, width, norm=norm, pool=j == repeats - 1))
                channels = width
            stages.append(stage)
        self.stem = Stem(*stages[0])
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages[1:])
        self.head = HiddenLayersHead(
            channels, num_classes, side=7, dropouts=(0.0, dropout, dropout)
        )
        initialise(self)

    def units(self) -> list[Unit]:
        return [Unit("stem", self.stem), *stage_units(self.stages, LEVELS)]

    @property
    def feature_levels(self) -> list[Level]:
        return [Level(k, WIDTHS[i + 1], 2**k) for i, k in LEVELS.items()]


# name: depth, norm, parameters, multiply-adds at 224 × 224
VARIANTS = {
    "vgg11": (11, False, 132_863_336, 7_609_090_048),
    "vgg13": (13, False, 133_047_848, 11_308_466_176),
    "vgg16": (16, False, 138_357_544, 15_470_264_320),
    "vgg19": (19, False, 143_667_240, 19_632_062_464),
    "vgg11_bn": (11, True, 132_868_840, 7_609_090_048),
    "vgg13_bn": (13, True, 133_053_736, 11_308_466_176),
    "vgg16_bn": (16, True, 138_365_992, 15_470_264_320),
    "vgg19_bn": (19, True, 143_678_248, 19_632_062_464),
}

ENTRIES = [
    NetworkEntry(
        name=name,
        family="vgg",
        build=partial(VGG, depth=depth, norm=norm),
        preprocessing=Preprocessing(interpolation="bilinear"),
        parameters=parameters,
        macs=macs,
        paper="Simonyan and Zisserman, 2014, https://arxiv.org/abs/1409.1556",
        reference=f"torchvision and timm {name}" + ("" if norm or depth < 16 else "; Keras"),
    )
    for name, (depth, norm, parameters, macs) in VARIANTS.items()
]
