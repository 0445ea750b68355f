"""How many images of each class there are, and what the page makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import section, write_splits

from retinue.page.record import read_run
from retinue.page.splits import counted
from retinue.report.html import write_report

Maker = Callable[..., Path]


pytestmark = pytest.mark.usefixtures("undrawn")


def test_each_class_is_counted_in_each_split(run_maker: Maker) -> None:
    run = run_maker(["a", "b|c", "d"], images=30)
    write_splits(run, train={"a": 300, "b|c": 200}, val={"a": 100}, test={"a": 100, "b|c": 1})
    shown = section(run, "counts")
    assert "a 300 100 100" in shown
    assert "b|c 200 none 1" in shown
    assert "d none none none" in shown
    assert "all 500 100 101" in shown
    assert "The train split has no images of “d”: nothing can be learnt of it there." in shown
    assert "The val split has no images of “b|c” and “d”: nothing is known of them there." in shown
    assert "may be off" not in shown, "100 images are enough"
    assert "uneven" not in shown


def test_uneven_classes_are_named_with_what_helps(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=30)
    write_splits(run, train={"a": 96, "b": 10}, test={"a": 200})
    shown = section(run, "counts")
    assert "“a” has 9.6 times as many training images as “b” (96 and 10)" in shown
    assert "task_options.class_weights=balanced" in shown
    assert "stages.0.sampler=balanced" in shown
    assert "evaluation.metric=balanced_accuracy" in shown
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    kept_last = f"{recipe}evaluation: {{keep: last}}\n"
    (run / "recipe.yaml").write_text(kept_last, encoding="utf-8")
    assert "balanced_accuracy" not in section(run, "counts"), "no figure picks anything"
    answered = recipe.replace("- name: last blocks\n", "- name: b\n  sampler: {name: balanced}\n")
    answered += "task_options: {class_weights: balanced}\n"
    (run / "recipe.yaml").write_text(answered, encoding="utf-8")
    shown = section(run, "counts")
    assert "evens that out: task_options.class_weights=balanced, stages.1.sampler=balanced" in shown
    assert "If the rare ones" not in shown


def test_a_small_split_is_named(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=2)
    write_splits(run, train={"a": 6, "b": 6}, val={"a": 1, "b": 1}, test={"a": 1, "b": 1})
    shown = section(run, "counts")
    assert "The test split has 2 images: a share of them may be off by 41 percentage" in shown
    assert "its figures say next to nothing" in shown
    assert "it is chance which epoch is kept as the best" in shown


def test_labels_beside_each_other_count_for_each_class(run_maker: Maker) -> None:
    run = run_maker(["a", "b", "c|d"], images=30)
    with (run / "splits.csv").open("w", encoding="utf-8") as stream:
        stream.write("path,label,split,target\n1,a|b,train,\n2,b,train,\n3,,train,\n4,c|d,test,\n")
    found = counted(read_run(run))
    assert found is not None
    assert found.images == {"train": 3, "test": 1}
    assert found.classes == {
        "a": {"train": 1, "test": 0}, "b": {"train": 2, "test": 0}, "c|d": {"train": 0, "test": 1},
    }  # fmt: skip
    assert found.without("val") == []


@pytest.mark.parametrize("content", ["", "no,such,columns\n1,2,3\n", 'path,label,split\n"a\0,b'])
def test_a_damaged_list_costs_only_its_section(run_maker: Maker, content: str) -> None:
    run = run_maker(["a", "b"], images=30)
    assert section(run, "counts") == "", "older runs may have none"
    (run / "splits.csv").write_text(content, encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    assert "left out" not in page
    assert "Class by class" in page


def test_the_page_names_classes_that_have_no_figures(run_maker: Maker) -> None:
    run = run_maker(["a", "b", "c"], images=30)
    metrics = json.loads((run / "metrics.json").read_text())
    rows = [{"name": n, "precision": 1.0, "recall": r, "f1": r, "support": k}
            for n, r, k in (("a", 1.0, 3), ("b", 0.5, 2), ("c", None, 0))]  # fmt: skip
    metrics |= {"per_class": rows, "intervals": {"balanced_accuracy": [0.25, 0.9]}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    shown = section(run, "figures").replace("\u202f", " ")
    assert "“c” has no images here, so it has no figures" in shown
    assert "95 % interval 25.0–90.0 % mean recall" in shown


def test_labels_beside_each_other_are_told_apart_whatever_is_in_their_names(
    run_maker: Maker,
) -> None:
    run = run_maker(["a", "b|c", "d"], images=30)
    write_splits(run, train={"a|b|c|d": 3, "b|c": 2, "d|a": 4, "": 5, "x|a": 1})
    found = counted(read_run(run))
    assert found is not None
    assert {name: row["train"] for name, row in found.classes.items()} == {"a": 8, "b|c": 5, "d": 7}
    assert found.images == {"train": 15}
