"""What may become of a field while its training is under way: marks in the schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

from retinue.options.typed import classes, element


class OnResume(StrEnum):
    """What a change of a field means for a training that goes on with it: stands in the field's
    `Annotated`, and holds for everything inside it. A field without it keeps the value that the
    training began with."""

    FREE = "free"
    """Nothing that is learnt depends on it."""
    CLOSE = "close"
    """The training stays the same, but not bit for bit."""
    LENGTH = "length"
    """How long a stage lasts: until that stage is over, or where it was the last one."""


def on_resume(schema: Any, location: Sequence[int | str]) -> OnResume | None:
    """The mark of the field at `location` of `schema`, or of what holds it."""
    for part in location:
        if isinstance(part, int):
            schema = element(schema, part)
            continue
        fields = [c.model_fields[part] for c in classes(schema) if part in c.model_fields]
        if not fields:
            return None
        mark = next((m for m in fields[0].metadata if isinstance(m, OnResume)), None)
        if mark is not None:
            return mark
        schema = fields[0].annotation
    return None


def marked(schema: Any, prefix: str = "") -> Iterator[tuple[str, OnResume]]:
    """Dotted key and mark of every marked field of `schema`; `N` stands for a place in a list."""
    for name, field in ((n, f) for c in classes(schema) for n, f in c.model_fields.items()):
        mark = next((m for m in field.metadata if isinstance(m, OnResume)), None)
        if mark is not None:
            yield f"{prefix}{name}", mark
            continue
        yield from marked(field.annotation, f"{prefix}{name}.")
        yield from marked(element(field.annotation, 0), f"{prefix}{name}.N.")
