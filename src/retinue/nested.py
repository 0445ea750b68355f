"""Values of any nesting: a tensor or NumPy array, or a tuple, list or dict of such values.

A dict's keys are strings, and their order doesn't matter: leaves stand in the order of the sorted
keys. A named tuple counts as a tuple, and comes back as one. Anything else is a TypeError.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # whatever has no tensors need not wait for torch
    from torch import Tensor

Nested: TypeAlias = "Tensor | Sequence[Nested] | Mapping[str, Nested]"
N = TypeVar("N", bound=Nested)

Structure = Any
"""A nested value without its tensors, as plain JSON values: `"tensor"`, `["tuple", …]`,
`["list", …]` or `{"key": …}`. Two are equal where the values are nested alike."""

_LEAF = "tensor"


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether it is PyTorch's, which nothing is before that has been imported."""
    kind = getattr(sys.modules.get("torch"), "Tensor", None)  # another thread may just import it
    return kind is not None and isinstance(value, kind)


def on_host(leaf: Any) -> npt.NDArray[Any]:
    """A tensor, wherever it is, or an array as an array; floating-point numbers in float32."""
    if is_tensor(leaf):
        leaf = leaf.detach()
        leaf = (leaf.float() if leaf.is_floating_point() else leaf).cpu().numpy()
    array: npt.NDArray[Any] = leaf
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _is_leaf(value: object) -> bool:
    return isinstance(value, np.ndarray) or is_tensor(value)


def leaves(value: Nested) -> list[Tensor]:
    """The tensors of `value`, from left to right."""
    if _is_leaf(value):
        return [value]  # type: ignore[list-item]
    if isinstance(value, Mapping):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part)]
    raise _other(value)


def structure(value: Nested) -> Structure:
    """How `value` is nested; `rebuilt(structure(value), leaves(value))` is `value`."""
    if _is_leaf(value):
        return _LEAF
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"a dict of tensors needs strings for keys, not {list(value)}")
        return {key: structure(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, *(structure(part) for part in value)]
    raise _other(value)


def names(structure: Structure, alone: str) -> list[str]:
    """A name for each leaf, of the keys and places on the way to it: `levels_0`, `scores`; `alone`
    for a tensor by itself, `alone_0` and so on for those in a row."""
    found = _names(structure, "")
    return [f"{alone}_{name}".rstrip("_") if not name or name[0].isdigit() else name
            for name in found]  # fmt: skip


def _names(structure: Structure, before: str) -> Iterator[str]:
    if structure == _LEAF:
        yield before
        return
    parts: Iterable[tuple[Any, Structure]] = (
        ((key, structure[key]) for key in sorted(structure))
        if isinstance(structure, dict)
        else enumerate(structure[1:])
    )
    for key, part in parts:
        yield from _names(part, f"{before}_{key}".lstrip("_"))


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


def single(value: N) -> N:
    """Floating-point leaves in float32, all others as they are."""
    return mapped(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, value)
