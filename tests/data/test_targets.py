"""What is known of an image goes along with what is done to it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from retinue.data import geometry
from retinue.data.targets.boxes import Boxes
from retinue.data.targets.one_class import OneClass
from retinue.data.targets.several_labels import SeveralLabels
from retinue.sample import Target

CANVAS = (100, 100)


def through_json(target: Target) -> Target:
    text = json.dumps(target.as_dict(), allow_nan=False)
    return type(target).from_dict(json.loads(text))


# One class


def test_a_class_is_named_and_gets_its_index() -> None:
    rose = OneClass("rose")
    assert rose.names() == rose.mentioned() == ("rose",)
    assert rose.stratum() == "rose"
    assert rose.remap({"lily": 0, "rose": 1, "tulip": 2}) == OneClass(1, 3)
    assert rose.remap({"lily": 0}) is None
    assert OneClass(1, 3).names() == (1,)
    # From one order to another: the old index leads to the new one.
    assert OneClass(1, 3).remap({0: 4, 1: 0, 2: 1, "x": 2, "y": 3}) == OneClass(0, 5)
    assert OneClass(1, 3).remap({0: 0, 2: 1}) is None


def test_shares_of_what_falls_away_are_divided_among_the_others() -> None:
    soft = OneClass(2, 4, (0.2, 0.0, 0.5, 0.3))
    assert soft.names() == (0, 2, 3)
    assert soft.stratum() == "2"
    moved = soft.remap({0: 1, 3: 0})
    assert moved is not None
    assert (moved.of, moved.classes) == (0, 2)
    assert moved.shares == pytest.approx((0.6, 0.4))
    merged = soft.remap({0: 1, 1: 0, 2: 0, 3: 1})  # two old classes become one
    assert merged is not None
    assert merged.shares == pytest.approx((0.5, 0.5))
    assert soft.remap({1: 0}) is None
    # A model may know more classes than the data.
    assert OneClass(0, 2, (0.75, 0.25)).remap({0: 5, 1: 2}) == OneClass(
        5, 6, (0.0, 0.0, 0.25, 0.0, 0.0, 0.75)
    )


def test_one_class_is_seen_whatever_is_done_to_the_image() -> None:
    rose = OneClass(1, 3)
    assert rose.through(geometry.rotate(40), CANVAS, (0, 0, 3, 3)) == rose


def test_mixed_classes_are_shares() -> None:
    a, b = OneClass(0, 3), OneClass(2, 3)
    mixed = OneClass.mix([(a, 0.25), (b, 0.75)])
    assert mixed == OneClass(2, 3, (0.25, 0.0, 0.75))
    assert OneClass.mix([(a, 0.5), (a, 0.5)]) == a
    assert OneClass.mix([(a, 1.0), (b, 0.0)]) == a  # scenery
    soft = OneClass(1, 3, (0.25, 0.75, 0.0))
    again = OneClass.mix([(soft, 0.5), (b, 0.5)])
    assert again == OneClass(2, 3, (0.125, 0.375, 0.5))


def test_a_mosaic_of_classes() -> None:
    parts = [(OneClass(k, 5), share) for k, share in ((3, 0.1), (0, 0.4), (3, 0.3), (1, 0.2))]
    mixed = OneClass.mix(parts)
    assert mixed.of in (0, 3)
    assert mixed.shares == pytest.approx((0.4, 0.2, 0, 0.4, 0))


def test_classes_in_a_batch() -> None:
    hard = OneClass.collate([OneClass(2, 3), None, OneClass(0, 3)])
    assert hard["label"].tolist() == [2, -1, 0]
    assert hard["label"].dtype == torch.int64
    soft = OneClass.collate([OneClass(2, 3), None, OneClass(1, 3, (0.25, 0.75, 0.0))])
    assert soft["label"].tolist() == [[0, 0, 1], [0, 0, 0], [0.25, 0.75, 0]]
    assert soft["label"].dtype == torch.float32
    assert OneClass.collate([None])["label"].tolist() == [-1]


def dense(targets: dict[str, Tensor], classes: int) -> Tensor:
    """(n, classes): what label, other and share stand for."""
    label = targets["label"]
    if label.is_floating_point():
        return label
    own = F.one_hot(label, classes).float()
    if "other" not in targets:
        return own
    share = targets["share"][:, None]
    return own * share + F.one_hot(targets["other"], classes).float() * (1 - share)


rows = st.integers(1, 6)


@settings(deadline=None)
@given(data=st.data(), n=rows, soft=st.booleans())
def test_a_batch_of_classes_is_mixed_as_dense_rows_are(
    data: st.DataObject, n: int, soft: bool
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    classes = 4
    targets = [OneClass(int(rng.integers(classes)), classes) for _ in range(n)]
    if soft:
        shares = rng.dirichlet(np.ones(classes))
        targets[0] = OneClass(int(shares.argmax()), classes, tuple(shares.tolist()))
    collated = OneClass.collate(targets)
    before = {name: value.clone() for name, value in collated.items()}
    partner = torch.from_numpy(rng.integers(n, size=n))
    share = torch.from_numpy(rng.choice([0.0, 0.25, 0.5, 1.0], n)).float()
    mixed = dense(OneClass.mix_batch(collated, partner, share), classes)
    known = dense(collated, classes)
    expected = known * share[:, None] + known[partner] * (1 - share[:, None])
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(mixed.sum(1), torch.ones(n))
    assert all(torch.equal(before[name], collated[name]) for name in before)


# Several labels


def test_labels_are_named_and_get_their_indices() -> None:
    target = SeveralLabels(("sea", "sky"), unknown=("dog", "sky"))
    assert target.names() == ("sea", "sky")
    assert target.mentioned() == ("sea", "sky", "dog")
    assert SeveralLabels((0,), 3, (2,)).names() == (0,)
    assert target.stratum() == "sea|sky"
    assert SeveralLabels(("sky", "sea")).stratum() == "sea|sky"
    order = {"sky": 0, "dog": 1, "sea": 2}
    assert SeveralLabels(("sea", "sky"), unknown=("dog",)).remap(order) == SeveralLabels(
        (0, 2), 3, (1,)
    )
    assert SeveralLabels((0, 2), 3, (1,)).remap({0: 1, 1: 0}) == SeveralLabels((1,), 2, (0,))
    # Old classes may become one: what is true of either is true of it.
    merged = SeveralLabels((0, 2), 4, (1, 3)).remap({0: 0, 1: 0, 2: 0, 3: 1})
    assert merged == SeveralLabels((0,), 2, (1,))
    # A model may know more classes than the data: the highest index counts.
    assert SeveralLabels((0,), 2).remap({0: 6, 1: 3}) == SeveralLabels((6,), 7)
    # An image that shows none of the classes teaches what they do not look like.
    assert SeveralLabels(("cat",)).remap(order) == SeveralLabels((), 3)
    # Of what its data never speaks of, nobody knows.
    assert SeveralLabels((6,), 7).leaving_open([1, 8]) == SeveralLabels((6,), 9, (1, 8))
    assert SeveralLabels((6,), 7).leaving_open([]) == SeveralLabels((6,), 7)
    assert OneClass(1, 2).leaving_open([2]) == OneClass(1, 2)
    assert SeveralLabels(("a",), 4).through(geometry.scale(9), CANVAS, (0, 0, 1, 1)).of == ("a",)


def test_what_shows_on_a_canvas_is_true_of_it() -> None:
    parts = [
        (SeveralLabels((0, 3), 6, (1,)), 0.4),
        (SeveralLabels((2,), 6, (3, 4)), 0.3),
        (SeveralLabels((), 6), 0.3),
        (SeveralLabels((5,), 6, (0,)), 0.0),  # scenery
    ]
    assert SeveralLabels.mix(parts) == SeveralLabels((0, 2, 3), 6, (1, 4))


def test_labels_in_a_batch() -> None:
    collated = SeveralLabels.collate(
        [SeveralLabels((0, 2), 3), None, SeveralLabels((), 3, (1,)), SeveralLabels((1,), 3, (0, 2))]
    )
    assert collated["labels"].tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert collated["known"].tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert {value.dtype for value in collated.values()} == {torch.float32}
    assert SeveralLabels.collate([None, None])["labels"].shape == (2, 0)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), n=rows)
def test_a_batch_of_labels_is_mixed_as_dense_rows_are(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    states = rng.integers(3, size=(n, 5))  # not there, there, unknown
    targets = [
        SeveralLabels(
            tuple(np.flatnonzero(row == 1).tolist()), 5, tuple(np.flatnonzero(row == 2).tolist())
        )
        for row in states
    ]
    partner, share = rng.integers(n, size=n), rng.choice([0.0, 0.5, 0.75, 1.0], n)
    mixed = SeveralLabels.mix_batch(
        SeveralLabels.collate(targets),
        torch.from_numpy(partner),
        torch.from_numpy(share).float(),
    )
    for k in range(n):
        for c in range(5):
            own, other = states[k, c], states[partner[k], c]
            expected = share[k] * (own == 1) + (1 - share[k]) * (other == 1)
            assert mixed["labels"][k, c] == pytest.approx(expected)
            # Whole images need nobody else's knowledge.
            known = own != 2 and (share[k] == 1 or other != 2)
            assert mixed["known"][k, c] == known


# All of them

names = st.sampled_from(["a", "b", "|", "?", "a|b", "b?a", "", "1", 1, 0, 2])
several = st.lists(names, max_size=3).map(tuple)
corners = st.floats(-50, 50, width=32)
flags = st.booleans()
shares = st.lists(st.integers(0, 1000), min_size=3, max_size=3).map(tuple)


@st.composite
def one_class(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"class": draw(names), "classes": draw(st.integers(0, 3))}
    parts = np.array(draw(shares)) + 1
    parts = parts / parts.sum()
    return {"class": int(parts.argmax()), "classes": 3, "shares": parts.tolist()}


@st.composite
def several_labels(draw: st.DrawFn) -> dict[str, Any]:
    of, unknown = draw(several), draw(several)
    return {"of": list(of), "classes": draw(st.integers(0, 3)), "unknown": list(unknown)}


@st.composite
def boxes(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(0, 2))
    return {
        "xyxy": [[draw(corners) for _ in range(4)] for _ in range(n)],
        "of": [draw(names) for _ in range(n)],
        "difficult": [draw(flags) for _ in range(n)],
        "crowd": [draw(flags) for _ in range(n)],
        "not_exhaustive": list(draw(several)),
    }


KINDS = {OneClass: one_class(), SeveralLabels: several_labels(), Boxes: boxes()}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_target_survives_json(kind: type[Target], data: st.DataObject) -> None:
    values = data.draw(KINDS[kind])
    target = kind.from_dict(values)
    again = through_json(target)
    assert again == target
    assert again.as_dict() == target.as_dict()
    assert again.fingerprint() == target.fingerprint()
    assert hash(again) == hash(target)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_difference_is_in_the_fingerprint(kind: type[Target], data: st.DataObject) -> None:
    """One field taken from another target: the fingerprint differs just where the target does."""
    one, other = (data.draw(KINDS[kind]) for _ in range(2))
    if kind is Boxes:
        field = data.draw(st.sampled_from(["one", "length"]))
        if field == "one" and one["of"]:
            name = data.draw(st.sampled_from(["xyxy", "of", "difficult", "crowd"]))
            mixed = {**one, name: [boxes_value(data, name), *one[name][1:]]}
        else:
            mixed = {**one, "not_exhaustive": other["not_exhaustive"]}
    else:
        name = data.draw(st.sampled_from(sorted({*one, *other})))
        mixed = {**one, name: other[name]} if name in other else dict(one)
        if name not in other:
            del mixed[name]
    before, after = kind.from_dict(one), kind.from_dict(mixed)
    assert (before.fingerprint() == after.fingerprint()) == (before == after)
    assert isinstance(before.fingerprint(), str)


def boxes_value(data: st.DataObject, name: str) -> Any:
    """One object's value for this field."""
    if name == "xyxy":
        return [data.draw(corners) for _ in range(4)]
    return data.draw(names if name == "of" else flags)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_two_targets_that_differ_have_other_fingerprints(
    kind: type[Target], data: st.DataObject
) -> None:
    one, other = (kind.from_dict(data.draw(KINDS[kind])) for _ in range(2))
    assert (one.fingerprint() == other.fingerprint()) == (one == other)
