"""Which files of a folder are pictures to learn from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from retinue.data.sources.walking import DRAWN_MARK, OF_RUNS, about_runs, subfolders, walk


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


def _run(folder: Path, files: Iterable[str]) -> None:
    for name in (*files, "plots/loss.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_the_runs_of_trainings_are_no_pictures_of_a_data_set(tmp_path: Path) -> None:
    for name in ("red/a.jpg", "green/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    for name in ("runs/finetune", "runs/finetune-2", "mine", "red/tried"):
        _run(tmp_path / name, OF_RUNS[0])
    _run(tmp_path / "runs/judged", OF_RUNS[1])
    assert [p.name for p in subfolders(tmp_path)] == ["green", "red"]
    assert about_runs(tmp_path) == [
        "passed over: 'mine', 'runs', which trainings or evaluations left"
    ]
    assert walk(tmp_path).images == ["green/b.jpg", "red/a.jpg"]
    # A class may be called so, and who names the folder itself means it.
    (tmp_path / "runs" / "c.jpg").touch()
    assert [p.name for p in subfolders(tmp_path)] == ["green", "red", "runs"]
    assert walk(tmp_path / "runs").images == ["c.jpg"]
    assert walk(tmp_path / "mine").images == ["plots/loss.png"]
