"""MobileNetV2 (Sandler et al., 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks")."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from retinue.models.blocks import (
    ClassifierHead,
    ConvNormAct,
    DropPath,
    initialise,
    make_divisible,
    relu6,
)
from retinue.models.network import Level, Network, Unit, stage_units
from retinue.models.registry import NetworkEntry
from retinue.sample import Preprocessing

# The paper's table 2: expansion t, channels c, repeats n, stride of the first s.
STAGES: Sequence[tuple[int, int, int, int]] = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
LEVELS = {1: 2, 2: 3, 4: 4, 6: 5}
"""Which stage ends which feature level; the last one is before the top convolution."""


class InvertedResidual(nn.Module):
    """Expand, filter by channel, project linearly; narrow ends are added (section 3.3)."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        expansion: int,
        stride: int,
        drop_path: float,
        conv: partial[ConvNormAct],
    ) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.expand = conv(in_channels, wide, act=relu6) if expansion > 1 else nn.Identity()
        self.depthwise = conv(wide, wide, kernel=3, stride=stride, groups=wide, act=relu6)
        self.project = conv(wide, channels)
        self.residual = stride == 1 and in_channels == channels
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + self.drop_path(y) if self.residual else y


class MobileNetV2(Network):
    """`width` multiplies the channels of every layer but, below 1, the top convolution's.

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
        dropout: float = 0.2,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        conv = partial(ConvNormAct, same_padding=same_padding, norm_eps=norm_eps)
        channels = make_divisible(32 * width)
        self.stem = conv(in_channels, channels, kernel=3, stride=2, act=relu6)
        self.stages = nn.ModuleList()
        self._channels: list[int] = []
        total, depth = sum(n for _, _, n, _ in STAGES), 0
        for t, c, n, s in STAGES:
            blocks = []
            for i in range(n):
                block = InvertedResidual(
                    channels,
                    channels := make_divisible(c * width),
                    expansion=t,
                    stride=s if i == 0 else 1,
                    drop_path=drop_path * depth / total,
                    conv=conv,
                )
                blocks.append(block)
                depth += 1
            self.stages.append(nn.Sequential(*blocks))
            self._channels.append(channels)
        top = make_divisible(1280 * max(width, 1.0))
        self.top = conv(channels, top, act=relu6)
        self.head = ClassifierHead(top, num_classes, dropout=dropout)
        initialise(self)

    def units(self) -> list[Unit]:
        stages = stage_units(self.stages, LEVELS)
        return [Unit("stem", self.stem), *stages, Unit("top", self.top)]

    @property
    def feature_levels(self) -> list[Level]:
        return [Level(k, self._channels[i], 2**k) for i, k in LEVELS.items()]


# name: width, parameters, multiply-adds at 224 × 224
VARIANTS = {
    "mobilenet_v2": (1.0, 3_504_872, 300_774_272),
    "mobilenet_v2_035": (0.35, 1_677_128, 59_285_808),
    "mobilenet_v2_050": (0.5, 1_968_680, 97_131_840),
    "mobilenet_v2_075": (0.75, 2_636_424, 209_069_792),
    "mobilenet_v2_140": (1.4, 6_108_776, 582_195_824),
}

ENTRIES = [
    NetworkEntry(
        name=name,
        family="mobilenet_v2",
        build=partial(MobileNetV2, width=width),
        preprocessing=Preprocessing(interpolation="bilinear"),
        parameters=parameters,
        macs=macs,
        paper="Sandler et al., 2018, https://arxiv.org/abs/1801.04381",
        reference=f"torchvision mobilenet_v2(width_mult={width}); timm mobilenetv2_"
        f"{round(100 * width):03}; keras.applications MobileNetV2(alpha={width})",
    )
    for name, (width, parameters, macs) in VARIANTS.items()
]
