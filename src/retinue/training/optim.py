"""Optimisers over a network's parameter groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from retinue.errors import UsageError, suggest
from retinue.models.network import Network
from retinue.training.options import OptimizerOptions

FUSED = ("cpu", "cuda")
"""Kinds of devices that have fused forms of them."""


def build_optimizer(
    network: Network,
    options: OptimizerOptions,
    extra: Sequence[tuple[str, Sequence[nn.Parameter]]] = (),
) -> torch.optim.Optimizer:
    """The optimiser over what requires a gradient, fused on CPU and CUDA where there is such a
    form: one pass over the tensors, on a CPU several times as fast.

    Every parameter has an `lr_scale`, which the schedule's rate is multiplied with: `layer_decay`
    to the power of its unit's distance from the head, times `head_lr_scale` for the head itself.
    Weight decay is for the weights of convolutions and linear layers: not for biases and
    normalisation, nor for class tokens and position embeddings; with `decay_of: convolutions` for
    those of convolutions alone. `extra`: names and parameters of
    what learns beside the network, such as class centres; they learn at `objective_lr_scale`,
    without weight decay.

    Parameters of one scale and one weight decay are one group, so that a step is a few operations
    rather than a few for each unit.
    """
    links = network.parameter_groups()
    first = _first_to_decay([name for name, _ in links], options.decay_from)
    weights = _decaying(network, options.decay_of)
    groups = _Groups(options.lr)
    for depth, (name, parameters) in enumerate(links):
        scale = options.layer_decay ** (len(links) - 1 - depth)
        if depth == len(links) - 1:
            scale *= options.head_lr_scale
        decayed = [p for p in parameters if id(p) in weights]
        others = [p for p in parameters if id(p) not in weights]
        decay = options.weight_decay if depth >= first else 0.0
        groups.add(name, "weights", decayed, scale, decay)
        groups.add(name, "others", others, scale, 0.0)
    for name, members in extra:
        groups.add(name, "others", members, options.objective_lr_scale, 0.0)
    parts = groups.finished()
    learning = [p for part in parts for p in part["params"]]
    fused = all(p.device.type in FUSED and p.is_floating_point() for p in learning) or None
    match options.name:
        case "sgd":
            return torch.optim.SGD(
                parts,
                lr=options.lr,
                momentum=options.momentum,
                nesterov=options.nesterov and options.momentum > 0,
                fused=fused,
            )
        case "adam":
            return torch.optim.Adam(
                parts, lr=options.lr, betas=options.betas, eps=options.eps, fused=fused
            )
        case "adamw":
            return torch.optim.AdamW(
                parts, lr=options.lr, betas=options.betas, eps=options.eps, fused=fused
            )
        case "rmsprop":  # has no fused form
            return torch.optim.RMSprop(
                parts, lr=options.lr, momentum=options.momentum, eps=options.eps
            )


def take_up(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the `state` of an earlier sitting, laid out in memory as the parameters are: fused forms
    take for granted that a parameter's tensors lie alike, and without that mix their values up."""
    optimizer.load_state_dict(state)
    for parameter, own in optimizer.state.items():
        for name, value in own.items():
            if not isinstance(value, Tensor) or value.shape != parameter.shape:
                continue  # a counter
            if value.stride() != parameter.stride():
                own[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _decaying(network: Network, of: Literal["weights", "convolutions"]) -> set[int]:
    """The ids of the parameters that weight decay is for."""
    if of == "weights":
        named = network.named_parameters()
        return {id(p) for name, p in named if p.ndim > 1 and name.endswith("weight")}
    convolutions = (m for m in network.modules() if isinstance(m, nn.modules.conv._ConvNd))
    return {id(module.weight) for module in convolutions}


def _first_to_decay(names: Sequence[str], wanted: str | None) -> int:
    """Where in the chain of `names` weight decay begins. Raises UsageError for a unit that is not
    among them."""
    if wanted is None:
        return 0
    if wanted not in names:
        raise UsageError(
            f"the network has no unit {wanted!r}",
            where="key optimizer.decay_from",
            mend=suggest(wanted, names) or f"its units are {', '.join(names)}",
        )
    return names.index(wanted)


class _Groups:
    """Parameter groups by learning rate and weight decay, in the order of their first members."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._groups: dict[tuple[float, float], dict[str, Any]] = {}
        self._names: dict[tuple[float, float], list[tuple[str, str]]] = {}

    def add(
        self,
        name: str,
        kind: Literal["weights", "others"],
        parameters: Sequence[nn.Parameter],
        scale: float,
        decay: float,
    ) -> None:
        """Those of `parameters` that learn."""
        learning = [p for p in parameters if p.requires_grad]
        if not learning:
            return
        fresh = {
            "params": [],
            "lr": self._rate * scale,
            "lr_scale": scale,
            "weight_decay": decay,
        }
        self._groups.setdefault((scale, decay), fresh)["params"] += learning
        self._names.setdefault((scale, decay), []).append((name, kind))

    def finished(self) -> list[dict[str, Any]]:
        """For torch's optimisers; each has a `name` such as `stem … head weights`."""
        for key, names in self._names.items():
            units, kinds = [list(dict.fromkeys(part)) for part in zip(*names, strict=True)]
            span = units if len(units) == 1 else [units[0], "…", units[-1]]
            self._groups[key]["name"] = " ".join(span + (kinds if len(kinds) == 1 else []))
        return list(self._groups.values())


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Every group learns at `rate` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
