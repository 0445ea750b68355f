"""Whatever went wrong, as one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys

from retinue.errors import RetinueError
from retinue.text import visible


def describe(error: BaseException) -> tuple[str, int]:
    """(`error: WHAT, WHERE, HOW TO MEND`, exit code).

    The line is empty for a reader that has gone away, and where the help has been shown instead.
    """
    if isinstance(error, RetinueError):
        code = error.exit_code
        parts = [error.what, error.where, error.mend]
    elif isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return "interrupted", 130
    elif isinstance(error, BrokenPipeError):
        return "", 0
    elif hasattr(error, "format_message") and hasattr(error, "exit_code"):
        code, parts = 2, _usage(error)
        if not parts[0]:
            return "", code
    elif isinstance(error, MemoryError):
        code = 1
        parts = ["out of memory", None, "a smaller batch_size or fewer workers need less"]
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        code = 1
        parts = ["the disk is full", _place(error), "make room, or choose another --out"]
    elif isinstance(error, OSError) and error.filename is not None:
        code, parts = 1, [error.strerror or type(error).__name__, _place(error), _elsewhere(error)]
    else:
        code = 1
        first = (str(error).strip().splitlines() or [""])[0]
        what = f"{type(error).__name__}: {first}" if first else type(error).__name__
        parts = [what, "this is not expected", "--debug shows where it happened"]
    return f"error: {', '.join(visible(part) for part in parts if part)}", code


def hush() -> None:
    """Nobody reads standard output any more: let the interpreter's last flush go nowhere."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):  # closed, or not a real file
        return


def _usage(error: BaseException) -> list[str | None]:
    """A mistake that Typer found: its own words, and where help is."""
    message = str(error.format_message()).strip().rstrip(".")  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "retinue"
    what, _, near = message.partition(". Did you mean ")
    mend = f"did you mean {near}" if near else f"see `{command} --help`"
    what, _, listed = what.partition(". Choose from:")
    if listed:  # one a line
        mend = f"choose from {', '.join(x.strip() for x in listed.split(','))} ({mend})"
    return [what[:1].lower() + what[1:], None, mend]


def _place(error: OSError) -> str | None:
    names = [name for name in (error.filename, error.filename2) if name is not None]
    return " → ".join(repr(str(name)) for name in names) or None


def _elsewhere(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "change its permissions or choose another place"
    return "check the path, or choose another place"
