"""A network compiled by `torch.compile` while a stage trains.

Where most of its blocks are alike, as a transformer's are, each block is compiled, and all that are
alike share what was compiled for one of them: half the time until it runs, measured of ViT. Of a
convolutional network hardly two blocks are alike: there it is the whole, which needs half the time
and computes faster. The loss, whose shapes are those of a batch's objects, stays outside.

It is done in place, so that no tensor changes its name. Every shape is compiled by itself, as
kernels for any shape are slower. All batches of a stage have one length, and it says which sizes
come, so that nothing is compiled again in a later epoch; what is judged, whose batches are others,
runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from retinue.errors import RetinueError
from retinue.models.network import Network

BACKEND: str | Callable[..., Any] = "inductor"
"""What makes code of what was traced."""
ALIKE = 0.5
"""Blocks are compiled where they are of at most this share of kinds."""
WAYS = 4
"""How a block may be called with images of one size, stage by stage: of what comes to it and of its
parameters, some learn."""

_LIMITS = ("recompile_limit", "accumulated_recompile_limit")
"""What PyTorch calls its limits of how often a function is compiled."""
_before: WeakKeyDictionary[Network, dict[str, int]] = WeakKeyDictionary()
"""What they were before a network was compiled for its first stage."""


def compile_network(network: Network, start: int, sizes: int) -> str:
    """Have what of it runs from unit `start` on compiled when it is first called with a shape; says
    what that is. `sizes`: of how many sizes images will be."""
    import torch._dynamo  # slow to import

    parts = _parts(network, start)
    kinds = len({_kind(part) for part in parts})
    told = f"{len(parts)} blocks of {kinds} kinds"
    if kinds > ALIKE * len(parts):
        parts, told = [network], "the network"
    # What is compiled stands in one list, and behind its end nothing is any more.
    most = WAYS * len(parts) * sizes
    settings = torch._dynamo.config
    before = {name: getattr(settings, name) for name in _LIMITS}
    _before.setdefault(network, before)  # an earlier stage may have raised them
    for name, limit in before.items():
        setattr(settings, name, max(limit, most))
    for part in parts:
        made = torch.compile(_calling(part), backend=BACKEND, dynamic=False)
        part._compiled_call_impl = _refusing(made)
    return told


def release(network: Network) -> None:
    """All of it is as it was, and so are the limits of how much is compiled, which are the whole
    process's."""
    for part in [network, *_parts(network, 0)]:
        part._compiled_call_impl = None
    for name, limit in _before.pop(network, {}).items():
        setattr(torch._dynamo.config, name, limit)


def as_it_is(*, when: bool) -> AbstractContextManager[Any]:
    """Inside, nothing is compiled and nothing that was is used."""
    return torch.compiler.set_stance("force_eager") if when else nullcontext()


def _parts(network: Network, start: int) -> list[nn.Module]:
    return [*(unit.module for unit in network.units()[start:]), network.head]


def _kind(part: nn.Module) -> tuple[Any, ...]:
    """Equal for parts for which the same code will do, as far as their tensors tell."""
    return type(part), *((name, each.shape) for name, each in part.state_dict().items())


def _calling(part: nn.Module) -> Callable[..., Any]:
    """It, as a function: compiled by themselves, PyTorch's own modules would be passed over."""

    def call(*given: Any, **named: Any) -> Any:
        return part._call_impl(*given, **named)  # type: ignore[no-untyped-call]

    return call


def _refusing(made: Callable[..., Any]) -> Callable[..., Any]:
    """The same with an error of ours where it cannot be compiled."""
    from torch._dynamo.exc import TorchDynamoException

    def call(*given: Any, **named: Any) -> Any:
        try:
            return made(*given, **named)
        except TorchDynamoException as error:
            why = str(getattr(error, "inner_exception", error)).strip().splitlines()[0]
            raise RetinueError(
                f"the network cannot be compiled ({why})",
                where="key compile",
                mend="compile=false, or install what that needs: on a CPU a C++ compiler",
            ) from error

    return call
