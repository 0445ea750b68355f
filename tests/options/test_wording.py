"""No word of pydantic's reaches a person, and no pattern."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from retinue.errors import UsageError
from retinue.options import Words
from retinue.options.typed import classes, places, words
from retinue.options.wording import at, shown, wish
from retinue.tasks.shipped import DEFAULT
from retinue.tasks.task import task_names
from retinue.training.options import StageOptions
from retinue.training.recipe import Recipe, load_recipe

GOOD: dict[str, Any] = {"model": {"name": "tiny", "weights": None}, "stages": [{"epochs": 1}]}
WRONG: list[Any] = [
    "wörd", "", "9" * 99, True, None, -1, 10**400, 1.5, math.nan, [], [None], [-1, -2], [2.0, 1.0],
    {}, {"wörd": 1}, object(),
]  # fmt: skip
THEIRS = re.compile(
    r"[Vv]alue error|[Ii]nput (should|must)|should (be|have|match|contain)|validation error"
    r"|valid (dictionary|list|tuple|string|integer|number|boolean|bool)|unable to|field required"
    r"|extra inputs|instance of|constrained|literal|\^\[|\^\(|\\d|\]\*\$|something else|discrim"
    r"|pydantic"
)
"""Words and signs of pydantic's and of patterns."""


def _complaint(values: Any, overrides: dict[str, Any] | None = None) -> str:
    try:
        load_recipe(values, overrides)
    except UsageError as error:
        return str(error)
    return ""


def _everywhere() -> Iterator[tuple[Any, str]]:
    """(a good recipe, a place in it), for every field of the schema, those of all samplers, kinds
    of stages' data and tasks among them."""
    for task in task_names():
        base = {**GOOD, "task": task}
        for place in places(Recipe, base):
            if task == DEFAULT or place[0] == "task_options":
                yield base, ".".join(map(str, place))
    for field in ("sampler", "data", "sizes"):
        for options in classes(StageOptions.model_fields[field].annotation):
            name = words(getattr(options.model_fields.get("name"), "annotation", None))
            inner = {"name": name[0]} if name else {"min": 32, "max": 64}
            stage = {"epochs": 1, field: inner}
            for key in options.model_fields:
                yield {**GOOD, "stages": [stage]}, f"stages.0.{field}.{key}"


def test_every_wrong_value_of_every_field_is_told_in_our_words() -> None:
    told = 0
    for values, place in _everywhere():
        for wrong in WRONG:
            message = _complaint(values, {place: wrong})
            assert not THEIRS.search(message), (place, wrong, message)
            assert len(message) < 700
            told += bool(message)
    assert told > 1000


def test_a_missing_field_and_an_unknown_key_are_told_in_our_words() -> None:
    assert _complaint({"stages": [{"epochs": 1}]}) == "model is missing, recipe, key model"
    assert _complaint({**GOOD, "stages": [{"epochs": 1, "sampler": {}}]}).startswith(
        "stages.0.sampler.name is missing"
    )
    for wrong in ("x", 3, None, [], {"x": 1}):
        assert not THEIRS.search(_complaint({**GOOD, "stages": wrong}))
        assert not THEIRS.search(_complaint({**GOOD, "stages": [wrong]}))


@pytest.mark.parametrize("head", [
    {"name": "mlp", "hidden": "x"}, {"name": "mlp", "hidden": [0]}, {"name": "mlp", "hidden": []},
    {"name": "mlp", "dropout": 2}, {"name": "mlp", "activation": "x"}, {"name": "mlp", "x": 1},
    {"name": "linear", "x": 1}, {"name": 3}, "wörd", {},
])  # fmt: skip
def test_heads_are_told_of_in_our_words_too(head: Any) -> None:
    message = _complaint({**GOOD, "model": {"name": "tiny", "weights": None, "head": head}})
    assert message
    assert not THEIRS.search(message)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("stages.0.epochs", "a whole number greater than 0 and at most 1000000000 or null"),
        ("stages.0.optimizer.betas", "a list of two numbers of at least 0 and less than 1"),
        ("stages.0.name", "letters, digits, '.', '_' and '-', with a letter or digit first"),
        ("stages.0.cache_features", "one of auto, on, off"),
        ("stages.0.augment.zoom", "a list of two numbers greater than 0 or null"),
        ("model.dropout", "a number of at least 0 and less than 1 or null"),
        ("data.workers", "a whole number of at least 0 or auto"),
        ("data.classes", "a list of texts or null"),
        ("compile", "true or false"),
        ("device", "auto, cpu, cuda, cuda:N or mps"),
        ("stages.0.data", "one of subset, with_validation, tiles, pseudo_labels, with_pool,"
         " labelled, or a mapping with that as its name or null"),
        ("stages.0.optimizer", "one of sgd, adam, adamw, rmsprop, or a mapping of name, lr,"
         " weight_decay …"),
    ],
)  # fmt: skip
def test_what_a_field_takes_in_words(place: str, words: str) -> None:
    parts = [int(part) if part.isdigit() else part for part in place.split(".")]
    assert wish(*at(Recipe, GOOD, parts)) == words


def test_a_pattern_without_words_would_be_seen() -> None:
    """The walk above relies on it: every pattern of the schema has words beside it."""
    found = 0
    for values, place in _everywhere():
        parts = [int(part) if part.isdigit() else part for part in place.split(".")]
        _, rules = at(Recipe, values, parts)
        if any(getattr(rule, "pattern", None) for rule in rules):
            found += 1
            assert any(isinstance(rule, Words) for rule in rules), place
    assert found >= 2


def test_values_are_shown_as_yaml_has_them_and_not_too_long() -> None:
    assert [shown(v) for v in (None, True, "x", 1.5)] == ["null", "true", "'x'", "1.5"]
    assert len(shown("x" * 1000)) == 60
    assert shown(10**5000) == "so long a number"
