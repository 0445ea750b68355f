from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import finder
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.errors import UsageError
from retinue.options.overrides import parse_override
from retinue.options.typed import meant
from retinue.sample import Preprocessing
from retinue.tasks.shipped import DEFAULT
from retinue.tasks.task import task_names, task_type
from retinue.training.recipe import Recipe, dump, json_schema, load_recipe
from retinue.training.written_recipes import header, shipped

assert finder.Find.name == "find"  # importing it has registered it

GOOD = """\
model: {name: tiny, weights: null}
data:
  path: pictures
stages:
  - name: head
    trainable: head
    epochs: 2
  - name: all
    epochs: 3
    optimizer:
      name: sgd
      lr: 1e-4
"""


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _refused(tmp_path: Path, text: str, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(UsageError) as raised:
        load_recipe(_file(tmp_path, text), overrides)
    assert raised.value.exit_code == 2
    return str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_recipe_is_read_whichever_program_wrote_it(tmp_path: Path, encoding: str) -> None:
    """`retinue recipes finetune > mine.yaml` in PowerShell, say."""
    path = tmp_path / "mine.yaml"
    path.write_text(shipped()["finetune"], encoding=encoding)
    assert load_recipe(path) == load_recipe("finetune")


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_recipe_loads_and_says_what_to_expect(name: str) -> None:
    about = header(shipped()[name])
    assert all([about.title, about.source, about.command, about.cost, about.figure])
    assert f"retinue train {name}" in about.command
    assert load_recipe(name).about == about
    for device in ("cpu", "cuda"):  # what it says of machines, too
        assert load_recipe(name, {"device": device}).on_gpu is None


def test_a_number_like_1e_4_is_a_number(tmp_path: Path) -> None:
    assert load_recipe(_file(tmp_path, GOOD)).stages[1].optimizer.lr == 1e-4


def test_overrides_reach_nested_fields(tmp_path: Path) -> None:
    overrides = dict(parse_override(t) for t in ["stages.1.epochs=5", "data=elsewhere", "seed=7"])
    recipe = load_recipe(_file(tmp_path, GOOD), overrides)
    assert recipe.stages[1].epochs == 5
    assert recipe.data.path == "elsewhere"
    assert recipe.seed == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1e-3", 1e-3),
        ("a=[0.5, 1]", [0.5, 1]),
        ("a=", None),
        ("a=null", None),
        ("a=true", True),
        ("a=off", "off"),
        ("a=x=y", "x=y"),
        ("a={b: 2}", {"b": 2}),
        ("a=[", "["),
        ("a=C:\\photos & 猫", "C:\\photos & 猫"),
    ],
)
def test_overrides_are_read_as_yaml_where_anything_will_do(text: str, value: Any) -> None:
    key, given = parse_override(text)
    assert (key, meant(Any, given)) == ("a", value)


def test_an_unknown_key_is_refused_with_line_and_nearest(tmp_path: Path) -> None:
    message = _refused(tmp_path, GOOD.replace("      lr: 1e-4", "      learning_rte: 1e-4"))
    assert "unknown key 'learning_rte'" in message
    assert "mine.yaml, line 12, key stages.1.optimizer.learning_rte" in message
    message = _refused(tmp_path, GOOD.replace("epochs: 3", "epoch: 3"))
    assert "line 9, key stages.1.epoch" in message
    assert "did you mean 'epochs'" in message


def test_an_unknown_override_says_so_and_names_the_nearest(tmp_path: Path) -> None:
    message = _refused(tmp_path, GOOD, {"stages.1.epchs": 5})
    assert "given as an override, key stages.1.epchs" in message
    assert "did you mean 'epochs'" in message
    assert "there is no stages.4" in _refused(tmp_path, GOOD, {"stages.4.epochs": 5})


@pytest.mark.parametrize(
    ("overrides", "ending"),
    [
        ({"model.arguments.in_channels": 1}, "key model.arguments.in_channels"),
        ({"model.arguments": {"in_channels": 1}, "seed": 1}, "key model.arguments"),
        (
            {"stages.0.views": 2, "stages.0.cache_features": "off", "stages.1.epochs": 1},
            "keys stages.0.views, stages.0.cache_features",
        ),
        ({"stages.1.name": "head"}, "key stages.1.name"),
        ({"stages.0.epochs": None}, "key stages.0.epochs"),
        ({"input.size": 0}, "key input.size"),
        ({"data.workers": -1}, "key data.workers"),
        ({"task_options.class_weights": 3}, "key task_options.class_weights"),
        ({"stages.1.cache_features": "on"}, "key stages.1.cache_features"),
    ],
)
def test_what_an_override_broke_is_not_blamed_on_the_file(
    tmp_path: Path, overrides: dict[str, Any], ending: str
) -> None:
    message = _refused(tmp_path, GOOD, overrides)
    assert message.endswith(f", given as an override, {ending}")
    assert "alue error" not in message


