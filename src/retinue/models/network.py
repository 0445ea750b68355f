"""The shape that every network of the zoo has: a chain of units, ended by a head.

A chain can be cut before any unit, unless its network says otherwise (`cuts`). What lies before the
cut and is frozen is the *trunk*; its output can be computed once per image and kept, and training
goes on from there: `forward(x, start=k)`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from retinue.errors import UsageError
from retinue.models.blocks import Pooling, initialise
from retinue.sample import Preprocessing, Size
from retinue.weights.loading import ClassRows

State = Tensor | tuple[Tensor, ...]
"""What flows between units: a tensor, or a tensor followed by taps, kept for later."""


def split(state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The tensor that flows on, and the taps behind it."""
    return (state[0], state[1:]) if isinstance(state, tuple) else (state, ())


def joined(x: Tensor, taps: tuple[Tensor, ...]) -> State:
    """The way back of `split`."""
    return (x, *taps) if taps else x


class Unit(NamedTuple):
    """A link of the chain: what is frozen, cut and given its learning rate as a whole."""

    name: str
    """The prefix of its parameters in the state dict, `stem`, `stages.2.0`, …"""
    module: nn.Module
    level: int | None = None
    """k where the unit's output is the last one at stride 2^k: the feature level Ck."""
    tap: Callable[[Tensor], Tensor] | None = None
    """What of its output is kept behind the tensor that flows on: for an auxiliary classifier, for
    a neck. None: nothing."""
    joins: bool = False
    """Whether its module takes the whole state, taps and all, and gives the next one, as a neck
    does; others take and give the tensor that flows on, and taps pass them by."""

    def advance(self, state: State, *, taps: bool = True) -> State:
        """The state behind it; `taps`: whether its own is added."""
        if self.joins:
            x, kept = split(self.module(state))
        else:
            x, kept = split(state)
            x = self.module(x)
        if taps and self.tap is not None:
            kept = (*kept, self.tap(x))
        return joined(x, kept)


class Tokens(NamedTuple):
    """How the tokens of an image lie: behind `prefix` others, row by row."""

    prefix: int
    rows: int
    columns: int
    read: int | None
    """The token that the answer is read off; None: the mean of those of the image."""

    def as_map(self, x: Tensor) -> Tensor:
        """Tokens (n, prefix + rows · columns, channels) as (n, channels, rows, columns). Raises
        ValueError for another number of them."""
        places = x[:, self.prefix :]
        if places.shape[1] != self.rows * self.columns:
            raise ValueError(
                f"{x.shape[1]} tokens, {self.prefix} + {self.rows} × {self.columns} are told"
            )
        return places.transpose(1, 2).reshape(len(x), -1, self.rows, self.columns)


class Halves(NamedTuple):
    """A network in eval mode as two functions, with the last map of the image between them."""

    first: Callable[[Tensor], Tensor]
    """Images to what holds the map."""
    as_map: Callable[[Tensor], Tensor]
    """That, or its gradient, as (n, channels, rows, columns)."""
    second: Callable[[Tensor], Any]
    """That to the network's answer."""
    earlier: Sequence[int] = ()
    """Where else the network can be halved, at finer maps, ascending."""


@dataclass(frozen=True)
class Level:
    """A feature map that `Network.features` returns."""

    index: int
    channels: int
    stride: int


