"""Exponential moving average of a network's weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retinue.errors import RetinueError


@dataclass(slots=True, eq=False)
class _Followed:
    """A tensor of the network and its average."""

    module: nn.Module
    name: str
    average: Tensor

    @property
    def own(self) -> Tensor:
        """The tensor as it is now: a module may put another in a buffer's place."""
        tensor: Tensor = getattr(self.module, self.name)
        return tensor

    @property
    def is_parameter(self) -> bool:
        return self.name in self.module._parameters


class Ema:
    """Shadow weights: `decay · shadow + (1 − decay) · weights` after every optimiser step.

    The decay rises as (1 + n) / (10 + n) to its full value, so that the first steps' weights are
    soon forgotten. Buffers (BatchNorm statistics) are averaged too; integer ones are copied.

    Only what changes is followed, the rest being its own average: the parameters that require a
    gradient when this is built, and the buffers of the modules that are in training mode at the
    first update. So freeze before building it, and call `train` before the first step; what is
    frozen then must stay so. Nothing is read back from the device.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.updates = 0
        self._followed: dict[str, _Followed] = {}
        known: dict[int, _Followed] = {}  # a tensor under several names has one average
        for name, value in network.state_dict(keep_vars=True).items():
            frozen = isinstance(value, nn.Parameter) and not value.requires_grad
            if frozen or not isinstance(value, Tensor):
                continue
            if id(value) not in known:
                owner, _, leaf = name.rpartition(".")
                module = network.get_submodule(owner)
                known[id(value)] = _Followed(module, leaf, value.detach().clone())
            self._followed[name] = known[id(value)]

    @property
    def shadow(self) -> dict[str, Tensor]:
        """A whole state dict: the averages of what is followed, and of the rest the network's own
        tensors (not copies)."""
        averages = {name: each.average for name, each in self._followed.items()}
        return {**self.network.state_dict(), **averages}

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's present weights in."""
        if self.updates == 0:
            self._followed = {
                name: each
                for name, each in self._followed.items()
                if each.is_parameter or each.module.training
            }
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        alike: defaultdict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]]
        alike = defaultdict(lambda: ([], []))
        for each in self._each():
            averages, values = alike[each.average.device, each.average.dtype]
            averages.append(each.average)
            values.append(each.own)
        for (_, dtype), (averages, values) in alike.items():
            if dtype.is_floating_point:
                torch._foreach_lerp_(averages, values, 1 - decay)
            else:
                torch._foreach_copy_(averages, values)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network with the shadow weights, inside this context. What is done to its buffers
        there leaves the shadow alone; its parameters are the shadow's."""
        swapped = [(each.own, each.own.data) for each in self._each()]
        for each in self._each():
            each.own.data = each.average if each.is_parameter else each.average.clone()
        try:
            yield
        finally:
            for tensor, data in swapped:
                tensor.data = data

    def state_dict(self) -> dict[str, Tensor | int]:
        """The averages of what is followed, by name; under the empty name how many updates."""
        averages = {name: each.average for name, each in self._followed.items()}
        return {**averages, "": self.updates}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """The inverse; the network must be frozen as it was then."""
        averages = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        parameters = {name for name, each in self._followed.items() if each.is_parameter}
        if not parameters <= set(averages) <= set(self._followed):
            raise RetinueError(
                "the average of the weights was taken of another set of tensors",
                where="checkpoint",
                mend="start a new training from the run's recipe.yaml",
            )
        self.updates = int(state[""])
        self._followed = {name: self._followed[name] for name in averages}
        for name, value in averages.items():
            self._followed[name].average.copy_(value)

    def _each(self) -> list[_Followed]:
        """What is followed, each once, whatever names it has."""
        return list({id(each): each for each in self._followed.values()}.values())
