"""YAML and JSON from outside: bounded before anything is built of them, and nothing but values.

All YAML and JSON files of the package are read and written here. A text that stands for more than
a few hundred thousand values, is nested deeper than any recipe, or holds itself is refused while it
is looked through, not after it has filled the memory. What JSON does not know, NaN and infinity, is
neither read nor written.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from retinue.errors import RetinueError
from retinue.text import first_line

if TYPE_CHECKING:
    from ruamel.yaml import YAML

MOST_CHARACTERS = 1 << 22
"""Of a YAML text."""
MOST_VALUES = 200_000
"""That a YAML text stands for, its aliases written out; the classes of ImageNet-21k are 22,000."""
DEEPEST = 64
"""Lists and mappings within each other, in YAML and JSON."""
MOST_DIGITS = 4_000
"""Of a whole number; Python itself converts no more than 4,300 (CVE-2020-10735)."""


# --- YAML ----------------------------------------------------------------------------------------


def load_yaml(text: str, yaml: YAML | None = None, *, numbers: bool = True) -> Any:
    """What the YAML `text` holds, read by `yaml` (by default plain values), which makes no numbers
    of it if `numbers` is false. Whatever is wrong with it, its size included, is ruamel's
    YAMLError, with a line where there is one."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    _bounded(text, numbers)
    try:
        return (yaml or YAML(typ="safe", pure=True)).load(text)
    except YAMLError:
        raise
    except Exception as error:  # a date of month 13, say, is whatever Python finds it to be
        raise MarkedYAMLError(problem=f"{type(error).__name__}: {error}") from error


def yaml_problem(error: Exception) -> tuple[str, str]:
    """What `load_yaml` found wrong, on one line; and ` line 3`, or nothing where it has no line."""
    mark = getattr(error, "problem_mark", None)
    problem = first_line(getattr(error, "problem", None) or error, "not YAML")
    return problem, "" if mark is None else f" line {mark.line + 1}"


def yaml_text(value: Any) -> str:
    """Plain `value` as YAML, a line each, mappings in their order."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()


def _bounded(text: str, numbers: bool) -> None:
    """Goes through the events of `text`, of which nothing is built; YAMLError if it is too much."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.events import (
        AliasEvent,
        CollectionEndEvent,
        CollectionStartEvent,
        ScalarEvent,
    )

    def refuse(problem: str, mark: Any = None) -> NoReturn:
        raise MarkedYAMLError(problem=problem, problem_mark=mark)

    if len(text) > MOST_CHARACTERS:
        refuse(f"it has {len(text):,} characters, more than {MOST_CHARACTERS:,}")
    sizes: dict[str, int] = {}
    inside: list[tuple[str | None, int]] = []  # each one's anchor, and the values before it
    count = 0
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            mark = event.start_mark
            anchor: str | None = getattr(event, "anchor", None)
            if isinstance(event, AliasEvent):
                if any(anchor == outer for outer, _ in inside):
                    refuse(f"*{anchor} stands within what it stands for", mark)
                count += sizes.get(anchor or "", 0)  # an unknown one is refused by ruamel
            elif isinstance(event, ScalarEvent):
                count += 1
                if anchor:
                    sizes[anchor] = 1
                if numbers and not event.style and _too_many_digits(event.value):
                    refuse(f"a number of more than {MOST_DIGITS:,} digits", mark)
            elif isinstance(event, CollectionStartEvent):
                inside.append((anchor, count))
                count += 1
                if len(inside) > DEEPEST:
                    refuse(f"it is nested more than {DEEPEST} deep", mark)
            elif isinstance(event, CollectionEndEvent):
                own, before = inside.pop()
                if own:
                    sizes[own] = count - before
            if count > MOST_VALUES:
                refuse(f"it stands for more than {MOST_VALUES:,} values", mark)
    except YAMLError:
        raise
    except Exception as error:
        raise MarkedYAMLError(problem=f"{type(error).__name__}: {error}") from error


def _too_many_digits(text: str) -> bool:
    digits = text.lstrip("+-")
    return len(digits) > MOST_DIGITS and digits[0].isdigit() and digits.replace("_", "").isalnum()


# --- JSON ----------------------------------------------------------------------------------------


class NotJson(ValueError):  # noqa: N818 - it says what the text is
    """Why a text is no JSON that is read here; with line and column, where there are any."""


def parse_json(text: str | bytes, *, foreign: bool = False) -> Any:
    """What the JSON `text` holds. NotJson if it is none, nested too deep, or holds a number that
    Python does not convert or that is not finite; `foreign`: those stay, as some libraries' files
    have them."""
    own: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite}
    try:
        value = json.loads(text, **({} if foreign else own))
    except RecursionError:
        raise NotJson(f"it is nested more than {DEEPEST} deep") from None
    except NotJson:
        raise
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotJson(str(error).splitlines()[0]) from None
    except ValueError:
        raise NotJson("a number in it has thousands of digits") from None
    level = [value]
    for _ in range(DEEPEST + 1):
        holders = [outer for outer in level if isinstance(outer, dict | list)]
        if not holders:
            return value
        level = [
            inner
            for outer in holders
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    raise NotJson(f"it is nested more than {DEEPEST} deep")


def repeated_keys(text: str | bytes) -> list[tuple[str, dict[str, Any]]]:
    """Of JSON that `parse_json` reads: each object with a key that stands in it twice, of which the
    last value counts, and the first such key."""
    found = []

    def looked_at(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            times = Counter(key for key, _ in pairs)
            found.append((next(key for key in times if times[key] > 1), values))
        return values

    json.loads(text, object_pairs_hook=looked_at)
    return found


def read_json(path: Path) -> Any:
    """What the JSON file `path` holds.

    Raises:
        OSError: it cannot be read, FileNotFoundError if it is not there.
        RetinueError: it is not JSON (see `parse_json`).
    """
    try:
        return parse_json(path.read_bytes())
    except NotJson as error:
        raise RetinueError(f"this is not JSON ({error})", where=str(path)) from None


def json_text(
    value: Any,
    *,
    indent: int | None = None,
    plain: bool = False,
    encoding: str = "utf-8",
    compact: bool = False,
    ordered: bool = False,
) -> str:
    """`value` as JSON, its text readable, escaped only where `encoding` cannot say it; on one line,
    or indented. `plain`: what is no JSON value (a path, say) becomes its text. `compact`: without
    blanks between. `ordered`: by the names of keys.

    ValueError for a number that is not finite.
    """
    how: dict[str, Any] = {"indent": indent, "allow_nan": False, "default": str if plain else None}
    how["sort_keys"] = ordered
    if compact:
        how["separators"] = (",", ":")
    text = json.dumps(value, ensure_ascii=False, **how)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # a narrow terminal; and file names need not be valid text
        text = json.dumps(value, **how)
    return text


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotJson(f"{text[:20]} is too large a number")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise NotJson(f"{name} is no number of JSON")
