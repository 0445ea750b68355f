"""What every detector has: a backbone, a neck, and a head that answers on several levels at once.

The backbone is any network of the zoo; its units come first in the chain, then the neck as a unit
of its own, so that the cached trunk may end between the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from retinue.errors import UsageError
from retinue.models.anchors import YOLOV3_ANCHORS as YOLOV3_ANCHORS
from retinue.models.anchors import Anchors as Anchors
from retinue.models.network import Level, Network, State, Unit, as_backbone, split, tapped
from retinue.models.registry import create_backbone
from retinue.sample import Preprocessing
from retinue.weights.loading import ClassRows

BOX = 5
"""Values of an anchor that are no class's: x, y, width, height, objectness."""

PREPROCESSING = Preprocessing(
    size=(416, 416),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    fit="letterbox",
    pad_value=128,
)
"""Values from 0 to 1, the whole image, grey around it."""


class LevelsHead(nn.Module):
    """On each level a 3×3 convolution, then a linear 1×1 one: maps (n, widths[i], h, w), the finest
    first, to `{"levels": …}`, (n, anchors · (5 + classes), h, w) each.

    Of each anchor in turn x, y, width, height, objectness and the classes' logits, all of them raw,
    as Darknet and Keras publish them.
    """

    def __init__(
        self,
        widths: Sequence[int],
        hidden: Sequence[int],
        conv: Callable[..., nn.Module],
        *,
        anchors: Anchors,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.anchors = anchors
        self.convs = nn.ModuleList(
            conv(*sides, kernel=3) for sides in zip(widths, hidden, strict=True)
        )
        self.outs = nn.ModuleList(
            nn.Conv2d(width, len(each) * (BOX + num_classes), 1)
            for width, each in zip(hidden, anchors, strict=True)
        )

    @property
    def classifiers(self) -> tuple[str, ...]:
        """What the network calls its layers that are as wide as there are classes."""
        return tuple(f"head.outs.{i}" for i in range(len(self.outs)))

    def forward(self, state: State) -> dict[str, tuple[Tensor, ...]]:
        first, more = split(state)
        maps = zip(self.convs, self.outs, (first, *more), strict=True)
        return {"levels": tuple(out(conv(x)) for conv, out, x in maps)}


class Detector(Network):
    """A family sets `head`, `classifiers` and the attributes below.

    `forward` answers, in eval and in training mode, `{"levels": (…)}`: raw float maps
    (n, anchors · (5 + classes), h, w), the finest first, as `LevelsHead` lays them out.
    """

    logits_layer = "head"
    anchors: Anchors
    """The published ones: what the network's default is, unless a task has others."""
    scale_xy: tuple[float, ...] = ()
    """A level's factor by which the centre may leave its cell; empty: 1 on all of them."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the input a cell of each level is wide, the finest first."""
        raise NotImplementedError

    def run(self, x: State, *, start: int = 0, stop: int | None = None, taps: bool = True) -> State:
        """See `Network`. Raises UsageError for images whose sides the coarsest level's cells do not
        fill: some backbones leave the rest out, and the levels lie apart in all of them."""
        if not start:
            images, _ = split(x)
            height, width = images.shape[-2:]
            coarsest = max(self.strides)
            if height % coarsest or width % coarsest:
                raise UsageError(
                    f"both sides must be multiples of {coarsest}",
                    where=f"{self.name or 'the detector'}, images of {height} × {width} pixels",
                )
        return super().run(x, start=start, stop=stop, taps=taps)

    def in_logits_layer(self, name: str) -> bool:
        """Of the head's layers those alone that are as wide as there are classes."""
        return any(f"{name}.".startswith(f"{layer}.") for layer in self.classifiers)

    def class_rows(self, name: str) -> ClassRows:
        """Each anchor has the rows of its box, which are no class's, before those of classes."""
        level = self.classifiers.index(name)
        return ClassRows(groups=len(self.anchors[level]), shared=BOX)

    def objectness_biases(self) -> Tensor:
        """Of every anchor, the finest level's first: 0 where nothing has been learnt."""
        return torch.cat([own.detach() for own in self._objectness()])

    @torch.no_grad()
    def expect(self, share: float) -> None:
        """Let predictions begin with an objectness of `share` (between 0 and 1) where they are
        fresh, with a bias of 0: of 10,647 hardly one is an object (Lin et al., 2017, "Focal loss",
        section 4.1)."""
        for own in self._objectness():
            if own.is_meta:  # nothing to fill; PyTorch would import its compiler to find that out
                return
            own.copy_(torch.where(own == 0, math.log(share / (1 - share)), own))

    def _objectness(self) -> Iterator[Tensor]:
        for name in self.classifiers:
            bias = cast(nn.Conv2d, self.get_submodule(name)).bias
            assert bias is not None
            yield bias.view(self.class_rows(name).groups, -1)[:, BOX - 1]

    def resized(self, name: str, num_classes: int) -> nn.Module:
        """A fresh convolution, as wide as `num_classes` need, in place of the one called `name`."""
        old = cast(nn.Conv2d, self.get_submodule(name))
        new = nn.Conv2d(
            old.in_channels,
            self.class_rows(name).count(num_classes),
            1,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
        draw(new)
        return new


class OnBackbone(Detector):
    """One with the levels of another network below its neck: `backbone`, `neck` and `head`."""

    backbone: Network
    """Without what lies beyond the last of `taps`."""
    neck: nn.Module
    """Takes the state behind the backbone, (C5, C3, C4), and gives the head's maps."""
    taps: tuple[int, ...] = (3, 4, 5)
    """The feature levels that the neck takes."""

    def take(self, backbone: Network) -> None:
        """Build on `backbone`, which no longer classifies then. Raises UsageError if it lacks one
        of the levels."""
        self.backbone = as_backbone(backbone, self.taps)
        self.input_layer = f"backbone.{backbone.input_layer}"
        if backbone.name:  # which a network of the zoo has
            own = {k: v for k, v in backbone.arguments.items() if k not in _OF_CLASSIFIERS}
            self.settled = {"backbone": backbone.name, "backbone_arguments": own}

    def attach(self, neck: nn.Module, head: LevelsHead) -> None:
        """Put `neck`, which gives the head's maps, behind the backbone, and `head` behind that;
        both are freshly drawn."""
        self.neck, self.head = neck, head
        self.anchors, self.classifiers = head.anchors, head.classifiers
        draw(self.neck)
        draw(self.head)

    def units(self) -> list[Unit]:
        chain = tapped(self.backbone, self.taps, prefix="backbone.")
        return [*chain, Unit("neck", self.neck, joins=True)]

    @property
    def feature_levels(self) -> list[Level]:
        return [level for level in self.backbone.feature_levels if level.index in self.taps]

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(level.stride for level in self.feature_levels)


_OF_CLASSIFIERS = ("num_classes", "dropout", "head")
"""Keywords that a backbone has no use for."""


def draw(module: nn.Module) -> None:
    """Fresh weights of neck and head, as published: convolutions normal, std 0.02, biases zero,
    norms at identity. On the meta device there is nothing to draw."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and not part.weight.is_meta:
            nn.init.normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def built(backbone: str | Network, arguments: dict[str, Any] | None) -> Network:
    """The network that `backbone` names, or is, for a detector to take."""
    return backbone if isinstance(backbone, Network) else create_backbone(backbone, arguments)
