"""What numbered classes are called: `labels.txt` and `label_map.pbtxt` beside shards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retinue.data.sources.walking import hidden, normal
from retinue.errors import UsageError, some
from retinue.files import children, read_text

_SHOWN = 5
_ITEM = re.compile(r"item\s*\{([^{}]*)\}")
_ID = re.compile(r"\bid\s*:\s*(\d+)")
_CALLED = re.compile(r"\b(display_name|name)\s*:\s*(['\"])(.*?)\2")
_LINES = re.compile(r"(labels|classes|class_names|.+\.labels)\.txt", re.IGNORECASE)
_NUMBERED = re.compile(r"(\d+)\s*:(.*)")


@dataclass(frozen=True, slots=True)
class LabelNames:
    """Names of classes by their numbers."""

    file: str
    """The name of the file that says so."""
    of: Mapping[int, str]
    counted: bool = False
    """Whether the numbers are those of lines, from 0: then the first class may be numbered 1 as
    well."""


def label_maps(root: Path) -> list[Path]:
    """The `.pbtxt` files in `root`."""
    return sorted(p for p in children(root) if p.suffix.lower() == ".pbtxt" and not hidden(p.name))


def several_label_maps(maps: Sequence[Path]) -> str:
    """The note that no one of them can be chosen."""
    names = some([path.name for path in maps], _SHOWN, between=", ")
    return f"several label maps, of which none is read: {names}"


def read_label_map(path: Path) -> dict[int, str]:
    """Id → name, of a `.pbtxt`. Raises `UsageError`."""
    text = _text(path, "label map")
    found: dict[int, str] = {}
    for item in _ITEM.findall(re.sub(r"(?m)^\s*#.*$", "", text)):
        number = _ID.search(item)
        called = {key: name for key, _, name in _CALLED.findall(item)}
        # As `image/object/class/text` has it.
        name = called.get("name") or called.get("display_name")
        if number and name:
            found[int(number[1])] = _plain(name)
    return found


def read_label_names(root: Path, notes: list[str]) -> LabelNames | None:
    """Those that a file in `root` says, None where none does; what is to be said of several is
    added to the `notes`. Raises `UsageError`."""
    lists = [p for p in children(root) if _LINES.fullmatch(p.name) and not hidden(p.name)]
    found = sorted([*lists, *label_maps(root)])
    if len(found) > 1:
        notes.append(several_label_maps(found))
    if len(found) != 1:
        return None
    [path] = found
    if path.suffix.lower() == ".pbtxt":
        return LabelNames(path.name, read_label_map(path))
    return _read_lines(path)


def _read_lines(path: Path) -> LabelNames:
    lines = [normal(line.strip()) for line in _text(path, "names of the classes").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    numbered = [_NUMBERED.fullmatch(line) for line in lines if line]
    if not numbered or not all(numbered):
        return LabelNames(path.name, dict(enumerate(lines)), counted=True)
    found: dict[int, str] = {}
    for line, match in enumerate(numbered, 1):
        assert match is not None
        if int(match[1]) in found:
            raise UsageError(
                f"class {int(match[1])} is named twice",
                where=f"{str(path)!r} line {line}",
                mend="leave one of the names",
            )
        found[int(match[1])] = normal(match[2].strip())
    return LabelNames(path.name, found)


def _text(path: Path, what: str) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError):
        raise UsageError(
            f"cannot read the {what}", where=repr(str(path)), mend="save it as UTF-8"
        ) from None


def _plain(name: str) -> str:
    """On one line, without blanks around it, in Unicode NFC."""
    return normal(" ".join(name.split()))


# --- from numbers to names ------------------------------------------------------------------------


@dataclass(slots=True)
class Named:
    """What the numbers of a data set come to."""

    classes: list[str]
    """In the order of their numbers."""
    of: dict[int, str] = field(default_factory=dict)
    """The numbers that occur, and the name of each that is one of a class."""
    wrong: dict[int, str] = field(default_factory=dict)
    """The others, and why they are none."""


def name_numbers(
    texts: Mapping[int, Counter[str]],
    file: LabelNames | None,
    first_label: int | None,
    notes: list[str],
) -> Named:
    """`texts`: the numbers that occur, and what is written beside each, how often; `file`: what a
    file calls them; `first_label`: what the first class is numbered, where it is known. What was
    decided is added to the `notes`."""
    said = _said(texts, notes)
    if file is not None:
        first = _first(texts, said, file, first_label)
        names = {number + (first if file.counted else 0): n for number, n in file.of.items()}
        one = ", the first of them 1" if first and file.counted else ""
        notes.append(f"classes are named by {file.file}{one}")
        lowest = first if file.counted or first_label is not None else 0
        why = f", which {file.file} does not name ({_span(names)})"
    else:
        lowest = first_label or 0
        names = said or {number: str(number) for number in texts if number >= lowest}
        why = ""
    names = {number: name or str(number) for number, name in names.items()}
    named = Named([])
    for number in sorted(texts):
        if number < lowest:
            why_low = "which is below 0" if lowest == 0 else "but the first class is numbered 1"
            named.wrong[number] = f"label {number}, {why_low}"
        elif number not in names:
            named.wrong[number] = f"label {number}{why}"
    distinct = _apart({n: name for n, name in names.items() if n >= lowest}, notes)
    named.classes = [distinct[number] for number in sorted(distinct)]
    named.of = {number: distinct[number] for number in texts if number in distinct}
    if file is not None:
        _compare(said, distinct, file, notes)
    return named


def _said(texts: Mapping[int, Counter[str]], notes: list[str]) -> dict[int, str]:
    """The name of each number as it is written beside it; empty where that is no name."""
    several = [number for number, found in texts.items() if len(found) > 1]
    if several:
        number = min(several)
        written = some([repr(t) for t, _ in texts[number].most_common()], 2, between=", ")
        notes.append(
            f"what is written beside the labels is no name of a class: label {number} has {written}"
        )
        return {}
    if not all(texts.values()):
        return {}
    return {number: next(iter(found)) for number, found in texts.items()}


def _first(
    texts: Mapping[int, Counter[str]],
    said: Mapping[int, str],
    file: LabelNames,
    first_label: int | None,
) -> int:
    """What the first class is numbered."""
    if first_label is not None:
        return first_label
    if not file.counted:
        return int(bool(file.of) and min(file.of) > 0)
    if said:
        agree = [sum(file.of.get(n - k) == name for n, name in said.items()) for k in (0, 1)]
        return int(agree[1] > agree[0])
    return int(min(texts, default=0) > 0 and max(texts, default=0) == len(file.of))


def _apart(names: Mapping[int, str], notes: list[str]) -> dict[int, str]:
    """With their number behind those that are of several numbers: two kinds of `crane`."""
    times = Counter(names.values())
    again = [name for name, count in times.items() if count > 1]
    if again:
        shown = some(list(map(repr, again)), _SHOWN, between=", ")
        notes.append(f"several labels of one name, which go with their number: {shown}")
    return {n: f"{name} ({n})" if times[name] > 1 else name for n, name in names.items()}


def _compare(
    said: Mapping[int, str], names: Mapping[int, str], file: LabelNames, notes: list[str]
) -> None:
    differ = [n for n, name in sorted(said.items()) if n in names and names[n] != name]
    if differ:
        first = differ[0]
        notes.append(
            f"{file.file} calls label {first} {names[first]!r}, beside it stands"
            f" {said[first]!r}: the file counts (data.features.first_label says where it begins)"
        )


def _span(names: Mapping[int, str]) -> str:
    return f"{min(names)} to {max(names)}" if names else "none"
