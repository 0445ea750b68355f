"""Whatever went wrong, as one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import typing
from collections.abc import Callable, Sequence
from enum import Enum
from types import NoneType
from typing import Any, Literal, TextIO

from retinue.errors import RetinueError, UsageError, suggest
from retinue.text import first_line, visible

GONE = 141
"""The reader of standard output has gone away: as a shell reports a program that SIGPIPE ended."""

_FULL = "make room, or choose another --out"
_OFTEN = {
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("the disk is full", _FULL),
    errno.EFBIG: ("a file grows larger than is allowed", "raise the limit (ulimit -f)"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many files are open", "close other programs"),
    errno.ENOMEM: ("out of memory", "a smaller batch_size or fewer workers need less"),
    errno.ENAMETOOLONG: ("a name is too long for the file system", "choose a shorter one"),
    errno.EBADF: ("a file or stream was closed while it was needed", None),
}
"""What an error of the system means, and how to mend it, wherever it comes from."""
_NO_MEMORY = ("allocate memory", "out of memory", "bad_alloc", "size calculation overflowed")


def describe(error: BaseException) -> tuple[str, int]:
    """(`error: WHAT, WHERE, HOW TO MEND`, exit code).

    The line is empty for a reader that has gone away, for what stands in a log already, and where
    the help has been shown instead.
    """
    if isinstance(error, RetinueError):
        code = error.exit_code
        if error.told:
            return "", code
        parts = [error.what, error.where, error.mend]
        if error.details:
            parts.insert(2, _kept(error.details))
    elif isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return "interrupted", 130
    elif isinstance(error, BrokenPipeError):
        return "", GONE
    elif hasattr(error, "format_message") and hasattr(error, "exit_code"):
        code, parts = 2, _usage(error)
        if not parts[0]:
            return "", code
    else:
        code, parts = 1, _of_the_machine(error) or _unexpected(error)
    return f"error: {', '.join(visible(part) for part in parts if part)}", code


def _kept(lines: Sequence[str]) -> str:
    """Where all of the `lines` stand of which a message names some; they themselves, if nowhere."""
    from retinue.files import keep_list

    shown = [visible(line) for line in lines]
    file = keep_list(shown, "list")
    return f"all {len(lines):,} are in {str(file)!r}" if file else f"all: {'; '.join(shown)}"


def _of_the_machine(error: BaseException) -> list[str | None] | None:
    """What a limit of the machine, or of the user, came to: disk, memory, files, threads."""
    said = str(error)
    if isinstance(error, OSError):
        if error.errno in _OFTEN:
            what, mend = _OFTEN[error.errno]
            return [what, _place(error), mend]
        if "temporary directory" in said:
            return ["there is no folder for temporary files", None, "set TMPDIR to one"]
        if error.filename is not None:
            return [error.strerror or type(error).__name__, _place(error), _elsewhere(error)]
        if error.strerror:
            return [error.strerror[:1].lower() + error.strerror[1:], None, _elsewhere(error)]
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in said for text in _NO_MEMORY)
    ):
        what, mend = _OFTEN[errno.ENOMEM]
        return [what, None, mend]
    if isinstance(error, RuntimeError) and "start new thread" in said:
        return ["no thread can be started", None, "raise the limit (ulimit -u), or set workers=0"]
    if isinstance(error, ImportError) and not isinstance(error, ModuleNotFoundError):
        what = f"a library cannot be loaded ({first_line(said)})"
        return [what, None, "allow more memory (ulimit -v), or install it anew"]
    return None


def _unexpected(error: BaseException) -> list[str | None]:
    first = first_line(error)
    what = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return [what, "this is not expected", "--debug shows where it happened"]


def secure_streams() -> None:
    """Where standard streams are closed (`>&-`), nothing else gets their numbers: what a library
    prints would go into the first file that is opened. Output goes nowhere then, as to /dev/null.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            if number:
                setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def refuse_no_folder() -> None:
    """UsageError where the working folder has been deleted: no relative path means anything, and
    some libraries abort the process over it."""
    try:
        os.getcwd()
    except OSError:
        raise UsageError("the working folder is gone", mend="cd to one that is there") from None


def hush(stream: TextIO | None = None) -> None:
    """Nobody reads `stream`, by default standard output, any more: let the interpreter's last flush
    go nowhere."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, (stream or sys.stdout).fileno())
    except (OSError, ValueError):  # closed, or not a real file
        return


def _usage(error: BaseException) -> list[str | None]:
    """A mistake that Typer found: of a value, what would do; else its own words, and where help
    is."""
    if (refused := _refused_value(error)) is not None:
        return refused
    message = str(error.format_message()).strip().rstrip(".")  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "retinue"
    what, _, near = message.partition(". Did you mean ")
    mend = f"did you mean {near}" if near else _help(command)
    if possible := getattr(error, "possibilities", None):
        what = what.partition(" (Possible options:")[0]
        mend = f"did you mean {' or '.join(map(repr, possible))}?"
    what, _, listed = what.partition(". Choose from:")
    if listed:  # one a line
        mend = f"choose from {', '.join(x.strip() for x in listed.split(','))} ({mend})"
    return [what[:1].lower() + what[1:], None, mend]


def _help(command: str) -> str:
    return f"see `{command} --help`"


def _refused_value(error: BaseException) -> list[str | None] | None:
    """The value of an option that will not do, in the words that a recipe's fields have; None
    where it is none."""
    errors = getattr(error.__cause__, "errors", None)
    parameter, context = getattr(error, "param", None), getattr(error, "ctx", None)
    if parameter is None or context is None or errors is None:
        return None
    from retinue.options.typed import words
    from retinue.options.wording import what_is_wrong

    first = errors(include_url=False)[0]
    wanted, rules = _asked(context.command.callback, parameter.name)
    known = words(wanted)
    if known:  # Typer's own check says it less well
        first = {"type": first["type"], "input": first["input"]}
    mend = suggest(str(first["input"]).lower(), known) or _help(context.command_path)
    return [what_is_wrong(first, wanted, rules), max(parameter.opts, key=len), mend]


def _asked(function: Callable[..., Any], name: str) -> tuple[Any, list[Any]]:
    """(the type, the rules about it) of a command's parameter, as `options.wording` takes them."""
    from annotated_types import Ge, Le

    from retinue.options.typed import kinds

    hint = typing.get_type_hints(function, include_extras=True)[name]
    marks = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
    rules: list[Any] = []
    for mark in marks:
        rules += [kind(edge) for kind, edge in ((Ge, mark.min), (Le, mark.max)) if edge is not None]
    (kind,) = (one for one in kinds(hint) if one is not NoneType)
    if typing.get_origin(kind) is list:  # given several times, each is looked at
        (kind,) = typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        kind = Literal[tuple(one.value for one in kind)]
    return kind, rules


def _place(error: OSError) -> str | None:
    names = [name for name in (error.filename, error.filename2) if name is not None]
    return " → ".join(repr(str(name)) for name in names) or None


def _elsewhere(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "change its permissions or choose another place"
    return "check the path, or choose another place"
