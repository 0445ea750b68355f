"""The shape that every network of the zoo has: a chain of units, ended by a head.

A chain can be cut anywhere. What lies before the cut and is frozen is the *trunk*; its output can
be computed once per image and kept, and training goes on from there: `forward(x, start=k)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from retinue.models.blocks import initialise
from retinue.sample import Preprocessing

State = Tensor | tuple[Tensor, ...]
"""What flows between units: a tensor, or a tensor followed by taps kept for later units."""


class Unit(NamedTuple):
    """A link of the chain: what is frozen, cut and given its learning rate as a whole."""

    name: str
    """The prefix of its parameters in the state dict, `stem`, `stages.2.0`, …"""
    module: nn.Module
    level: int | None = None
    """k where the unit's output is the last one at stride 2^k: the feature level Ck."""


@dataclass(frozen=True)
class Level:
    """A feature map that `Network.features` returns."""

    index: int
    channels: int
    stride: int


class Network(nn.Module):
    """A classifier as a chain of units and a head.

    A family sets `head`, and implements `units` and `feature_levels`. `create_model` fills in
    the rest: `create_model(network.name, **network.arguments)` builds the same network again.
    """

    classifiers: tuple[str, ...] = ("head.fc",)
    """The linear layers that are as wide as there are classes."""
    input_layer: ClassVar[str] = "stem.conv"
    """The convolution that takes the image."""

    head: nn.Module
    name: str = ""
    """The registered name."""
    arguments: Mapping[str, Any] = MappingProxyType({})
    """Every keyword it was built with, `num_classes` included, as plain JSON values."""
    preprocessing: Preprocessing = Preprocessing()
    """How images are prepared for its weights, or for the published ones where it has none."""

    def units(self) -> list[Unit]:
        """Everything before the head, in forward order."""
        raise NotImplementedError

    @property
    def feature_levels(self) -> list[Level]:
        """What `features` returns, finest first."""
        raise NotImplementedError

    def run(self, x: State, *, start: int = 0, stop: int | None = None) -> State:
        """The units `start` up to and without `stop` (default: all of them, without the head)."""
        for unit in self.units()[start:stop]:
            x = unit.module(x)
        return x

    def forward(self, x: State, *, start: int = 0) -> Tensor | dict[str, Tensor]:
        """Images float32 (n, 3, height, width), normalised, to logits (n, classes).

        `start`: x is the output of the units before that one. In training mode the answer is a
        dict with `logits`, and what else the network's losses need.
        """
        logits = self.head(self.run(x, start=start))
        return {"logits": logits} if self.training else logits

    def features(self, x: Tensor) -> list[Tensor]:
        """The maps of `feature_levels`, (n, channels, height / stride, width / stride) each."""
        state: State = x
        maps = []
        for unit in self.units():
            state = unit.module(state)
            if unit.level is not None:
                maps.append(cast(Tensor, state))
        return maps

    def parameter_groups(self) -> list[tuple[str, list[nn.Parameter]]]:
        """(name, parameters) by depth, the stem first and the head last."""
        links = [(unit.name, unit.module) for unit in self.units()] + [("head", self.head)]
        return [(name, list(module.parameters())) for name, module in links]

    def reset_head(self, num_classes: int) -> None:
        """A fresh classifier for `num_classes` classes in place of the present one."""
        for name in self.classifiers:
            owner, _, attribute = name.rpartition(".")
            old = cast(nn.Linear, self.get_submodule(name))
            new = nn.Linear(
                old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype
            )
            initialise(new)
            setattr(self.get_submodule(owner), attribute, new)
        self.arguments = {**self.arguments, "num_classes": num_classes}

    def fit(self, key: str, tensor: Tensor) -> Tensor | None:
        """`tensor`, of a checkpoint, made to be this network's `key`, which has another shape; None
        if that makes no sense.

        Here: an input layer for images of another number of channels. For one channel it is the sum
        over the published ones, so that a grey image gives what three equal channels would; for
        others the published ones over and over, scaled to keep the size of their sum.
        """
        if key != f"{self.input_layer}.weight" or tensor.ndim != 4:
            return None
        own = self.get_parameter(key)
        if (tensor.shape[0], *tensor.shape[2:]) != (own.shape[0], *own.shape[2:]):
            return None
        channels, published = own.shape[1], tensor.shape[1]
        if channels == 1:
            return tensor.sum(1, keepdim=True)
        return tensor[:, torch.arange(channels) % published] * (published / channels)


def stage_units(stages: Iterable[nn.Module], levels: Mapping[int, int]) -> list[Unit]:
    """The blocks of `stages` (each a sequence) as units `stages.I.J`; `levels` maps a stage to
    the feature level k that its last block is."""
    units = []
    for i, stage in enumerate(stages):
        for name, block in stage.named_children():
            units.append(Unit(f"stages.{i}.{name}", block))
        if i in levels:
            units[-1] = units[-1]._replace(level=levels[i])
    return units


Builder = Callable[..., Network]
