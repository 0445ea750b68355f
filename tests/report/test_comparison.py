"""Several runs on one page: what is said of them, checked by hand-made run folders."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retinue.errors import UsageError
from retinue.page.pictures import pictures_table
from retinue.page.record import read_run
from retinue.report import comparison
from retinue.report.comparison import Runs, classes, figures, recipes, write_comparison
from retinue.tasks.classification.divided import chance, divided

Maker = Callable[..., Path]
NAMES = ["cat & <dog>", "猫", "c/3"]


@pytest.fixture
def pair(make_anywhere: Maker, tmp_path: Path) -> list[Path]:
    """Two runs that were judged on the same images."""
    made = [
        make_anywhere(tmp_path / name, NAMES, accuracy=a, seed=1)
        for name, a in (("a", 0.9), ("b", 0.6))
    ]
    table = pq.read_table(made[0] / "predictions.parquet")
    scores = table["scores"].to_pylist()
    turned = [row[1:] + row[:1] if k % 5 == 0 else row for k, row in enumerate(scores)]
    column = pa.array(turned, table["scores"].type)
    table = table.set_column(table.column_names.index("scores"), "scores", column)
    pq.write_table(table, made[1] / "predictions.parquet")
    recipe = made[1] / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8").replace(str(made[1]), str(made[0]))
    recipe.write_text(text.replace("epochs: 5", "epochs: 7"), encoding="utf-8")
    return made


def compared(folders: list[Path]) -> Runs:
    return Runs({folder.name: read_run(folder) for folder in folders})


def test_the_page_is_whole_and_lies_in_the_folder_that_they_share(pair: list[Path]) -> None:
    page = write_comparison(pair)
    assert page == pair[0].parent / "comparison.html"
    text = page.read_text(encoding="utf-8")
    assert "<title>a · b · retinue</title>" in text
    assert "cat &amp; &lt;dog&gt;" in text
    assert "<dog>" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert text.count('<section id="') == 5
    for variable in ("one", "two"):  # a colour a run, light and dark
        assert f"var(--{variable})" in text
    assert "is left out" not in text


def test_a_pattern_may_bring_the_comparison_that_lies_there(pair: list[Path]) -> None:
    page = write_comparison(pair)
    assert write_comparison([*pair, page]) == page


def test_figures_are_side_by_side_and_the_better_one_is_bold(pair: list[Path]) -> None:
    for folder, top1, loss in ((pair[0], 0.875, 0.5), (pair[1], 0.75, 0.25)):
        told = json.loads((folder / "metrics.json").read_text())
        told |= {"top1": top1, "loss": loss, "images": 200}
        (folder / "metrics.json").write_text(json.dumps(told))
    values = figures(compared(pair)).values
    rows = {row["title"]: row["cells"] for row in values["rows"]}
    assert [cell["shown"] for cell in rows["Top-1 accuracy"]] == ["87.5 %", "75.0 %"]
    assert [cell["best"] for cell in rows["Top-1 accuracy"]] == [True, False]
    assert [cell["best"] for cell in rows["Loss"]] == [False, True]  # less is better
    assert rows["Top-1 accuracy"][0]["interval"].startswith("82.2–91.")
    assert values["doubts"] == []


def test_other_images_and_tasks_are_said(
    pair: list[Path], make_anywhere: Maker, tmp_path: Path
) -> None:
    other = make_anywhere(tmp_path / "other", NAMES, images=150, seed=2)
    told = json.loads((other / "metrics.json").read_text())
    (other / "metrics.json").write_text(json.dumps(told | {"task": "detection", "split": "train"}))
    doubts = figures(compared([*pair, other])).values["doubts"]
    assert any("different tasks" in one for one in doubts)
    assert any("“a” and “other” were not judged on the same images" in one for one in doubts)
    assert any("“other” was judged on what it was trained on" in one for one in doubts)


def test_only_what_differs_in_the_recipes_is_told(pair: list[Path]) -> None:
    section = recipes(compared(pair))
    assert section is not None
    assert section.values["rows"] == [{"key": "stages.1.epochs", "values": ["5", "7"]}]
    assert section.values["same"] == 6


def test_of_a_stage_that_one_lacks_only_its_name_is_told(pair: list[Path]) -> None:
    recipe = pair[1] / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text[: text.index("- name: last")], encoding="utf-8")
    section = recipes(compared(pair))
    assert section is not None
    assert section.values["rows"] == [{"key": "stages.1.name", "values": ["last blocks", ""]}]
    assert section.values["same"] == 5, "the fields of the stage that one lacks are not the same"


def test_classes_that_differ_most_come_first(pair: list[Path]) -> None:
    for folder, values in zip(pair, ([0.5, 0.9, 0.8], [0.6, 0.2, None]), strict=True):
        told = json.loads((folder / "metrics.json").read_text())
        rows = [{"name": n, "f1": v, "support": 9} for n, v in zip(NAMES, values, strict=True)]
        (folder / "metrics.json").write_text(json.dumps(told | {"per_class": rows}))
    section = classes(compared(pair))
    assert section is not None
    (table,) = section.values["tables"]
    assert [row["name"] for row in table["rows"]] == ["猫", "cat & <dog>", "c/3"]
    assert table["rows"][0]["spread"] == pytest.approx(0.7)


def with_classes(folder: Path, names: list[str], **metrics: object) -> None:
    (folder / "classes.json").write_text(json.dumps(names), encoding="utf-8")
    told = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(told | metrics), encoding="utf-8")


def test_runs_without_a_common_class_are_not_ranked(pair: list[Path]) -> None:
    for folder, names, top1 in ((pair[0], ["a", "b"], 0.9), (pair[1], ["c", "d"], 0.8)):
        rows = [{"name": name, "f1": top1, "support": 9} for name in names]
        with_classes(folder, names, top1=top1, per_class=rows)
    runs = compared(pair)
    section = figures(runs)
    assert "No class is common to “a” and “b”" in section.values["doubts"][0]
    assert not any(cell["best"] for row in section.values["rows"] for cell in row["cells"])
    assert classes(runs) is None
    page = write_comparison(pair).read_text(encoding="utf-8")
    assert "in bold" not in page
    assert page.index("No class is common") < page.index("Top-1 accuracy")


def test_runs_with_some_common_classes_are_doubted(pair: list[Path]) -> None:
    with_classes(pair[1], [*NAMES, "d"])
    runs = compared(pair)
    (doubt,) = figures(runs).values["doubts"]
    assert "“a” and “b” do not know the same classes (3 classes in common)" in doubt
    with_classes(pair[1], NAMES[::-1])  # the order is no matter of the classes
    assert figures(compared(pair)).values["doubts"] == []


@pytest.mark.parametrize(
    ("task", "row", "titles"),
    [
        ("detection", {"ap50": 0.5, "ap50_95": 0.25, "f1": 0.5, "threshold": 0.3},
         ["AP50", "AP50:95", "F1"]),
        ("multilabel", {"threshold": 0.4, "precision": 0.5, "ap": 0.25},
         ["Average precision (AP)", "Precision"]),
        ("classification", {"specificity": 0.5, "recall": 1.0}, ["Recall", "Specificity"]),
        ("of another house", {"fit_of_it": 0.5, "support": 3}, ["Fit of it"]),
    ],
)  # fmt: skip
def test_figures_of_classes_are_called_as_their_task_declares_them(
    pair: list[Path], task: str, row: dict[str, float], titles: list[str]
) -> None:
    for folder in pair:
        rows = [{"name": name, **row} for name in NAMES]
        with_classes(folder, NAMES, task=task, per_class=rows)
    section = classes(compared(pair))
    assert section is not None
    assert [table["title"] for table in section.values["tables"]] == titles


def test_detectors_are_compared_by_their_own_figures(pair: list[Path]) -> None:
    for folder, value in zip(pair, (0.5, 0.4), strict=True):
        recipe = folder / "recipe.yaml"
        text = recipe.read_text(encoding="utf-8").replace("task: classification", "task: detection")
        recipe.write_text(text, encoding="utf-8")
        table = folder / "metrics.csv"
        table.write_text(table.read_text().replace("val_top1", "val_map50"))
        with_classes(folder, NAMES, task="detection", map50=value, miss_rate=value)
    rows = {row["title"]: row["cells"] for row in figures(compared(pair)).values["rows"]}
    assert [cell["best"] for cell in rows["mAP50"]] == [True, False]
    assert [cell["best"] for cell in rows["Miss rate"]] == [False, True]
    page = write_comparison(pair).read_text(encoding="utf-8")
    assert "mAP50, validation" in page
    assert "is left out" not in page


def test_the_time_of_an_epoch_counts_what_was_computed_once_before_it(pair: list[Path]) -> None:
    head = "stage,epoch,seconds,val_top1\n"
    rows = "head,1,1.5,0.5\nhead,2,3,0.6\nlast,3,5,0.7\n"
    for folder, more in zip(pair, ("", "last,4,4000,0.8\n"), strict=True):
        (folder / "metrics.csv").write_text(head + rows + more)
    told = {"timings": {"frozen_of_stages_s": {"head": 20.0, "last": 7.0}}}
    (pair[0] / "environment.json").write_text(json.dumps(told))
    runs = compared(pair)
    points = comparison._points(runs.records["a"], "val_top1", "seconds")
    assert points == [(21.5, 0.5), (23.0, 0.6), (32.0, 0.7)]
    assert comparison._points(runs.records["a"], "val_top1", "epoch")[-1] == (3.0, 0.7)
    assert comparison._unit_of_time(Runs({"a": runs.records["a"]})) == "seconds"
    assert comparison._unit_of_time(runs) == "minutes"
    assert comparison._points(runs.records["b"], "val_top1", "minutes")[1] == (0.05, 0.6)


def test_options_without_fields_are_no_row(pair: list[Path]) -> None:
    for folder, options in zip(pair, ("{}", "{thresholds: f1}"), strict=True):
        with (folder / "recipe.yaml").open("a", encoding="utf-8") as file:
            file.write(f"task_options: {options}\n")
    section = recipes(compared(pair))
    assert section is not None
    rows = {row["key"]: row["values"] for row in section.values["rows"]}
    assert rows == {"stages.1.epochs": ["5", "7"], "task_options.thresholds": ["", "f1"]}


def test_images_that_divide_them_are_counted(pair: list[Path]) -> None:
    records = compared(pair).records
    section = divided(records)
    assert section is not None
    told = section.values
    assert told["images"] == told["all_right"] + told["all_wrong"] + told["apart"]
    (only,) = told["pairs"]
    assert only["one_alone"] + only["other_alone"] == told["apart"]
    assert sum(group["count"] for group in told["groups"]) == told["apart"]
    for group in told["groups"]:
        for card in group["cards"]:
            assert {one["right"] for one in card["said"]} == {True, False}


def test_an_image_is_shown_that_one_of_the_runs_has(pair: list[Path]) -> None:
    """As those of shards, of which each run keeps the ones that its own report shows."""

    def shown() -> list[tuple[str, bool]]:
        section = divided(compared(pair).records)
        assert section is not None
        cards = [card for group in section.values["groups"] for card in group["cards"]]
        return [(card["path"], card["data"] is not None) for card in cards]

    lacking = [path for path, there in shown() if not there]
    assert lacking
    pixels = np.zeros((8, 8, 3), np.uint8)
    pq.write_table(
        pictures_table({path: lambda: pixels for path in lacking}), pair[1] / "pictures.parquet"
    )
    assert all(there for _, there in shown())


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 5, 2 / 32),  # all five coins alike
        (1, 9, 2 * (1 + 10) / 1024),
        (3, 4, 1.0),
    ],
)
def test_chance_is_that_of_a_fair_coin(one: int, other: int, expected: float) -> None:
    assert chance(one, other) == pytest.approx(expected)
    assert chance(other, one) == pytest.approx(expected)


def test_chance_of_many_is_finite() -> None:
    assert 0 <= chance(40_000, 60_000) < 1e-9
    assert math.isclose(chance(50_000, 50_000), 1.0)


def test_runs_of_one_name_are_told_apart(make_anywhere: Maker, tmp_path: Path) -> None:
    made = [make_anywhere(tmp_path / place / "finetune", NAMES, images=20) for place in ("x", "y")]
    text = write_comparison(made).read_text(encoding="utf-8")
    assert "<title>x/finetune · y/finetune" in text


def test_what_cannot_be_compared_is_refused(pair: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs two runs or more"):
        write_comparison([pair[0], pair[0]])
    with pytest.raises(UsageError, match="no such run folder"):
        write_comparison([pair[0], tmp_path / "nowhere"])
    with pytest.raises(UsageError, match=r"ends in \.html"):
        write_comparison(pair, pair[0] / "best.safetensors")
    with pytest.raises(UsageError, match="no such folder"):
        write_comparison(pair, tmp_path / "nowhere" / "x.html")


def test_unfinished_runs_are_compared_by_what_there_is(
    make_anywhere: Maker, tmp_path: Path
) -> None:
    made = [
        make_anywhere(tmp_path / "done", NAMES),
        make_anywhere(tmp_path / "begun", NAMES, finished=False, epochs=2),
    ]
    text = write_comparison(made).read_text(encoding="utf-8")
    assert "not judged yet" in text
    assert "is left out" not in text
