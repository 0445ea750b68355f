"""Recipes drawn from the schema itself: a strategy for every field that it declares, so that a new
option is drawn from the day it is there."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from retinue.options import Options
from retinue.tasks.task import task_type
from retinue.training.options import (
    CheckpointOptions,
    EmaOptions,
    EvaluationOptions,
    InputOptions,
    OptimizerOptions,
    StageOptions,
)

Strategy = st.SearchStrategy[Any]

_MOST = 5
"""So many fields of an options class are drawn at most; the others keep their defaults."""
_HIGH = 2.0
"""Numbers without an upper bound stay below it."""

SMALL: dict[tuple[type[Options], str], Strategy] = {
    (StageOptions, "trainable"): st.sampled_from(["all", "head", 0, 1, 2, "50%", "10%", "100%"]),
    (StageOptions, "batch_size"): st.integers(1, 8),
    (StageOptions, "sizes"): st.sampled_from([None, [64], [64, 96], {"min": 64, "max": 128}]),
    (StageOptions, "views"): st.sampled_from([None, 1, 3]),
    (StageOptions, "accumulate"): st.sampled_from([1, 2, 4]),
    (StageOptions, "epoch_steps"): st.sampled_from([None, 1, 2]),
    (StageOptions, "clip_norm"): st.sampled_from([None, 0.1, 5.0]),
    (OptimizerOptions, "lr"): st.sampled_from([1e-4, 1e-3, 1e-2]),
    (OptimizerOptions, "weight_decay"): st.sampled_from([0.0, 1e-4, 0.1]),
    (OptimizerOptions, "eps"): st.sampled_from([1e-8, 1e-3]),
    (InputOptions, "size"): st.sampled_from([None, 64, 96, (64, 96)]),
    (InputOptions, "std"): st.sampled_from([None, (1.0, 1.0, 1.0), (0.2, 0.3, 0.4)]),
    (EvaluationOptions, "batch_size"): st.integers(1, 8),
}
"""What has no bounds in the schema that a small machine would like, or a meaning of its own."""
LEFT_OUT = {
    *((StageOptions, name) for name in ("name", "epochs", "steps", "min_steps", "max_steps")),
    (OptimizerOptions, "decay_from"),  # a unit's name
    (EvaluationOptions, "metric"),
    (EvaluationOptions, "split"),
}
"""What the test says itself."""


def of(schema: Any, rules: tuple[Any, ...] = ()) -> Strategy | None:
    """Values of what `schema` declares, within the `rules`; None for what cannot be made up."""
    origin, arguments = typing.get_origin(schema), typing.get_args(schema)
    if origin is Annotated:
        more = [m for rule in arguments[1:] for m in getattr(rule, "metadata", [rule])]
        return of(arguments[0], (*rules, *more))
    if origin in (typing.Union, types.UnionType):
        members = [made for one in arguments if (made := of(one, rules)) is not None]
        return st.one_of(members) if members else None
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return _several(of(arguments[0]))
        parts = [of(one) for one in arguments]
        if None in parts:
            return None
        whole = st.tuples(*typing.cast("list[Strategy]", parts))
        numbers = len(set(arguments)) == 1 and len(arguments) == 2
        return whole.map(sorted) if numbers else whole.map(list)
    if schema is type(None):
        return st.none()
    if schema is bool:
        return st.booleans()
    if schema is int:
        low, high = _bounds(rules)
        return st.integers(math.ceil(low), min(math.floor(high), math.ceil(low) + 8))
    if schema is float:
        return _floats(rules)
    if isinstance(schema, type) and issubclass(schema, Options):
        return options(schema)
    return None  # text, lists and whatever else only their owners know


def _several(one: Strategy | None) -> Strategy | None:
    return None if one is None else st.lists(one, min_size=1, max_size=3).map(sorted)


def _bounds(rules: tuple[Any, ...]) -> tuple[float, float]:
    low = max((float(rule.ge) for rule in rules if isinstance(rule, Ge)), default=0.0)
    above = [float(rule.gt) for rule in rules if isinstance(rule, Gt)]
    high = min((float(rule.le) for rule in rules if isinstance(rule, Le)), default=_HIGH + low)
    below = [float(rule.lt) for rule in rules if isinstance(rule, Lt)]
    return max([low, *(v + 1e-3 for v in above)]), min([high, *(v - 1e-3 for v in below)])


def _floats(rules: tuple[Any, ...]) -> Strategy:
    low, high = _bounds(rules)
    # The ends are where mistakes are; what lies between is drawn in hundredths, as people write.
    inner = st.integers(0, 100).map(lambda k: round(low + (high - low) * k / 100, 4))
    return st.one_of(st.sampled_from([low, high]), inner)


def options(schema: type[Options]) -> Strategy:
    """Some of its fields, at values that the schema allows each by itself."""
    fields = {
        name: made
        for name, field in schema.model_fields.items()
        if (schema, name) not in LEFT_OUT
        if (made := _of_field(schema, name, field)) is not None
    }
    needed = {name for name in fields if schema.model_fields[name].is_required()}
    named = {"name"} & set(fields)

    @st.composite
    def drawn(draw: st.DrawFn) -> dict[str, Any]:
        chosen = draw(st.lists(st.sampled_from(sorted(fields)), max_size=_MOST, unique=True))
        return {name: draw(fields[name]) for name in sorted({*chosen, *needed, *named})}

    return drawn() if fields else st.just({})


def _of_field(schema: type[Options], name: str, field: FieldInfo) -> Strategy | None:
    small = SMALL.get((schema, name))
    return of(field.annotation, tuple(field.metadata)) if small is None else small


HEADS = st.sampled_from(
    [
        None,
        None,
        "linear",
        {"name": "mlp", "hidden": [5]},
        "glu",
        {"name": "glu", "auxiliary": True},
    ]
)


@st.composite
def recipes(draw: st.DrawFn, task: str, base: Mapping[str, Any]) -> dict[str, Any]:
    """`base`, with the options of its task, of input, evaluation and average drawn, its network's
    head where it has a choice of it, and one or two stages of two steps each."""
    stages = []
    for number in range(draw(st.integers(1, 2))):
        stage = draw(options(StageOptions))
        stages.append({**stage, "name": f"stage{number}", "steps": 2})
        stages[-1].setdefault("batch_size", 4)
    own = draw(options(task_type(task).options_type))
    model = dict(base["model"])
    if "head" in model:
        model["head"] = draw(HEADS)
    return {
        **base,
        "model": model,
        "task": task,
        "task_options": {**own, **base.get("task_options", {})},
        "stages": stages,
        "input": {**draw(options(InputOptions))},
        "evaluation": draw(options(EvaluationOptions)),
        "ema": draw(st.one_of(st.none(), options(EmaOptions))),
        "checkpoint": draw(options(CheckpointOptions)),
        "seed": draw(st.integers(0, 3)),
    }
