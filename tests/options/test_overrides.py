"""Which field a key means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retinue.errors import UsageError
from retinue.options.overrides import ADVICE, OTHER_WORDS, meaning, parse_override
from retinue.options.typed import Unread, read_yaml
from retinue.training.recipe import Recipe, load_recipe
from retinue.training.written_recipes import read_text

ONE: dict[str, Any] = {"model": {"name": "tiny"}, "stages": [{"epochs": 1}]}
TWO: dict[str, Any] = {
    "model": {"name": "tiny"},
    "stages": [
        {"name": "a", "epochs": 2, "optimizer": {"lr": 0.5}},
        {"name": "b", "epochs": 2, "optimizer": {"lr": 0.1}},
    ],
}


def _means(values: Any, key: str) -> list[str]:
    return [".".join(map(str, place)) for place in meaning(Recipe, values, key)]


def _refused(values: Any, key: str) -> str:
    with pytest.raises(UsageError) as raised:
        meaning(Recipe, values, key)
    return str(raised.value)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("seed", "seed"),
        ("stages.0.epochs", "stages.0.epochs"),
        ("epochs", "stages.0.epochs"),
        ("trainable", "stages.0.trainable"),
        ("lr", "stages.0.optimizer.lr"),
        ("optimizer.lr", "stages.0.optimizer.lr"),
        ("stages.0.lr", "stages.0.optimizer.lr"),
        ("batch_size", "stages.0.batch_size"),
        ("batch-size", "stages.0.batch_size"),
        ("Batch_Size", "stages.0.batch_size"),
        ("augment.horizontal_flip", "stages.0.augment.horizontal_flip"),
        ("horizontal_flip", "stages.0.augment.horizontal_flip"),
        ("augment.mixup", "stages.0.augment.mixing.mixup"),
        ("weights", "model.weights"),
        ("dropout", "model.dropout"),
        ("size", "input.size"),
        ("path", "data.path"),
        ("workers", "data.workers"),
        ("classes", "data.classes"),
        ("train", "data.split.train"),
        ("label_smoothing", "task_options.label_smoothing"),
        ("patience", "stages.0.early_stop.patience"),
        ("decay", "ema.decay"),
        ("max_gb", "cache.max_gb"),
        ("metric", "evaluation.metric"),
        ("imgsz", "input.size"),
        ("img-size", "input.size"),
        ("lr0", "stages.0.optimizer.lr"),
        ("learning_rate", "stages.0.optimizer.lr"),
        ("opt", "stages.0.optimizer.name"),
        ("wd", "stages.0.optimizer.weight_decay"),
        ("fliplr", "stages.0.augment.horizontal_flip"),
        ("bs", "stages.0.batch_size"),
        ("j", "data.workers"),
        ("smoothing", "task_options.label_smoothing"),
    ],
)  # fmt: skip
def test_a_key_of_one_meaning_is_understood(key: str, meant: str) -> None:
    assert _means(ONE, key) == [meant]


def test_a_field_of_all_stages_means_all_where_they_agree() -> None:
    assert _means(TWO, "batch_size") == ["stages.0.batch_size", "stages.1.batch_size"]
    assert _means(TWO, "augment.rotation") == [f"stages.{k}.augment.rotation" for k in (0, 1)]
    assert _means(TWO, "optimizer") == ["stages.0.optimizer.name", "stages.1.optimizer.name"]


def test_where_stages_differ_the_keys_are_named_with_todays_values() -> None:
    message = _refused(TWO, "lr")
    assert "stages.0.optimizer.lr (now 0.5) or stages.1.optimizer.lr (now 0.1)" in message


def test_a_star_means_every_stage() -> None:
    assert _means(TWO, "stages.*.epochs") == ["stages.0.epochs", "stages.1.epochs"]
    assert _means(TWO, "stages.*.lr") == [f"stages.{k}.optimizer.lr" for k in (0, 1)]
    assert "stages.*.optimizer.lr means all" in _refused(TWO, "lr")
    assert [s.epochs for s in load_recipe(TWO, {"stages.*.epochs": 7}).stages] == [7, 7]


def test_the_length_of_a_stage_is_its_own_even_where_they_agree() -> None:
    assert "stages.0.epochs (now 2) or stages.1.epochs (now 2)" in _refused(TWO, "epochs")
    assert "stages.0.trainable (now 'all')" in _refused(TWO, "trainable")


def test_a_word_of_several_fields_is_asked_about() -> None:
    assert "data.split or evaluation.split (now 'auto')" in _refused(ONE, "split")


def test_an_unknown_key_is_looked_for_in_the_whole_schema() -> None:
    assert "did you mean 'stages.0.augment.horizontal_flip'?" in _refused(ONE, "horizontal_flp")
    assert "did you mean 'model.weights'" in _refused(ONE, "wieghts")
    assert "--out RUN" in _refused(ONE, "name")
    assert "--out RUN" in _refused(ONE, "output-dir")
    assert "known: " in _refused(ONE, "qqq")


def test_a_misplaced_key_of_a_file_is_looked_for_too() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'stages\.0\.optimizer\.lr'"):
        load_recipe({**ONE, "lr": 0.1})


def test_what_was_understood_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    recipe = load_recipe(TWO, {"batch_size": 8, "seed": 1, "imgsz": 64}, said.append)
    assert said == [
        "batch_size means stages.0.batch_size, stages.1.batch_size", "imgsz means input.size",
    ]  # fmt: skip
    assert [stage.batch_size for stage in recipe.stages] == [8, 8]
    assert recipe.input.size == 64


def test_every_word_of_others_means_a_field_of_a_shipped_recipe() -> None:
    values = read_yaml(read_text("scratch")[1])
    for word in OTHER_WORDS:
        assert _means(values, word), word
    for word in ADVICE:
        assert ADVICE[word] in _refused(values, word)


def test_an_override_needs_key_and_value() -> None:
    for text in ("seed", "=1", " =1"):
        with pytest.raises(UsageError, match="key=value"):
            parse_override(text)


@pytest.mark.parametrize(
    ("overrides", "place", "value"),
    [
        ({"device": "0"}, "device", "cuda:0"),
        ({"device": 1}, "device", "cuda:1"),
        ({"momentum ": "0.5"}, "stages.0.optimizer.momentum", 0.5),
        ({"-net": "resnet18"}, "model.name", "resnet18"),
        ({"data": Unread("{dataset.location}/photos")}, "data.path", "{dataset.location}/photos"),
        ({"epoch": 100}, "stages.0.epochs", 100),
    ],
)
def test_lines_that_failed_elsewhere(overrides: Any, place: str, value: Any) -> None:
    """As people report them to the makers of other tools."""
    found: Any = load_recipe(ONE, overrides, lambda _: None)
    for part in place.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == value


def test_a_list_without_brackets_says_how_to_write_it() -> None:
    with pytest.raises(UsageError, match=r"must be a list of texts or null.*write \[rose, tulip\]"):
        load_recipe(ONE, dict([parse_override("data.classes=rose, tulip")]))


@pytest.mark.parametrize("null", ["null", "~", ""])
def test_fields_of_a_section_that_a_file_says_is_null(tmp_path: Path, null: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"model: tiny\nbudget: {null}\nema: {null}\n"
        f"stages: [{{name: a, epochs: 1, early_stop: {null or 'null'}}}]\n",
        encoding="utf-8",
    )
    given = ["budget.time=10m", "ema.decay=0.9", "stages.0.early_stop.min_delta=0.1"]
    recipe = load_recipe(path, dict(map(parse_override, given)))
    assert recipe.budget is not None
    assert recipe.budget.time == "10m"
    assert recipe.ema is not None
    assert recipe.ema.decay == 0.9
    assert recipe.stages[0].early_stop is not None
    assert (recipe.stages[0].early_stop.patience, recipe.stages[0].early_stop.min_delta) == (
        10,
        0.1,
    )
