"""What the page says of a temperature."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pages import section

from retinue.evaluation.classification import expected_calibration_error, log_loss

Maker = Callable[..., Path]


pytestmark = pytest.mark.usefixtures("undrawn")


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_it_is_told_with_the_figures_before_and_after(run_maker: Maker) -> None:
    run = run_maker(["a", "b", "c"], images=200)
    table = pq.read_table(run / "predictions.parquet")
    labels, after = table["label"].to_numpy(), np.array(table["scores"].to_pylist())
    before = np.exp(1.5 * np.log(after))
    before /= before.sum(1, keepdims=True)
    change(run / "metrics.json", tta="none")
    change(run / "environment.json", fitted={"temperature": 1.5})
    shown = section(run, "calibration").replace("\u202f", " ")
    loss = [log_loss(labels, scores) for scores in (before, after)]
    gap = [expected_calibration_error(labels, scores) for scores in (before, after)]
    assert "divided by 1.5, a temperature fitted on the validation split: on these" in shown
    assert "The curves of the training are without it." in shown
    assert f"took the loss from {loss[0]:.3f} to {loss[1]:.3f}" in shown
    assert f"the gap from {100 * gap[0]:.1f} % to {100 * gap[1]:.1f} %" in shown  # type: ignore[operator]


def test_of_averaged_views_the_figures_before_are_not_known(run_maker: Maker) -> None:
    run = run_maker(["a", "b", "c"], images=60)
    change(run / "metrics.json", tta="flip")
    change(run / "environment.json", fitted={"temperature": 1.5})
    shown = section(run, "calibration")
    assert "a temperature fitted on the validation split." in shown
    assert "took the loss" not in shown


def test_that_there_is_none_is_told_where_it_is_known(run_maker: Maker) -> None:
    run = run_maker(["a", "b", "c"], images=60)
    assert "temperature" not in section(run, "calibration"), "an older run"
    for fitted in ({}, {"temperature": "hot"}):
        change(run / "environment.json", fitted=fitted)
        assert "No temperature was fitted" in section(run, "calibration")
