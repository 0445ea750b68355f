"""Blocks that several families are made of. Maps are float (n, channels, height, width)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retinue.errors import UsageError
from retinue.models.dense import Linear
from retinue.models.depthwise import Conv2d, conv2d
from retinue.models.gradients import ReLU6, scaled
from retinue.models.widening import conv_norm

Activation = Callable[[], nn.Module]


def relu() -> nn.Module:
    """In place: its gradient needs only the output."""
    return nn.ReLU(inplace=True)


def relu6() -> nn.Module:
    """min(max(x, 0), 6), in place (Krizhevsky, 2010)."""
    return ReLU6(inplace=True)


def silu() -> nn.Module:
    """x · sigmoid(x), not in place: its gradient needs the input, so that saves no memory."""
    return nn.SiLU()


def hard_swish() -> nn.Module:
    """x · min(max(x + 3, 0), 6) / 6, not in place, like `silu` (MobileNetV3, section 5.2)."""
    return nn.Hardswish()


def make_divisible(channels: float, divisor: int = 8) -> int:
    """`channels` rounded to a multiple of `divisor`, never more than 10 % down (MobileNetV2)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def same_padding(side: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """TensorFlow's SAME padding of an axis, before and after: output side ceil(side / stride).

    It depends on the side; an odd amount has its larger part after (at the bottom, at the right),
    which no symmetric padding equals.
    """
    reach = dilation * (kernel - 1) + 1
    total = max((math.ceil(side / stride) - 1) * stride + reach - side, 0)
    return total // 2, total - total // 2


class SameConv2d(Conv2d):
    """A convolution with TensorFlow's SAME padding, see `same_padding`."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        geometry = zip(x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True)
        (top, bottom), (left, right) = (same_padding(*axis) for axis in geometry)
        padding = (top, left)
        if top != bottom or left != right:
            x = F.pad(x, (left, right, top, bottom))
            padding = (0, 0)
        return conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)


class SameMaxPool2d(nn.MaxPool2d):
    """Max pooling with TensorFlow's SAME padding, see `same_padding`; padding never wins."""

    kernel_size: int
    stride: int

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = (
            same_padding(side, self.kernel_size, self.stride) for side in x.shape[-2:]
        )
        x = F.pad(x, (left, right, top, bottom), value=-math.inf)
        return F.max_pool2d(x, self.kernel_size, self.stride)


class ConvNormAct(nn.Module):
    """Convolution without bias, batch normalisation, activation (None: linear).

    `padding` is symmetric; None: as much as keeps the size where the stride is 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        act: Activation | None = None,
        same_padding: bool = False,
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        conv = SameConv2d if same_padding else Conv2d
        padding = kernel // 2 if padding is None else padding
        self.conv = conv(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=0 if same_padding else padding,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=norm_eps, momentum=norm_momentum)
        self.act = act() if act is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(conv_norm(x, self.conv, self.norm))
        return y


def mean_of_map(x: Tensor, *, learning: bool) -> Tensor:
    """The mean over height and width, (n, channels, 1, 1).

    While `learning` its gradient is divided before it is spread over the map: the gradient of
    `mean` is spread first, which makes a whole map of it, and not a channels-last one, so that
    everything behind it reads two layouts at once. In float32 values and gradients are the same
    to the bit.
    """
    if learning and x.dtype in (torch.float32, torch.bfloat16):  # a sum in float16 may overflow
        return x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])
    return x.mean((2, 3), keepdim=True)


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole map holds (Hu et al., 2018, section 3).

    `squeezed` is the width between its two 1×1 convolutions; `gate` makes weights between 0 and 1
    of what comes out.
    """

    def __init__(
        self,
        channels: int,
        squeezed: int,
        *,
        act: Activation = silu,
        gate: Activation = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = act()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        weights = mean_of_map(x, learning=self.training)
        return scaled(x, self.gate(self.expand(self.act(self.reduce(weights)))))


class DropPath(nn.Module):
    """Drops a residual branch for whole samples with probability `rate`, in training only.

    What stays is scaled by 1 / (1 − rate), so that its mean stays (stochastic depth, Huang et
    al., 2016).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


class Pooling(nn.Module):
    """What a head does first, as its `pool`, and what makes a state far smaller. What is pooled
    already passes as it is, so that it may be kept instead (`models.network.Network.pooling`)."""


class GlobalPool(Pooling):
    """The mean over height and width, (n, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.ndim == 4 else x


class ClassifierHead(nn.Module):
    """Global average pooling, dropout, linear: a map (n, c, h, w), or its pooled form (n, c), to
    logits (n, classes)."""

    def __init__(self, channels: int, num_classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.pool = GlobalPool()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.dropout(self.pool(x)))
        return y


class GridPool(Pooling):
    """Means over a grid of `side` × `side` cells, (n, channels, side, side), of a map of any size;
    one of that size passes as it is (and, exported, leaves no operation behind)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[-2:] == (self.side, self.side) else F.adaptive_avg_pool2d(x, self.side)

    def extra_repr(self) -> str:
        return f"side={self.side}"


class HiddenLayersHead(nn.Module):
    """Two hidden layers over every place of a map, then the classifier: AlexNet's and VGG's.

    A map (n, channels, h, w), or its pooled form (n, channels, side, side), to logits
    (n, classes). `hidden` are the widths of `fc6` and `fc7`, which have five convolutional stages
    or layers before them; `dropouts` the probabilities in front of `fc6`, `fc7` and `fc`.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        side: int,
        hidden: tuple[int, int] = (4096, 4096),
        dropouts: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.pool = GridPool(side)
        self.drop6, self.drop7, self.dropout = (nn.Dropout(p) for p in dropouts)
        self.fc6 = Linear(channels * side * side, hidden[0])
        self.fc7 = Linear(hidden[0], hidden[1])
        self.fc = nn.Linear(hidden[1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x).flatten(1)  # places of one channel lie together
        x = F.relu(self.fc6(self.drop6(x)))
        x = F.relu(self.fc7(self.drop7(x)))
        y: Tensor = self.fc(self.dropout(x))
        return y


def require_size(x: Tensor, least: int) -> None:
    """Raises UsageError if the images `x` are smaller than `least` pixels in height or width."""
    height, width = x.shape[-2:]
    if min(height, width) < least:
        raise UsageError(
            f"images of {height} × {width} pixels are too small for this network",
            mend=f"it takes {least} × {least} or more",
        )


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Fresh weights: convolutions normal with variance 2 / fan-out (He et al., 2015), counting a
    grouped convolution's own outputs only; norms at identity; classifiers normal, std 0.01.
    On the meta device there is nothing to draw."""
    if any(parameter.is_meta for parameter in network.parameters()):
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
