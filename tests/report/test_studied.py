"""The page of a search of values, made from its `study.json` alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retinue.page.record import read_run
from retinue.report.general import status
from retinue.report.html import write_report
from retinue.report.studied import searched


def sweep(folder: Path, *figures: float | None, wanted: int = 4, less: bool = False) -> Path:
    folder.mkdir()
    study: dict[str, Any] = {
        "kind": "sweep",
        "recipe": {"task": "classification", "model": {"name": "resnet18"}},
        "spans": [
            {"key": "lr", "low": 1e-4, "high": 1e-2, "whole": False, "log": True, "choices": []},
            {"key": "a <b>", "low": 0, "high": 0, "whole": False, "log": False, "choices": ["x"]},
        ],
        "metric": "top1",
        "less": less,
        "wanted": wanted,
        "seed": 0,
        "done": [
            {"number": k, "values": {"lr": 1e-4 * (k + 1), "a <b>": "x"}, "figure": figure,
             "why": "" if figure is not None else "fell behind", "seconds": 3.0}
            for k, figure in enumerate(figures)
        ],
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(study))
    return folder


def test_trials_are_told_best_first_and_those_without_a_figure_last(tmp_path: Path) -> None:
    section = searched(read_run(sweep(tmp_path / "s", 0.5, None, 0.75, 0.6)))
    assert section is not None
    rows = section.values["rows"]
    assert [row["trial"] for row in rows] == [3, 4, 1, 2]
    assert rows[0]["values"] == ["0.0003", "x"]
    assert rows[-1]["why"] == "fell behind"
    assert section.values["best"].endswith("trials/002")


@pytest.mark.parametrize(("less", "best"), [(False, 2), (True, 1)])
def test_which_is_best_depends_on_the_figure(tmp_path: Path, less: bool, best: int) -> None:
    section = searched(read_run(sweep(tmp_path / "s", 0.5, 0.75, less=less)))
    assert section is not None
    assert section.values["rows"][0]["trial"] == best


def test_the_page_is_whole_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", 0.5, 0.75)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "is left out" not in text
    assert "2 trials so far" in text
    assert "2 of 4 trials" in text
    assert "resnet18" in text
    assert "a &lt;b&gt;" in text
    assert "mathdefault" not in text  # a formula where a number was meant


def test_of_a_search_that_is_done_nothing_is_left_to_do(tmp_path: Path) -> None:
    assert status(read_run(sweep(tmp_path / "s", 0.5, 0.6, wanted=2))) == ""


def test_without_a_single_figure_there_is_a_page_all_the_same(tmp_path: Path) -> None:
    text = write_report(sweep(tmp_path / "s", None)).read_text(encoding="utf-8")
    assert "fell behind" in text
    assert "is left out" not in text
