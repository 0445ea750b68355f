"""An average of a network's weights, a moving one or that of the last epochs, and its way back to
where a stage began."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retinue.errors import RetinueError
from retinue.training.options import EmaOptions, StageOptions

_START = "start of "
"""Before the name of a tensor, in a checkpoint: what it was when the stage began."""
_SINCE = "mean since epoch"
"""In a checkpoint: the first of the stage's epochs that the mean of the last ones is of."""


@dataclass(slots=True, eq=False)
class _Followed:
    """A tensor of the network, its average, and what it was at first where that has a share."""

    module: nn.Module
    name: str
    average: Tensor
    start: Tensor | None = None

    def kept(self, start_share: float) -> Tensor:
        """The average, or what lies between it and the start; may be the average itself."""
        if self.start is None or not self.average.dtype.is_floating_point:
            return self.average
        return torch.lerp(self.average, self.start, start_share)

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

    `start_half_life`: after how many updates half of what is given out as shadow is still the
    weights that this was built from, after twice as many a quarter (Wortsman et al., "Robust
    fine-tuning of zero-shot models", CVPR 2022); the average itself is without them.

    `last_epochs`: instead of the moving average, the mean of what the weights are at the ends of
    the last so many epochs (see `end_epoch`). Of a stage that is made longer when these are over,
    the epochs that are in the mean by then stay in it.
    """

    def __init__(
        self,
        network: nn.Module,
        decay: float,
        start_half_life: int | None = None,
        last_epochs: int | None = None,
    ) -> None:
        self.network = network
        self.decay = decay
        self.start_half_life = start_half_life
        self.last_epochs = last_epochs
        self.updates = 0
        self._since: int | None = None
        self._followed: dict[str, _Followed] = {}
        known: dict[int, _Followed] = {}  # a tensor under several names has one average
        for name, value in network.state_dict(keep_vars=True).items():
            frozen = isinstance(value, nn.Parameter) and not value.requires_grad
            if frozen or not isinstance(value, Tensor):
                continue
            if id(value) not in known:
                owner, _, leaf = name.rpartition(".")
                module = network.get_submodule(owner)
                own = value.detach().clone()
                start = own.clone() if start_half_life else None
                known[id(value)] = _Followed(module, leaf, own, start)
            self._followed[name] = known[id(value)]

    @property
    def start_share(self) -> float:
        """The start's share in the shadow: 1 before the first update."""
        half_life = self.start_half_life
        return 0.5 ** (self.updates / half_life) if half_life else 0.0

    @property
    def shadow(self) -> dict[str, Tensor]:
        """A whole state dict: what is kept of what is followed, and of the rest the network's own
        tensors (not copies)."""
        kept = {name: each.kept(self.start_share) for name, each in self._followed.items()}
        return {**self.network.state_dict(), **kept}

    def update(self) -> None:
        """Take the network's weights after a step in."""
        if self.last_epochs is None:
            decay = min(self.decay, (2 + self.updates) / (11 + self.updates))
            self._take_in(1 - decay)
        else:
            self._settle()
            self.updates += 1

    def end_epoch(self, done: int, left: int) -> None:
        """Take the weights at the end of an epoch in: `done` of the stage's epochs are over, `left`
        are to come."""
        if self.last_epochs is None:
            return
        if left >= self.last_epochs:
            self._since = None
        elif self._since is None:
            self._since = done
        averaged = 1 if self._since is None else done - self._since + 1
        self._take_in(1 / averaged, counts=False)

    def _settle(self) -> None:
        """Before the first update: what is in eval mode then does not change."""
        if self.updates == 0:
            self._followed = {
                name: each
                for name, each in self._followed.items()
                if each.is_parameter or each.module.training
            }

    @torch.no_grad()
    def _take_in(self, share: float, *, counts: bool = True) -> None:
        """The network's present weights become `share` of the average."""
        self._settle()
        self.updates += counts
        alike: defaultdict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]]
        alike = defaultdict(lambda: ([], []))
        for each in self._each():
            averages, values = alike[each.average.device, each.average.dtype]
            averages.append(each.average)
            values.append(each.own)
        for (_, dtype), (averages, values) in alike.items():
            if dtype.is_floating_point:
                torch._foreach_lerp_(averages, values, share)
            else:
                torch._foreach_copy_(averages, values)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network with the shadow weights, inside this context. What is done to its buffers
        there leaves the shadow alone; its parameters are the shadow's."""
        swapped = [(each.own, each.own.data) for each in self._each()]
        for each in self._each():
            kept = each.kept(self.start_share)
            each.own.data = kept.clone() if kept is each.average and not each.is_parameter else kept
        try:
            yield
        finally:
            for tensor, data in swapped:
                tensor.data = data

    def state_dict(self) -> dict[str, Tensor | int]:
        """The averages of what is followed, by name, and the starts that have a share; under the
        empty name how many updates; and since when there is a mean of the last epochs."""
        averages = {name: each.average for name, each in self._followed.items()}
        starts = {
            _START + name: each.start
            for name, each in self._followed.items()
            if each.start is not None
        }
        since = {} if self._since is None else {_SINCE: self._since}
        return {**averages, **starts, **since, "": self.updates}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """The inverse; the network must be frozen as it was then."""
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        averages = {n: value for n, value in tensors.items() if not n.startswith(_START)}
        parameters = {name for name, each in self._followed.items() if each.is_parameter}
        if not parameters <= set(averages) <= set(self._followed):
            raise RetinueError(
                "the average of the weights was taken of another set of tensors",
                where="checkpoint",
                mend="start a new training from the run's recipe.yaml",
            )
        self.updates = int(state[""])
        self._since = int(state[_SINCE]) if _SINCE in state else None
        self._followed = {name: self._followed[name] for name in averages}
        for name, value in averages.items():
            self._followed[name].average.copy_(value)
            start = self._followed[name].start
            if start is not None:
                start.copy_(tensors[_START + name])

    def _each(self) -> list[_Followed]:
        """What is followed, each once, whatever names it has."""
        return list({id(each): each for each in self._followed.values()}.values())


def build_ema(network: nn.Module, options: EmaOptions | None, stage: StageOptions) -> Ema | None:
    """The average that the recipe wants for `stage`, if it wants one."""
    if options is None:
        return None
    return Ema(network, options.decay, stage.start_half_life, options.last_epochs)
