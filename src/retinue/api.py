"""What retinue does, from Python. The command line is a thin layer over these functions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from retinue.data.check import CheckReport
    from retinue.inference.predictor import Predictor
    from retinue.models.network import Network
    from retinue.training.session import Run

EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]


def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    resume: bool = False,
    report: bool = True,
    quiet: bool = False,
    overrides: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Run:
    """Train as `recipe` says; returns the run: its folder, figures and model file.

    `recipe`: the name of a shipped one, a YAML file, a mapping, or with `resume` the run folder to
    go on with. `overrides` maps dotted keys to values (`{"stages.1.epochs": 5}`); top-level fields
    can also be keywords (`seed=1`; `data="photos/"` means `data.path`). Raises `UsageError` for a
    recipe or data that will not do, `BadImageError` for unreadable images, `Interrupted` after
    SIGINT or SIGTERM, `RetinueError` for anything else that ends the training.
    """
    from retinue.training import session

    if resume:
        if overrides or fields:
            from retinue.errors import UsageError

            raise UsageError(
                "a resumed training takes no overrides",
                mend="its recipe.yaml starts a new training with them",
            )
        run = session.resume(Path(recipe), quiet=quiet)  # type: ignore[arg-type]
    else:
        run = session.start(
            recipe,
            {**fields, **(overrides or {})},
            out=Path(out) if out is not None else None,
            quiet=quiet,
        )
    if report and run.figures:
        write_report(run.folder)
    return run


def create_model(
    name: str, *, num_classes: int = 1000, weights: str | None = None, **arguments: Any
) -> Network:
    """The network `name` of the zoo; see `retinue.models.registry.create_model`."""
    from retinue.models import registry

    return registry.create_model(name, num_classes=num_classes, weights=weights, **arguments)


def list_models(pattern: str = "*") -> list[str]:
    """The names of the zoo that match the shell-style `pattern`."""
    from retinue.models import registry

    return registry.list_models(pattern)


def load(model: str | Path, *, device: str = "auto", engine: EngineName = "auto") -> Predictor:
    """The model file or run folder `model`, ready: `load(MODEL)(image)` gives a `Result`."""
    from retinue.inference import predictor

    return predictor.load(Path(model), device=device, engine=engine)


def write_report(run: str | Path) -> Path:
    """`report.html` of the run folder, made from what stands in it."""
    from retinue.report.html import write_report as write

    return write(Path(run))


def check_data(path: str | Path, **options: Any) -> CheckReport:
    """Everything that is wrong or remarkable about a data set; never stops at one file."""
    from retinue.data.check import check
    from retinue.data.options import DataOptions

    return check(DataOptions(path=str(path), **options))


def evaluate(
    model: str | Path,
    *,
    data: str | Path | None = None,
    split: Literal["auto", "train", "val", "test"] = "auto",
    engine: EngineName = "auto",
    tta: str | None = None,
    device: str = "auto",
    batch_size: int = 32,
    out: str | Path | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """The figures of a model on a split, as in `metrics.json`.

    `model`: a model file or run folder. `data`: a folder or table; by default what the run was
    trained on, split as it was then. The data's classes must be among the model's, and are put in
    the model's order. `split`: `auto` takes the test split, or val, or the whole data where there
    is only one. `out`: a folder for `metrics.json` and `predictions.parquet`. Unreadable images
    are left out, and named under `skipped`.
    """
    from retinue.training import judge

    return judge.evaluate_model(
        Path(model),
        data=None if data is None else str(data),
        split=split,
        engine=engine,
        tta=tta,
        device=device,
        batch_size=batch_size,
        out=None if out is None else Path(out),
        quiet=quiet,
    )
