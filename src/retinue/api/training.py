"""Training, and what comes of it: figures, report, cached features."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from retinue.api.names import EngineName, PrecisionName

if TYPE_CHECKING:
    from retinue.training.features.clearing import Cleared
    from retinue.training.session import Plan, Run


@overload
def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    resume: bool = False,
    report: bool = True,
    quiet: bool = False,
    overrides: Mapping[str, Any] | None = None,
    dry_run: Literal[False] = False,
    **fields: Any,
) -> Run: ...


@overload
def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    quiet: bool = False,
    overrides: Mapping[str, Any] | None = None,
    dry_run: Literal[True],
    **fields: Any,
) -> Plan: ...


def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    resume: bool = False,
    report: bool = True,
    quiet: bool = False,
    overrides: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    **fields: Any,
) -> Run | Plan:
    """Train as `recipe` says; returns the run: its folder, figures and model file.

    `recipe`: the name of a shipped one, a YAML file, a mapping, or with `resume` the run folder to
    go on with; overrides may then change what docs/train.md lists. `overrides` maps dotted keys to
    values (`{"stages.1.epochs": 5}`); top-level fields can also be keywords (`seed=1`;
    `data="photos/"` means `data.path`). `folds=5`: cross-validation; the figures are then means
    over the folds, and these are the run's `parts`. `dry_run`: nothing is trained or written; what
    comes back instead is the plan: the recipe as it would be settled, what was found, and how long
    it would take. Raises `UsageError` for a recipe or data that will not do, `BadImageError` for
    unreadable images, `Interrupted` after SIGINT or SIGTERM, `RetinueError` for anything else that
    ends the training.
    """
    from retinue.errors import Interrupted, UsageError
    from retinue.run.stopping import signal_of, terminable

    if resume and dry_run:
        raise UsageError("a dry run plans a new training", mend="leave resume out")
    if resume and out is not None:
        raise UsageError(
            "a training goes on in its own folder",
            where="out",
            mend="leave it out, or start a new training from the run's recipe.yaml",
        )
    if resume and not isinstance(recipe, str | Path):
        raise UsageError("only a run folder can be resumed", mend="name one, runs/NAME")
    changes = {**fields, **(overrides or {})}
    with terminable():
        try:
            from retinue.training.studies import commission  # takes a second or two

            if dry_run:
                return commission.plan(recipe, changes, quiet=quiet)
            if resume:
                run = commission.resume(Path(str(recipe)), changes, quiet=quiet)
            else:
                place = Path(out) if out is not None else None
                run = commission.start(recipe, changes, out=place, quiet=quiet)
        except KeyboardInterrupt as stop:
            raise Interrupted(
                signal_of(stop), mend="nothing had begun: the same command starts it"
            ) from None
        if report and run.figures:
            _try_report(run.folder)
    return run


def _try_report(run: Path) -> None:
    """The page of a training that is done, whatever becomes of it."""
    import shlex

    from retinue.errors import Interrupted
    from retinue.run.stopping import signal_of

    again = f"retinue report {shlex.quote(str(run))}"
    try:
        write_report(run)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            signal_of(stop),
            where=str(run),
            mend=f"the training is done; its report: {again}",
        ) from None
    except Exception as error:
        logging.getLogger("retinue").error(
            "the report could not be written (%s: %s); %s tries again",
            type(error).__name__,
            error,
            again,
        )


def evaluate(
    model: str | Path | Sequence[str | Path],
    *,
    data: str | Path | None = None,
    split: Literal["auto", "train", "val", "test"] = "auto",
    engine: EngineName = "auto",
    precision: PrecisionName = "fp32",
    tta: str | None = None,
    device: str = "auto",
    batch_size: int = 32,
    out: str | Path | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """The figures of a model on a split, as in `metrics.json`.

    `model`: a model file or run folder, or several that answer together. `data`: a folder or table;
    by default what the (first) run was trained on, split as it was then. The data's classes must be
    among the model's, and are put in the model's order. `split`: `auto` takes the first of test,
    val and train that there is; data without splits is judged whole. `out`: a folder for
    `metrics.json` and the task's tables, `predictions.parquet` among them. Unreadable images are
    left out, and named under `skipped`. `precision`: see `load`.
    """
    from retinue.training.evaluation import Question, evaluate_model

    models = [model] if isinstance(model, str | Path) else model
    return evaluate_model(
        Question(
            models=[Path(one) for one in models],
            data=None if data is None else str(data),
            split=split,
            engine=engine,
            precision=precision,
            tta=tta,
            device=device,
            batch_size=batch_size,
            out=None if out is None else Path(out),
            quiet=quiet,
        )
    )


def write_report(run: str | Path) -> Path:
    """`report.html` of the run folder, made from what stands in it."""
    from retinue.report.html import write_report as write

    return write(Path(run))


def clean(run: str | Path | None = None, *, dry_run: bool = False) -> Cleared:
    """Clear the cached features that a run has used, or all there are; `dry_run` only tells."""
    from retinue.training.features.clearing import clear

    return clear(None if run is None else Path(run), dry=dry_run)


def checks() -> dict[str, Any]:
    """Versions, devices, engines and CPU features, and what `auto` would choose here."""
    from retinue.training.environment import facts

    return facts()
