"""Tensors in tuples, lists and dicts: taken apart and put together."""

from __future__ import annotations

import json
from collections import namedtuple
from typing import Any

import pytest
import torch

from retinue.nested import leaves, mapped, rebuilt, single, structure

VALUE: dict[str, Any] = {
    "b": (torch.tensor([1]), [torch.tensor([2])]),
    "a": torch.tensor([0]),
    "none": [(), {}],
}


def test_leaves_stand_in_the_order_of_sorted_keys() -> None:
    assert [int(leaf) for leaf in leaves(VALUE)] == [0, 1, 2]
    assert [int(x) for x in leaves({"a": VALUE["a"], "none": [], "b": VALUE["b"]})] == [0, 1, 2]
    assert leaves(VALUE["a"]) == [VALUE["a"]]


@pytest.mark.parametrize("value", [VALUE, VALUE["b"], VALUE["a"], (VALUE,), [], (), {}])
def test_a_structure_rebuilds_its_value_also_from_json(value: Any) -> None:
    described = json.loads(json.dumps(structure(value)))
    assert described == structure(value)
    made = rebuilt(described, leaves(value))
    assert repr(made) == repr(value)  # kinds of container and order of keys, too


def test_structures_are_equal_where_values_are_nested_alike() -> None:
    one = torch.zeros(1)
    alike = {"a": one, "b": [one]}, {"b": [one + 1], "a": one.long()}
    assert structure(alike[0]) == structure(alike[1])
    for other in ({"a": one, "b": (one,)}, {"a": one, "b": one}, {"a": one}, [one, [one]], one):
        assert structure(other) != structure(alike[0])


def test_as_many_leaves_as_there_are_places() -> None:
    with pytest.raises(ValueError, match="too few"):
        rebuilt(["tuple", "tensor", "tensor"], [torch.zeros(1)])
    with pytest.raises(ValueError, match="too many"):
        rebuilt(["tuple", "tensor"], [torch.zeros(1)] * 2)


def test_other_things_are_refused() -> None:
    for wrong in (None, 3, "tensor", [torch.zeros(1), None]):
        for function in (leaves, structure):
            with pytest.raises(TypeError, match="neither a tensor nor"):
                function(wrong)  # type: ignore[operator]
    with pytest.raises(TypeError, match="strings for keys"):
        structure({1: torch.zeros(1)})  # type: ignore[dict-item]


def test_named_tuples_are_tuples() -> None:
    pair = namedtuple("pair", "x y")(torch.zeros(1), torch.ones(1))
    assert type(mapped(lambda leaf: leaf, pair)) is tuple


def test_mapped_and_single() -> None:
    value = (torch.arange(3), {"a": torch.arange(6).reshape(3, 2)})
    doubled = mapped(lambda leaf: 2 * leaf, value)
    assert repr(doubled) == repr((value[0] * 2, {"a": value[1]["a"] * 2}))
    halves = {"x": torch.ones(2, dtype=torch.bfloat16), "y": (torch.ones(1).double(), value[0])}
    one = torch.ones(1)
    assert repr(single(halves)) == repr({"x": torch.ones(2), "y": (one, value[0])})
    assert single(one) is one
