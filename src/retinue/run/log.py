"""What a training tells while it runs: a log file, lines on the console, a bar on a terminal.

On a terminal a bar shows how far the work is; a log file, and a console that is no terminal, get a
line about that whenever nothing else was said for `EVERY_SECONDS`.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from retinue.run.forecast import spoken

LOGGER = logging.getLogger("retinue")
LOG_ALONE = {"log_alone": True}
"""`extra` of a line for the log file alone: the console gets what it says in another way."""
EVERY_SECONDS = 30.0
"""After so long without a line, one says how far the work is."""


class Bar:
    """How far the work is, and how long it will still take: a bar on a terminal, and what the lines
    say elsewhere."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self._task: int | None = None
        self._text = ""
        self._total = self._first = self._done = 0
        self._began = 0.0
        self.left: Callable[[], float] | None = None
        """Seconds until everything is done, where that is known; otherwise it is worked out for
        what the bar shows."""

    def begin(self, text: str, total: int, done: int = 0) -> None:
        """A new bar of `total` parts."""
        self._text, self._total, self._first, self._done = text, total, done, done
        self._began = time.monotonic()
        if self._progress is None:
            return
        if self._task is not None:
            self._progress.remove_task(self._task)  # type: ignore[arg-type]
        task = self._progress.add_task(text, total=total, completed=done, left=self.time_left())
        self._task = int(task)

    def advance(self, done: int) -> None:
        """`done` parts are done."""
        self._done = done
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, left=self.time_left())  # type: ignore[arg-type]

    def done(self) -> None:
        """Nothing more of it is to come."""
        self._total = 0

    def line(self) -> str:
        """How far the work is; empty if none has begun."""
        if not self._total:
            return ""
        left = self.time_left()
        return f"{self._text}: {self._done:,} of {self._total:,}{left and ', '}{left}"

    def time_left(self) -> str:
        """How long it will still take, `3:20 min left`; empty where that is not known."""
        if self.left is not None:
            return f"{spoken(self.left())} left"
        done = self._done - self._first
        if done <= 0:
            return ""
        each = (time.monotonic() - self._began) / done
        return f"{spoken(each * (self._total - self._done))} left"


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
                TextColumn("{task.fields[left]}", markup=False),
                console=shown,
                transient=True,
            )
            handlers.append(_Above(shown))
        else:
            handlers.append(logging.StreamHandler(sys.stderr))
        handlers[-1].addFilter(lambda record: not getattr(record, "log_alone", False))
    for handler in handlers:
        handler.addFilter(_Once())
    bar = Bar(progress)
    pulse = _Pulse(bar)
    listeners = [h for h in handlers if not isinstance(h, logging.NullHandler | _Above)]
    for handler in [*handlers, pulse]:
        LOGGER.addHandler(handler)
    try:
        if progress is not None:
            progress.start()
        if listeners:
            pulse.start()
        yield bar
    finally:
        pulse.stop()
        if progress is not None:
            progress.stop()
        for handler in [*handlers, pulse]:
            LOGGER.removeHandler(handler)
            handler.close()


def epoch_line(named: str, row: Mapping[str, Any], metric: str, *, best: bool, left: str) -> str:
    """What is said of an epoch, in a line: `metrics.csv` has all of its `row`. `named`: the epoch;
    `metric`: the figure that judges."""
    loss = row.get("train_loss", next((row[k] for k in row if k.startswith("train_")), None))
    judged = row.get(f"val_{metric}")
    said = [
        named,
        None if loss is None else f"loss {loss:.4f}",
        None if judged is None else f"val {metric} {judged:.4f}{' *' if best else ''}",
        f"lr {row['lr']:.1e}",
        left,
    ]
    return "  ".join(filter(None, said))


class _Once(logging.Filter):
    """Lets through once what is to be said once (`retinue.inference.engine_cache.ONCE`)."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "once", False):
            return True
        said = record.getMessage()
        new = said not in self._said
        self._said.add(said)
        return new


class _Pulse(logging.Handler):
    """Says how far the work is when nothing else was said for a while. A thread of its own, so that
    it also does while a single step, or what shows no bar, takes long."""

    def __init__(self, bar: Bar) -> None:
        super().__init__()
        self._bar = bar
        self._last = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retinue-pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No line comes after this."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def emit(self, record: logging.LogRecord) -> None:
        self._last = time.monotonic()

    def _run(self) -> None:
        while not self._ended.wait(max(self._last + EVERY_SECONDS - time.monotonic(), 0.01)):
            if time.monotonic() - self._last < EVERY_SECONDS:
                continue
            self._last = time.monotonic()
            if line := self._bar.line():
                LOGGER.info("%s", line, extra={"pulse": True})


class _Above(logging.Handler):
    """Prints lines above a running bar, but for those that say what the bar shows."""

    def __init__(self, shown: Console) -> None:
        super().__init__()
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "pulse", False):
            self._shown.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