@pytest.mark.parametrize(
    ("overrides", "blamed"),
    [
        ({"seed": 3, "stages.1.from_best": True, "evaluation.keep": "last"},
         "keys stages.1.from_best, evaluation.keep"),
        ({"stages.1.from_best": True, "evaluation": {"keep": "last"}},
         "keys stages.1.from_best, evaluation"),
    ],
)  # fmt: skip
def test_of_overrides_only_those_that_contradict_are_blamed(
    tmp_path: Path, overrides: dict[str, Any], blamed: str
) -> None:
    message = _refused(tmp_path, GOOD, overrides)
    assert message.endswith(
        f", given as an override, {blamed}, evaluation.keep=best, or leave from_best out"
    )
    message = _refused(tmp_path, GOOD, {"seed": 3, "stages.0.start_half_life": 50, "ema": None})
    mend = "ema.decay=0.99, or leave start_half_life out"
    assert f"keys stages.0.start_half_life, ema, {mend}" in message
    text = GOOD.replace("epochs: 3", "epochs: 3\n    from_best: true")
    assert load_recipe(_file(tmp_path, text)).stages[1].from_best
    message = _refused(tmp_path, text, {"seed": 3, "evaluation.keep": "last"})
    assert "given as an override, key evaluation.keep, evaluation.keep=best" in message


def test_what_the_file_broke_is_not_blamed_on_an_override(tmp_path: Path) -> None:
    text = GOOD.replace("weights: null", "weights: null, arguments: {in_channels: 1}")
    message = _refused(tmp_path, text, {"model.arguments.width": 0.5})
    assert message.endswith("mine.yaml, line 1, key model.arguments")


def test_a_second_length_is_named_alone_and_told_how_to_mend(tmp_path: Path) -> None:
    given = {"stages.1.batch_size": 8, "stages.1.steps": 4}
    message = _refused(tmp_path, GOOD, given)
    assert message == (
        "give exactly one of epochs and steps, given as an override, key stages.1.steps, set the"
        " other to null: epochs=null, or steps=null"
    )


