import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinue.evaluation.classification import confusion_counts
from retinue.figures import wilson
from retinue.page import plots

NOWHERE = "\U0001f9ff\U00013000"
"""An amulet and a hieroglyph, which the fonts of plots do not have."""


def test_a_name_that_no_font_has_disturbs_no_drawing(tmp_path: Path) -> None:
    counts = confusion_counts(np.array([0, 1, 1]), np.array([0, 1, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        figure = plots.confusion(counts, ["plain", NOWHERE])
        assert NOWHERE in plots.svg(figure, name="confusion", label="matrix")
        assert plots.png(figure, tmp_path / "confusion.png").stat().st_size > 1000


def bin_of(confidence: float, accuracy: float, images: int, low: float) -> dict[str, Any]:
    return {"low": low, "high": low + 0.1, "images": images, "confidence": confidence,
            "accuracy": accuracy}  # fmt: skip


def test_a_bin_stands_at_its_own_means_with_its_interval() -> None:
    """Its mean confidence is not the middle of its edges, and few images weigh lightly."""
    bins = [bin_of(0.42, 0.25, 4, 0.4), bin_of(0.58, 0.5, 150, 0.5), bin_of(0.95, 1.0, 3, 0.9)]
    empty = {"low": 0.0, "high": 0.1, "images": 0, "confidence": None, "accuracy": None}
    upper, lower = plots.calibration([empty, *bins]).axes
    dots = [made for made in upper.collections if hasattr(made, "get_sizes")]
    assert len(dots) == 3
    for dot, b in zip(dots, bins, strict=True):
        assert dot.get_offsets()[0].tolist() == [b["confidence"], b["accuracy"]]
    few, many, three = dots
    assert few.get_sizes()[0] < 0.3 * many.get_sizes()[0]
    assert three.get_alpha() < few.get_alpha() < 0.5 < many.get_alpha() == 1.0
    arms = [made.get_segments()[0] for made in upper.collections if hasattr(made, "get_segments")]
    for arm, b in zip(arms, bins, strict=True):
        assert arm[:, 0].tolist() == [b["confidence"]] * 2
        assert tuple(arm[:, 1]) == wilson(b["accuracy"] * b["images"], b["images"])
    assert [bar.get_height() for bar in lower.patches] == [4, 150, 3]
    assert {"4", "150", "3"} <= {text.get_text() for text in lower.texts}


def test_no_answer_at_all_is_drawn_too() -> None:
    assert plots.calibration([bin_of(0.5, 0.5, 0, 0.5)]).axes


def test_curves_of_one_training_span_the_same_epochs() -> None:
    """Also what was only judged now and then: a stage's name stands above its own part."""
    rows: list[dict[str, Any]] = [{"epoch": k, "stage": "all", "loss": 1 / k} for k in range(1, 9)]
    for k in (4, 6):
        rows[k - 1]["val_map50"] = k / 10
    spans = []
    for key in ("loss", "val_map50"):
        figure = plots.curves(rows, [key], title="a", fractions=False)
        assert figure is not None
        (axes,) = figure.axes
        spans.append(axes.get_xlim())
        (name,) = axes.texts
        assert spans[-1][0] <= name.xy[0] <= spans[-1][1]
    assert spans[0] == pytest.approx(spans[1])


def rates(*stages: tuple[str, Sequence[float]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for stage, values in stages:
        found += [{"epoch": len(found) + k, "stage": stage, "lr": value}
                  for k, value in enumerate(values, 1)]  # fmt: skip
    return found


def cosine(peak: float, epochs: int) -> list[float]:
    """As a training writes it down: its last rate is nearly nothing."""
    return [peak * (1 + math.cos(math.pi * (k - 0.01) / epochs)) / 2 for k in range(1, epochs + 1)]


def test_a_cosine_has_a_linear_axis_from_0() -> None:
    rows = rates(("head", cosine(1e-3, 20)))
    for schedules in ({"head": "cosine"}, {}, None):
        (axes,) = plots.learning_rate(rows, schedules).axes  # type: ignore[union-attr]
        assert axes.get_yscale() == "linear"
        assert axes.get_ylim()[0] == 0
        assert axes.lines[0].get_ydata().tolist() == [row["lr"] for row in rows]
        assert axes.lines[0].get_drawstyle() == "default"


def test_rates_that_fall_by_factors_have_a_logarithmic_axis() -> None:
    rows = rates(("all", [0.1, 0.1, 0.01, 0.01, 0.001]))
    (axes,) = plots.learning_rate(rows, {"all": "step"}).axes  # type: ignore[union-attr]
    assert axes.get_yscale() == "log"
    assert axes.lines[0].get_drawstyle() == "steps-mid"
    (once,) = plots.learning_rate(rates(("all", [0.1, 0.05])), {"all": "step"}).axes  # type: ignore[union-attr]
    assert once.get_yscale() == "linear"


def test_stages_that_lie_far_apart_have_an_axis_each() -> None:
    rows = rates(("head", cosine(1e-2, 5)), ("all", cosine(1e-4, 15)))
    head, every = plots.learning_rate(rows).axes  # type: ignore[union-attr]
    assert [axes.get_yscale() for axes in (head, every)] == ["linear", "linear"]
    assert head.get_ylim()[1] > 50 * every.get_ylim()[1]
    near = rates(("head", cosine(1e-3, 5)), ("all", cosine(3e-4, 15)))
    assert len(plots.learning_rate(near).axes) == 1  # type: ignore[union-attr]
    many = rates(*((f"s{k}", cosine(10.0**-k, 5)) for k in range(1, 6)))
    (axes,) = plots.learning_rate(many).axes  # type: ignore[union-attr]
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] > 1e-8, "the end of a cosine is left out"


@pytest.mark.parametrize("values", [[0.0], [1e-3], [0.0, 0.0]])
def test_a_short_training_has_whole_epochs(values: list[float]) -> None:
    (axes,) = plots.learning_rate(rates(("a", values))).axes  # type: ignore[union-attr]
    left, right = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if left <= tick <= right]
    assert ticks == [round(tick) for tick in ticks] != []
    assert plots.learning_rate([{"epoch": 1, "stage": "a"}]) is None
