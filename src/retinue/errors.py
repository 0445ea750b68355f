"""The errors that people see: what went wrong, where, and how to mend it.

Every error that a user can cause derives from `RetinueError`; the command line prints it as one
line, ``error: WHAT, WHERE, HOW TO MEND``, and exits with its `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import partial

MOST_NAMED = 20
"""Of many things, a message names so many; see `RetinueError.details` for the others."""


def some(items: Sequence[str], most: int = MOST_NAMED, *, between: str = "; ") -> str:
    """The first `most` of `items`, and how many more there are."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return between.join(items[:most]) + more


class RetinueError(Exception):
    """Work that failed. `what` went wrong, `where` (file, line, key), and how to `mend` it."""

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        mend: str | None = None,
        details: Sequence[str] = (),
        resumable: bool = False,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.mend = mend
        self.details = tuple(details)
        """All of which the message names `some`, an item a line: the command line writes them into
        a file, which it names. Empty where the message says everything."""
        self.resumable = resumable
        """Whether a training can go on once this is mended, if it has a checkpoint: whoever knows
        the run then adds how."""
        self.told = False
        """Whether it stands in a log already, so that the command line only ends with its code."""

    def name(self, place: str) -> None:
        """Have the message say that it was in `place`, unless it says so already."""
        if self.where is None:
            self.where = place
        elif not f"{self.where} ".startswith((f"{place} ", f"{place},")):
            self.where = f"{place}, {self.where}"

    def __str__(self) -> str:
        return ", ".join(part for part in (self.what, self.where, self.mend) if part)


class UsageError(RetinueError):
    """A mistake in what was asked for: a misspelt key, a contradiction, a path that is missing."""

    exit_code = 2


class BadImageError(RetinueError):
    """Image files that cannot be used. `reasons` maps each path to what is wrong with it."""

    def __init__(self, reasons: dict[str, str], *, mend: str | None = None) -> None:
        lines = [f"{path!r} ({reason})" for path, reason in reasons.items()]
        count = "1 image" if len(lines) == 1 else f"{len(lines):,} images"
        super().__init__(
            f"{count} cannot be read",
            where=some(lines),
            mend=mend,
            details=lines if len(lines) > MOST_NAMED else (),
        )
        self.reasons = reasons

    def __reduce__(self) -> tuple[object, ...]:
        return (partial(type(self), mend=self.mend), (self.reasons,))


class Interrupted(RetinueError):  # noqa: N818 - the field says KeyboardInterrupt, too
    """Stopped by SIGINT or SIGTERM after writing a checkpoint; exits with 128 + the signal."""

    def __init__(self, signal: int, *, where: str | None = None, mend: str | None = None) -> None:
        super().__init__("interrupted", where=where, mend=mend)
        self.exit_code = 128 + signal


def suggest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'a' or 'b'?` for the known names nearest to `name`, those first that begin with
    it; empty if none is near."""
    names = list(known)
    longer = [n for n in names if len(name) >= 3 and n.startswith(name)]
    close: Sequence[str] = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    near = list(dict.fromkeys([*sorted(longer, key=len), *close]))[:3]
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
