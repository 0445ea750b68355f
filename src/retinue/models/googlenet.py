"""GoogLeNet (Szegedy et al., 2014, "Going Deeper with Convolutions").

With batch normalisation, as its checkpoints have it, or `batch_norm=False`: as in the paper.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from retinue.errors import UsageError
from retinue.models.blocks import (
    GlobalPool,
    SameConv2d,
    SameMaxPool2d,
    initialise,
    relu,
    require_size,
)
from retinue.models.network import Level, Network, State, Unit, joined, split, stage_units
from retinue.models.registry import NetworkEntry
from retinue.sample import Preprocessing

# Table 1, one row a block: 1×1; 3×3 reduce, 3×3; 5×5 reduce, 5×5; pool proj
Widths = tuple[int, int, int, int, int, int]
# fmt: off
INCEPTIONS: tuple[tuple[Widths, ...], ...] = (
    (
        (64,   96, 128, 16,  32,  32),  # 3a
        (128, 128, 192, 32,  96,  64),  # 3b
    ),
    (
        (192,  96, 208, 16,  48,  64),  # 4a, which the first auxiliary classifier looks at
        (160, 112, 224, 24,  64,  64),  # 4b
        (128, 128, 256, 24,  64,  64),  # 4c
        (112, 144, 288, 32,  64,  64),  # 4d, which the second one looks at
        (256, 160, 320, 32, 128, 128),  # 4e
    ),
    (
        (256, 160, 320, 32, 128, 128),  # 5a
        (384, 192, 384, 48, 128, 128),  # 5b
    ),
)
# fmt: on
TAPS = {"stages.2.0": 512, "stages.2.3": 528}
"""Units whose output the auxiliary classifiers look at, and its channels."""
LEVELS = {0: 2, 1: 3, 2: 4, 3: 5}


class Conv(nn.Module):
    """Convolution, batch normalisation (else a bias), ReLU; the map keeps its side."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int = 1, *, stride: int = 1, batch_norm: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, channels, kernel, stride, padding=kernel // 2, bias=not batch_norm
        )
        self.norm = nn.BatchNorm2d(channels, eps=1e-3) if batch_norm else nn.Identity()
        self.act = relu()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class Stem(Conv):
    """7×7 convolution and 3×3 max pooling, a stride of 2 each; `least`: below that side, in pixels,
    a later pooling has nothing left to pool."""

    def __init__(
        self, in_channels: int, *, batch_norm: bool, same_padding: bool, pool: nn.Module, least: int
    ) -> None:
        super().__init__(in_channels, 64, 7, stride=2, batch_norm=batch_norm)
        if same_padding:
            self.conv = SameConv2d(in_channels, 64, 7, stride=2, bias=not batch_norm)
        self.pool = pool
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, self.least)
        y: Tensor = self.pool(super().forward(x))
        return y


def _max_pool(kernel: int) -> nn.Module:
    """Halves the side; a window may reach over the edge rather than leave a row out."""
    return nn.MaxPool2d(kernel, stride=2, ceil_mode=True)


def _local_norm() -> nn.Module:
    """Figure 3's, with the constants of the authors' Caffe port."""
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)


