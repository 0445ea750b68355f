"""A line of words as people type it: what is an override, and what stands for itself.

`--epochs 3`, `--epochs=3` and `epochs=3` are the same; so is a path that holds an equals sign a
path.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from retinue.text import visible

TAKE_ANY = {"ignore_unknown_options": True}
"""Context settings of a command whose line is sorted here."""


def sorted_words(words: Sequence[str], context: typer.Context) -> tuple[list[str], dict[str, Any]]:
    """(what stands for itself, key → value) of a command's `words`.

    Raises:
        UsageError: an option that is nearly one of the command's own.
    """
    from retinue.options.overrides import parse_overrides

    alone: list[str] = []
    pairs: list[str] = []
    waiting = deque(words)
    while waiting:
        word = waiting.popleft()
        if word.startswith("-") and word.lstrip("-") and not _is_there(word):
            word = _option(word, waiting, context)
        elif not _is_pair(word):
            alone.append(word)
            continue
        pairs.append(word)
    return alone, parse_overrides(pairs)


def _is_pair(word: str) -> bool:
    return "=" in word and not _is_there(word)


def _is_there(word: str) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):  # a list of many classes is too long for a name
        return False


def _option(word: str, waiting: deque[str], context: typer.Context) -> str:
    """`--epochs 3` as `epochs=3`; what has no value is switched on."""
    from retinue.errors import UsageError

    name, equals, value = word.lstrip("-").partition("=")
    own = [name for parameter in context.command.params for name in parameter.opts
           if name.startswith("--")]  # fmt: skip
    near = get_close_matches(f"--{name}", own, n=1, cutoff=0.8)
    if near and near[0] != f"--{name}":
        raise UsageError(f"no such option: {visible(word)}", mend=f"did you mean {near[0]!r}?")
    if equals:
        return f"{name}={value}"
    has_value = waiting and not waiting[0].startswith("--") and not _is_pair(waiting[0])
    return f"{name}={waiting.popleft() if has_value else 'true'}"
