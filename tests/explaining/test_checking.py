"""What becomes of the answer when what a map points at goes, or comes."""

from __future__ import annotations

import bright
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from squares import picture, predictor

from retinue import load
from retinue.errors import UsageError
from retinue.explaining import check, explain
from retinue.explaining.checking import Check, centre_map
from retinue.sample import Preprocessing

RED = (8, 16, 16, 24, 0)


def test_areas_by_hand() -> None:
    checked = Check((1.0, 0.5, 0.0), (0.0, 1.0, 1.0, 1.0))
    assert checked.deletion == pytest.approx(0.5)
    assert checked.insertion == pytest.approx(2.5 / 3)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40).map(tuple))
def test_areas_as_the_trapezoidal_rule_has_them(curve: tuple[float, ...]) -> None:
    wanted = np.trapezoid(curve, dx=1 / (len(curve) - 1))
    assert Check(curve, curve).deletion == pytest.approx(wanted)


def test_a_map_that_is_right_and_one_that_is_wrong() -> None:
    image, made = picture((32, 32), RED), predictor()
    right = explain(made, image, method="gradcam")
    wrong = 1 - right.heat
    good = check(made, image, right, steps=16)
    bad = check(made, image, wrong, "red", steps=16)
    # Of sixteen squares one is red: once it has gone, or come, nothing changes any more.
    assert good.deleted[0] == pytest.approx(right.score, abs=1e-6)
    assert max(good.deleted[3:]) < 0.34
    assert min(bad.deleted[:13]) > 0.9
    assert good.inserted[-1] == pytest.approx(right.score, abs=1e-6)
    assert min(good.inserted[3:]) > 0.9
    assert good.deletion < bad.deletion - 0.3
    assert good.insertion >= bad.insertion
    assert len(good.deleted) == len(good.inserted) == 17
    assert check(made, image, right, steps=16) == good


@pytest.mark.parametrize("fit", ["crop", "squash", "letterbox"])
def test_the_map_is_of_the_image_as_it_was_given(fit: str) -> None:
    """The order follows the picture through the view: only the red square's pixels matter."""
    size = (96, 48)
    image = picture(size, (36, 12, 60, 36, 0))
    how = Preprocessing((32, 32), (0.5, 0.5, 0.5), (1, 1, 1), "bilinear", fit, 1.0)  # type: ignore[arg-type]
    made = predictor(how=how)
    heat = np.zeros((48, 96), np.float32)
    heat[12:36, 36:60] = 1
    share = {"crop": 0.25, "squash": 0.125, "letterbox": 0.125}[fit]
    right = check(made, image, heat, "red", steps=16)
    gone = int(np.ceil(share * 16)) + 1
    assert max(right.deleted[gone:]) == pytest.approx(right.deleted[-1], abs=0.05)
    beside = check(made, image, np.fliplr(np.roll(heat, 30, 1)).copy(), "red", steps=16)
    assert right.deletion < beside.deletion


def test_views_members_and_places(tmp_path: object) -> None:
    image = picture((32, 32), RED)
    right = explain(predictor(), image, method="gradcam")
    for made in (predictor(tta="flip"), predictor(members=2), predictor("multilabel")):
        assert check(made, image, right, steps=8).deleted[0] > 0.99


def test_a_detector_is_checked_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = bright.model(tmp_path_factory.mktemp("model") / "best.safetensors")
    made = load(file, device="cpu", engine="torch")
    image = bright.picture((64, 48), [(32, 0, 64, 24, 1)])
    checked = check(made, image, explain(made, image, target="green"), steps=8)
    assert checked.deleted[0] > 0
    assert checked.deleted[-1] == 0
    with pytest.raises(UsageError, match="for which class"):
        check(made, image, explain(made, image))


def test_a_map_without_a_look() -> None:
    middle = centre_map((40, 20))
    assert middle.shape == (20, 40)
    assert np.unravel_index(middle.argmax(), middle.shape) in ((9, 19), (9, 20), (10, 19), (10, 20))


def test_what_is_refused() -> None:
    made, image = predictor(), picture((32, 32), RED)
    with pytest.raises(UsageError, match="32 × 16 pixels, and an image of 32 × 32"):
        check(made, image, np.zeros((16, 32), np.float32), "red")
    with pytest.raises(UsageError, match="no class 'rad'"):
        check(made, image, np.zeros((32, 32), np.float32), "rad")
    with pytest.raises(UsageError, match="at least one step, not 0"):
        check(made, image, np.zeros((32, 32), np.float32), "red", steps=0)