def _initialise_without_norm(network: nn.Module) -> None:
    """As the authors' Caffe port draws weights (Glorot & Bengio, 2010). By their outputs alone, the
    narrow 1×1 convolutions would make what they see eight times as large, block after block."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)


class Inception(nn.Module):
    """Four branches side by side, their channels joined (figure 2b), after `pool`.

    With batch normalisation the "5×5" is a 3×3: a slip in the port that the public checkpoints
    were trained with.
    """

    def __init__(
        self, in_channels: int, widths: Widths, *, pool: nn.Module | None = None, batch_norm: bool
    ) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, projected = widths
        conv = partial(Conv, batch_norm=batch_norm)
        self.pool = pool or nn.Identity()
        self.conv1 = conv(in_channels, one)
        self.conv3_reduce = conv(in_channels, reduce3)
        self.conv3 = conv(reduce3, three, 3)
        self.conv5_reduce = conv(in_channels, reduce5)
        self.conv5 = conv(reduce5, five, 3 if batch_norm else 5)
        self.branch_pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.pool_proj = conv(in_channels, projected)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        branches = (
            self.conv1(x),
            self.conv3(self.conv3_reduce(x)),
            self.conv5(self.conv5_reduce(x)),
            self.pool_proj(self.branch_pool(x)),
        )
        return torch.cat(branches, dim=1)


class Auxiliary(nn.Module):
    """A classifier in the middle of the network (section 5): a tap (n, c, 4, 4) to logits."""

    def __init__(
        self, in_channels: int, num_classes: int, *, batch_norm: bool, dropouts: tuple[float, float]
    ) -> None:
        """`dropouts`: in front of the hidden layer, and of the classifier."""
        super().__init__()
        self.conv = Conv(in_channels, 128, batch_norm=batch_norm)
        self.input_dropout = nn.Dropout(dropouts[0])
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.act = relu()
        self.dropout = nn.Dropout(dropouts[1])
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, tap: Tensor) -> Tensor:
        y = self.fc1(self.input_dropout(self.conv(tap).flatten(1)))
        logits: Tensor = self.fc2(self.dropout(self.act(y)))
        return logits


class Pool(GlobalPool):
    """Global average pooling; taps pass."""

    def forward(self, state: State) -> State:  # type: ignore[override]  # wider, as the state is
        x, taps = split(state)
        return joined(super().forward(x), taps)


class Head(nn.Module):
    """The classifier, blind to taps, and beside it the auxiliary ones."""

    def __init__(self, num_classes: int, *, dropout: float, auxiliary: list[Auxiliary]) -> None:
        super().__init__()
        self.pool = Pool()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)
        self.auxiliary = nn.ModuleList(auxiliary)

    def forward(self, state: State) -> Tensor:
        x, _ = split(self.pool(state))
        logits: Tensor = self.fc(self.dropout(x))
        return logits


class GoogLeNet(Network):
    """22 layers with weights, or 27 with the poolings.

    `auxiliary` adds two classifiers that only training sees: its answer then has `auxiliary`
    (2, n, classes), after block 4a and after 4d. What they look at is part of the state from there
    on: (x, tap of 4a[, tap of 4d]), pooled to 4×4 already.

    `batch_norm=False` is the paper's network: biases, true 5×5 branches, local response
    normalisation (but for `response_norm=False`), 3×3 windows in the last max pooling, too; its
    auxiliary classifiers need images whose sides, in pixels, lie between 223 and 270.
    `auxiliary_dropout` is the probability before their last layer, `auxiliary_input_dropout` before
    their hidden one. `same_padding` is TensorFlow's.
    """

    head: Head

    def __init__(
        self,
        *,
        batch_norm: bool = True,
        auxiliary: bool = False,
        response_norm: bool = True,
        auxiliary_dropout: float = 0.7,
        auxiliary_input_dropout: float = 0.0,
        same_padding: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        conv = partial(Conv, batch_norm=batch_norm)
        max_pool = partial(SameMaxPool2d, stride=2) if same_padding else _max_pool
        normed = response_norm and not batch_norm
        self.stem = Stem(
            in_channels,
            batch_norm=batch_norm,
            same_padding=same_padding,
            pool=nn.Sequential(max_pool(3), _local_norm()) if normed else max_pool(3),
            least=15 if batch_norm else 31,
        )
        pools = (
            nn.Sequential(_local_norm(), max_pool(3)) if normed else max_pool(3),
            max_pool(3),
            max_pool(2 if batch_norm else 3),
        )
        self.stages = nn.ModuleList([nn.Sequential(conv(64, 64), conv(64, 192, 3))])
        self._channels = [192]
        for pool, rows in zip(pools, INCEPTIONS, strict=True):
            blocks: list[nn.Module] = []
            channels = self._channels[-1]
            for widths in rows:
                first = pool if not blocks else None
                blocks.append(Inception(channels, widths, pool=first, batch_norm=batch_norm))
                channels = widths[0] + widths[2] + widths[4] + widths[5]
            self.stages.append(nn.Sequential(*blocks))
            self._channels.append(channels)
        self.tap = nn.AdaptiveAvgPool2d(4) if batch_norm else nn.AvgPool2d(5, stride=3)
        dropouts = auxiliary_input_dropout, auxiliary_dropout
        heads = [
            Auxiliary(c, num_classes, batch_norm=batch_norm, dropouts=dropouts)
            for c in TAPS.values()
        ]
        self.head = Head(num_classes, dropout=dropout, auxiliary=heads if auxiliary else [])
        self._tapped = tuple(TAPS) if auxiliary else ()
        self.classifiers += tuple(f"head.auxiliary.{i}.fc2" for i in range(len(self._tapped)))
        initialise(self)
        if not batch_norm:
            _initialise_without_norm(self)

    def units(self) -> list[Unit]:
        chain = [Unit("stem", self.stem), *stage_units(self.stages, LEVELS)]
        return [u._replace(tap=self._tap) if u.name in self._tapped else u for u in chain]

    @property
    def feature_levels(self) -> list[Level]:
        return [Level(k, self._channels[i], 2**k) for i, k in LEVELS.items()]

    def _tap(self, x: Tensor) -> Tensor:
        """Raises UsageError for a map of sides that the auxiliary classifiers cannot take."""
        height, width = x.shape[-2:]
        if isinstance(self.tap, nn.AvgPool2d) and not (14 <= height <= 16 and 14 <= width <= 16):
            raise UsageError(
                "the auxiliary classifiers need images of 223 to 270 pixels a side",
                where=f"{self.name or 'googlenet_original'}, auxiliary=True",
                mend="choose such a size, or auxiliary=False",
            )
        tap: Tensor = self.tap(x)
        return tap

    def auxiliary(self, taps: tuple[Tensor, ...]) -> dict[str, Tensor]:
        if not taps:
            return {}
        heads = zip(self.head.auxiliary, taps, strict=True)
        return {"auxiliary": torch.stack([head(tap) for head, tap in heads])}


def _entry(name: str, *, batch_norm: bool, parameters: int, macs: int) -> NetworkEntry:
    return NetworkEntry(
        name=name,
        family="googlenet",
        build=partial(GoogLeNet, batch_norm=batch_norm, dropout=0.2 if batch_norm else 0.4),
        preprocessing=Preprocessing(
            interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
        ),
        parameters=parameters,
        macs=macs,
        paper="Szegedy et al., 2014, https://arxiv.org/abs/1409.4842",
        reference="torchvision googlenet" if batch_norm else "table 1 of the paper",
    )


ENTRIES = [
    _entry("googlenet", batch_norm=True, parameters=6_624_904, macs=1_498_376_192),
    _entry("googlenet_original", batch_norm=False, parameters=6_998_552, macs=1_582_671_872),
]
