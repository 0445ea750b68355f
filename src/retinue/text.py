"""Names of files and classes as text that is safe to show: on one line, nothing invisible."""

from __future__ import annotations

from collections.abc import Sequence


def visible(text: object) -> str:
    """`text` with everything that is not printable escaped: a newline is `\\n`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def shorten(text: str, most: int) -> str:
    """`visible(text)`, its middle left out where it is longer than `most` characters."""
    line = visible(text)
    if len(line) <= most:
        return line
    return f"{line[: most // 2]}…{line[-(most - most // 2 - 1) :]}"


def few(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c, …`: the first few, for one line."""
    return ", ".join([*(shorten(name, 24) for name in names[:most]), *["…"][: len(names) - most]])


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 image`, `1,024 images`, `2 classes`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """`“a”, “b” and “c”`; of more than `most` the others are counted."""
    shown = [f"“{shorten(name, 40)}”" for name in names[:most]]
    if len(names) > most:
        shown.append(f"{len(names) - most:,} more")
    return " and ".join(part for part in (", ".join(shown[:-1]), shown[-1]) if part)
