"""Answers written on pictures."""

from __future__ import annotations

import numpy as np
import pytest
from flowers import task

from retinue.tasks import lettering
from retinue.tasks.results import ClassResult


def test_drawing_changes_a_copy_at_the_top_only() -> None:
    image = np.full((200, 300, 3), 90, dtype=np.uint8)
    drawn = task().draw(image, ClassResult("a", [("rose", 0.9), ("lily", 0.1)]))
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert (image == 90).all()
    assert drawn.max() > 200
    assert (drawn[100:] == 90).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (400, 5), (30, 30)])
def test_drawing_on_tiny_images_works(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), dtype=np.uint8)
    drawn = task().draw(image, ClassResult("a", [("a rather long class name", 0.9)] * 3))
    assert drawn.shape == image.shape


@pytest.mark.parametrize("name", ["Löwenzahn", "одуванчик", "花", "دaن", "🌷", "a\nb\udce9"])
def test_names_of_any_script_are_drawn_and_differ(name: str) -> None:
    image = np.zeros((120, 400, 3), dtype=np.uint8)
    drawn = task().draw(image, ClassResult("a", [(name, 0.5)]))
    other = task().draw(image, ClassResult("a", [("", 0.5)]))
    assert (drawn != other).any()


def test_without_any_font_there_is_a_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_font_files", tuple)
    assert task().draw(np.zeros((50, 90, 3), np.uint8), ClassResult("a", [("花", 1.0)])).max() > 200
