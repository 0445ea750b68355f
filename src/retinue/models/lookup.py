"""Which network a name means, and which weights lie nearest to one, asked of whatever knows the
networks: the registry, which builds them, or what is written down of them (`models.known`), which
imports nothing heavy."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from retinue.errors import UsageError, suggest
from retinue.models import names
from retinue.models.names import Called
from retinue.weights import catalogue
from retinue.weights.catalogue import WeightsEntry

LIBRARIES = ("timm",)
"""Whose networks are built by them, `timm/NAME`, where they are none of ours: the module of that
name here asks them."""


class Known(Protocol):
    """A network, as far as it is told from others."""

    @property
    def name(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def kind(self) -> Any: ...
    @property
    def parameters(self) -> int: ...


def of_a_library(name: str) -> bool:
    """Whether `name` asks for a network that another library builds."""
    return name.partition("/")[0] in LIBRARIES


def called(name: str, networks: Mapping[str, Known]) -> Called | None:
    """The network among `networks` that `name` means, as it is called here or in another library
    (`models.names`), and which of its weights, if the name says that: `resnet50.a1_in1k`. None
    where there is none.

    Raises:
        UsageError: none of its weights is called so.
    """
    if (found := names.look_up(name, networks)) is not None:
        return found
    network, dot, tag = name.rpartition(".")
    if dot and (found := names.look_up(network, networks)) is not None:
        tags = [entry.tag for entry in catalogue.entries(found.network)]
        if tag in tags:
            return Called(found.network, tag)
        mend = suggest(tag, tags) or (f"it has {', '.join(tags)}" if tags else "it has none")
        raise UsageError(f"{found.network} has no weights called {tag!r}", mend=mend)
    return None


def unknown(name: str, networks: Mapping[str, Known]) -> UsageError:
    """What to raise where no network is called `name`: it has the nearest names."""
    near = suggest(name, [*networks, *names.aliases()])
    return UsageError(
        f"unknown network {name!r}", mend=near or "`retinue models` lists what there is"
    )


def matching(pattern: str, networks: Iterable[Known], kind: str | None = None) -> list[str]:
    """Names of the `networks`, or of those of one kind, that match the shell-style `pattern`,
    sorted; where none does, of those that another library calls so."""
    known = [one.name for one in networks if kind in (None, one.kind)]
    ours = fnmatch.filter(known, pattern)
    return sorted(ours or names.matching(pattern) & set(known))


def nearest(
    one: Known, networks: Mapping[str, Known], here: Callable[[WeightsEntry], Any]
) -> WeightsEntry | None:
    """Of the weights that are `here` those of the network that is most like `one`: of its family,
    and as large; of ImageNet's 1,000 classes rather than others. `here` gives None for others."""
    kin = {name for name, other in networks.items() if other.kind == one.kind}
    there = [w for w in catalogue.entries() if w.network in kin and here(w) is not None]

    def distance(weights: WeightsEntry) -> tuple[bool, bool, float]:
        other = networks[weights.network]
        size = abs(math.log(other.parameters / one.parameters))
        return weights.classes != 1000, other.family != one.family, size

    return min(there, key=distance, default=None)
