"""What a training tells while it runs: a log file, lines on the console, a bar on a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOGGER = logging.getLogger("retinue")


class Bar:
    """A progress bar with the time left on a terminal; nothing elsewhere, where lines tell."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task: int | None = None

    def begin(self, text: str, total: int, done: int = 0) -> None:
        """A new bar of `total` parts."""
        if self._progress is None:
            return
        if self._task is not None:
            self._progress.remove_task(self._task)  # type: ignore[arg-type]
        self._task = int(self._progress.add_task(text, total=total, completed=done))

    def advance(self, done: int, text: str | None = None) -> None:
        """`done` parts are done."""
        if self._progress is not None and self._task is not None:
            changed = {} if text is None else {"description": text}
            self._progress.update(self._task, completed=done, **changed)  # type: ignore[arg-type]


@contextmanager
def console(log: Path | None, *, quiet: bool = False) -> Iterator[Bar]:
    """Log to the file `log` and, unless `quiet`, to stderr; gives the bar."""
    LOGGER.setLevel(logging.INFO)
    # Where nothing else listens, Python would print warnings by itself, --quiet or not.
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if log is not None:
        file = logging.FileHandler(log, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        handlers.append(file)
    progress = None
    if not quiet:
        if sys.stderr.isatty():
            shown = Console(stderr=True)
            progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=shown,
                transient=True,
            )
            handlers.append(_Above(shown))
        else:
            handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        LOGGER.addHandler(handler)
    try:
        if progress is not None:
            progress.start()
        yield Bar(progress)
    finally:
        if progress is not None:
            progress.stop()
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()


class _Above(logging.Handler):
    """Prints lines above a running bar."""

    def __init__(self, shown: Console) -> None:
        super().__init__()
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        self._shown.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
