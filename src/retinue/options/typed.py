"""Values as people write them: text, until a schema asks for a type.

A folder may be called `2024_05_01`, a class `007`, `no` or `1.10`. So nothing that is written in a
YAML file or on a command line becomes a number, a date or a null before it is known what the field
at its place wants; where that is text, it arrives as it was written.
"""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import YAMLError

from retinue.documents import load_yaml

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"(true|True|TRUE)|(false|False|FALSE)")
_INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


_DIGITS = 100
"""A whole number of more is no name."""


class Scalar(str):
    """A scalar of YAML without quotes: its text, which may mean something else than text."""

    __slots__ = ()

    @property
    def meaning(self) -> Any:
        """What it is by YAML's core schema: None, a truth value, a number, or the text."""
        text = self.strip()
        if _NULL.fullmatch(text):
            return None
        if found := _BOOL.fullmatch(text):
            return found[1] is not None
        try:
            if _INT.fullmatch(text):
                return int(text, 0 if text[:2] in ("0o", "0x") else 10)
            if _FLOAT.fullmatch(text):
                return float(text.replace(".inf", "inf").replace(".nan", "nan").lower())
        except ValueError:  # more digits than a number can have
            pass
        return str(self)


class Unread(str):
    """What stands behind `key=`: text where the field wants text, otherwise YAML."""

    __slots__ = ()


class _Constructor(RoundTripConstructor):
    """Gives scalars without quotes as they are written."""


def _as_written(constructor: RoundTripConstructor, node: Any) -> Scalar:
    return Scalar(node.value)


for _kind in ("int", "float", "bool", "null", "timestamp"):
    _Constructor.add_constructor(f"tag:yaml.org,2002:{_kind}", _as_written)


def read_yaml(text: str) -> Any:
    """The YAML `text`, with its scalars as `Scalar`s and the lines of all keys at hand (`.lc`).
    Raises ruamel's YAMLError."""
    yaml = YAML(typ="rt", pure=True)
    yaml.Constructor = _Constructor
    return load_yaml(text, yaml, numbers=False)


def kinds(wanted: Any) -> tuple[Any, ...]:
    """The types that the annotation `wanted` allows, without `Annotated` and unions."""
    if typing.get_origin(wanted) is Annotated:
        return kinds(typing.get_args(wanted)[0])
    if isinstance(wanted, types.UnionType) or typing.get_origin(wanted) is Union:
        return tuple(kind for member in typing.get_args(wanted) for kind in kinds(member))
    return (wanted,)


def words(wanted: Any) -> tuple[str, ...]:
    """The words that `wanted` lists."""
    return tuple(map(str, _listed(wanted)))


def _listed(wanted: Any) -> list[Any]:
    """The same as they are: there may be numbers among them."""
    listed = (k for k in kinds(wanted) if typing.get_origin(k) is Literal)
    return [word for kind in listed for word in typing.get_args(kind)]


def classes(wanted: Any) -> tuple[type[BaseModel], ...]:
    """The options that `wanted` allows."""
    return tuple(k for k in kinds(wanted) if isinstance(k, type) and issubclass(k, BaseModel))


def names(wanted: Any) -> tuple[str, ...]:
    """What the options that `wanted` allows are told apart by."""
    fields = (options.model_fields.get("name") for options in classes(wanted))
    return tuple(word for f in fields if f is not None for word in words(f.annotation))


def chosen(wanted: Any, values: Any) -> tuple[type[BaseModel], ...]:
    """Those of `classes` that `values` may be of: where they are told apart by a name, the one
    that is called so."""
    found = classes(wanted)
    name = values.get("name") if isinstance(values, Mapping) else None
    called = [c for c in found if name in words(getattr(c.model_fields.get("name"), "annotation",
                                                        None))]  # fmt: skip
    return tuple(called) if called and len(found) > 1 else found


def field(wanted: Any, key: str, values: Mapping[str, Any]) -> Any:
    """What the field `key` of `wanted` wants, where the other fields have `values`; Any: nobody
    knows."""
    inner = [_wanted(c, key, values) for c in chosen(wanted, values) if key in c.model_fields]
    inner += [typing.get_args(k)[1] for k in kinds(wanted) if _origin(k) is dict]
    return reduce(lambda a, b: Union[a, b], inner) if inner else Any  # noqa: UP007


