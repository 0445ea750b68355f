"""Telling MLflow or Weights & Biases of a training, through Accelerate's trackers. Off unless the
recipe names them; what goes wrong there ends no training."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from retinue.errors import UsageError
from retinue.run.folder import RunFolder
from retinue.run.log import LOGGER
from retinue.training.changes import leaves_of
from retinue.training.recipe import Recipe

PROJECT = "retinue"
"""What the experiment, or project, is called where the environment names none."""
IDS = "trackers.json"
"""What the trackers call the run, so that a resumed training goes on with it there."""


def refuse_absent_trackers(recipe: Recipe) -> None:
    """Raise UsageError for a tracker whose package is not installed."""
    for name in recipe.trackers:
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"the tracker {name} is not installed",
                where="key trackers",
                mend=f"pip install 'retinue[{name}]'",
            )


class Trackers:
    """Those that a recipe names, begun."""

    def __init__(self, run: RunFolder, recipe: Recipe) -> None:
        self._open: dict[str, Any] = {}
        known = run.read_json(IDS) or {}
        for name in recipe.trackers:
            tracker = None
            try:
                tracker = _begun(name, run.path, known.get(name))
                if name not in known:  # a resumed run's may have changed, which MLflow refuses
                    tracker.store_init_configuration(leaves_of(recipe))
            except Exception as error:  # whatever a service far away says
                self._lose(name, error, tracker)
                continue
            self._open[name] = tracker
            known[name] = _id_of(name, tracker)
        if self._open:
            run.write_json(IDS, known)

    def tell(self, row: Mapping[str, Any]) -> None:
        """The numbers of a row of `metrics.csv`, at its epoch."""
        self._log({k: v for k, v in row.items() if isinstance(v, float)}, int(row["epoch"]))

    def tell_final(self, figures: Mapping[str, Any]) -> None:
        """The numbers of `metrics.json`, by the split that they are of."""
        split = figures.get("split", "final")
        self._log({f"{split}_{k}": v for k, v in figures.items() if isinstance(v, float)}, None)

    def _log(self, values: dict[str, float], step: int | None) -> None:
        for name, tracker in list(self._open.items()):
            try:
                tracker.log(values, step=step)
            except Exception as error:
                self._lose(name, error, tracker)

    def close(self) -> None:
        """Nothing more is told."""
        for name, tracker in list(self._open.items()):
            try:
                tracker.finish()
            except Exception as error:
                self._lose(name, error, None)
        self._open = {}

    def _lose(self, name: str, error: Exception, begun: Any) -> None:
        """`begun`: what is still to be finished, as the next training here cannot begin else."""
        self._open.pop(name, None)
        if begun is not None:
            with suppress(Exception):
                begun.finish()
        said = (str(error).strip().splitlines() or [""])[0]
        LOGGER.warning(
            "%s is told no more of this training (%s: %s)", name, type(error).__name__, said
        )


@contextmanager
def tracking(run: RunFolder, recipe: Recipe) -> Iterator[Trackers]:
    """The trackers of a training, closed in the end, however that comes."""
    trackers = Trackers(run, recipe)
    try:
        yield trackers
    finally:
        trackers.close()


def _begun(name: str, run: Path, known: str | None) -> Any:
    from accelerate import tracking as theirs

    tracker: Any
    if name == "mlflow":
        import mlflow

        if "MLFLOW_TRACKING_URI" not in os.environ:
            # Its store of plain files is off by default.
            mlflow.set_tracking_uri(f"sqlite:///{run.absolute().parent / 'mlflow.db'}")
        tracker = theirs.MLflowTracker(PROJECT, run_name=run.name, run_id=known)
    else:
        more: dict[str, Any] = {"id": known, "resume": "allow"} if known else {}
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        tracker = theirs.WandBTracker(project, name=run.name, dir=str(run), **more)
    getattr(tracker, "start", lambda: None)()  # older versions begin at once
    return tracker


def _id_of(name: str, tracker: Any) -> str:
    return str(tracker.active_run.info.run_id if name == "mlflow" else tracker.run.id)
