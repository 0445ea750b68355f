"""Names of files and classes as text that is safe to show: on one line, nothing invisible."""

from __future__ import annotations


def visible(text: object) -> str:
    """`text` with everything that is not printable escaped: a newline is `\\n`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def shorten(text: str, most: int) -> str:
    """`visible(text)`, its middle left out where it is longer than `most` characters."""
    line = visible(text)
    if len(line) <= most:
        return line
    return f"{line[: most // 2]}…{line[-(most - most // 2 - 1) :]}"
