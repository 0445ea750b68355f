"""Every field that a recipe can have, read from its schema: for pages and lists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from retinue.options.resuming import OnResume, marked
from retinue.options.typed import classes, element, words
from retinue.options.wording import shown, wish
from retinue.tasks.shipped import SHIPPED
from retinue.tasks.task import task_type
from retinue.training.recipe import Recipe


@dataclass(frozen=True)
class Field:
    """One field of a recipe."""

    key: str
    """Dotted, `N` in place of a number: `stages.N.optimizer.lr`."""
    takes: str
    """What it may be set to, in words; empty: it is a section of its own."""
    default: str
    """As it would be written; `required` where there is none."""
    meaning: str
    """Markdown, one line."""
    resume: OnResume | None
    """What a change of it means for a training that goes on."""


@dataclass(frozen=True)
class Group:
    """The fields that stand together in a section of a recipe."""

    key: str
    """Of the section; empty: the recipe itself."""
    when: str
    """The name that the section has to have for these fields, or of the task; empty: always."""
    about: str
    """Markdown, one line: what the section is."""
    alone: str
    """The key that is meant where a value stands in place of the section; empty: none."""
    fields: tuple[Field, ...]


_HUGE = re.compile(r"( and)? (at most|less than) \d{10,}")
"""Bounds that are only there so that a typing mistake does not become a number."""


def groups() -> Iterator[Group]:
    """Every section of a recipe in the order of the schema, an inner one behind the one that holds
    it; those of a task's options as `task_options`, with the task's name."""
    marks = dict(marked(Recipe))
    yield from _groups(Recipe, "", "", marks)
    for name in SHIPPED:
        yield from _groups(task_type(name).options_type, "task_options", name, marks)


def _groups(
    options: type[BaseModel], key: str, when: str, marks: dict[str, OnResume]
) -> Iterator[Group]:
    fields, inner = [], []
    for name, field in options.model_fields.items():
        place = f"{key}.{name}" if key else name
        sections, place_within = _sections(field.annotation, place)
        fields.append(_field(place, field, sections, marks))
        for section in sections:
            # What is told apart by a name: of each its own fields.
            named = words(getattr(section.model_fields.get("name"), "annotation", None))
            of = named[0] if len(sections) > 1 and named else ""
            inner.append((section, place_within, of or (when if key == "task_options" else "")))
    yield Group(key, when, _prose(options.__doc__), getattr(options, "alone", None) or "",
                tuple(fields))  # fmt: skip
    for section, place, of in inner:
        yield from _groups(section, place, of, marks)


def _sections(annotation: Any, key: str) -> tuple[list[type[BaseModel]], str]:
    """The options that a field holds, and the key that what is in them begins with."""
    if found := classes(annotation):
        return list(found), key
    return list(classes(element(annotation, 0))), f"{key}.N"


def _field(
    key: str, field: FieldInfo, sections: list[type[BaseModel]], marks: dict[str, OnResume]
) -> Field:
    meaning = _prose(field.description)
    if not meaning and len(sections) == 1:
        meaning = _prose(sections[0].__doc__).partition(". ")[0].rstrip(".") + "."
    if not meaning and key.endswith(".name") and len(words(field.annotation)) == 1:
        meaning = f"Says that it is `{words(field.annotation)[0]}`."
    takes = _HUGE.sub("", wish(field.annotation, field.metadata))
    default = (
        "required"
        if field.is_required()
        else _default(field.get_default(call_default_factory=True))
    )
    return Field(key, takes, default, meaning, _mark(key, marks))


def _mark(key: str, marks: dict[str, OnResume]) -> OnResume | None:
    """Its own, or of what holds it."""
    parts = key.split(".")
    held = (".".join(parts[: k + 1]) for k in range(len(parts)))
    return next((marks[one] for one in held if one in marks), None)


def _default(value: Any) -> str:
    """As one would write it; options whose fields all have their defaults are not spelt out."""
    if isinstance(value, BaseModel):
        said = value.model_dump(exclude_defaults=True)
        name = getattr(value, "name", None)
        return str(name) if name is not None and not said else shown(said) if said else ""
    if isinstance(value, tuple | list):
        return f"[{', '.join(_default(one) for one in value)}]"
    if isinstance(value, str):
        return value or '""'
    return "{}" if value == {} else shown(value)


def _prose(text: str | None) -> str:
    """A docstring in one line."""
    return re.sub(r"\s+", " ", text or "").strip()
