"""What is trained, as one module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from retinue.models.network import Network
from retinue.tasks.objective import Losses, Objective

TAUGHT = "taught"
"""The key, among a batch's targets, of what the teacher said of its images, where that is known
already."""


class Learner(nn.Module):
    """A network and its objective: what optimiser, processes, averages and checkpoints handle.

    A teacher is run along, frozen and in eval mode. It is no part of the module: not of its state,
    its parameters, nor of what `train` and `to` change.
    """

    def __init__(
        self, network: Network, objective: Objective, teacher: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self._unregistered = (teacher,)  # in a tuple, so that it does not become a submodule
        if teacher is not None:
            teacher.eval().requires_grad_(False)

    @property
    def teacher(self) -> nn.Module | None:
        """Who is learnt from."""
        return self._unregistered[0]

    def forward(self, inputs: Any, targets: dict[str, Any], start: int = 0) -> Losses:
        """The loss's parts for `inputs`, which are what the network's unit `start` takes."""
        taught = targets.get(TAUGHT)
        if taught is None and self.teacher is not None:
            if start:
                raise ValueError("a teacher needs the images, not what a trunk made of them")
            with torch.no_grad():
                taught = self.teacher(inputs)
        losses: Losses = self.objective(self.network(inputs, start=start), targets, taught)
        return losses

    def network_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The network's own part of a state dict of this module."""
        own = "network."
        return {k.removeprefix(own): v for k, v in state.items() if k.startswith(own)}
