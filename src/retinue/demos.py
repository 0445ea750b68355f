"""Trainings on data that pip brings: `retinue demo`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinue.api import convert_data, predict, train
from retinue.errors import UsageError, suggest

if TYPE_CHECKING:
    from retinue.api import Predictions
    from retinue.sample import Result
    from retinue.training.session import Run

DEMOS = {"cells": ("elpv-efficientnet-lite0", None), "digits": ("digits-yolov3", "voc")}
"""Recipes whose data pip brings; and the format in which it is written down first, where it is no
files yet."""


@dataclass(frozen=True)
class Demo:
    """What the demo did."""

    run: Run
    predictions: Predictions
    """Of some test pictures; also written to the run's `predictions/`, drawn."""
    labels: dict[str, list[str]]
    """The classes that each of them shows, by path."""

    def __repr__(self) -> str:
        return f"<Demo {self.run!r}, {self.predictions!r}>"


def demo(what: str = "cells", *, out: str | Path | None = None, pictures: int = 8) -> Demo:
    """Train one of the `DEMOS`, then recognise `pictures` that the training never saw. Raises
    UsageError for an unknown one."""
    from retinue.training.evaluation import data_of_run  # brings torch

    if what not in DEMOS:
        mend = suggest(what, DEMOS) or f"there are {', '.join(DEMOS)}"
        raise UsageError(f"there is no demo called {what!r}", mend=mend)
    (recipe, form), place = DEMOS[what], Path("runs") / "demo" if out is None else Path(out)
    own: dict[str, Any] = {}
    if form is not None:
        data = place.with_name(f"{place.name}-data")
        if not data.exists():
            convert_data(what, data, form)
        own = {"data.path": str(data), "data.format": "auto"}
    run = train(recipe, out=place, overrides=own)
    dataset = data_of_run(run.folder)
    test = dataset.splits["test"]
    labels = {
        one.key: [dataset.classes[int(k)] for k in (one.target.names() if one.target else ())]
        for one in test[:: max(len(test) // pictures, 1)][:pictures]
    }
    results: list[Result] = []
    answers = predict(
        run.folder, list(labels), out=run.folder / "predictions", draw=True, each=results.append
    )
    return Demo(run, replace(answers, results=results), labels)
