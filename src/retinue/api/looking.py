"""Looking at what there is: runs side by side, and data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinue.report.view import View


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
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> View:
    """A folder, `out` or NAME-view, with a page on which the data set at `path` can be looked
    through: small pictures of `side` pixels with their labels, or what is marked in them, by class,
    split and name. `progress` is told how many images of how many are done; `options`: fields of
    the recipe's data section.

    Raises UsageError where there is no data set, or `out` holds something else.
    """
    from retinue.data.options import DataOptions
    from retinue.report.view import write_view
    from retinue.tasks.task import task_of, task_type

    given = DataOptions(path=str(path), **options)
    readers = task_type(task or task_of(given)).readers()
    return write_view(given, readers, None if out is None else Path(out), progress, side=side)
