"""Text for pictures."""

from __future__ import annotations

import pytest

from retinue.tasks import lettering
from retinue.tasks.lettering import fit


def test_what_no_font_covers_is_written_as_its_code_point(monkeypatch: pytest.MonkeyPatch) -> None:
    dejavu = lettering._font_files()[:1]
    monkeypatch.setattr(lettering, "_font_files", lambda: dejavu)
    assert fit("花 rose é", 20, 1000)[0] == "\\u82b1 rose é"


def test_long_names_are_cut_with_an_ellipsis() -> None:
    text, font = fit("tulip " * 50, 12, 100)
    assert text.endswith("…")
    assert font.getlength(text) <= 100


def test_text_lies_on_one_line() -> None:
    assert "\n" not in fit("a\nb", 12, 1000)[0]
