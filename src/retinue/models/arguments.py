"""What a network can be built with: its keywords, and how many classes there are."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retinue.errors import UsageError, suggest


def counted_classes(num_classes: int | None, classes: Sequence[str]) -> int | None:
    """The number of classes, as far as it is told. Raises UsageError for names that cannot be."""
    if not classes:
        return num_classes
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise UsageError(f"classes are a list of names, not {classes!r}")
    if len(set(classes)) < len(classes):
        doubled = next(name for name in classes if list(classes).count(name) > 1)
        raise UsageError(f"the class {doubled!r} is listed twice", where="classes")
    if num_classes not in (None, len(classes)):
        raise UsageError(f"num_classes is {num_classes}, and there are {len(classes)} classes")
    return len(classes)


def refuse_arguments(name: str, build: Callable[..., Any], keywords: Mapping[str, Any]) -> None:
    """Raise UsageError for keywords that `build`, of the network `name`, does not take, or not with
    these values."""
    known = inspect.signature(build).parameters
    for key in keywords:
        if key not in known:
            takes = (*known, "head")
            mend = suggest(key, takes) or f"it takes weights, {', '.join(takes)}"
            if key == "pretrained":
                mend = "name them: weights='imagenet'"
            raise UsageError(f"{name} takes no argument {key!r}", mend=mend)
    for key, value in keywords.items():
        if reason := _impossible(key, value, known[key]):
            raise UsageError(f"{key} must {reason}, not {value!r}", where=name)


def _impossible(key: str, value: Any, parameter: inspect.Parameter) -> str:
    """What the keyword's value must be and is not, by its default; empty if it may be that."""
    default = parameter.default
    if parameter.annotation == "int | None":
        whole = isinstance(value, int) and not isinstance(value, bool)
        return "" if value is None or (whole and value >= 0) else "be a whole number, 0 or above"
    rate = key.endswith(("dropout", "drop_path"))
    if default is None and rate:
        default = 0.0
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "be true or false"
    if isinstance(default, str):
        return "" if isinstance(value, str) else "be a word"
    if not isinstance(default, int | float):
        return ""
    whole = isinstance(default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return "be a whole number" if whole else "be a number"
    if rate:
        return "" if 0 <= value < 1 else "be at least 0 and below 1"
    if whole:
        return "" if value >= 1 else "be at least 1"
    return "" if 0 < value < math.inf else "be above 0"
