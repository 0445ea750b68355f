"""The learning-rate range test: rates that rise evenly, and what the losses say of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image

import retinue
from retinue.errors import UsageError
from retinue.training.rate_range import judged, smoothed

pytestmark = pytest.mark.usefixtures("torch_alone")


def test_the_running_mean_by_hand() -> None:
    # Weights 0.1 · 0.9^k, divided by their sum.
    assert smoothed([2.0, 4.0]) == pytest.approx([2.0, (0.09 * 2 + 0.1 * 4) / 0.19])
    assert smoothed([3.0] * 9) == pytest.approx([3.0] * 9)


def test_the_steepest_place_and_the_lowest_of_a_known_curve() -> None:
    rates = [10 ** (-6 + 6 * k / 299) for k in range(300)]
    # A logistic fall around 1e-3, then away beyond 1e-1.
    losses = [2 - 1.5 / (1 + math.exp(-4 * (math.log10(r) + 3))) + 50 * max(r - 0.1, 0)
              for r in rates]  # fmt: skip
    found = judged("head", rates, losses, 1e-4)
    assert found.steepest is not None
    assert found.lowest is not None
    assert 0.8e-3 < found.steepest < 3e-3  # the running mean lags a little
    assert 0.05 < found.lowest < 0.3
    rising = judged("head", rates, list(range(300)), 1e-4)
    assert rising.steepest is rising.lowest is None


def _recipe(pictures: Path) -> dict[str, Any]:
    return tiny.recipe(pictures)


def test_a_stage_is_tried_and_nothing_of_it_stays(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plot = tmp_path / "rates.png"
    found = retinue.rate_range(_recipe(pictures), stage="all", steps=20, high=1e3, plot=plot)
    assert found.stage == "all"
    assert found.began == 0.02
    assert 5 < len(found.rates) == len(found.losses) == len(found.smooth) <= 20
    ratios = [b / a for a, b in zip(found.rates, found.rates[1:], strict=False)]
    assert ratios == pytest.approx([1e9 ** (1 / 19)] * len(ratios))
    with Image.open(plot) as image:
        assert image.format == "PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["rates.png"]
    again = retinue.rate_range(_recipe(pictures), stage="all", steps=20, high=1e3)
    assert again.losses == found.losses


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"stage": "tail"}, "the recipe has no stage 'tail'"),
        ({"low": 0.0}, "the rates must rise, from one above 0"),
        ({"low": 1.0, "high": 0.1}, "the rates must rise"),
        ({"steps": 2}, "10 to 10,000 steps"),
        ({"plot": "x.pdf"}, "written as PNG"),
        ({"stage": "own"}, r"labels images by what the stages before it.*stages\.N\.data=null"),
    ],
)
def test_what_is_refused(pictures: Path, how: dict[str, Any], what: str) -> None:
    recipe = _recipe(pictures)
    own = {"name": "own", "data": {"name": "pseudo_labels", "of": "test"}, "epochs": 1}
    recipe["stages"].append(own)
    with pytest.raises(UsageError, match=what):
        retinue.rate_range(recipe, **how)
