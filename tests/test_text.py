"""Names are shown on one line, with nothing in them that a terminal obeys."""

from __future__ import annotations

from pathlib import Path

from retinue.text import shorten, visible


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
