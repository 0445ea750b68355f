"""Random erasing: how often, how much, and what it hides."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from retinue.data.composers import Composer
from retinue.data.geometry import Region
from retinue.data.options import AugmentOptions, ErasingOptions
from retinue.data.population import Population
from retinue.data.targets.boxes import Boxes
from retinue.data.views import TrainView
from retinue.sample import Preprocessing, Sample

HOW = Preprocessing(size=(80, 60), fit="squash")


def areas(**options: object) -> list[Region]:
    augment = AugmentOptions.model_validate({"horizontal_flip": 0, "erasing": options})
    composer = Composer(augment, HOW, 0)
    found = [composer.compose([(60, 80)], key=key, epoch=1).painted for key in range(1500)]
    regions = [paint.region for painted in found for paint in painted]
    assert all(isinstance(region, Region) for region in regions)
    return regions  # type: ignore[return-value]


def test_frequency_area_and_ratio_are_as_asked() -> None:
    regions = areas(probability=0.5, area=(0.1, 0.3), ratio=(0.5, 2.0))
    assert abs(len(regions) / 1500 - 0.5) < 0.04
    share = np.array([(r.x2 - r.x1) * (r.y2 - r.y1) / 4800 for r in regions])
    ratio = np.array([(r.x2 - r.x1) / (r.y2 - r.y1) for r in regions])
    assert share.min() > 0.09
    assert share.max() < 0.31
    assert abs(share.mean() - 0.2) < 0.01
    assert ratio.min() > 0.45
    assert ratio.max() < 2.2
    assert abs(np.log(ratio).mean()) < 0.05
    assert min(r.x1 for r in regions) == 0
    assert max(r.x2 for r in regions) == 60
    assert all(r.y1 >= 0 and r.y2 <= 80 for r in regions)
    assert areas(probability=0.0) == []


def test_pixels_are_random_or_the_mean_and_the_same_again() -> None:
    pixels = np.full((80, 60, 3), 7, np.uint8)
    sample = Sample("a", read=lambda: pixels)
    for fill in ("random", "mean"):
        options = {"horizontal_flip": 0, "erasing": {"probability": 1.0, "fill": fill}}
        view = TrainView(AugmentOptions.model_validate(options), HOW, 0)
        outs = [np.empty((80, 60, 3), np.uint8) for _ in range(2)]
        for out in outs:
            view.render([sample], key=4, epoch=0, size=(80, 60), out=out)
        assert (outs[0] == outs[1]).all()
        hidden = outs[0][(outs[0] != 7).any(axis=2)]
        if fill == "mean":
            assert (hidden == [124, 116, 104]).all()
        else:
            assert abs(hidden.mean() - 127.5) < 10
            assert len(np.unique(hidden, axis=0)) > len(hidden) * 0.9


def test_objects_that_are_hidden_are_not_to_be_found() -> None:
    """And those that show are."""
    boxes = [[x, y, x + 6, y + 6] for x in range(0, 60, 10) for y in range(0, 80, 10)]
    target = Boxes.made(boxes, [0] * len(boxes))
    sample = Sample("a", read=lambda: np.zeros((80, 60, 3), np.uint8), target=target)
    augment = AugmentOptions.model_validate({"horizontal_flip": 0, "erasing": 1.0})
    view = TrainView(augment, HOW, 0, Population.of_samples([sample]))
    lost = 0
    for key in range(20):
        (paint,) = view.composer.compose([(60, 80)], key=key, epoch=0, size=(80, 60)).painted
        x1, y1, x2, y2 = paint.region  # type: ignore[misc]
        seen = view.see([sample], [(60, 80)], key=key, epoch=0, size=(80, 60))
        assert isinstance(seen.target, Boxes)
        wanted = []
        for a, b, c, d in boxes:
            wide = max(min(c, x2) - max(a, x1), 0) * max(min(d, y2) - max(b, y1), 0)
            if 36 - wide > 0.1 * 36:
                wanted.append([a, b, c, d])
        assert seen.target.xyxy.tolist() == wanted
        lost += len(boxes) - len(wanted)
    assert lost > 20


def test_splices_and_mosaics_are_erased_too() -> None:
    for kind in ("splice", "mosaic", "copy_paste", "blend"):
        augment = AugmentOptions.model_validate({kind: 1.0, "erasing": 1.0})
        composer = Composer(augment, HOW, 0, Population.of("aaaa"))
        made = composer.compose([(50, 40)] * 4, key=2, epoch=0)
        assert len(made.painted) == 1
        assert len(made.placements) > 1


@pytest.mark.parametrize(
    "wrong", [{"area": (0.4, 0.1)}, {"area": (0, 0.1)}, {"ratio": (2, 1)}, 1.5]
)
def test_what_makes_no_sense_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        ErasingOptions.model_validate(wrong)
