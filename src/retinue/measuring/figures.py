"""What a measurement tells: images a second with their spread, where the time goes, how far that is
from what the machine can do, and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from retinue.errors import UsageError


@dataclass(frozen=True)
class Spread:
    """Of several values: the one in the middle, and the quarters around it."""

    median: float
    low: float
    """A quarter of the values is below."""
    high: float
    """A quarter is above."""
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """ValueError for no values."""
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
        return cls(middle, low, high, len(values))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"median": _short(self.median), "low": _short(self.low), "high": _short(self.high),
                "count": self.count}  # fmt: skip

    def __str__(self) -> str:
        return f"{shown(self.median)} ({shown(self.low)}–{shown(self.high)})"


def typical(rounds: Sequence[Mapping[str, float]], seconds: float) -> dict[str, float]:
    """Where the time goes in a round like the one in the middle, which takes `seconds`: the mean of
    each part over the half of the `rounds` around it, scaled so that they add up to that. What
    happened in a few of the rounds alone does not count, as in a median. IndexError without any."""
    ordered = sorted(rounds, key=lambda parts: sum(parts.values()))
    quarter = len(ordered) // 4
    middle = ordered[quarter : len(ordered) - quarter]
    found = {part: sum(parts[part] for parts in middle) for part in middle[0]}
    whole = sum(found.values()) or 1.0
    return {part: seconds * taken / whole for part, taken in found.items()}


@dataclass(frozen=True)
class Measured:
    """What was measured of one part of the work."""

    part: str
    """`train`, `data`, `predict` or `post`."""
    facts: Mapping[str, Any]
    """Of what, by what, and how: plain JSON values."""
    images_per_second: Spread
    parts: Mapping[str, float]
    """Where the time goes: seconds an image, by name, in the order of the work. Where the speed is
    that of the same rounds, they add up to its median (`typical`)."""
    memory: Mapping[str, int]
    """Bytes at most: of the `process`, on the `device`."""
    flops: float | None = None
    """FLOP a second that the network's part came to, a multiplication and an addition counting as
    two; None: it has none, or how many is not known."""
    matrix_product: float | None = None
    """The same of a large matrix product on this machine, in this run."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """Further figures: plain JSON values, or spreads."""

    @property
    def shares(self) -> dict[str, float]:
        """Of the parts in their sum."""
        total = sum(self.parts.values()) or 1.0
        return {name: seconds / total for name, seconds in self.parts.items()}

    @property
    def share(self) -> float | None:
        """What the network's part came to, of a large matrix product; None: one is not known. Above
        1 it tells nothing: something else kept the machine busy when the product was made."""
        if self.flops is None or not self.matrix_product:
            return None
        return self.flops / self.matrix_product

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        told: dict[str, Any] = {
            "part": self.part,
            **self.facts,
            "images_per_second": self.images_per_second.as_dict(),
            "milliseconds_an_image": {n: _short(1000 * s) for n, s in self.parts.items()},
            "shares": {name: round(share, 4) for name, share in self.shares.items()},
            "flop_per_second": _short(self.flops),
            "matrix_product_flop_per_second": _short(self.matrix_product),
            "share_of_matrix_product": None,
            "peak_memory_bytes": dict(self.memory),
        }
        if (share := self.share) is not None and share <= 1:
            told["share_of_matrix_product"] = round(share, 4)
        for name, value in self.others.items():
            told[name] = value.as_dict() if isinstance(value, Spread) else value
        return told

    def lines(self) -> list[str]:
        """For people."""
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items() if value != "")
        found = [facts, f"images a second  {self.images_per_second}"]
        for name, value in self.others.items():
            told = shown(value) if isinstance(value, int | float) else str(value)
            found.append(f"{name.replace('_', ' ')}  {told}")
        wide = max(map(len, self.parts), default=0)
        for name, share in self.shares.items():
            took = f"{1000 * self.parts[name]:9.3f} ms an image"
            found.append(f"  {name:<{wide}}  {share:6.1%}  {took}")
        if self.flops is not None:
            line = f"network  {shown(self.flops / 1e9)} GFLOP/s"
            if (reached := self.share) is not None and self.matrix_product:
                most = f"the {shown(self.matrix_product / 1e9)} of a large matrix product"
                busy = "the machine was busy meanwhile, or fewer are computed than counted"
                line += (
                    f", {reached:.0%} of {most}" if reached <= 1
                    else f", more than {most}: {busy}; measure again"
                )  # fmt: skip
            found.append(line)
        for where, size in self.memory.items():
            found.append(f"peak memory, {where}  {size / 1e9:,.2f} GB")
        return found


def shown(value: float) -> str:
    """A number for people."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _short(value: float | None) -> float | None:
    """Six digits are more than is known."""
    return None if value is None else float(f"{value:.6g}")


def refuse_no_time(seconds: float) -> None:
    """Raise UsageError where `seconds` is no time in which something could be measured."""
    if not 0 < seconds < math.inf:
        raise UsageError(f"seconds must be a positive number, not {seconds:g}")
