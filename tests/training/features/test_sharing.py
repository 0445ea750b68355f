"""Which stages have a part of the way in common."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from retinue.training.features.sharing import cuts_on_the_way, firsts_to_learn, next_on_the_way
from retinue.training.options import StageOptions

VARIED = {"crop_scale": [0.5, 1.0]}


def _stages(*changes: dict[str, Any]) -> list[StageOptions]:
    plain = {"epochs": 1, "views": 2, "augment": VARIED}
    return [
        StageOptions.model_validate({"name": f"s{k}", **plain, **each})
        for k, each in enumerate(changes)
    ]


def _next(*changes: dict[str, Any], index: int = 0) -> int | None:
    network, stages = tiny.Tiny(num_classes=3), _stages(*changes)
    return next_on_the_way(stages, index, network, firsts_to_learn(stages, network))


HEAD, LAST, MIDDLE = ({"trainable": name} for name in ("head", "last", "middle"))
ALL = {"trainable": "all", "views": None}


@pytest.mark.parametrize(
    ("stages", "wanted"),
    [
        ([HEAD, LAST], 1),
        ([HEAD, MIDDLE, LAST], 1),
        ([HEAD, HEAD, LAST], 2),  # the same cut is no way to go on
        ([LAST, HEAD], None),
        ([LAST, HEAD, MIDDLE], 2),  # nothing before `middle` has learnt by then
        ([HEAD, ALL, LAST], None),  # all before it has learnt by then
        ([MIDDLE, LAST, HEAD], None),
        ([HEAD, LAST | {"from_best": True}], 1),
        ([HEAD, ALL], None),
        ([HEAD], None),
        ([HEAD, LAST | {"views": 5}], 1),
        ([HEAD, LAST | {"augment": {"crop_scale": [0.6, 1.0]}}], None),
        ([HEAD, LAST | {"cache_features": "off", "views": None}], None),
        ([HEAD | {"cache_features": "off", "views": None}, LAST], None),
        ([HEAD, LAST | {"sizes": [32, 64]}], None),
        ([HEAD | {"sizes": [32, 64]}, LAST | {"sizes": [32, 64]}], 1),
        ([HEAD, LAST | {"cache_dtype": "float32"}], None),
        ([HEAD, LAST | {"data": {"name": "labelled"}}], 1),
        ([HEAD, LAST | {"data": {"name": "tiles", "whole": False}}], None),
        ([HEAD, HEAD | {"data": {"name": "tiles"}}, LAST], None),
        ([HEAD | {"cache_dtype": "int8"}, LAST | {"cache_dtype": "int8"}], None),
    ],
)
def test_the_next_stage_on_the_way(stages: list[dict[str, Any]], wanted: int | None) -> None:
    assert _next(*stages) == wanted


@pytest.mark.parametrize(
    ("stages", "wanted"),
    [
        ([LAST, HEAD], 0),
        ([MIDDLE, HEAD], 0),
        ([MIDDLE, LAST, HEAD], 1),
        ([LAST, MIDDLE, HEAD], 1),  # what is behind `middle` has learnt since
        ([LAST, ALL, HEAD], None),
        ([LAST, HEAD | {"from_best": True}], 0),
        ([ALL, LAST, HEAD | {"from_best": True}], None),
        ([LAST, HEAD | {"data": {"name": "tiles"}}], None),
        ([LAST | {"augment": {"crop_scale": [0.6, 1.0]}}, HEAD], None),
    ],
)
def test_an_earlier_stage_may_be_on_the_way_of_the_last_one(
    stages: list[dict[str, Any]], wanted: int | None
) -> None:
    assert _next(*stages, index=len(stages) - 1) == wanted


@pytest.mark.parametrize(
    ("stages", "wanted"),
    [
        ([ALL, HEAD, LAST], 2),
        ([ALL, HEAD, LAST | {"from_best": True}], None),  # maybe that of an epoch of the first
        ([ALL, HEAD, HEAD | {"from_best": True}, LAST], None),
        ([ALL | {"from_best": True}, HEAD | {"from_best": True}, LAST], 2),
        ([LAST, HEAD, MIDDLE | {"from_best": True}], 2),  # which has not learnt until then, either
    ],
)
def test_the_best_weights_may_be_those_of_an_earlier_stage(
    stages: list[dict[str, Any]], wanted: int | None
) -> None:
    assert _next(*stages, index=1) == wanted


def test_the_way_goes_via_every_stage_that_is_on_it() -> None:
    torch.manual_seed(0)
    network = tiny.Tiny(num_classes=3)
    stages = _stages(HEAD, LAST, MIDDLE)
    firsts = firsts_to_learn(stages, network)
    assert [cuts_on_the_way(stages, k, network, firsts) for k in range(3)] == [[2, 1], [1], []]
    back, learn = stages[::-1], firsts[::-1]
    assert [cuts_on_the_way(back, k, network, learn) for k in range(3)] == [[], [1], [2, 1]]
