"""Values as text for the page."""

from __future__ import annotations

import math
from typing import Any


def percent(value: float | None, decimals: int = 1) -> str:
    """`87.2 %`, with a narrow space that does not break; a dash for what is not defined."""
    if value is None or math.isnan(value):
        return "–"
    return f"{100 * value:.{decimals}f}\u202f%"


def words(key: str) -> str:
    """`batch_size` as `batch size`; the `_s` of seconds falls away."""
    return key.removesuffix("_s").replace("_", " ")


def flat(value: Any) -> str:
    """A JSON value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{words(str(k))} {flat(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(flat(v) for v in value)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """`12.5 s`, `5 min 12 s` or `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
