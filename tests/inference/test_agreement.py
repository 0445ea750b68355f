"""How far two answers are apart, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from retinue.inference.agreement import compare


def test_agreement_by_hand() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert compare(logits, logits).error == 0
    off = logits.clone()
    off[0, 0] += 0.5 * 0.002  # the spread is 0.5
    assert compare(off, logits).error == pytest.approx(0.002, rel=1e-3)
    assert not compare(off, logits).accepted
    assert compare(1e-6 * off, 1e-6 * logits).error == pytest.approx(0.002, rel=1e-3)
    assert not compare(logits * float("nan"), logits).accepted
    assert not compare(logits.clone().fill_(float("inf")), logits).accepted
    assert not compare(logits[:1], logits).accepted
    assert not compare((logits, logits * float("nan")), (logits, logits)).accepted
    swapped = compare(logits.flip(1), logits, tolerance=0.1)
    assert swapped.flipped == 2
    tied = torch.tensor([[1.0, 0.99999], [0.0, 1.0]])
    assert compare(tied[:, [1, 0]], tied).flipped == 1  # the tie may go either way, the other not


def test_constant_outputs_can_agree() -> None:
    assert compare(torch.zeros(2, 3), torch.zeros(2, 3)).accepted
    assert not compare(torch.ones(2, 3), torch.zeros(2, 3)).accepted


def test_nested_agreement_by_hand() -> None:
    one, other = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 2])
    whole = {"a": [one, (other,)], "b": one}
    assert compare({"b": one, "a": [one, (other,)]}, whole).accepted
    for wrong in (
        one,
        {"a": [one, (other,)]},
        {"a": [one, [other]], "b": one},  # a list in a tuple's place
        {"a": [one, (other,)], "c": one},
        {"a": [one, (other[:1],)], "b": one},
        {"a": [one, (other.float(),)], "b": one},  # another kind of number
        {"a": [one, (other + 1,)], "b": one},
    ):
        found = compare(wrong, whole)
        assert found.error == float("inf")
        assert not found.accepted
    assert not compare({"a": [one, (other,)], "b": one * float("nan")}, whole).accepted
    off = compare({"a": [one, (other,)], "b": one + 0.25}, whole)
    assert off.error == pytest.approx(0.5)  # of the leaf's own spread
    assert compare((), ()).accepted
    assert compare(torch.zeros(0, 5), torch.zeros(0, 5)).accepted


def test_the_best_class_is_that_of_what_is_called_scores() -> None:
    """Boxes are (n, 5), as logits might be, and their largest coordinate is nobody's class."""
    boxes = torch.tensor([[0.0, 10.0, 10.3, 0.0, 0.0]])
    logits = torch.tensor([[0.0, 10.0, 10.3, 0.0, 0.0]])
    off = torch.tensor([[0.0, 10.3, 10.0, 0.0, 0.0]])
    assert compare(off, logits, 0.02).flipped == 1
    assert compare(off, logits, 0.06).flipped == 0  # 0.3 apart with a spread of 4.97: a near tie
    outputs, others = {"boxes": boxes, "logits": logits}, {"boxes": off, "logits": logits}
    assert compare(others, outputs, 0.02).flipped == 0
    assert compare(others, outputs, 0.02, scores=lambda out: out["logits"]).flipped == 0
    assert compare(others, outputs, 0.02, scores=lambda out: out["boxes"]).flipped == 1
    both = compare(others, outputs, 0.02, scores=lambda out: [out["boxes"], out["boxes"][None]])
    assert both.flipped == 2
    assert compare((off,), (logits,), 0.02).flipped == 0
    assert compare(off, logits, 0.02, scores=lambda out: ()).flipped == 0
