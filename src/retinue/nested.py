"""Values of any nesting: a tensor, or a tuple, list or dict of such values.

A dict's keys are strings, and their order doesn't matter: leaves stand in the order of the sorted
keys. A named tuple counts as a tuple, and comes back as one. Anything else is a TypeError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

Nested: TypeAlias = "Tensor | Sequence[Nested] | Mapping[str, Nested]"
N = TypeVar("N", bound=Nested)

Structure = Any
"""A nested value without its tensors, as plain JSON values: `"tensor"`, `["tuple", …]`,
`["list", …]` or `{"key": …}`. Two are equal where the values are nested alike."""

_LEAF = "tensor"


def leaves(value: Nested) -> list[Tensor]:
    """The tensors of `value`, from left to right."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part)]
    raise _other(value)


def structure(value: Nested) -> Structure:
    """How `value` is nested; `rebuilt(structure(value), leaves(value))` is `value`."""
    if isinstance(value, Tensor):
        return _LEAF
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"a dict of tensors needs strings for keys, not {list(value)}")
        return {key: structure(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, *(structure(part) for part in value)]
    raise _other(value)


def rebuilt(structure: Structure, leaves: Iterable[Any]) -> Any:
    """A value nested as `structure` says, of as many leaves as it has (ValueError otherwise)."""
    rest = iter(leaves)
    try:
        value = _taken(structure, rest)
    except StopIteration:
        raise ValueError(f"too few leaves for {structure}") from None
    if next(rest, None) is not None:
        raise ValueError(f"too many leaves for {structure}")
    return value


def _taken(structure: Structure, rest: Iterator[Any]) -> Any:
    if structure == _LEAF:
        return next(rest)
    if isinstance(structure, dict):
        parts = {key: _taken(structure[key], rest) for key in sorted(structure)}
        return {key: parts[key] for key in structure}
    kind, *inner = structure
    made = []
    for part in inner:
        made.append(_taken(part, rest))  # no generator: it would swallow the StopIteration
    return tuple(made) if kind == "tuple" else made


def mapped(function: Callable[[Tensor], Any], value: N) -> N:
    """`function` of every leaf, nested as before."""
    made: N = rebuilt(structure(value), map(function, leaves(value)))
    return made


def _other(value: object) -> TypeError:
    kind = type(value).__name__
    return TypeError(f"neither a tensor nor a tuple, list or dict of them, but {kind}")


def rows(value: N, index: Any) -> N:
    """`leaf[index]` for every leaf (n, …): a slice, a mask or indices of the first dimension."""
    return mapped(lambda leaf: leaf[index], value)


def concatenated(values: Sequence[N], pad: float | None = None) -> N:
    """One value of several that are nested alike, its leaves (n1 + n2 + …, …).

    `pad`: leaves (n, k, …) whose k differ are filled up with this number to the longest one.
    ValueError for no values, for values that are nested otherwise, and for k that differ without
    a `pad`.
    """
    if not values:
        raise ValueError("nothing to concatenate")
    first = structure(values[0])
    if any(structure(value) != first for value in values[1:]):
        raise ValueError("values that are nested otherwise cannot be concatenated")
    columns = zip(*(leaves(value) for value in values), strict=True)
    made: N = rebuilt(first, (_joined(column, pad) for column in columns))
    return made


def stacked(values: Sequence[N], pad: float | None = None) -> N:
    """As `concatenated`, for single items: their leaves (k, …) become one (n, k, …)."""
    return concatenated([mapped(lambda leaf: leaf[None], value) for value in values], pad)


def _joined(column: Sequence[Tensor], pad: float | None) -> Tensor:
    lengths = {leaf.shape[1] for leaf in column if leaf.dim() > 1}
    if len(lengths) > 1:
        if pad is None:
            raise ValueError(f"tensors of {sorted(lengths)} items each need a pad to be joined")
        column = [_filled(leaf, max(lengths), pad) for leaf in column]
    return torch.cat(list(column))


def _filled(leaf: Tensor, length: int, pad: float) -> Tensor:
    missing = (leaf.shape[0], length - leaf.shape[1], *leaf.shape[2:])
    return torch.cat([leaf, leaf.new_full(missing, pad)], dim=1)
