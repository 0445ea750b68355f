"""Putting tensors into a network, and saying exactly what did and did not find its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from retinue.errors import RetinueError


class Loadable(Protocol):
    """What loading asks of a network."""

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The linear layers that are as wide as there are classes."""

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors, which are written to."""

    def fit(self, key: str, tensor: Tensor) -> Tensor | None:
        """`tensor` in the shape of the network's own `key`, or None."""


@dataclass(frozen=True)
class LoadReport:
    """What loading left undone, by key."""

    missing: tuple[str, ...] = ()
    """In the network, not among the tensors: these keep their values."""
    unexpected: tuple[str, ...] = ()
    """Among the tensors, not in the network: left out."""
    reinitialised: tuple[str, ...] = ()
    """The classifier, where the numbers of classes differ or it is not there: freshly drawn."""
    left_out: tuple[str, ...] = ()
    """By the checkpoint's own names: what a network of ours has no use for."""
    adapted: tuple[str, ...] = ()
    """Of another shape, and made to fit: an input layer for other channels, say."""

    @property
    def complete(self) -> bool:
        """Whether everything found its place, but for a classifier of another size, or none."""
        return not self.missing and not self.unexpected

    def describe(self) -> str:
        """`; missing: …; unexpected: …; re-initialised: …`, empty if there is nothing to say."""
        parts = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("re-initialised", self.reinitialised),
            ("adapted", self.adapted),
            ("of no use here", self.left_out),
        )
        return "".join(f"; {word}: {_some(keys)}" for word, keys in parts if keys)


def _some(keys: tuple[str, ...], most: int = 8) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


@torch.no_grad()
def load_into(network: Loadable, tensors: Mapping[str, Tensor]) -> LoadReport:
    """Copy `tensors`, of the network's own key names, into `network`.

    A classifier of another size, or one that is not there, is left as it is (a fresh network's is
    freshly drawn) and reported. BatchNorm's count of batches is no weight: it may be missing.

    Raises:
        RetinueError: any other tensor of another shape that cannot be made to fit, or none but a
            classifier's that belongs here; nothing has been copied then.
    """
    own = network.state_dict()
    found = dict(tensors)
    fresh: list[str] = []
    for name in network.classifiers:
        keys = [f"{name}.weight", f"{name}.bias"]
        given = [key for key in keys if key in found]
        if not given or any(found[key].shape != own[key].shape for key in given):
            fresh += keys
            for key in given:
                del found[key]
    adapted: list[str] = []
    unfit: list[str] = []
    for key, tensor in found.items():
        if key not in own or tensor.shape == own[key].shape:
            continue
        made = network.fit(key, tensor)
        if made is not None and made.shape == own[key].shape:
            found[key] = made
            adapted.append(key)
        else:
            unfit.append(f"{key} is {tuple(tensor.shape)}, not {tuple(own[key].shape)}")
    if unfit:
        raise RetinueError(
            f"the weights belong to another network: {_some(tuple(unfit), 3)}",
            mend="choose the network that they were made for",
        )
    if not any(key in own for key in found):
        raise RetinueError(
            "the weights belong to another network: there is none of its tensors among"
            f" {_some(tuple(found), 3) or 'them'}",
            mend="choose the network that they were made for",
        )
    for key, tensor in own.items():
        if key in found:
            tensor.copy_(found[key])
    left = (k for k in own if k not in found and k not in fresh)
    return LoadReport(
        missing=tuple(k for k in left if not k.endswith("num_batches_tracked")),
        unexpected=tuple(key for key in found if key not in own),
        reinitialised=tuple(fresh),
        adapted=tuple(adapted),
    )
