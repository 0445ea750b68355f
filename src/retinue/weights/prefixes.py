"""Taking off what wrappers put before the names of a network's tensors.

DistributedDataParallel, torch.compile and the modules in which training scripts keep a network all
do that. A prefix that belongs to the names (transformers' `vit.`, torchvision's `features.`) stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from retinue.errors import RetinueError
from retinue.weights.layout import all_layouts

_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
"""What no library's names for any family begin with."""

_BESIDE = re.compile(r"n_averaged$|(criterion|loss|loss_fn|loss_function|metrics?)\.")
"""What wrappers hold besides the network, and that is none of its weights."""


def without_wrappers(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`tensors` by their names without wrappers' prefixes.

    A well-known prefix is taken off where all have it. Any other is where the names are no
    library's as they stand, and are without it; tensors that do not have it keep their names, so
    that loading reports them.

    Raises:
        RetinueError: several networks are in there, and none is the average of the other.
    """
    tensors = _unwrapped(tensors)
    if _known(tensors):
        return tensors
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, dot, rest = key.partition(".")
        if dot:
            groups.setdefault(name, {})[rest] = tensor
    found = {name: inner for name, group in groups.items() if _known(inner := _unwrapped(group))}
    if not found:
        return tensors
    name = one_of(tuple(found), path)
    inner = found[name]
    for key, tensor in tensors.items():
        if key.partition(".")[0] not in found and not _BESIDE.match(key):
            inner[key if key not in inner else f"{key} beside {name}"] = tensor
    return inner


def is_network(tensors: Mapping[str, Tensor]) -> bool:
    """Whether some library calls some family's tensors so, wrappers' prefixes aside."""
    return _known(_unwrapped(tensors))


def one_of(names: tuple[str, ...], path: Path) -> str:
    """The name of the one that is meant: the only one, or the average of the others' weights.

    Raises:
        RetinueError: nobody can tell.
    """
    averages = [name for name in names if "ema" in re.split(r"[_\W]", name.lower())]
    if len(names) > 1 and len(averages) != 1:
        shown = ", ".join(map(repr, names[:8])) + " …" * (len(names) > 8)
        raise RetinueError(
            f"several sets of weights in the file: {shown}",
            where=str(path),
            mend="save the state dict of the one that is meant, alone",
        )
    return averages[0] if averages else names[0]


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the well-known prefixes that all have."""
    own = {key: tensor for key, tensor in tensors.items() if not _BESIDE.match(key)}
    stripped = False
    while own and (shared := _shared(own)):
        own = {key.removeprefix(shared): tensor for key, tensor in own.items()}
        stripped = True
    return own if stripped else dict(tensors)


def _shared(tensors: Mapping[str, Tensor]) -> str:
    """The well-known prefix that all names have; empty: there is none."""
    first = next(iter(tensors))
    prefix = next((each for each in _WRAPPERS if first.startswith(each)), "")
    return prefix if all(key.startswith(prefix) and key != prefix for key in tensors) else ""


def _known(tensors: Mapping[str, Tensor]) -> bool:
    parts = {key.partition(".")[0] for key in tensors}
    if {"stem", "head"} <= parts or {"backbone", "neck", "head"} <= parts:  # our own networks'
        return True
    return any(
        layout.marks and all(mark in tensors for mark in layout.marks) for layout in all_layouts()
    )
