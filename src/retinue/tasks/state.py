"""What stands in a task's state, checked: it comes out of a file."""

from __future__ import annotations

from typing import Any

from retinue.errors import RetinueError


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
