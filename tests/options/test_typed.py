"""Text until the schema asks for a type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retinue.errors import UsageError
from retinue.options.overrides import parse_override
from retinue.options.typed import meant, read_yaml
from retinue.training.recipe import Recipe, dump, load_recipe

TWO_STAGES = "model: tiny\nstages: [{name: a, epochs: 1}, {name: b, epochs: 2}]\n"


def _loaded(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, dict(map(parse_override, overrides)))


@pytest.mark.parametrize(
    "text",
    ["2024_05_01", "007", "1.10", "1e3", "my photos #2", "photos: 2024", "2024-05-01", "0x10",
     "yes", "true", ".inf", "[a]", "{a}", "a, b", "!x", "&x", "*x", "%x", "@x", "'", "a'b", "a: [",
     "1:30", "C:\\photos", "-", "- a", "? a", "| x", "> x", "`x`", "#1", "=", "a=b", "猫"],
)  # fmt: skip
def test_a_folders_name_arrives_as_it_was_given(tmp_path: Path, text: str) -> None:
    for key in ("data.path", "data.images", "teacher", "cache.folder", "data.split.file"):
        found: Any = _loaded(tmp_path, TWO_STAGES, f"{key}={text}")
        for part in key.split("."):
            found = getattr(found, part)
        assert found == text
    if not text.startswith("{"):
        assert _loaded(tmp_path, TWO_STAGES, f"data={text}").data.path == text


@pytest.mark.parametrize("text", ["null", "~", "", "Null"])
def test_what_may_be_left_out_can_be_null(tmp_path: Path, text: str) -> None:
    recipe = _loaded(tmp_path, TWO_STAGES + "data: {images: x}\nema: 0.9\n",
                     f"data.images={text}", f"ema={text}", f"model.weights={text}",
                     f"stages.1.views={text}")  # fmt: skip
    assert recipe.data.images is None
    assert recipe.ema is None
    assert recipe.model.weights is None
    assert recipe.stages[1].views is None


@pytest.mark.parametrize("text", ["#fff", "# x", "---", "..."])
def test_what_yaml_would_read_as_nothing_is_not_taken_for_null(tmp_path: Path, text: str) -> None:
    for key in ("input.background", "stages.1.views", "ema", "data.classes"):
        with pytest.raises(UsageError, match="is not allowed"):
            _loaded(tmp_path, TWO_STAGES, f"{key}={text}")


def test_quotes_around_the_whole_are_no_part_of_it(tmp_path: Path) -> None:
    recipe = _loaded(tmp_path, TWO_STAGES, "data='photos'", 'data.images="null"')
    assert (recipe.data.path, recipe.data.images) == ("photos", "null")


CLASSES = ["0", "1", "007", "no", "yes", "null", "~", "1.0", "1e3", "true", "2024-05-01", "x"]


def test_names_of_classes_arrive_as_they_are_written(tmp_path: Path) -> None:
    written = f"[{', '.join(CLASSES)}]"
    assert _loaded(tmp_path, TWO_STAGES, f"data.classes={written}").data.classes == CLASSES
    in_file = _loaded(tmp_path, f"{TWO_STAGES}data: {{classes: {written}, path: 2024_05_01}}\n")
    assert in_file.data.classes == CLASSES
    assert in_file.data.path == "2024_05_01"
    again = _loaded(tmp_path, dump(in_file))
    assert again == in_file
    lines = "".join(f"\n  - {name}" for name in CLASSES)
    assert _loaded(tmp_path, f"{TWO_STAGES}data:\n classes:{lines}\n").data.classes == CLASSES


def test_from_python_whole_numbers_and_paths_are_names_too() -> None:
    recipe = load_recipe(
        {"model": {"name": "tiny"}, "stages": [{"epochs": 1}]},
        {"data.classes": [0, 1], "data": Path("photos"), "teacher": Path("runs") / "x"},
    )
    assert recipe.data.classes == ["0", "1"]
    assert recipe.data.path == "photos"
    assert recipe.teacher == str(Path("runs") / "x")


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("stages.0.optimizer.lr=1e-3", "stages.0.optimizer.lr", 1e-3),
        ("stages.0.optimizer.lr=1", "stages.0.optimizer.lr", 1.0),
        ("stages.0.optimizer.betas=[0.8, .99]", "stages.0.optimizer.betas", (0.8, 0.99)),
        ("stages.0.epochs=007", "stages.0.epochs", 7),
        ("seed=1_000", "seed", 1000),
        ("compile=true", "compile", True),
        ("tensorboard=no", "tensorboard", False),
        ("stages.1.trainable=5.2", "stages.1.trainable", "5.2"),
        ("stages.1.trainable=stages.5.2", "stages.1.trainable", "stages.5.2"),
        ("stages.1.trainable=3", "stages.1.trainable", 3),
        ("data.workers=2", "data.workers", 2),
        ("data.workers=auto", "data.workers", "auto"),
        ("input.size=96", "input.size", 96),
        ("input.size=[96, 64]", "input.size", (96, 64)),
        ("stages.0.optimizer=SGD", "stages.0.optimizer.name", "sgd"),
        ("stages.0.schedule=step", "stages.0.schedule.name", "step"),
        ("stages.0.schedule={name: poly, power: 3}", "stages.0.schedule.power", 3.0),
        ("stages.0.sampler=balanced", "stages.0.sampler.name", "balanced"),
        ("stages.0.sampler={name: class_pairs, classes: 8}", "stages.0.sampler.classes", 8),
        ("stages.0.data=with_validation", "stages.0.data.name", "with_validation"),
        ("stages.0.early_stop=3", "stages.0.early_stop.patience", 3),
        ("ema=true", "ema.decay", 0.999),
        ("ema=0.9", "ema.decay", 0.9),
        ("ema=false", "ema", None),
        ("stages.0.cache_features=off", "stages.0.cache_features", "off"),
        ("task_options.label_smoothing=0.1", "task_options.label_smoothing", 0.1),
        ("model.arguments.width=0.5", "model.arguments.width", 0.5),
        ("model.head={name: mlp, hidden: [64]}", "model.head.hidden", [64]),
        ("model.head=mlp", "model.head.name", "mlp"),
    ],
)
def test_other_fields_get_what_they_ask_for(
    tmp_path: Path, override: str, place: str, value: Any
) -> None:
    found: Any = _loaded(tmp_path, TWO_STAGES, override)
    for part in place.split("."):
        if part.isdigit():
            found = found[int(part)]
        else:
            found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_a_value_alone_keeps_the_other_options(tmp_path: Path) -> None:
    text = "model: {name: tiny, dropout: 0.3}\nstages: [{epochs: 1, optimizer: {lr: 0.5}}]\n"
    recipe = _loaded(tmp_path, text, "stages.0.optimizer=sgd", "model=resnet18")
    assert (recipe.stages[0].optimizer.name, recipe.stages[0].optimizer.lr) == ("sgd", 0.5)
    assert (recipe.model.name, recipe.model.dropout) == ("resnet18", 0.3)


def test_where_anything_will_do_yaml_decides() -> None:
    written = "{a: 1, b: 1.5, c: true, d: null, e: x, f: '1', g: [1, ~], h: 12.5.2024}"
    assert meant(Any, read_yaml(written)) == {
        "a": 1, "b": 1.5, "c": True, "d": None, "e": "x", "f": "1", "g": [1, None],
        "h": "12.5.2024",
    }  # fmt: skip


def test_a_number_of_too_many_digits_stays_text() -> None:
    assert meant(Any, read_yaml("9" * 5000)) == "9" * 5000


@pytest.mark.parametrize("text", ["0", "1", "auto", "AUTO"])
def test_numbers_that_stand_among_words_are_numbers(tmp_path: Path, text: str) -> None:
    wanted = int(text) if text.isdecimal() else "auto"
    for recipe in (
        _loaded(tmp_path, TWO_STAGES, f"data.first_pixel={text}"),
        _loaded(tmp_path, TWO_STAGES + f"data: {{first_pixel: {text}}}\n"),
    ):
        found = recipe.data.first_pixel
        assert (found, type(found)) == (wanted, type(wanted))
        again = tmp_path / "again.yaml"
        again.write_text(dump(recipe), encoding="utf-8")
        assert load_recipe(again).data.first_pixel == wanted
    with pytest.raises(UsageError, match="must be one of auto, 0, 1"):
        _loaded(tmp_path, TWO_STAGES, "data.first_pixel=2")
