"""YOLOv3-tiny (Redmon & Farhadi, 2018): seven convolutions, pooling between them, and two levels.

Darknet's `yolov3-tiny.cfg`, layer by layer.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retinue.models.blocks import ConvNormAct, SameMaxPool2d, initialise
from retinue.models.detector import PREPROCESSING, Anchors, LevelsHead, OnBackbone
from retinue.models.network import Level, Network, State, Unit, split, stage_units
from retinue.models.registry import NetworkEntry
from retinue.models.yolov3 import leaky

ANCHORS: Anchors = (
    ((10, 14), (23, 27), (37, 58)),
    ((81, 82), (135, 169), (344, 319)),
)
# Channels of each convolution, and the stride of the 2×2 pooling before it.
STAGES = ((32, 2), (64, 2), (128, 2), (256, 2), (512, 2), (1024, 1))
LEVELS = {0: 1, 1: 2, 2: 3, 3: 4, 5: 5}


class TinyDarkNet(Network):
    """The backbone; it has no classifier."""

    def __init__(self, conv: partial[ConvNormAct]) -> None:
        super().__init__()
        channels = 16
        self.stem = conv(3, channels, kernel=3)
        self.stages = nn.ModuleList()
        for width, stride in STAGES:
            # at stride 1, too, the side stays: the padding is at the right and at the bottom
            pool = SameMaxPool2d(2, stride)
            block = nn.Sequential(pool, conv(channels, width, kernel=3))
            self.stages.append(nn.Sequential(block))
            channels = width
        self.head = nn.Identity()
        initialise(self)

    def units(self) -> list[Unit]:
        return [Unit("stem", self.stem), *stage_units(self.stages, LEVELS)]

    @property
    def feature_levels(self) -> list[Level]:
        return [Level(k, STAGES[i][0], 2**k) for i, k in LEVELS.items()]


class Junction(nn.Module):
    """(C5, C4) to two maps, the finer first: C5 narrowed; C4 behind that, narrowed again and
    upsampled."""

    def __init__(self, taps: tuple[int, int], conv: partial[ConvNormAct]) -> None:
        super().__init__()
        _, deepest = taps
        self.narrow = conv(deepest, 256)
        self.lateral = conv(256, 128)

    def forward(self, state: State) -> State:
        deepest, (finer,) = split(state)
        coarse: Tensor = self.narrow(deepest)
        above = F.interpolate(self.lateral(coarse), size=finer.shape[2:])
        return torch.cat([above, finer], 1), coarse


class YOLOv3Tiny(OnBackbone):
    """`norm_eps` and `norm_momentum` are those of all norms."""

    taps = (4, 5)

    def __init__(
        self,
        *,
        num_classes: int = 80,
        norm_eps: float = 1e-6,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        conv = leaky(norm_eps, norm_momentum)
        self.take(TinyDarkNet(conv))
        finer, deepest = (level.channels for level in self.feature_levels)
        self.attach(
            Junction((finer, deepest), conv),
            LevelsHead(
                (128 + finer, 256), (256, 512), conv, anchors=ANCHORS, num_classes=num_classes
            ),
        )


ENTRIES = [
    NetworkEntry(
        name="yolov3_tiny",
        family="yolov3_tiny",
        kind="detector",
        build=YOLOv3Tiny,
        preprocessing=PREPROCESSING,
        parameters=8_852_366,
        macs=2_782_480_896,
        paper="Redmon & Farhadi, 2018, https://arxiv.org/abs/1804.02767",
        reference="Darknet yolov3-tiny.cfg",
    )
]
