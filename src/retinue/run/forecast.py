"""How long what is left of a training will take: what was estimated, corrected by what it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TRUST = 0.1
"""The estimate of a part weighs as much as this share of the part, once done."""
MOST = 4.0
"""How many times slower or faster than estimated the parts to come are thought to be, at most."""


@dataclass
class _Part:
    estimate: float
    done: float = 0.0
    """Between 0 and 1."""
    before: float = 0.0
    """How much was done when it was taken up here."""
    spent: float = 0.0
    """Seconds since then."""


class Forecast:
    """The seconds that the parts of a training were estimated to take, by name, in their order."""

    def __init__(self, parts: Mapping[str, float]) -> None:
        self._parts = {name: _Part(seconds) for name, seconds in parts.items()}

    def take_up(self, name: str, done: float) -> None:
        """The part was done to the share `done` (0–1) before, in a time that is not known."""
        if (part := self._parts.get(name)) is not None:
            part.done = part.before = done

    def note(self, name: str, done: float, seconds: float) -> None:
        """The part is done to the share `done`, and `seconds` more were spent on it."""
        if (part := self._parts.get(name)) is not None:
            part.done = min(done, 1.0)
            part.spent += seconds

    def finish(self, name: str) -> None:
        """Nothing of the part is left; what was not noted of it tells nothing of the pace."""
        if (part := self._parts.get(name)) is not None:
            part.before += 1.0 - part.done
            part.done = 1.0

    def left(self) -> float:
        """Seconds that all parts will still take."""
        pace = self._pace()
        return sum(self._left(part, pace) for part in self._parts.values())

    def _pace(self) -> float:
        """How much longer than estimated the work so far took."""
        whole = sum(part.estimate for part in self._parts.values())
        spent = sum(part.spent for part in self._parts.values())
        expected = sum((p.done - p.before) * p.estimate for p in self._parts.values())
        prior = TRUST * whole
        if prior <= 0:
            return 1.0
        return min(max((spent + prior) / (expected + prior), 1 / MOST), MOST)

    def _left(self, part: _Part, pace: float) -> float:
        here = part.done - part.before
        whole = (part.spent + TRUST * part.estimate * pace) / (here + TRUST)
        return (1 - part.done) * whole


def spoken(seconds: float) -> str:
    """`45 s`, `3:20 min` or `2:05 h`, rounded as one says it."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
