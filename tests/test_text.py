"""Names are shown on one line, with nothing in them that a terminal obeys."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinue.text import MOST_BYTES, as_file_name, no_file_name, shorten, visible


def test_what_cannot_be_seen_is_escaped() -> None:
    assert visible("böse 猫") == "böse 猫"
    assert visible("a\nb\t\x1b[31m") == r"a\nb\t\x1b[31m"
    assert visible("\u202ejpg.exe\ud800") == r"\u202ejpg.exe\ud800"
    assert visible(Path("a/b")) == str(Path("a/b"))


def test_long_names_lose_their_middle() -> None:
    assert shorten("abcdefgh", 8) == "abcdefgh"
    assert shorten("abcdefghi", 8) == "abcd…ghi"
    assert shorten("abcdefghi", 7) == "abc…ghi"
    assert shorten("\n\n\n", 5) == r"\n…\n"


@pytest.mark.parametrize(
    "name",
    ["", "  ", "a" * (MOST_BYTES + 1), "猫" * 34, "a/b", "a\\b", "a:b", "what?", "a\nb", "end.",
     "end ", "CON", "con", "aux.txt", "Lpt1", "."],
)  # fmt: skip
def test_what_no_file_can_be_called_everywhere(name: str) -> None:
    assert no_file_name(name)
    made = as_file_name(name)
    assert not no_file_name(made)


@pytest.mark.parametrize("name", ["a" * MOST_BYTES, "猫" * 33, "head-1.2_x", "console", "com10"])
def test_what_files_can_be_called(name: str) -> None:
    assert no_file_name(name) == ""
    assert as_file_name(name) == name


def test_a_name_is_made_fit() -> None:
    assert as_file_name("my photos: 2024?") == "my-photos-2024"
    assert as_file_name("...") == "run"
    assert as_file_name("nul.yaml") == "run-nul.yaml"
    assert as_file_name("x" * 300) == "x" * MOST_BYTES
