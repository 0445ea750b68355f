"""YOLOv3 (Redmon & Farhadi, 2018, "YOLOv3: An Incremental Improvement"), on any backbone.

Three levels at strides 8, 16 and 32. From the coarsest on, five convolutions, alternately 1×1 and
3×3, then the head; narrowed and upsampled, the map joins the next finer one of the backbone. On
DarkNet-53 it is the original; on `tf_efficientnet_b0` … `b7` it is the EfficientNet-YOLOv3 that is
published for Keras and PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retinue.errors import UsageError
from retinue.models.blocks import ConvNormAct
from retinue.models.detector import (
    PREPROCESSING,
    YOLOV3_ANCHORS,
    LevelsHead,
    OnBackbone,
    built,
)
from retinue.models.network import Network, State, split
from retinue.models.registry import NetworkEntry

DARKNET_TAPS = (256, 512, 1024)
"""Channels of DarkNet-53's C3, C4 and C5."""
SLOPE = 0.1
"""Of the leaky ReLU for negative values."""


def widths_for(taps: Sequence[int]) -> list[int]:
    """How wide the neck is on each level, the finest first, for a backbone of these channels.

    As wide as the tap itself, as published for EfficientNet, whose blocks end narrowly; half as
    wide as DarkNet-53's tap, as in the original, where the backbone is as wide as that or wider.
    """
    return [
        tap if tap < darknet else darknet // 2
        for tap, darknet in zip(taps, DARKNET_TAPS, strict=True)
    ]


def leaky(norm_eps: float, norm_momentum: float) -> partial[ConvNormAct]:
    """Darknet's convolution: without bias, BatchNorm with these, a leaky ReLU."""
    return partial(
        ConvNormAct,
        act=partial(nn.LeakyReLU, SLOPE, inplace=True),
        norm_eps=norm_eps,
        norm_momentum=norm_momentum,
    )


def five(in_channels: int, width: int, conv: partial[ConvNormAct]) -> nn.Sequential:
    """1×1 to `width`, 3×3 to twice that, and so on; `width` at the end."""
    return nn.Sequential(
        conv(in_channels, width),
        conv(width, 2 * width, kernel=3),
        conv(2 * width, width),
        conv(width, 2 * width, kernel=3),
        conv(2 * width, width),
    )


class Pyramid(nn.Module):
    """(C5, C3, C4) to three maps of `widths` channels, the finest first."""

    def __init__(
        self, taps: Sequence[int], widths: Sequence[int], conv: partial[ConvNormAct]
    ) -> None:
        super().__init__()
        # Each level but the coarsest takes as many channels from above as it is wide itself.
        self.narrow = nn.ModuleList(conv(above, width) for width, above in pairwise(widths))
        more = [*widths[:-1], 0]
        self.blocks = nn.ModuleList(
            five(above + tap, width, conv)
            for above, tap, width in zip(more, taps, widths, strict=True)
        )

    def forward(self, state: State) -> State:
        coarsest, finer = split(state)
        x: Tensor = self.blocks[-1](coarsest)
        levels = [x]
        for i in reversed(range(len(finer))):
            # the upsampled map comes first
            above = F.interpolate(self.narrow[i](x), size=finer[i].shape[2:])
            x = self.blocks[i](torch.cat([above, finer[i]], 1))
            levels.insert(0, x)
        return tuple(levels)


class YOLOv3(OnBackbone):
    """`backbone` is a network of the zoo with levels C3 to C5, `backbone_arguments` its keywords,
    `drop_path` the one that is wanted most often.

    `widths` of the neck, the finest level's first; None: as `widths_for` says. `norm_eps` and
    `norm_momentum` are the neck's and head's: 1e-3 is Keras', 1e-5 PyTorch's.
    """

    def __init__(
        self,
        *,
        backbone: str | Network = "darknet53",
        backbone_arguments: dict[str, Any] | None = None,
        num_classes: int = 80,
        drop_path: float | None = None,
        widths: list[int] | None = None,
        norm_eps: float = 1e-3,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        own = {} if drop_path is None else {"drop_path": drop_path}
        self.take(built(backbone, {**(backbone_arguments or {}), **own}))
        taps = [level.channels for level in self.feature_levels]
        if widths is None:
            widths = widths_for(taps)
        elif len(widths) != len(taps) or min(widths) < 1:
            raise UsageError(f"widths are three whole numbers, one a level, not {widths}")
        conv = leaky(norm_eps, norm_momentum)
        hidden, anchors = [2 * w for w in widths], YOLOV3_ANCHORS
        self.attach(
            Pyramid(taps, widths, conv),
            LevelsHead(widths, hidden, conv, anchors=anchors, num_classes=num_classes),
        )


ENTRIES = [
    NetworkEntry(
        name="yolov3",
        family="yolov3",
        kind="detector",
        build=YOLOv3,
        preprocessing=PREPROCESSING,
        parameters=61_949_149,
        macs=32_932_037_632,
        paper="Redmon & Farhadi, 2018, https://arxiv.org/abs/1804.02767",
        reference="Darknet yolov3.cfg",
    )
]
