"""Two classifiers of one network answer together: decoding, the search of shares, the state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from flowers import NAMES, batch_of, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retinue.errors import RetinueError
from retinue.evaluation.classification import best_blend, blended
from retinue.tasks.classification.meter import ClassificationMeter
from retinue.tasks.classification.task import Classification, ClassificationOptions

FIRST = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6]])
SECOND = torch.tensor([[0.1, 0.8, 0.1], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1]])
"""Probabilities of three images."""


def task(share: float | None = 1.0, **options: Any) -> Classification:
    state = {} if share is None else {"blend": share}
    return Classification(NAMES, ClassificationOptions(**options), state)


def outputs(first: Tensor = FIRST, second: Tensor = SECOND) -> dict[str, Tensor]:
    return {"logits": first.log() + 3, "auxiliary": second.log() - 1}


def filled(of: Classification, labels: list[int]) -> ClassificationMeter:
    meter = of.meter()
    meter.update(of.decode(outputs(), batch_of(3)), samples(labels))
    return meter


def test_what_is_answered_is_the_mean_by_shares() -> None:
    found = task(0.25).decode(outputs(), batch_of(3))
    assert [finding.shape for finding in found] == [(3, 3)] * 3
    by_hand = 0.25 * FIRST + 0.75 * SECOND
    for finding, said, first, second in zip(found, by_hand, FIRST, SECOND, strict=True):
        assert np.exp(finding[0]) == pytest.approx(said.numpy(), rel=1e-5)
        assert np.exp(finding[1]) == pytest.approx(first.numpy(), rel=1e-5)
        assert np.exp(finding[2]) == pytest.approx(second.numpy(), rel=1e-5)
    result: Any = task(0.25).result(found[0], "a.jpg")
    assert result.heads == {
        "main": (NAMES[0], pytest.approx(0.6)),
        "auxiliary": (NAMES[1], pytest.approx(0.8)),
    }
    assert result.as_dict()["heads"]["main"]["name"] == NAMES[0]
    assert result.answers()[0] == (NAMES[1], pytest.approx(0.25 * 0.3 + 0.75 * 0.8, rel=1e-5))


def test_a_temperature_is_of_the_blend() -> None:
    warm = Classification(NAMES, None, {"blend": 0.25, "temperature": 2.0})
    (finding, *_) = warm.decode(outputs(), batch_of(3))
    roots = (0.25 * FIRST[0] + 0.75 * SECOND[0]).sqrt()
    assert np.exp(finding[0]) == pytest.approx((roots / roots.sum()).numpy(), rel=1e-5)
    assert np.exp(finding[1]) == pytest.approx(FIRST[0].numpy(), rel=1e-5)


def test_the_search_by_hand() -> None:
    """Labels 0, 1, 2: the first recognises 0 and 2, the second 1 alone. 0.6h + 0.1(1-h) passes
    0.3h + 0.8(1-h) at h = 0.7; 0.5h + 0.4(1-h) passes 0.4h + 0.5(1-h) at 0.5; the third image's
    class 2 passes class 1 at h = 0.636…: from 0.71 on two are right, from 0.64 to 0.70 but one."""
    labels = np.array([0, 1, 2])
    logs = [np.log(side.numpy()) for side in (FIRST, SECOND)]
    share = best_blend(labels, *logs)
    assert 0.71 <= share <= 1.0
    likely = {
        h: np.log((h * FIRST + (1 - h) * SECOND).numpy()[range(3), labels]).sum()
        for h in np.arange(71, 101) / 100
    }
    assert share == pytest.approx(max(likely, key=likely.__getitem__))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 30))
def test_no_other_share_recognises_more(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    first, second = np.log(rng.dirichlet(np.ones(4), (2, n))).astype(np.float32)

    def right(share: float) -> int:
        mixed = share * np.exp(first.astype(float)) + (1 - share) * np.exp(second.astype(float))
        return int((mixed.argmax(1) == labels).sum())

    chosen = best_blend(labels, first, second)
    assert right(chosen) == max(right(h / 100) for h in range(101))


def test_what_is_impossible_for_one_is_not_for_both() -> None:
    first, second = np.log(np.array([[1.0, 1e-45]])), np.log(np.array([[0.5, 0.5]]))
    first[0, 1] = -np.inf
    assert np.exp(blended(first, second, 0.5)) == pytest.approx(np.array([[0.75, 0.25]]))
    assert np.array_equal(blended(first, second, 1.0), first.astype(np.float32))
    assert np.array_equal(blended(first, second, 0.0), second.astype(np.float32))


def test_a_validation_settles_it_and_figures_follow() -> None:
    of = task(calibration="none")
    meter = filled(of, [1, 1, 2])  # the second is right of the first two, the first of the last
    assert meter.compute()["top1"] == pytest.approx(1 / 3)
    fitted = of.fit(meter)
    assert 0.64 <= fitted["blend"] < 0.7
    found = meter.compute()
    assert found["top1"] == pytest.approx(2 / 3)
    assert (found["top1_main"], found["top1_auxiliary"]) == (
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
    )
    assert {figure.name for figure in of.figures()} <= found.keys()
    assert of.state() == {"blend": fitted["blend"]}
    again = Classification(NAMES, None, of.state())
    assert filled(again, [1, 1, 2]).compute() == found


def test_none_is_searched_if_it_is_not_wanted() -> None:
    of = task(blend="none", calibration="none")
    assert of.fit(filled(of, [1, 1, 1])) == {"blend": 1.0}


def test_images_without_a_label_settle_nothing() -> None:
    of = task(0.4)
    meter = of.meter()
    meter.update(of.decode(outputs(), batch_of(3)), samples([None] * 3))
    assert of.fit(meter)["blend"] == 0.4


def test_meters_of_several_processes_are_one() -> None:
    of, whole = task(0.3), task(0.3).meter()
    found = of.decode(outputs(), batch_of(3))
    first, second = of.meter(), of.meter()
    first.update(found[:1], samples([0]))
    second.update(found[1:], samples([1, 2]))
    for part in (first, second):
        whole.extend(part.rows())
    assert whole.compute() == filled(of, [0, 1, 2]).compute()


def test_models_answer_each_with_its_own_shares() -> None:
    findings = [task(h).decode(outputs(), batch_of(3))[0] for h in (0.0, 1.0)]
    merged = task(0.5).merge(findings)
    assert np.exp(merged[0]) == pytest.approx(((FIRST + SECOND)[0] / 2).numpy(), rel=1e-5)


@pytest.mark.parametrize("share", [-0.1, 1.5, "a", float("nan")])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    with pytest.raises(RetinueError, match=r"key task_state\.blend"):
        Classification(NAMES, None, {"blend": share})
