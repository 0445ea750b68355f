"""What figures of classes say nothing of, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retinue.text import listed


def class_rows(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows under `per_class` of a `metrics.json`, whatever somebody has made of it."""
    rows = values.get("per_class")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def named(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Their classes."""
    return [str(row.get("name")) for row in rows]


def of_absent(
    rows: Sequence[Mapping[str, Any]], support: str, why: tuple[str, str], more: str = ""
) -> list[str]:
    """Which of the classes `rows` have no figures, as nothing of them is there: what is under
    `support` is 0. `why`: `has no images`, of one and of several. Nothing where that is all of
    them, or none."""
    absent = named([row for row in rows if row.get(support) == 0])
    if not absent or len(absent) == len(rows):
        return []
    one, others = len(absent) == 1, len(rows) - len(absent)
    have, pronoun = ("has", "it") if one else ("have", "they")
    means = "means of the classes are "
    means += f"over the other {others:,}" if others > 1 else "those of the other one"
    return [f"{listed(absent)} {why[not one]} here, so {pronoun} {have} no figures; {means}{more}."]


def of_never(rows: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    """That the classes `rows` were never so, `what`; nothing where there are none."""
    if not rows:
        return []
    return [f"{listed(named(rows))} {'was' if len(rows) == 1 else 'were'} never {what}."]
