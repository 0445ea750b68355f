"""Data sets: looked over, converted, measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinue.data.check import CheckReport
    from retinue.data.conversion import Conversion


def check_data(
    path: str | Path,
    *,
    task: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    input_size: int | None = None,
    **options: Any,
) -> CheckReport:
    """Everything that is wrong or remarkable about a data set for `task`, by default the one that
    knows its format; never stops at one file. `progress` is told how many images of how many have
    been looked at; objects that are marked in them are measured at `input_size` pixels, the side of
    a square input."""
    from retinue.data.check import check
    from retinue.data.options import DataOptions
    from retinue.tasks.shipped import DEFAULT
    from retinue.tasks.task import task_of, task_type

    given = DataOptions(path=str(path), **options)
    name = task or task_of(given)
    found = check(given, task_type(name).readers(), progress, side=input_size)
    if task is None and name != DEFAULT:
        found.notes.insert(0, f"looked at as data for {name}: --task says otherwise")
    return found


def convert_data(
    path: str | Path,
    out: str | Path,
    to: str,
    *,
    task: str | None = None,
    copy: bool = False,
    megabytes: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Conversion:
    """The data set at `path` in another format, `to`, in the new folder `out`. Images are linked
    where that can be done, or, with `copy`, copied; into shards of about so many `megabytes` they
    are written: `progress` is told how many images of how many are done, and what was interrupted
    goes on when it is called again. `options`: fields of the recipe's data section."""
    from retinue.data.options import DataOptions
    from retinue.errors import Interrupted, UsageError
    from retinue.run.stopping import signal_of, terminable
    from retinue.tasks.shipped import writing
    from retinue.tasks.task import task_type

    if options.get("pool") is not None:
        raise UsageError(
            "a written data set has no place for images without labels",
            where="key data.pool",
            mend="leave it out here, and give it to the training: its images stay where they are",
        )
    name, convert = writing(to, task)
    data = DataOptions(path=str(path), **options), task_type(name).readers()
    how = {"copy": copy, "megabytes": megabytes, "progress": progress}
    mend = "the same command goes on, or begins anew where images are not in shards"
    with terminable():
        try:
            return convert(*data, Path(out), to, **how)  # type: ignore[no-any-return]
        except KeyboardInterrupt as stop:
            raise Interrupted(signal_of(stop), where=repr(str(out)), mend=mend) from None


def fit_anchors(
    path: str | Path,
    *,
    task: str | None = None,
    input_size: int | None = None,
    levels: int = 3,
    each: int = 3,
    plot: str | Path | None = None,
    **options: Any,
) -> Any:
    """The anchors, `each` for each of `levels` levels, that fit the objects of the data set at
    `path` as they come to a square input of `input_size` pixels, and how well. `plot`: a PNG file
    of them to be written."""
    from retinue.data.options import DataOptions
    from retinue.tasks.shipped import doing
    from retinue.tasks.task import task_type

    name, fit = doing("anchors", task)
    readers = task_type(name).readers()
    place = None if plot is None else Path(plot)
    given = DataOptions(path=str(path), **options)
    return fit(given, readers, side=input_size, levels=levels, each=each, plot=place)
