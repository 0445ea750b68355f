"""What a run's predictions hold, judged once for all of its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from detection_runs import run_of
from pages import section_of

from retinue.page.record import read_run
from retinue.report.html import render
from retinue.tasks.detection.judged import judged, told_confidence


def test_the_confidence_of_mistakes_is_that_of_the_figures(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", images=3)
    metrics = json.loads((run / "metrics.json").read_text())
    found = judged(read_run(run))
    assert found is not None
    assert found.confidence == pytest.approx(metrics["errors"]["confidence"])
    metrics["errors"]["confidence"] = [0.05, 0.95, 0.5]
    (run / "metrics.json").write_text(json.dumps(metrics))
    found = judged(read_run(run))
    assert found is not None
    assert found.answers.of.of[found.chosen].tolist() == [0] * 5
    assert "that their class needs" in section_of(render(read_run(run)), "mistakes")


@pytest.mark.parametrize("value", ["much", [0.5], [0.5, None], None, {}])
def test_a_confidence_that_is_none_is_passed_over(value: Any) -> None:
    assert told_confidence({"errors": {"confidence": value}}, 2) is None
    assert told_confidence({"errors": value}, 2) is None


def test_predictions_of_another_task_give_no_sections(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", images=1)
    table = pq.read_table(run / "predictions.parquet").select(["path"])
    pq.write_table(table, run / "predictions.parquet")
    assert judged(read_run(run)) is None
