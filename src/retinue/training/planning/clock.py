"""Where a training's time goes: seconds for its record, and for the forecast of what is left."""

from __future__ import annotations

import time
from typing import Literal, get_args

from retinue.run.forecast import Forecast

Kind = Literal["labelling", "frozen part", "steps", "validation"]
KINDS: tuple[Kind, ...] = get_args(Kind)
EVALUATION = "evaluation"
"""The part of a forecast after all stages."""


def part(stage: str, kind: Kind) -> str:
    """What a forecast calls the `kind` of work of the stage called `stage`."""
    return f"{stage}: {kind}"


class Clock:
    """Measures the work of one sitting of a training. `forecast`: None where nothing was
    estimated."""

    def __init__(self, forecast: Forecast | None = None) -> None:
        self.forecast = forecast
        self._sat_down = self._last = time.monotonic()
        self._earlier = 0.0

    def take_up(self, seconds: float) -> None:
        """The training took `seconds` in earlier sittings."""
        self._earlier = seconds

    @property
    def total(self) -> float:
        """Seconds of all sittings."""
        return self._earlier + time.monotonic() - self._sat_down

    def resume_stage(self, stage: str, done: float) -> None:
        """The share `done` of the stage's steps was done in earlier sittings, and its images have
        their labels."""
        if self.forecast is None:
            return
        self.forecast.take_up(part(stage, "labelling"), 1.0)
        if done > 0:
            self.forecast.take_up(part(stage, "steps"), done)
            self.forecast.take_up(part(stage, "validation"), done)

    def finish_stage(self, stage: str) -> None:
        """Nothing of the stage is left, though it may have been stopped early."""
        for kind in KINDS:
            if self.forecast is not None:
                self.forecast.finish(part(stage, kind))

    def begin(self) -> None:
        """What comes now is measured."""
        self._last = time.monotonic()

    def lap(self, name: str, done: float) -> float:
        """Seconds since `begin` or the last lap: they went into the part `name`, which is now done
        to the share `done` (0–1)."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        if self.forecast is not None:
            self.forecast.note(name, done, seconds)
        return seconds
