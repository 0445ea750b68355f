"""Names of files and classes as text that is safe to show: on one line, nothing invisible."""

from __future__ import annotations

import re
from collections.abc import Sequence

MOST_BYTES = 100
"""Of a name that becomes a part of files' names, which may have 255 in all."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)


def visible(text: object) -> str:
    """`text` with everything that is not printable escaped: a newline is `\\n`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def utf8(text: str) -> str:
    """`text` with what is no valid Unicode, as in some names of files, escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def cut(text: str, most: int) -> str:
    """As much of the start of `text` as has at most `most` bytes in UTF-8."""
    while len(text.encode("utf-8", "surrogatepass")) > most:
        text = text[:-1]
    return text


def first_line(said: object, otherwise: str = "") -> str:
    """The first line of what an error says, a library's may have many; `otherwise` if it says
    nothing."""
    return (str(said).strip().splitlines() or [otherwise])[0]


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


def no_file_name(name: str) -> str:
    """Why `name` cannot become (a part of) a file's name on every system, in words that follow "a
    name"; empty if it can."""
    if not name.strip():
        return "of blanks alone"
    if len(name.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        return f"of more than {MOST_BYTES} bytes"
    odd = sorted({c for c in name if not c.isprintable() or c in '<>:"/\\|?*'})
    if odd:
        return f"with {visible(odd[0])!r}"
    if name[-1] in ". ":
        return "that ends in a dot or a blank"
    if _RESERVED.fullmatch(name):
        return "that is a device of Windows"
    return ""


def as_file_name(text: str, default: str = "run") -> str:
    """`text` made a name that files can have on every system: letters of any script, digits, `_`,
    `.` and `-`; `default` where nothing is left of it."""
    name = cut(re.sub(r"[^\w.-]+", "-", text).strip("-."), MOST_BYTES)
    name = name.rstrip("-.") or default
    return f"{default}-{name}" if _RESERVED.fullmatch(name) else name


def short(value: object) -> str:
    """A value of a setting; of a number with a fraction four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
