"""What stands in a task's state or options, a number a class: checked."""

from __future__ import annotations

import math
from typing import Any

from retinue.errors import RetinueError, UsageError


def fractions(values: Any, count: int, key: str) -> list[float] | None:
    """`count` numbers between 0 and 1, one a class, or None for None. RetinueError for anything
    else that the state has under `key`."""
    if values is None:
        return None
    fine = isinstance(values, list) and len(values) == count
    if not fine or not all(isinstance(v, int | float) and 0 <= v <= 1 for v in values):
        raise RetinueError(
            f"the {key} of the task's state are not one fraction a class",
            where=f"key task_state.{key}",
            mend="take the model from where it was made",
        )
    return [float(v) for v in values]


def checked_weights(values: list[float], count: int, key: str) -> list[float]:
    """`values`, which somebody gives as one number a class. Raises UsageError unless they are
    `count` finite numbers, none negative and not all zero."""
    if len(values) != count:
        raise UsageError(f"{len(values)} weights for {count} classes", where=f"key {key}")
    if not all(math.isfinite(value) and value >= 0 for value in values) or not any(values):
        raise UsageError("weights must be finite, not negative, nor all zero", where=f"key {key}")
    return values


def refuse_width(width: int, classes: int) -> None:
    """Raise RetinueError unless a network gives as many scores as a model names classes."""
    if width != classes:
        raise RetinueError(
            f"the network gives {width:,} scores, and the model names {classes:,} classes",
            mend="take the model from where it was made",
        )
