"""Options that are refused: what is wrong, where it was written, and what would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from retinue.errors import UsageError, suggest
from retinue.options.base import Contradiction
from retinue.options.overrides import dotted, nearest, put_all
from retinue.options.typed import chosen, classes, meant, names
from retinue.options.wording import Location, at, what_is_wrong, wish


@dataclass(frozen=True)
class Written:
    """Values for `schema` as somebody has written them."""

    schema: type[BaseModel]
    where: str
    """The file that they stand in, or what they are."""
    values: Any
    """With the overrides, and the lines of the file where there is one."""
    plain: dict[str, Any]
    """Their meaning."""
    before: dict[str, Any] = field(default_factory=dict)
    """The meaning of what stood there without the overrides."""
    given: Sequence[Location] = ()
    """The places of the overrides."""

    def refusal(self, error: ValidationError, prefix: Location = ()) -> UsageError:
        """What is wrong with the part at `prefix`, in one line."""
        # A misspelt key is what the other complaints (a missing field, say) come from.
        errors = error.errors(include_url=False)
        first = min(errors, key=lambda e: e["type"] != "extra_forbidden")
        part, _ = at(self.schema, self.plain, prefix)
        location = (*prefix, *_named(part, first))
        # What is wrong without the overrides, too, is no fault of theirs.
        before: Any = self.before
        for key in prefix:
            before = before.get(key, {})
        own = [e for options in classes(part) for e in _errors(options, before)]
        guilty = [] if _said(first) in map(_said, own) else self.given
        return self._told(first, location, guilty)

    def _told(self, error: Any, location: Location, guilty: Sequence[Location]) -> UsageError:
        """`guilty`: the overrides that may have caused it."""
        message, mend = self._complaint(error, location)
        raised = error.get("ctx", {}).get("error")
        together: list[Location] = []
        if isinstance(raised, Contradiction):
            mend, together = raised.mend, [(*location, *key) for key in raised.keys]
            guilty = [g for g in guilty if any(_holds(g, k) or _holds(k, g) for k in together)]
        if any(_holds(g, location) for g in guilty):
            place, keys = "given as an override", [location]
        elif inside := [g for g in guilty if _holds(location, g)]:
            # A contradiction between fields stands at what holds them all.
            place, keys = "given as an override", inside
        else:
            keys = together or [location]
            line = _line(self.values, keys[0])
            place = f"{self.where}{f', line {line}' if line else ''}"
        named = f"key{'s' * (len(keys) > 1)} {', '.join(dotted(k) or 'the recipe' for k in keys)}"
        return UsageError(message, where=f"{place}, {named}", mend=mend)

    def _complaint(self, error: Any, location: Location) -> tuple[str, str | None]:
        """What is wrong, and how to mend that."""
        if error["type"] == "extra_forbidden":
            inner, _ = at(self.schema, self.plain, location[:-1])
            last = str(location[-1])
            known = [name for options in chosen(inner, error) for name in options.model_fields]
            mend = suggest(last, known) or nearest(self.schema, self.plain, last)
            return f"unknown key {last!r}", mend or f"known: {', '.join(known)}"
        wanted, rules = at(self.schema, self.plain, location)
        if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
            tag, known = error.get("ctx", {}).get("tag"), list(names(wanted))
            message = f"unknown name {tag!r}" if tag else f"{dotted(location)}.name is missing"
            return message, suggest(tag or "", known) or f"there are {', '.join(known)}"
        if error["type"] == "missing":
            return f"{dotted(location)} is missing", None
        given = error["input"]
        listed = isinstance(given, str) and "," in given and wish(wanted).startswith("a list")
        return what_is_wrong(error, wanted, rules), f"write [{given}]" if listed else None


def validated(schema: type[BaseModel], overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of `overrides` (dotted key → value), good for `schema`.

    Raises:
        UsageError: an unknown key, or a value that will not do.
    """
    values: dict[str, Any] = {}
    given = put_all(schema, values, overrides)
    plain: dict[str, Any] = meant(schema, values)
    try:
        schema.model_validate(plain)
    except ValidationError as error:
        raise Written(schema, where, values, plain, {}, given).refusal(error) from None
    return plain


def _errors(schema: type[BaseModel], values: Any) -> list[Any]:
    """What is wrong with `values`; empty if nothing is."""
    try:
        schema.model_validate(values)
    except ValidationError as error:
        return list(error.errors(include_url=False))
    return []


def _said(error: Any) -> tuple[Location, str]:
    """What makes two errors the same."""
    return error["loc"], error["msg"]


def _holds(outer: Location, inner: Location) -> bool:
    return inner[: len(outer)] == outer


def _line(values: Any, location: Location) -> int | None:
    """The line (from 1) where the value at `location`, or the nearest thing around it, stands."""
    line = None
    for part in location:
        marks = getattr(values, "lc", None)
        try:
            if marks is not None and isinstance(values, Mapping):
                line = marks.key(part)[0] + 1
            elif marks is not None:
                line = marks.item(part)[0] + 1
            values = values[part]
        except (KeyError, IndexError, TypeError):
            break
    return line


def _named(schema: Any, error: Any) -> Location:
    """Where the error is, without the branches of unions that pydantic adds to that."""
    named: list[int | str] = []
    unknown = error["type"] == "extra_forbidden"
    for depth, part in enumerate(error["loc"], 1):
        inner, _ = at(schema, None, named)
        is_key = isinstance(part, int) or any(part in c.model_fields for c in classes(inner))
        if is_key or (unknown and depth == len(error["loc"])):
            named.append(part)
    return tuple(named)
