"""Exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Shadow weights: `decay · shadow + (1 − decay) · weights` after every optimiser step.

    The decay rises as (1 + n) / (10 + n) to its full value, so that the first steps' weights are
    soon forgotten. Buffers (BatchNorm statistics) are averaged too; integer ones are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.shadow = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the network's present weights in."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.shadow[name].lerp_(value.detach(), 1 - decay)
            else:
                self.shadow[name].copy_(value)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """The network with the shadow weights, inside this context."""
        own = {name: value.detach().clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.shadow)
        try:
            yield
        finally:
            network.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor | int]:
        return {**self.shadow, "": self.updates}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        for name, value in state.items():
            if isinstance(value, Tensor):
                self.shadow[name].copy_(value)
            else:
                self.updates = value
