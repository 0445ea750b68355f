"""Which files of a folder are pictures to learn from."""

from __future__ import annotations

from pathlib import Path

from retinue.data.sources.walking import DRAWN_MARK, subfolders, walk


def test_drawn_predictions_are_no_pictures_of_a_data_set(tmp_path: Path) -> None:
    for name in ("red/a.jpg", "green/b.jpg", "answers/drawn/red/a.jpg", "drawn/red/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for folder in ("answers/drawn", "drawn"):
        (tmp_path / folder / DRAWN_MARK).touch()
    assert [p.name for p in subfolders(tmp_path)] == ["answers", "green", "red"]
    assert walk(tmp_path).images == ["green/b.jpg", "red/a.jpg"]
    # Who names the folder itself means it.
    assert walk(tmp_path / "drawn").images == ["red/a.jpg"]
