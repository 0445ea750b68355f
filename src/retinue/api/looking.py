"""Looking at what there is: runs side by side, data sets, and new images beside old."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinue.api.names import EngineName, several

if TYPE_CHECKING:
    from retinue.report.view import View
    from retinue.training.drift import Drift


def compare_runs(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """One page that compares several run folders: figures with their intervals, curves, what
    differs in the recipes, classes, and the images that divide them. Returns its path: `out`, or
    `comparison.html` in the folder that the runs share.

    Raises UsageError for what is no run folder, fewer than two or too many, and an `out` that is
    no page.
    """
    from retinue.report.comparison import write_comparison

    return write_comparison(runs, out)


def view_data(
    path: str | Path,
    out: str | Path | None = None,
    *,
    task: str | None = None,
    side: int = 320,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> View:
    """A folder, `out` or NAME-view, with a page on which the data set at `path` can be looked
    through: small pictures of `side` pixels with their labels, or what is marked in them, by class,
    split and name. `force`: the view of another data set that lies there may be replaced.
    `progress` is told how many images of how many are done; `options`: fields of the recipe's data
    section.

    Raises UsageError where there is no data set, or `out` holds something else.
    """
    from retinue.data.options import DataOptions
    from retinue.report.view import write_view
    from retinue.tasks.task import task_of, task_type

    given = DataOptions(path=str(path), **options)
    readers = task_type(task or task_of(given)).readers()
    place = None if out is None else Path(out)
    return write_view(given, readers, place, progress, side=side, force=force)


def drift(
    model: str | Path,
    sources: str | Path | Sequence[str | Path],
    *,
    against: str | Path | Sequence[str | Path] | None = None,
    images: int = 500,
    engine: EngineName = "auto",
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Drift:
    """Whether new images are like those that `model` was trained on: how they look (brightness,
    contrast, colour, sharpness, size), how sure the model is of them, and what it answers.
    `told()` says it in sentences.

    `sources` as of `predict`; `against`: the same, to compare with, by default the run's own data.
    Of either, `images` are looked at, drawn evenly; new ones that are known ones, byte for byte,
    are counted and left out. Raises UsageError where the data is gone, or there are fewer than 20
    images.
    """
    import logging
    import sys

    from retinue.inference.inputs import expand
    from retinue.inference.predictor import load
    from retinue.training.drift import Drift, pictures
    from retinue.training.drift import drift as compare

    warn = logging.getLogger("retinue").warning
    new, old = (
        None if named is None else expand(several(named), sys.stdin, say=warn)
        for named in (sources, against)
    )
    assert new is not None
    what = pictures(Path(model), new, against=old, images=images)
    if not what.fresh:
        return Drift.of_copies(what)
    return compare(load(model, device=device, engine=engine), what, progress=progress)
