"""The YAML between the first two lines `---` of a page for a hub.

Hubs read it by YAML 1.2 and their Python libraries by 1.1, where a plain `no` is false and `1.0` a
number: text is always quoted, and what was written is read back both ways before anybody gets it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from retinue.documents import load_yaml, yaml_problem
from retinue.errors import RetinueError, UsageError
from retinue.text import utf8

_MARK = "---"
_PLAIN_KEY = re.compile("[a-z]+([_-][a-z]+)*")
_MEANT = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
"""Words that are values in some YAML."""


def header(values: Mapping[str, Any]) -> str:
    """Plain `values` as YAML, mappings in their order; characters that are no valid text are
    escaped. Raises RetinueError for what would not be read as it is meant, a number that is not
    finite among it."""
    plain = _valid(values)
    text = "".join(f"{line}\n" for line in _block(plain))
    for version in ("1.2", "1.1"):
        try:
            read = _read(text, version)
        except ValueError as error:
            raise RetinueError(f"the header of the model card is no YAML: {error}") from error
        if not _same(read, plain):
            raise RetinueError(f"YAML {version} reads the header of the model card otherwise")
    return text


def refuse_bad_header(text: str, where: str) -> None:
    """UsageError where the page `text` does not begin with a header that is a mapping in YAML."""
    mend = "begin it with a line ---, `key: value` lines and a line ---; text that looks like a"
    mend += " number, yes or no, or has a colon belongs in quotes"
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != _MARK:
        raise UsageError("the model card has no YAML header", where=where, mend=mend)
    end = next((k for k, line in enumerate(lines[1:], 1) if line.rstrip() == _MARK), None)
    if end is None:
        raise UsageError("the header of the model card does not end", where=where, mend=mend)
    inner = "\n".join(lines[1:end]) + "\n"
    read: Any = None
    for version in ("1.2", "1.1"):
        try:
            read = _read(inner, version)
        except ValueError as error:
            what = f"the header of the model card is no YAML: {error}"
            raise UsageError(what, where=where, mend=mend) from error
        if not isinstance(read, dict):
            raise UsageError("the header of the model card is no mapping", where=where, mend=mend)
    for key in ("library_name", "license", "pipeline_tag"):
        if key in read and not isinstance(read[key], str | list):
            said = f"in the header of the model card, {key} is no text: {read[key]!r}"
            raise UsageError(said, where=where, mend=mend)


def _read(text: str, version: str) -> Any:
    """ValueError says what is wrong, and in which line."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML(typ="safe", pure=True)
    yaml.version = version
    try:
        return load_yaml(text, yaml)
    except YAMLError as error:
        problem, line = yaml_problem(error)
        raise ValueError(f"{problem}{line and f', its{line}'}") from error


def _valid(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {utf8(str(key)): _valid(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_valid(inner) for inner in value]
    if isinstance(value, str):
        return utf8(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise RetinueError(f"the header of a model card cannot say {value!r}")


def _same(read: Any, meant: Any) -> bool:
    if isinstance(meant, dict):
        pairs = isinstance(read, dict) and list(read) == list(meant)
        return pairs and all(_same(read[key], meant[key]) for key in meant)
    if isinstance(meant, list):
        alike = isinstance(read, list) and len(read) == len(meant)
        return alike and all(map(_same, read, meant))
    return type(read) is type(meant) and bool(read == meant)


def _block(value: Mapping[str, Any], before: str = "") -> list[str]:
    lines: list[str] = []
    for key, inner in value.items():
        name = key if _PLAIN_KEY.fullmatch(key) and key not in _MEANT else _quoted(key)
        if isinstance(inner, dict) and inner:
            lines += [f"{before}{name}:", *_block(inner, before + "  ")]
        elif isinstance(inner, list) and inner:
            lines += [f"{before}{name}:", *_items(inner, before)]
        else:
            lines.append(f"{before}{name}: {_scalar(inner)}")
    return lines


def _items(values: list[Any], before: str) -> list[str]:
    lines: list[str] = []
    for inner in values:
        if isinstance(inner, dict) and inner:
            first, *rest = _block(inner, before + "  ")
            lines += [f"{before}- {first.removeprefix(before + '  ')}", *rest]
        else:
            lines.append(f"{before}- {_scalar(inner)}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = repr(value)
        mantissa, e, exponent = text.partition("e")
        if e:  # YAML 1.1 wants a point, and a sign
            mantissa += "" if "." in mantissa else ".0"
            return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"
        return text
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_quoted(key)}: {_scalar(one)}' for key, one in value.items())}}}"
    return "null" if value is None else str(value)


def _quoted(text: str) -> str:
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
