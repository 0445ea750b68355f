"""YAML and JSON from outside: what is too much, too deep or no value is refused at once."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from retinue.documents import (
    DEEPEST,
    MOST_VALUES,
    NotJson,
    json_text,
    load_yaml,
    parse_json,
    read_json,
)
from retinue.errors import RetinueError

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{k}: &{k} [{','.join([f'*{before}'] * 9)}]\n"
    for before, k in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {k: &k [x,x,x,x,x,x,x,x]}\n" + "".join(
    f"{k}: &{k} {{{', '.join(f'{k}{n}: *{before}' for n in range(9))}}}\n"
    for before, k in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "more than 200,000 values"),
        (MERGED, "more than 200,000 values"),
        ("[" * 5000, f"more than {DEEPEST} deep"),
        ("{a: " * 5000, f"more than {DEEPEST} deep"),
        ("- " * 5000 + "x", f"more than {DEEPEST} deep"),
        ("a: &a [*a]", r"\*a stands within what it stands for"),
        ("a: &a {b: &b {c: *a}}", r"\*a stands within what it stands for"),
        ("a: " + "9" * 5000, "more than 4,000 digits"),
        ("a: -0x" + "f" * 5000, "more than 4,000 digits"),
        ("x" * 5_000_000, "5,000,000 characters"),
        ("2024-99-99", "month|valid|range"),
        ("a: *b", "undefined alias"),
    ],
)
@pytest.mark.parametrize("kind", ["safe", "rt"])
def test_what_is_too_much_is_refused_early(text: str, problem: str, kind: str) -> None:
    began = time.process_time()
    with pytest.raises(YAMLError, match=problem):
        load_yaml(text, YAML(typ=kind, pure=True))
    assert time.process_time() - began < 5


def test_the_line_is_told() -> None:
    with pytest.raises(MarkedYAMLError) as caught:
        load_yaml("a: 1\nb: &b\n  c: *b\n")
    assert caught.value.problem_mark.line + 1 == 3


def test_what_is_plausible_is_read() -> None:
    deep = "[" * DEEPEST + "]" * DEEPEST
    assert load_yaml(deep)
    shared = load_yaml("a: &a [1, 2]\nb: *a\nc: {<<: {d: 1}}\n")
    assert shared == {"a": [1, 2], "b": [1, 2], "c": {"d": 1}}
    digits = "1" * 4200
    assert load_yaml(f"'{digits}'") == digits  # it is quoted: a text
    assert load_yaml("hash: " + "ab" * 3000)["hash"] == "ab" * 3000
    assert load_yaml("") is None


def test_many_classes_are_no_bomb() -> None:
    names = [f"class {i}" for i in range(4_000)]
    assert load_yaml(json.dumps(names)) == names
    assert MOST_VALUES > 100_000  # ImageNet-21k has 21,843, and people have more


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[NaN]", "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ("1e999", "1e999 is too large"),
        ("9" * 5000, "digits"),
        ("[" * 100_000, "deep"),
        ("[" * 500 + "]" * 500, "deep"),
        ('{"a":' * 100 + "1" + "}" * 100, "deep"),
        ("{", "line 1 column 2"),
        ("", "Expecting value"),
        (b"\xff\xfe\xff", "decode|truncated"),
    ],
)
def test_what_is_no_json_is_refused(text: str | bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(NotJson, match=problem):
        parse_json(text)
    path = tmp_path / "odd.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RetinueError, match=rf"not JSON \(.*, .*{path.name}"):
        read_json(path)


def test_other_libraries_write_numbers_that_are_none() -> None:
    assert math.isnan(parse_json("[NaN]", foreign=True)[0])


def test_json_is_written_strictly() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            json_text({"a": [value]}, plain=True)
    assert json_text({"a": "Katze 猫"}) == '{"a": "Katze 猫"}'
    assert json_text("猫", encoding="ascii") == '"\\u732b"'
    assert parse_json(json_text("caf\udce9")) == "caf\udce9"
    assert json_text(Path("a"), plain=True) == '"a"'
    with pytest.raises(TypeError):
        json_text(Path("a"))


def test_nothing_else_reads_or_writes_json() -> None:
    """One place says what is refused. `features/keys.py` only hashes what it writes."""
    source = Path(__file__).parent.parent / "src" / "retinue"
    found = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if re.search(r"\bjson\.(loads?|dumps?)\(|_validate_json\(", path.read_text("utf-8"))
    }
    assert found == {"documents.py", "training/features/keys.py"}
