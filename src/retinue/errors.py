"""The errors that people see: what went wrong, where, and how to mend it.

Every error that a user can cause derives from `RetinueError`; the command line prints it as one
line, ``error: WHAT, WHERE, HOW TO MEND``, and exits with its `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class RetinueError(Exception):
    """Work that failed. `what` went wrong, `where` (file, line, key), and how to `mend` it."""

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        mend: str | None = None,
        resumable: bool = False,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.mend = mend
        self.resumable = resumable
        """Whether a training can go on once this is mended, if it has a checkpoint: whoever knows
        the run then adds how."""

    def __str__(self) -> str:
        return ", ".join(part for part in (self.what, self.where, self.mend) if part)


class UsageError(RetinueError):
    """A mistake in what was asked for: a misspelt key, a contradiction, a path that is missing."""

    exit_code = 2


class BadImageError(RetinueError):
    """Image files that cannot be used. `reasons` maps each path to what is wrong with it."""

    def __init__(self, reasons: dict[str, str], *, mend: str | None = None) -> None:
        paths = list(reasons)
        shown = "; ".join(f"{path!r} ({reasons[path]})" for path in paths[:20])
        more = f" and {len(paths) - 20} more" if len(paths) > 20 else ""
        count = "1 image" if len(paths) == 1 else f"{len(paths)} images"
        super().__init__(f"{count} cannot be read", where=shown + more, mend=mend)
        self.reasons = reasons

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.reasons,))


class Interrupted(RetinueError):  # noqa: N818 - the field says KeyboardInterrupt, too
    """Stopped by SIGINT or SIGTERM after writing a checkpoint; exits with 128 + the signal."""

    def __init__(self, signal: int, *, where: str | None = None, mend: str | None = None) -> None:
        super().__init__("interrupted", where=where, mend=mend)
        self.exit_code = 128 + signal


def suggest(name: str, known: Iterable[str]) -> str:
    """`, did you mean 'a' or 'b'?` for the known names nearest to `name`; empty if none is near."""
    near: Sequence[str] = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