def element(wanted: Any, index: int) -> Any:
    """What the place `index` of the list or tuple `wanted` wants; Any: nobody knows."""
    inner = []
    for kind in kinds(wanted):
        members = typing.get_args(kind)
        if _origin(kind) is list or (_origin(kind) is tuple and members[-1] is Ellipsis):
            inner.append(members[0])
        elif _origin(kind) is tuple and index < len(members):
            inner.append(members[index])
    return reduce(lambda a, b: Union[a, b], inner) if inner else Any  # noqa: UP007


def _wanted(options: type[BaseModel], key: str, values: Mapping[str, Any]) -> Any:
    special = getattr(options, "wanted", None)
    return special(key, values) if special else options.model_fields[key].annotation


def _origin(kind: Any) -> Any:
    return typing.get_origin(kind) or kind


def meant(wanted: Any, value: Any) -> Any:
    """`value`, as it was written, as what `wanted` asks for: plain Python values.

    What fits nothing that is wanted stays what it is by itself, for the schema to refuse.
    """
    if isinstance(value, Unread):
        return _read(wanted, value)
    if isinstance(value, str):
        return _typed(wanted, value)
    if isinstance(value, Mapping):
        return {str(k): meant(field(wanted, str(k), value), v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [meant(element(wanted, i), v) for i, v in enumerate(value)]
    return _plain(wanted, value)


def _read(wanted: Any, value: Unread) -> Any:
    text = value.strip()
    allowed = kinds(wanted)
    nested = text[:1] in ("[", "{") and any(_origin(k) in (list, tuple, dict) or classes(k)
                                            for k in allowed)  # fmt: skip
    if not nested and (str in allowed or _alone(wanted, str)):
        if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
            return _typed(wanted, text[1:-1])
        return _typed(wanted, Scalar(value))
    try:
        read = read_yaml(value)
    except YAMLError:
        return str(value)
    if text and (read is None or (isinstance(read, Scalar) and not read)):
        return str(value)  # a comment alone (`#fff`), say, was meant to say something
    return meant(wanted, read)


def _typed(wanted: Any, text: str) -> Any:
    allowed, meaning = kinds(wanted), text.meaning if isinstance(text, Scalar) else str(text)
    if meaning is None and types.NoneType in allowed:
        return None
    if meaning is False and types.NoneType in allowed and classes(wanted):
        return None  # switched off
    if isinstance(meaning, bool) and bool in allowed:
        return meaning
    if isinstance(meaning, int | float) and not isinstance(meaning, bool):
        if isinstance(meaning, int) and int in allowed:
            return meaning
        if float in allowed:
            return meaning
    if str in allowed:
        return str(text)
    if listed := _listed(wanted):
        same = [word for word in listed if str(word).lower() == text.strip().lower()]
        return same[0] if len(same) == 1 else str(text)
    for options in classes(wanted):
        if (alone := getattr(options, "alone", None)) and not isinstance(meaning, bool):
            return {alone: _typed(options.model_fields[alone].annotation, text)}
    return meaning


def _alone(wanted: Any, kind: Any) -> bool:
    """Whether a value alone, in place of the options in `wanted`, is of that `kind`."""
    fields = (o.model_fields.get(getattr(o, "alone", None) or "") for o in classes(wanted))
    return any(kind in kinds(f.annotation) for f in fields if f is not None)


def _plain(wanted: Any, value: Any) -> Any:
    """Without ruamel's own types; from Python, a path or a whole number may stand for text."""
    allowed = kinds(wanted)
    if isinstance(value, os.PathLike) and (str in allowed or _alone(wanted, str)):
        return os.fspath(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int) and str in allowed and not {int, float, Any} & set(allowed):
        return str(value) if abs(value) < 10**_DIGITS else value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def places(wanted: Any, values: Any) -> Iterable[tuple[int | str, ...]]:
    """Where everything stands that options of the type `wanted` have, in order; lists have as many
    elements as in `values`. Of options that are told apart by a name, those that are chosen."""
    one = chosen(wanted, values)
    for options in one if len(one) == 1 else ():
        for key in options.model_fields:
            inner = values.get(key) if isinstance(values, Mapping) else None
            yield (key,)
            kind = _wanted(options, key, values if isinstance(values, Mapping) else {})
            yield from ((key, *rest) for rest in places(kind, inner))
    if isinstance(values, list | tuple) and any(classes(element(k, 0)) for k in kinds(wanted)):
        for index, value in enumerate(values):
            yield from ((index, *rest) for rest in places(element(wanted, index), value))
