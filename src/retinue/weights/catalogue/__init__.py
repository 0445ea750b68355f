"""Which published weights there are: one tag of a network names one set of tensors.

Wheel, address and hub are merely where a set may be found; its hash tells that it is the one. Only
what its publisher states is written here. A table a publisher, in a module of its name.

`imagenet` is the set that a network is best known by, `imagenet21k` that of the larger data set,
`coco` a detector's; the others are named after their publisher or their recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from retinue.errors import UsageError, suggest
from retinue.weights.catalogue import darknet, google, keras, timm, torchvision, transformers
from retinue.weights.catalogue.entry import Hub, Place, Url, WeightsEntry, Wheel

__all__ = ["Hub", "Place", "Url", "WeightsEntry", "Wheel", "entries", "find", "register"]

_TABLES = (torchvision, google, timm, keras, transformers, darknet)


@cache
def _entries() -> dict[tuple[str, str], WeightsEntry]:
    rows = [row for table in _TABLES for row in table.ENTRIES]
    table = {(entry.network, entry.tag): entry for entry in rows}
    assert len(table) == len(rows), "two sets of weights under one tag"
    return table


_REGISTERED: dict[tuple[str, str], WeightsEntry] = {}
"""Of networks that are only known once they are asked for."""


def register(found: Iterable[WeightsEntry]) -> None:
    """Add sets of weights; those that are known stay as they are."""
    for entry in found:
        _REGISTERED.setdefault((entry.network, entry.tag), entry)


def entries(network: str | None = None) -> Iterator[WeightsEntry]:
    """All sets of weights, or those of `network`; what was registered, only by its network."""
    if network is None:
        return iter(_entries().values())
    both = (*_entries().values(), *_REGISTERED.values())
    return (e for e in both if e.network == network)


def find(network: str, tag: str) -> WeightsEntry:
    """The set called `tag` of `network`. Raises UsageError if there is none."""
    if (network, tag) not in _entries() and (network, tag) not in _REGISTERED:
        tags = [entry.tag for entry in entries(network)]
        elsewhere = sorted({e.network for e in entries() if e.tag == tag})
        mend = suggest(tag, tags) or (
            f"it has {', '.join(tags)}; or give a file"
            if tags
            else "give a file, or weights=None; "
            + (suggest(network, elsewhere) or "`retinue models` lists where weights come from")
        )
        raise UsageError(f"{network} has no weights called {tag!r}", mend=mend)
    return _entries().get((network, tag)) or _REGISTERED[network, tag]
