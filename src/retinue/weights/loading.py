"""Putting tensors into a network, and saying exactly what did and did not find its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retinue.errors import RetinueError

HEAD = ("head.fc.weight", "head.fc.bias")
"""The classifier, the one part whose shape follows from the number of classes."""


@dataclass(frozen=True)
class LoadReport:
    """What loading left undone, by key."""

    missing: tuple[str, ...] = ()
    """In the network, not among the tensors: these keep their values."""
    unexpected: tuple[str, ...] = ()
    """Among the tensors, not in the network: left out."""
    reinitialised: tuple[str, ...] = ()
    """The classifier, where the numbers of classes differ: freshly drawn."""

    @property
    def complete(self) -> bool:
        """Whether everything found its place, but for a classifier of another size."""
        return not self.missing and not self.unexpected

    def describe(self) -> str:
        """`; missing: …; unexpected: …; re-initialised: …`, empty if there is nothing to say."""
        parts = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("re-initialised", self.reinitialised),
        )
        return "".join(f"; {word}: {_some(keys)}" for word, keys in parts if keys)


def _some(keys: tuple[str, ...], most: int = 8) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


@torch.no_grad()
def load_into(network: nn.Module, tensors: Mapping[str, Tensor]) -> LoadReport:
    """Copy `tensors`, of the network's own key names, into `network`.

    A classifier of another size is left as it is (a fresh network's is freshly drawn) and
    reported. BatchNorm's count of batches is no weight: it may be missing.

    Raises:
        RetinueError: any other tensor of another shape; nothing has been copied then.
    """
    own = network.state_dict()
    resized = {key for key in HEAD if key in tensors and tensors[key].shape != own[key].shape}
    if resized:
        resized = set(HEAD)
    unfit = [
        f"{key} is {tuple(tensors[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in tensors and key not in resized and tensors[key].shape != own[key].shape
    ]
    if unfit:
        raise RetinueError(
            f"the weights belong to another network: {_some(tuple(unfit), 3)}",
            mend="choose the network that they were made for",
        )
    for key, tensor in own.items():
        if key in tensors and key not in resized:
            tensor.copy_(tensors[key])
    missing = (k for k in own if k not in tensors and not k.endswith("num_batches_tracked"))
    return LoadReport(
        missing=tuple(missing),
        unexpected=tuple(key for key in tensors if key not in own),
        reinitialised=tuple(key for key in HEAD if key in resized),
    )
