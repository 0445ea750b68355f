"""DarkNet-53 (Redmon & Farhadi, 2018, "YOLOv3: An Incremental Improvement", section 2.4).

Table 1: every stage halves the map with a strided convolution and adds residual blocks of a 1×1 and
a 3×3 convolution. It is the backbone of YOLOv3, which taps its levels C3, C4 and C5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from retinue.models.blocks import (
    ClassifierHead,
    ConvNormAct,
    DropPath,
    initialise,
)
from retinue.models.network import Level, Network, Unit, stage_units
from retinue.models.registry import NetworkEntry
from retinue.sample import Preprocessing

# Table 1: channels and residual blocks of each stage.
STAGES: Sequence[tuple[int, int]] = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
LEVELS = {0: 1, 1: 2, 2: 3, 3: 4, 4: 5}


class Residual(nn.Module):
    """1×1 down to half the channels, 3×3 back up; the activation comes before the sum."""

    def __init__(
        self, channels: int, conv: Callable[..., ConvNormAct], *, drop_path: float
    ) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels // 2)
        self.conv2 = conv(channels // 2, channels, kernel=3)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop_path(self.conv2(self.conv1(x)))
        return x + y


class DarkNet53(Network):
    """`slope`: of the leaky ReLU for negative values. It is 0.1 in the original; timm's weights are
    trained with 0.01, PyTorch's default. `norm_eps` is 1e-6 in the original."""

    def __init__(
        self,
        *,
        slope: float = 0.1,
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        conv = partial(
            ConvNormAct,
            act=partial(nn.LeakyReLU, slope, inplace=True),
            norm_eps=norm_eps,
            norm_momentum=norm_momentum,
        )
        channels = 32
        self.stem = conv(in_channels, channels, kernel=3)
        self.stages = nn.ModuleList()
        blocks_before, total = 0, sum(repeats for _, repeats in STAGES)
        for width, repeats in STAGES:
            # a stage's first unit is its strided convolution: units `stages.I.0`, blocks from 1
            stage = nn.Sequential(conv(channels, width, kernel=3, stride=2))
            for i in range(repeats):
                rate = drop_path * (blocks_before + i) / total
                stage.append(Residual(width, conv, drop_path=rate))
            self.stages.append(stage)
            channels = width
            blocks_before += repeats
        self.head = ClassifierHead(channels, num_classes, dropout=dropout)
        initialise(self)

    def units(self) -> list[Unit]:
        return [Unit("stem", self.stem), *stage_units(self.stages, LEVELS)]

    @property
    def feature_levels(self) -> list[Level]:
        return [Level(k, STAGES[i][0], 2**k) for i, k in LEVELS.items()]


ENTRIES = [
    NetworkEntry(
        name="darknet53",
        family="darknet53",
        build=DarkNet53,
        preprocessing=Preprocessing(size=(256, 256), crop_fraction=0.887),
        parameters=41_609_928,
        macs=9_285_115_904,
        paper="Redmon & Farhadi, 2018, https://arxiv.org/abs/1804.02767",
        reference="timm darknet53",
    )
]