class Network(nn.Module):
    """A classifier, or a detector, as a chain of units and a head.

    A family sets `head`, and implements `units` and `feature_levels`. `create_model` fills in
    the rest: `create_model(network.name, **network.arguments)` builds the same network again.
    """

    classifiers: tuple[str, ...] = ("head.fc",)
    """The linear layers that are as wide as there are classes."""
    logits_layer: ClassVar[str] = "head.fc"
    """What makes logits of the pooled feature: a linear layer, or the head put in its place."""
    input_layer: str = "stem.conv"
    """The convolution that takes the image."""

    head: nn.Module
    name: str = ""
    """The registered name."""
    arguments: Mapping[str, Any] = MappingProxyType({})
    """Every keyword it was built with, `num_classes` included, as plain JSON values."""
    landmarks: Mapping[str, int] = MappingProxyType({})
    """Numbers of units by names that they do not have: where the neck of a graph begins."""
    settled: Mapping[str, Any] = MappingProxyType({})
    """Of the `arguments`, those that are written down otherwise than they were given: whole, and
    without paths."""
    native_size: tuple[int, int] | None = None
    """Height and width of its input, where its arguments tell them and not its entry."""
    first_drawn: int = 0
    """The first unit whose weights are freshly drawn, all or some of them; the number of units if
    at most the head's are. Before it, what is frozen has learnt something."""
    preprocessing: Preprocessing = Preprocessing()
    """How images are prepared for its weights, or for the published ones where it has none."""
    _pooled_features: int | None = None

    def units(self) -> list[Unit]:
        """Everything before the head, in forward order."""
        raise NotImplementedError

    def cuts(self) -> list[int]:
        """Where the chain may be cut, ascending: `run` takes these as `start` and `stop`, and k is
        the cut with the units before k in front of it.

        Here: before every unit, and before the head. A network that cannot be walked through unit
        by unit still has fine units, for the groups of parameters, and names fewer cuts.
        """
        return list(range(len(self.units()) + 1))

    @property
    def pooling(self) -> Pooling | None:
        """What the head begins with: what it gives may be handed to the head in place of the last
        unit's output. None: the head takes nothing but that."""
        first = getattr(self.head, "pool", None)
        return first if isinstance(first, Pooling) else None

    @property
    def feature_levels(self) -> list[Level]:
        """What `features` returns, finest first."""
        raise NotImplementedError

    def run(self, x: State, *, start: int = 0, stop: int | None = None, taps: bool = True) -> State:
        """The units `start` up to and without `stop` (default: all of them, without the head).

        `taps`: whether they are kept; in eval mode, too, since what runs on from a frozen, cached
        trunk may be in training mode.

        Raises:
            ValueError: a unit joins the taps, and the state lacks some that belong to this cut.
        """
        units = self.units()
        for i, unit in enumerate(units[start:stop], start):
            if unit.joins:
                _require_taps(x, units[:i])
            x = unit.advance(x, taps=taps)
        return x

    def forward(self, x: State, *, start: int = 0) -> Any:
        """Images float32 (n, 3, height, width), normalised, to logits (n, classes).

        `start`: x is the output of the units before that one. In training mode the answer is a
        dict with `logits`, and what else the head and the network's auxiliary classifiers give; in
        eval mode it is what the head gives, of a head with several outputs maybe a dict. What a
        detector answers is told by `models.detector`.

        Raises:
            ValueError: training mode, and the state lacks the taps that belong to this cut.
        """
        units = self.units()
        # In eval mode nobody looks at what is kept for auxiliary classifiers alone.
        idle = any(unit.tap for unit in units) and not any(unit.joins for unit in units)
        if idle and not self.training:
            state = self.run(x, start=start, taps=False)
        else:
            state = self.run(x, start=start)
        if self.training:
            _require_taps(state, units)
        answer = self.head(state)
        if not self.training:
            return answer
        outputs = answer if isinstance(answer, dict) else {"logits": answer}
        more = self.auxiliary(split(state)[1])
        if doubled := outputs.keys() & more.keys():
            raise UsageError(
                f"the head and the network's own auxiliary classifiers both give {min(doubled)!r}",
                where=self.name or None,
                mend="build the network without the latter (auxiliary=False)",
            )
        return {**outputs, **more}

    def auxiliary(self, taps: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """What training mode answers beside the head's, made of the taps."""
        return {}

    def features(self, x: Tensor) -> list[Tensor]:
        """The maps of `feature_levels`, (n, channels, height / stride, width / stride) each."""
        units = tapped(self)
        state: State = x
        for unit in units:
            state = unit.advance(state)
        deepest, finer = split(state)
        return [*finer, deepest] if units else []

    def tokens(self, size: Size) -> Tokens | None:
        """How the tokens lie that images of `size` (height, width) become; None: it has none."""
        return None

    def positions(self) -> Tensor | None:
        """What is learnt of each place of the grid that it was built for, (rows, columns, width);
        None: nothing is."""
        return None

    def halves(self, size: Size, cut: int | None = None) -> Halves:
        """Before and behind the last map of images of `size` (height, width): before the head,
        which pools it; or the map at an earlier `cut`.

        Raises:
            UsageError: there is no one map that all of the answer comes from.
        """
        units = self.units()
        if not units or any(unit.joins for unit in units):
            raise UsageError(
                "the answer comes from several maps, not from the last one alone",
                where=self.name or None,
            )
        at = self.cuts()[-1] if cut is None else cut
        return Halves(
            lambda x: split(self.run(x, stop=at, taps=False))[0],
            lambda x: x,
            lambda x: self.forward(x, start=at),
            [k for k in self.cuts() if 0 < k < at],
        )

    def tapped_units(self, levels: Collection[int], prefix: str) -> list[Unit]:
        """See `tapped`, for levels that there are."""
        units = [
            Unit(
                prefix + unit.name, unit.module, unit.level, _all if unit.level in levels else None
            )
            for unit in self.units()
        ]
        last = max(i for i, unit in enumerate(units) if unit.tap is not None)
        return [*units[:last], units[last]._replace(tap=None)]

    def leave_out_beyond(self, levels: Collection[int], reached: int) -> None:
        """Put nothing in the place of what `tapped_units` of the `levels`, which are `reached`
        units, do not reach; but for the head."""
        for unit in self.units()[reached:]:
            self.put(unit.name, nn.Identity())

    def parameter_groups(self) -> list[tuple[str, list[nn.Parameter]]]:
        """(name, parameters) by depth, the stem first and the head last."""
        links = [(unit.name, unit.module) for unit in self.units()] + [("head", self.head)]
        return [(name, list(module.parameters())) for name, module in links]

    @property
    def pooled_features(self) -> int:
        """How wide the pooled feature is."""
        if self._pooled_features is None:
            return cast(nn.Linear, self.get_submodule(self.logits_layer)).in_features
        return self._pooled_features

    def replace_head(self, head: nn.Module) -> None:
        """Put `head` (see `models.heads`) between the pooled feature, (n, `pooled_features`), and
        the logits, in place of what is there."""
        self._pooled_features = self.pooled_features
        self.put(self.logits_layer, head)
        within = ("",) if isinstance(head, nn.Linear) else getattr(head, "classifiers", ("fc",))
        own = [f"{self.logits_layer}.{name}".rstrip(".") for name in within]
        others = [name for name in self.classifiers if not self.in_logits_layer(name)]
        self.classifiers = (*own, *others)

    def in_logits_layer(self, name: str) -> bool:
        """Whether `name`, of a module or tensor, is of the layer or head that makes the logits."""
        return f"{name}.".startswith(f"{self.logits_layer}.")

    def reset_head(self, num_classes: int) -> None:
        """Fresh classifiers for `num_classes` classes in place of the present ones."""
        for name in self.classifiers:
            self.put(name, self.resized(name, num_classes))
        self.arguments = {**self.arguments, "num_classes": num_classes}

    def resized(self, name: str, num_classes: int) -> nn.Module:
        """A fresh layer for `num_classes` classes in place of the one called `name`."""
        old = cast(nn.Linear, self.get_submodule(name))
        new = nn.Linear(
            old.in_features,
            num_classes,
            bias=old.bias is not None,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
        initialise(new)
        return new

    def class_rows(self, name: str) -> ClassRows:
        """How the rows of the classifier `name` belong to classes. Here: each to one, in order."""
        return ClassRows()

    def put(self, name: str, module: nn.Module) -> None:
        """`module` in place of the one called `name`."""
        owner, _, attribute = name.rpartition(".")
        setattr(self.get_submodule(owner), attribute, module)

    def adapt(self, key: str, tensor: Tensor) -> Tensor | None:
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


def tapped(
    network: Network, levels: Collection[int] | None = None, *, prefix: str = ""
) -> list[Unit]:
    """The chain of `network` for a detector: its units up to the last of `levels`, whose outputs
    are kept.

    After them the state is the deepest map, followed by the others, finest first: (C5, C3, C4) for
    levels 3, 4 and 5. A unit with `joins` can take them, the neck. The network's own taps are not
    kept. `levels` None: all that it has; `prefix` goes before the units' names.

    Raises:
        UsageError: the network lacks one of the levels.
    """
    known = [level.index for level in network.feature_levels]
    wanted = set(known if levels is None else levels)
    if lacking := sorted(wanted - set(known)):
        said = ", ".join(map(str, known))
        raise UsageError(
            f"the network has no feature level {lacking[0]}",
            where=network.name or None,
            mend=f"it has {said}" if said else "choose a network that has levels",
        )
    return network.tapped_units(wanted, prefix) if wanted else []


def as_backbone(network: Network, levels: Collection[int]) -> Network:
    """`network` itself, without the parameters that `tapped(network, levels)` does not reach: the
    head's, and those beyond the last of `levels`. It no longer classifies.

    Raises:
        UsageError: the network lacks one of the levels.
    """
    network.leave_out_beyond(levels, len(tapped(network, levels)))
    network.put("head", nn.Identity())
    network.classifiers = ()
    return network


def _all(x: Tensor) -> Tensor:
    return x


def _require_taps(state: State, units: list[Unit]) -> None:
    """Raises ValueError if `state`, after `units`, lacks taps or has too many."""
    if any(unit.joins for unit in units):  # it alone knows what it makes of them
        return
    given, wanted = len(split(state)[1]), sum(unit.tap is not None for unit in units)
    if given != wanted:
        raise ValueError(f"{given} taps for {wanted} that the units up to here keep")


Builder = Callable[..., Network]
