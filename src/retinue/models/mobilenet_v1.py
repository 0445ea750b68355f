"""MobileNet (Howard et al., 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile
Vision Applications").

A convolution is split into one a channel and one a pixel. The width multiplier (section 3.3) is
part of the network; the resolution multiplier (section 3.4) is nothing but the side of its input,
224, 192, 160 or 128 in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from retinue.models.blocks import ClassifierHead, ConvNormAct, initialise, relu6
from retinue.models.network import Level, Network, Unit, stage_units
from retinue.models.registry import NetworkEntry
from retinue.sample import Preprocessing

# The paper's table 1, by size of the map: channels, repeats, stride of the first.
STAGES: Sequence[tuple[int, int, int]] = (
    (64, 1, 1),
    (128, 2, 2),
    (256, 2, 2),
    (512, 6, 2),
    (1024, 2, 2),
)
LEVELS = {1: 2, 2: 3, 3: 4, 4: 5}
"""Which stage ends which feature level."""


class SeparableConv(nn.Module):
    """A 3×3 convolution of each channel by itself, then a 1×1 of all of them (figure 3, right)."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        conv: partial[ConvNormAct],
    ) -> None:
        super().__init__()
        self.depthwise = conv(in_channels, in_channels, kernel=3, stride=stride, groups=in_channels)
        self.pointwise = conv(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pointwise(self.depthwise(x))
        return y


class MobileNetV1(Network):
    """`width` multiplies the channels of every layer, down to 8.

    The activation is ReLU6, as in every published checkpoint (the paper says ReLU).
    `same_padding` and `norm_eps=1e-3` are TensorFlow's.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        same_padding: bool = False,
        norm_eps: float = 1e-5,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.001,
    ) -> None:
        super().__init__()
        conv = partial(ConvNormAct, act=relu6, same_padding=same_padding, norm_eps=norm_eps)
        channels = max(8, int(32 * width))
        self.stem = conv(in_channels, channels, kernel=3, stride=2)
        self.stages = nn.ModuleList()
        self._channels: list[int] = []
        for c, n, s in STAGES:
            blocks = []
            for i in range(n):
                block = SeparableConv(
                    channels,
                    channels := max(8, int(c * width)),
                    stride=s if i == 0 else 1,
                    conv=conv,
                )
                blocks.append(block)
            self.stages.append(nn.Sequential(*blocks))
            self._channels.append(channels)
        self.head = ClassifierHead(channels, num_classes, dropout=dropout)
        initialise(self)

    def units(self) -> list[Unit]:
        return [Unit("stem", self.stem), *stage_units(self.stages, LEVELS)]

    @property
    def feature_levels(self) -> list[Level]:
        return [Level(k, self._channels[i], 2**k) for i, k in LEVELS.items()]


# name: width, parameters, multiply-adds at 224 × 224
VARIANTS: dict[str, tuple[float, int, int]] = {
    "mobilenet_v1": (1.0, 4_231_976, 568_740_352),
    "mobilenet_v1_025": (0.25, 470_072, 41_030_272),
    "mobilenet_v1_050": (0.5, 1_331_592, 149_497_088),
    "mobilenet_v1_075": (0.75, 2_585_560, 325_400_448),
}

ENTRIES = [
    NetworkEntry(
        name=name,
        family="mobilenet_v1",
        build=partial(MobileNetV1, width=width),
        preprocessing=Preprocessing(
            mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear"
        ),
        parameters=parameters,
        macs=macs,
        paper="Howard et al., 2017, https://arxiv.org/abs/1704.04861",
        reference=f"keras.applications MobileNet(alpha={width})"
        + ("; timm mobilenetv1_100" if width == 1 else ""),
    )
    for name, (width, parameters, macs) in VARIANTS.items()
]
