"""What a schema asks for, in words; and what pydantic finds wrong, in ours.

Pydantic tells of a union an error a branch, and of a pattern the pattern. Here a field says once
what it takes: `a whole number greater than 0, or null`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from retinue.options.base import Words
from retinue.options.typed import classes, element, field, names

Location = tuple[int | str, ...]

_LONGEST = 60
"""Characters of a wrong value that are shown."""

_COUNTS = ("no", "one", "two", "three", "four", "five", "six")


def shown(value: Any) -> str:
    """A value in a message: as YAML has it, not too long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = repr(value)
    except ValueError:  # more digits than Python writes
        return "so long a number"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def at(schema: Any, values: Any, location: Sequence[int | str]) -> tuple[Any, tuple[Any, ...]]:
    """(what is wanted at `location`, the rules about it), where `values` are given."""
    rules: tuple[Any, ...] = ()
    for part in location:
        if isinstance(part, int):
            schema, rules = element(schema, part), ()
        else:
            fields = [c.model_fields[part] for c in classes(schema) if part in c.model_fields]
            rules = tuple(fields[0].metadata) if len(fields) == 1 else ()
            schema = field(schema, part, values if isinstance(values, Mapping) else {})
        try:
            values = values[part]
        except (LookupError, TypeError):
            values = None
    return schema, rules


def wish(wanted: Any, rules: Iterable[Any] = ()) -> str:
    """What `wanted` with the `rules` takes: `a number of at least 0 and at most 1, or null`."""
    rules = tuple(rules)
    found = []
    for member in _members(wanted):
        several = len(classes(wanted)) > 1 and member in classes(wanted)
        found.append(_called(names(wanted)) if several else _one(member, rules))
    found = list(dict.fromkeys(text for text in found if text))
    if "null" in found:  # which comes last
        found.remove("null")
        found.append("null")
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"


def what_is_wrong(error: Mapping[str, Any], wanted: Any, rules: Iterable[Any]) -> str:
    """The sentence for an error of pydantic's where `wanted` with its `rules` is asked for; what a
    validator of ours has said stays as it is."""
    raised = error.get("ctx", {}).get("error")
    value = error["input"]
    if isinstance(raised, ValueError):
        said = str(raised)
        plain = not isinstance(value, Mapping | list | tuple | BaseModel) and value is not None
        return (
            f"{shown(value)} is not allowed: {said}" if plain and shown(value) not in said else said
        )
    finite = "finite: " if error["type"] == "finite_number" else ""
    return f"{shown(value)} is not allowed: must be {finite}{wish(wanted, rules)}"


def _members(wanted: Any) -> list[Any]:
    """The branches of a union, each with its own rules."""
    if isinstance(wanted, types.UnionType) or typing.get_origin(wanted) is typing.Union:
        return [m for inner in typing.get_args(wanted) for m in _members(inner)]
    if typing.get_origin(wanted) is Annotated:
        inner, *marks = typing.get_args(wanted)
        rules = [r for mark in marks
                 for r in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]  # fmt: skip
        if len(branches := _members(inner)) > 1:
            return branches
        return [Annotated[inner, *rules]] if rules else branches
    return [wanted]


def _one(wanted: Any, rules: Sequence[Any], *, plural: bool = False) -> str:
    """What one branch takes; of several of them where `plural`."""
    if typing.get_origin(wanted) is Annotated:
        wanted, *own = typing.get_args(wanted)
        rules = own
    origin, members = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is types.NoneType:
        return "null"
    if wanted is bool:
        return "true or false"
    if wanted in (int, float):
        whole = "whole " if wanted is int else ""
        return (f"{whole}numbers" if plural else f"a {whole}number") + _bounds(rules)
    if origin is Literal:
        listed = [str(word) for word in members]
        return listed[0] if len(listed) == 1 else f"one of {', '.join(listed)}"
    if wanted is str:
        said = next((rule.text for rule in rules if isinstance(rule, Words)), None)
        return said or ("texts" if plural else "text")
    if origin is list or (origin is tuple and members[-1] is Ellipsis):
        least = next((rule.min_length for rule in rules if isinstance(rule, MinLen)), 0)
        several = " or ".join(_one(m, (), plural=True) for m in _members(members[0]))
        return f"a list of {'at least one of ' if least else ''}{several}"
    if origin is tuple:
        branches = {_one(m, (), plural=True) for member in members for m in _members(member)}
        count = _COUNTS[len(members)] if len(members) < len(_COUNTS) else str(len(members))
        return f"a list of {count} {' or '.join(sorted(branches))}"
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        return _options(wanted, plural=plural)
    return "a mapping of keys to values" if origin is dict or wanted is dict else "something else"


def _called(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}, or a mapping with that as its name"


def _options(options: type[BaseModel], *, plural: bool) -> str:
    keys = list(options.model_fields)
    if plural:
        return f"mappings of {', '.join(keys[:3])} and so on"
    if alone := getattr(options, "alone", None):
        about = options.model_fields[alone]
        alone = wish(about.annotation, about.metadata).removesuffix(" or null").rstrip(",")
        return f"{alone}, or a mapping of {', '.join(keys[:3])} …"
    return f"a mapping of {', '.join(keys[:3])} …"


def _bounds(rules: Iterable[Any]) -> str:
    above = below = ""
    for rule in rules:
        if isinstance(rule, Gt):
            above = f"greater than {rule.gt}"
        elif isinstance(rule, Ge):
            above = f"of at least {rule.ge}"
        elif isinstance(rule, Lt):
            below = f"less than {rule.lt}"
        elif isinstance(rule, Le):
            below = f"at most {rule.le}"
    return f" {' and '.join(filter(None, (above, below)))}".rstrip()
