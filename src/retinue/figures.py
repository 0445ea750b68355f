"""Declared figures: what a task measures, how each figure is called, read and compared.

A task declares its figures once. The report, the command line, early stopping and the choice of
the best weights read that; none of them knows a figure by its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from retinue.errors import RetinueError

Unit = Literal["fraction", "nats", "pixels", "seconds", "count", ""]
"""A `fraction` lies between 0 and 1 and is shown as a percentage; `""` is a number without one."""

_SUFFIX = {"pixels": " px", "seconds": " s"}


@dataclass(frozen=True)
class Figure:
    """One figure of a task. Its values are floats; None where it is not defined."""

    name: str
    """In `metrics.json`, `metrics.csv` (as `val_NAME`) and `evaluation.metric`."""
    title: str
    """For people, in sentence case."""
    unit: Unit = ""
    less_is_better: bool = False
    note: str = ""
    """What it means, in a few words."""
    of: str = ""
    """The count that the figure is a plain share of (`images`): it then has an `interval`."""

    def better(self, a: float | None, b: float | None, margin: float = 0.0) -> bool:
        """Whether `a` is better than `b` by more than `margin`; anything is better than None and
        what is not finite, which are not."""
        if a is None or not math.isfinite(a):
            return False
        if b is None or not math.isfinite(b):
            return True
        return a < b - margin if self.less_is_better else a > b + margin

    def shown(self, value: float | None, digits: int = 3) -> str:
        """`value` as text with its unit: `87.2 %`, `0.345`, `3.120 px`, `1,024`; a dash for None
        and for what is not finite.

        `digits` are those after the point of a number between 0 and 1.
        """
        if value is None or not math.isfinite(value):
            return "–"
        if self.unit == "fraction":
            return f"{100 * value:.{max(digits - 2, 0)}f} %"
        if self.unit == "count":
            return f"{value:,.0f}"
        return f"{value:.{digits}f}{_SUFFIX.get(self.unit, '')}"

    def span(self, interval: tuple[float, float], digits: int = 3) -> str:
        """An interval of its values as text: `84.1–90.3 %`, `0.31–0.42`."""
        low, high = (self.shown(end, digits) for end in interval)
        unit = " %" if self.unit == "fraction" else _SUFFIX.get(self.unit, "")
        return f"{low.removesuffix(unit)}–{high}"

    def interval(self, values: Mapping[str, Any]) -> tuple[float, float] | None:
        """Its 95 % interval, from the figures `values` that it stands among: of a plain share by
        its count, of others as `intervals` has it. None where neither is there."""
        told = values.get("intervals")
        told = told.get(self.name) if isinstance(told, Mapping) else None
        if isinstance(told, list | tuple) and len(told) == 2 and all(map(_finite, told)):
            return float(told[0]), float(told[1])
        value, count = values.get(self.name), values.get(self.of)
        if not self.of or not isinstance(value, int | float) or not isinstance(count, int | float):
            return None
        if not (math.isfinite(value) and 0 < count < math.inf):
            return None
        return wilson(round(value * count), count)


def _finite(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def plain(name: str) -> Figure:
    """A figure that nobody declared: known by its name alone. Less is better of losses."""
    title = name.replace("_", " ").strip()
    return Figure(name, title[:1].upper() + title[1:], less_is_better=name.endswith("loss"))


def refuse_not_finite(values: Any, split: str, *, mend: str, name: str = "") -> None:
    """RetinueError that names the first of the figures `values`, at any depth, that is NaN or
    infinite, and the `split` that it was measured on; `name` is what `values` is called itself."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            refuse_not_finite(value, split, mend=mend, name=f"{name}.{key}" if name else str(key))
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            refuse_not_finite(value, split, mend=mend, name=f"{name}.{index}")
    elif isinstance(values, float) and not math.isfinite(values):
        where = f"{split} split" if split else "these images"
        raise RetinueError(f"the figure {name} is {values}", where=where, mend=mend)


Z = 1.959964
"""The normal distribution has 95 % of itself within so many standard deviations."""


def wilson(successes: float, n: float, z: float = Z) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson, 1927); (0, 1) when nothing was counted."""
    if n <= 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


COARSE = 0.1
"""A share that may be off by more than this says little."""


def uncertainty(images: int) -> float:
    """How far a share of `images` may be off at the worst: half the width of the 95 % interval
    around one half."""
    low, high = wilson(images / 2, images)
    return (high - low) / 2


def small_splits(images: Mapping[str, int], *, picks: bool) -> list[str]:
    """A sentence about each split that is too small for what it is there for, by its number of
    images: `test` to judge, `val` to find the best epoch (`picks`: it does)."""
    found = []
    for split, count in images.items():
        spread = uncertainty(count)
        if split == "train" or count == 0 or spread <= COARSE:
            continue
        worth = "next to nothing" if spread > 2 * COARSE else "little"
        judged = f"its figures say {worth}"
        if split == "val":
            chance = "chance" if spread > 2 * COARSE else "partly chance"
            judged = f"it is {chance} which epoch is kept as the best" if picks else judged
        found.append(
            f"the {split} split has {count:,} image{'' if count == 1 else 's'}: a share of them may"
            f" be off by {100 * spread:.0f} percentage points either way (95 % interval), so"
            f" {judged}; more images would help, or where it is drawn a larger"
            f" data.split.{split}"
        )
    return found