def test_an_unknown_key_may_begin_with_a_capital(tmp_path: Path) -> None:
    message = _refused(tmp_path, GOOD, {"model.Weights": None})
    assert "unknown key 'Weights', given as an override, key model.Weights" in message
    assert "did you mean 'weights'" in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs: 3", "epochs: -3", ["-3 is not allowed", "greater than 0", "line 9"]),
        ("epochs: 3", "epochs: many", ["'many' is not allowed", "line 9"]),
        ("lr: 1e-4", "lr: .nan", ["finite", "line 12"]),
        ("name: sgd", "name: sdg", ["'sdg' is not allowed", "line 11"]),
        ("epochs: 3", "epochs: 3\n    steps: 4", ["exactly one of epochs and steps", "line 10"]),
        ("name: tiny", "name: tinny", ["unknown network 'tinny'", "did you mean 'tiny'", "line 1"]),
        ("name: all", "name: head", ["two stages have one name"]),
        ("name: all", "name: HEAD", ["two stages have one name"]),
        ("name: all", "name: " + "a" * 300, ["more than 100 bytes", "stages.1.name"]),
        ("name: all", "name: CON", ["device of Windows", "stages.1.name"]),
        ("name: all", "name: end.", ["ends in a dot", "stages.1.name"]),
        ("epochs: 3", "epochs: 99999999999999999999", ["1000000000", "stages.1.epochs"]),
        ("model:", "input: {size: 99999999999}\nmodel:", ["16384", "input.size"]),
        ("model:", "input: {crop_fraction: 1e-9}\nmodel:", ["0.01", "input.crop_fraction"]),
        ("epochs: 3", "epochs: 3\n    accumulate: 5", ["32 cannot be divided into 5"]),
        ("epochs: 3", "epochs: 3\n    cache_features: on", ["needs a frozen part"]),
        ("epochs: 3", "epochs: 3\n    views: 2", ["views has no effect with trainable: all"]),
        (
            "epochs: 2",
            "epochs: 2\n    views: 2\n    augment: {mixing: {mixup: 0.2}}",
            ["views has no effect with augment.mixing"],
        ),
        (
            "epochs: 3",
            "epochs: 3\n    trainable: true",
            ["'true' is not allowed", "stages.1.trainable"],
        ),
        ("lr: 1e-4", "betas: [2, 0.9]", ["2 is not allowed", "less than 1", "optimizer.betas.0"]),
        ("  path: pictures", "  path: pictures\n  split: {train: 0.9}", ["add up to 1"]),
        ("model:", "device: gpu\nmodel:", ["'gpu' is not allowed", "line 1, key device"]),
        ("model:", "task: detecton\nmodel:", ["unknown task 'detecton'"]),
        (
            "model:",
            "task_options: {label_smothing: 0.1}\nmodel:",
            ["unknown key 'label_smothing'", "did you mean 'label_smoothing'", "line 1"],
        ),
        ("stages:", "stages: []\nstagez:", ["unknown key 'stagez'", "did you mean 'stages'"]),
        ("epochs: 2", "epochs: 2\n    epochs: 3", ["not valid YAML", "line"]),
        ("stages:", "stages: [", ["not valid YAML"]),
        (
            "epochs: 2",
            "epochs: 2\n    augment: {crop_scale: [0.5, 1]}\n    cache_features: on",
            ["cache_features: on", "drawn at random needs views", "line 5, key stages.0"],
        ),
        (
            "stages:\n  - name: head\n    trainable: head\n    epochs: 2\n  - name: all\n",
            "evaluation: {keep: last}\nstages:\n  - {name: head, epochs: 2}\n  - name: all\n"
            "    from_best: true\n",
            [
                "stage all begins from the best weights, but evaluation.keep is last",
                "line 8, keys stages.1.from_best, evaluation.keep, evaluation.keep=best",
            ],
        ),
        (
            "stages:\n  - name: head\n",
            "ema: {last_epochs: 3}\nstages:\n  - name: head\n    early_stop: 2\n",
            [
                "the last epochs of stage head, but early_stop may end it before",
                "keys stages.0.early_stop, ema.last_epochs, ema.last_epochs=null",
            ],
        ),
    ],
)
def test_mistakes_are_refused(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert old in GOOD
    message = _refused(tmp_path, GOOD.replace(old, new, 1))
    for part in expected:
        assert part in message


def test_a_recipe_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'finetune'"):
        load_recipe("fintune")
    with pytest.raises(UsageError, match="no such recipe file"):
        load_recipe("nowhere/mine.yaml")


def test_ones_own_path_replaces_the_source_of_a_recipe(tmp_path: Path) -> None:
    text = GOOD.replace("  path: pictures", "  format: elpv")
    assert load_recipe(_file(tmp_path, text)).data.format == "elpv"
    assert load_recipe(_file(tmp_path, text), {"data": "mine"}).data.format == "auto"


TEXTS = st.text("ab猫 &\"':#\\\n\t", min_size=1, max_size=8)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**40),
    lr=st.floats(1e-8, 10),
    names=st.lists(TEXTS, min_size=4, max_size=8, unique=True),
)
def test_what_is_written_down_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lr: float, names: list[str]
) -> None:
    tiny.register()
    path, title, *classes = names
    recipe = load_recipe(
        tiny.recipe("pictures", seed=seed, about={"title": title}),
        {"stages.0.optimizer.lr": lr, "data.path": path, "data.classes": classes},
    )
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(dump(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_the_json_schema_knows_every_field() -> None:
    schema = json_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(Recipe.model_fields)
    stage = schema["$defs"]["StageOptions"]["properties"]
    assert "SGD" not in stage["clip_norm"]["description"]
    assert "L2 norm" in stage["clip_norm"]["description"]
    assert schema["properties"]["task"]["enum"] == task_names()
    smoothing = _task_options_of(schema, {})["properties"]["label_smoothing"]
    assert smoothing["minimum"] == 0


def _task_options_of(schema: Any, recipe: dict[str, Any]) -> Any:
    """The one schema that a recipe's `task_options` must follow, as a validator would find it."""
    found = []
    for branch in schema["allOf"]:
        asked = branch["if"]
        there = all(key in recipe for key in asked.get("required", []))
        const = asked["properties"]["task"]["const"]
        if there and recipe.get("task", const) == const:
            found.append(branch["then"]["properties"]["task_options"]["$ref"])
    assert len(found) == 1
    return schema["$defs"][found[0].removeprefix("#/$defs/")]


@pytest.mark.parametrize("task", [None, "classification", "find"])
def test_the_json_schema_tells_the_options_of_each_task(task: str | None) -> None:
    recipe = {} if task is None else {"task": task}
    options = _task_options_of(json_schema(), recipe)
    assert set(options["properties"]) == set(task_type(task or DEFAULT).options_type.model_fields)
    assert options["additionalProperties"] is False


@pytest.mark.parametrize(
    ("said", "background"),
    [("black", (0, 0, 0)), ("white", (255, 255, 255)), ("[1, 2, 3]", (1, 2, 3))],
)
def test_what_lies_behind_transparency(said: str, background: tuple[int, ...]) -> None:
    changes = dict(map(parse_override, [f"input.background={said}", "input.depth=12"]))
    how = load_recipe(tiny.recipe("pictures"), changes).input.applied(Preprocessing())
    assert (how.background, how.depth) == (background, 12)
    assert Preprocessing.from_dict(json.loads(json.dumps(how.as_dict()))) == how
    older = {k: v for k, v in how.as_dict().items() if k not in ("background", "depth")}
    assert Preprocessing.from_dict(older) == Preprocessing()


@pytest.mark.parametrize(
    "wrong",
    [
        "background=blue",
        "background=[1,2]",
        "background=[1,2,256]",
        "depth=7",
        "depth=17",
        "depth=x",
    ],
)
def test_backgrounds_and_depths_that_there_are_not(wrong: str) -> None:
    with pytest.raises(UsageError, match=r"input\."):
        load_recipe(tiny.recipe("pictures"), dict([parse_override(f"input.{wrong}")]))


@pytest.mark.parametrize("frozen", ["flowers-resnet50", "flowers-efficientnet-b0", "linear-probe"])
def test_the_three_ways_of_transfer_are_one_option_each(frozen: str) -> None:
    """All of it, its last blocks, or what is new: nothing else need be said."""
    said: list[str] = []
    ways = [
        load_recipe(frozen, dict([parse_override(f"stages.0.trainable={way}")]), said.append)
        for way in ("all", "2", "head")
    ]
    assert [recipe.stages[0].trainable for recipe in ways] == ["all", 2, "head"]
    assert ways[0].stages[0].views is None
    assert ways[0].stages[0].cache_features == "auto"
    assert ways[1].stages[0].views == ways[2].stages[0].views == load_recipe(frozen).stages[0].views
    assert {text.split(" gives way")[0] for text in said} <= {
        f"stages.0.trainable is given as all: stages.0.{key}" for key in ("views", "cache_features")
    }
    assert said
    with pytest.raises(UsageError, match="views has no effect"):
        load_recipe(frozen, {"stages.0.trainable": "all", "stages.0.views": 3})


@pytest.mark.parametrize(
    ("recipe", "overrides", "lifted"),
    [
        ("finetune", {"stages.1.epochs": 5}, [1]),
        ("detect", {"stages.0.epochs": 2, "stages.1.epochs": 2}, [0, 1]),
        ("finetune", {"stages.*.epochs": 3}, [0, 1]),
    ],
)
def test_a_length_that_is_given_is_meant(
    recipe: str, overrides: dict[str, Any], lifted: list[int]
) -> None:
    said: list[str] = []
    before, after = load_recipe(recipe), load_recipe(recipe, overrides, said.append)
    for index, (old, new) in enumerate(zip(before.stages, after.stages, strict=True)):
        assert old.min_steps is not None
        assert new.min_steps == (None if index in lifted else old.min_steps)
        assert new.max_steps == (None if index in lifted else old.max_steps)
        told = f"stages.{index}.epochs is given: stages.{index}.min_steps gives way" in said
        assert told == (index in lifted)


def test_bounds_that_are_given_with_it_hold_and_so_do_those_of_what_has_begun() -> None:
    both = load_recipe("finetune", {"stages.1.epochs": 5, "stages.1.min_steps": 70})
    assert (both.stages[1].min_steps, both.stages[1].max_steps) == (70, None)
    begun = load_recipe("finetune", {"stages.1.epochs": 5}, begun=True)
    assert begun.stages[1].min_steps == load_recipe("finetune").stages[1].min_steps
