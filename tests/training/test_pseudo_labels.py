"""Stages that label images themselves: which labels are taken, that no image that judges is among
them, and that a run says the same when it goes on."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from interrupted import interrupted, rows_of, state_of

import retinue
from retinue.data.targets.one_class import OneClass
from retinue.errors import RetinueError, UsageError
from retinue.report.html import write_report
from retinue.run.folder import RunFolder
from retinue.sample import Sample
from retinue.tasks.classification.task import Classification
from retinue.tasks.task import Guess
from retinue.training.labelling import Labeller
from retinue.training.pseudo_labels import chosen, labelled, read_labels, summary
from retinue.training.recipe import load_recipe
from retinue.training.stage_samples import Labelled, PseudoLabels, changed, unlabelled

pytestmark = pytest.mark.usefixtures("torch_alone")


def _guesses(*sure: tuple[str, float] | None) -> list[Guess | None]:
    names = "abc"
    return [g and Guess(OneClass(names.index(g[0]), 3), g[0], g[1]) for g in sure]


FIVE = _guesses(("a", 0.9), ("b", 0.5), None, ("a", 0.95), ("a", 0.9))


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({}, [0, 1, 3, 4]),
        ({"confidence": 0.5}, [0, 1, 3, 4]),
        ({"confidence": 0.51}, [0, 3, 4]),
        ({"per_class": 1}, [1, 3]),
        ({"per_class": 2}, [0, 1, 3]),  # of two that are as sure, the first
        ({"per_class": 2, "confidence": 0.92}, [3]),
        ({"confidence": 1.0}, []),
    ],
)
def test_what_is_taken(options: dict[str, Any], taken: list[int]) -> None:
    assert chosen(FIVE, PseudoLabels(**options)) == taken


GUESS = st.none() | st.tuples(st.sampled_from("abc"), st.floats(0, 1, width=16))


@given(st.lists(GUESS, max_size=12), st.floats(0, 1), st.none() | st.integers(1, 3))
def test_what_is_taken_by_brute_force(
    guesses: list[tuple[str, float] | None], confidence: float, most: int | None
) -> None:
    wanted = []
    for k, guess in enumerate(guesses):
        if guess is None or guess[1] < confidence:
            continue
        surer = [
            j
            for j, other in enumerate(guesses)
            if other is not None
            and other[0] == guess[0]
            and (other[1] > guess[1] or (other[1] == guess[1] and j < k))
        ]
        if most is None or len(surer) < most:
            wanted.append(k)
    options = PseudoLabels(confidence=confidence, per_class=most)
    assert chosen(_guesses(*guesses), options) == wanted


def test_samples_get_labels_and_weight_and_the_rest_is_counted() -> None:
    samples = [Sample(f"/{k}.png", name=f"{k}.png", weight=9) for k in range(5)]
    options = PseudoLabels(per_class=1, confidence=0.6, weight=0.25)
    assert labelled(samples, FIVE, options) == [
        replace(samples[3], target=OneClass(0, 3), weight=0.25)
    ]
    told = summary("s", samples, FIVE, options, {"0.png": "a", "1.png": "a", "2.png": "a"})
    assert told.as_dict() == {
        "stage": "s", "images": 5, "labelled": 1, "unsure": 1, "over": 2, "unreadable": 1,
        "mean_confidence": 0.95, "compared": 2, "same": 1,
    }  # fmt: skip
    assert told.line() == (
        "1 of 5 images labelled by the model, sure by 0.950 in the mean; 1 not sure enough,"
        " 2 beyond the most of their class, 1 not readable;"
        " 50.0% of 2 have the label of the round before"
    )


def test_a_classifiers_guess_is_its_best_class_or_all_of_them() -> None:
    task = Classification(["a", "b", "c"])
    finding = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    hard, soft = task.guess(finding, soft=False), task.guess(finding, soft=True)
    assert (hard.target, hard.label) == (OneClass(1, 3), "b")
    assert hard.sure == soft.sure == pytest.approx(0.5)
    assert soft.target.shares == pytest.approx((0.2, 0.5, 0.3))  # type: ignore[attr-defined]
    # Of two classifiers it is the blend that answers.
    both = np.stack([finding, np.log(np.array([0.9, 0.05, 0.05], np.float32)), finding])
    assert task.guess(both, soft=False).label == "b"


SPLITS = {
    "train": [Sample(f"t{k}", target=OneClass(k % 2, 2)) for k in range(4)],
    "val": [Sample(f"v{k}", target=OneClass(k % 2, 2)) for k in range(2)],
    "test": [Sample("v1", target=OneClass(1, 2)), Sample("e", target=OneClass(1, 2))],
    "pool": [Sample("p0"), Sample("v0"), Sample("p1")],
}


def test_no_image_that_judges_gets_a_label_nor_does_one_keep_its_own() -> None:
    assert unlabelled(PseudoLabels(), SPLITS) == [Sample("p0"), Sample("p1")]
    assert unlabelled(PseudoLabels(of="test"), SPLITS) == [Sample("e")]


def test_labels_of_a_round_before_make_room_for_new_ones_and_can_be_left_out() -> None:
    def label(options: PseudoLabels, samples: Any) -> list[Sample]:
        return [replace(sample, target=OneClass(0, 2)) for sample in samples]

    once = changed(PseudoLabels(), SPLITS["train"], SPLITS, label)
    assert [s.key for s in once] == ["t0", "t1", "t2", "t3", "p0", "p1"]
    assert changed(PseudoLabels(), once, SPLITS, label) == once
    assert changed(Labelled(), once, SPLITS) == SPLITS["train"]
    # Before anything is learnt, others stand in.
    planned = changed(PseudoLabels(), SPLITS["train"], SPLITS)
    assert [s.key for s in planned] == [s.key for s in once]
    assert all(sample.target is not None for sample in planned)


# --- in a training -------------------------------------------------------------------------------


def _recipe(data: Path, **changes: Any) -> dict[str, Any]:
    stages = tiny.recipe(data)["stages"]
    head = stages[0] | {"epochs": 3, "optimizer": {"name": "adamw", "lr": 0.1}}
    everything = stages[1] | {"epochs": 1}
    own = {"name": "pseudo_labels", "confidence": 0.4}
    recipe = tiny.recipe(data, **changes)
    recipe["stages"] = [
        head,
        everything | {"name": "own", "data": own},
        everything | {"name": "clean", "data": "labelled"},
    ]
    recipe["data"]["pool"] = str(data.parent / "pool")
    return recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures a class, and a pool of twelve with a broken one and one of the splits."""
    root = tmp_path_factory.mktemp("pseudo")
    tiny.write_pictures(root / "all", each=12)
    pool = root / "pool"
    pool.mkdir()
    for name in tiny.COLOURS:
        for path in sorted((root / "all" / name).iterdir())[8:]:
            path.rename(pool / f"{name} {path.name}")
    (pool / "again.png").write_bytes((root / "all/red/00.png").read_bytes())
    return (root / "all").rename(root / "data")


def _train(recipe: dict[str, Any], out: Path, **overrides: Any) -> Path:
    return retinue.train(recipe, out=out, overrides=overrides, report=False, quiet=True).folder


def _lines(run: Path, name: str) -> list[dict[str, Any]]:
    text = (run / "stages" / name).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny.register()
    return _train(_recipe(data), tmp_path_factory.mktemp("runs") / "whole", rounds=2)


def test_a_training_in_rounds_learns_from_labels_of_its_own(run: Path, data: Path) -> None:
    told = _lines(run, "own.labels.jsonl")
    assert [row["path"] for row in told] == sorted(
        path.name for path in (data.parent / "pool").iterdir() if path.stem != "again"
    )
    assert all(row["pool"] is True for row in told)
    taken = {f"pool//{row['path']}": row["label"] for row in told if row["used"]}
    assert taken
    assert all(row["used"] == (row["confidence"] >= 0.4) for row in told)
    samples = {line["key"]: line["target"] for line in _lines(run, "own.jsonl")}
    classes = json.loads((run / "classes.json").read_text("utf-8"))
    of = {key: classes[target["class"]] for key, target in samples.items()}
    assert {key: name for key, name in of.items() if key.startswith("pool//")} == taken
    splits = (run / "splits.csv").read_text("utf-8").splitlines()
    train = {line.split(",")[0] for line in splits if ",train," in line}
    assert samples.keys() == train | taken.keys()
    assert {line["key"] for line in _lines(run, "clean.jsonl")} == train
    (first, second) = json.loads((run / "stages/pseudo_labels.json").read_text("utf-8"))
    assert (first["stage"], second["stage"], second["compared"]) == ("own", "own-2", 12)
    again = {row["path"]: row["label"] for row in _lines(run, "own-2.labels.jsonl")}
    assert second["same"] == sum(again[row["path"]] == row["label"] for row in told)
    names = [row["stage"] for row in tiny.rows(run)]
    assert names == ["head"] * 3 + ["own", "clean", "own-2", "clean-2"]


def _evaluated(run: Path, pictures: Path, tmp_path: Path) -> int | None:
    """How many copies of the `pictures`, whose names begin with their classes, are said to have
    been learnt from."""
    for path in pictures.iterdir():
        if path.stem != "again":
            name, _, number = path.name.rpartition(" ")
            place = tmp_path / "copies" / name / number
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    found = retinue.evaluate(run, data=tmp_path / "copies")
    assert found["images"] == 12
    return found.get("learnt_from")


def test_images_of_the_pool_that_were_learnt_from_are_counted(
    run: Path, data: Path, tmp_path: Path
) -> None:
    """Those that got a label; all, where it is not written down which; none that are gone."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    pool = data.parent / "pool"
    files = sorted((copy / "stages").glob("own*.labels.jsonl"))
    used = {row["path"] for f in files for row in _lines(copy, f.name) if row["used"]}
    assert used
    assert _evaluated(copy, pool, tmp_path) == len(used)
    first = sorted(used)[:1]
    for file in files:
        rows = [row | {"used": row["path"] in first} for row in _lines(copy, file.name)]
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    assert _evaluated(copy, pool, tmp_path) == 1
    files[0].unlink()
    assert _evaluated(copy, pool, tmp_path) == 12
    recipe = copy / "recipe.yaml"
    recipe.write_text(recipe.read_text("utf-8").replace(str(pool), str(tmp_path / "gone")), "utf-8")
    assert _evaluated(copy, pool, tmp_path) is None


@pytest.mark.parametrize("stop", [16, 17])
def test_it_goes_on_bit_for_bit(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    steps = [int(row["step"]) for row in tiny.rows(run)]
    stop = steps[2] if stop == 16 else steps[2] + 1  # before the labels are given, and after
    recipe = load_recipe(_recipe(data), {"rounds": 2})
    out = interrupted(recipe, tmp_path / "run", monkeypatch, stop)
    retinue.train(out, resume=True, report=False, quiet=True)
    own, whole = state_of(out), state_of(run)
    assert own.keys() == whole.keys()
    assert all(torch.equal(own[name], whole[name]) for name in whole)
    assert rows_of(out) == rows_of(run)
    assert _lines(out, "own-2.labels.jsonl") == _lines(run, "own-2.labels.jsonl")


def test_the_best_weights_so_far_give_the_labels(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = Labeller._guesses

    def guesses(self: Labeller, *arguments: Any) -> Any:
        found = real(self, *arguments)
        model = retinue.load(self.run.path, engine="torch")
        samples = arguments[2]
        seen.append(
            [(g.label, model(s.key).classes[0]) for g, s in zip(found, samples, strict=True)]
        )
        assert all(g.sure == pytest.approx(model(s.key).classes[0][1], abs=1e-5)
                   for g, s in zip(found, samples, strict=True))  # fmt: skip
        return found

    monkeypatch.setattr(Labeller, "_guesses", guesses)
    _train(_recipe(data), tmp_path / "run")
    (pairs,) = seen
    assert len(pairs) == 12
    assert all(label == best[0] for label, best in pairs)


def test_a_test_split_that_was_labelled_is_no_fair_judge(data: Path, tmp_path: Path) -> None:
    recipe = _recipe(data)
    del recipe["data"]["pool"]
    recipe["stages"][1]["data"]["of"] = "test"
    recipe["stages"].pop()
    recipe["stages"][1]["data"]["labels"] = "soft"
    out = _train(recipe, tmp_path / "run")
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["split"] == "test"
    assert figures["transductive"] is True
    assert "transductive" not in retinue.evaluate(out, split="val")
    learnt = [line for line in _lines(out, "own.jsonl") if line["target"].get("shares")]
    tests = [
        line for line in (out / "splits.csv").read_text("utf-8").splitlines() if ",test," in line
    ]
    assert 0 < len(learnt) <= len(tests)
    assert all(sum(line["target"]["shares"]) == pytest.approx(1) for line in learnt)


# --- what a teacher says of images without a label ------------------------------------------------


def test_images_without_a_label_are_learnt_as_a_teacher_sees_them(
    run: Path, data: Path, tmp_path: Path
) -> None:
    """On cached features and without, with images joined and mixed."""
    recipe = _recipe(data)
    head, late = recipe["stages"][0], recipe["stages"][1]
    late["data"] = "with_pool"
    late["augment"] = {"splice": 0.5, "mixing": {"mixup": 0.4}}
    recipe["stages"] = [{**head, "data": "with_pool"}, late, recipe["stages"][2]]
    recipe["teacher"] = str(run)
    out = _train(recipe, tmp_path / "run")
    targets = {line["key"]: line["target"] for line in _lines(out, "head.jsonl")}
    pool = [key for key in targets if key.startswith("pool//")]
    assert len(pool) == 12
    assert all(targets[key] is None for key in pool)
    assert {line["key"] for line in _lines(out, "own.jsonl")} == targets.keys()
    assert {line["key"] for line in _lines(out, "clean.jsonl")} == targets.keys() - set(pool)
    assert float(tiny.rows(out)[0]["train_loss_distillation"]) > 0
    assert _evaluated(out, data.parent / "pool", tmp_path) == 12


def test_a_pool_much_larger_than_the_labelled_images_is_learnt_from(
    run: Path, data: Path, tmp_path: Path
) -> None:
    """Portions in which no image has a label among them; and a class called `pool`."""
    root = tmp_path / "data"
    for name in ("pool", "sea"):
        (root / name).mkdir(parents=True)
        for k in range(5):
            tiny_picture = (data / "red" / f"{k:02d}.png").read_bytes()
            (root / name / f"{k}.png").write_bytes(tiny_picture + name.encode())
    recipe = tiny.recipe(root)
    (tmp_path / "pool").mkdir()
    for k in range(5):
        (tmp_path / "pool" / f"{k}.png").write_bytes((data / "green" / f"{k:02d}.png").read_bytes())
    recipe["data"]["pool"] = str(tmp_path / "pool")
    recipe["stages"] = [{**recipe["stages"][0], "batch_size": 1, "epochs": 1}]
    teacher = _train(recipe, tmp_path / "teacher")
    recipe["teacher"] = str(teacher)
    recipe["stages"][0] |= {"data": "with_pool", "epochs": 2}
    out = _train(recipe, tmp_path / "run")
    lines = {line["key"]: line["target"] for line in _lines(out, "head.jsonl")}
    assert sum(target is None for target in lines.values()) == 5
    assert all((target is None) == key.startswith("pool//") for key, target in lines.items())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"teacher": None}, r"but teacher is not given, key stages\.1\.data"),
        ({"data.pool": None}, r"but data\.pool is not given, key stages\.1\.data"),
    ],
)
def test_without_teacher_or_images_there_is_nothing_to_learn(
    run: Path, data: Path, tmp_path: Path, overrides: dict[str, Any], said: str
) -> None:
    recipe = _recipe(data, teacher=str(run))
    recipe["stages"][1]["data"] = "with_pool"
    with pytest.raises(UsageError, match=said):
        _train(recipe, tmp_path / "run", **overrides)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"data.pool": None}, r"stage own labels images, but none are given, key data\.pool"),
        ({"stages.0.data": "pseudo_labels"}, r"which is nothing yet, key stages\.0\.data"),
        ({"rounds": {"times": 2, "first": "onw"}}, r"no stage 'onw', key rounds\.first.*'own'"),
        ({"rounds": 2, "stages.0.name": "Own-2"}, r"a stage is called 'own-2' already"),
        ({"rounds": 2, "stages.1.data": None}, r"no stage labels images.*key rounds"),
        ({"rounds": 2, "stages.2.data": "subset"}, r"stage clean changes its samples each time"),
        ({"rounds": 3, "stages.2.data": "with_validation"}, r"each time \(with_validation\)"),
        ({"data.split.test": 0, "data.split.train": 0.9, "stages.1.data.of": "test"},
         r"the data has no test split, which stage own labels"),
    ],
)  # fmt: skip
def test_what_cannot_be_labelled_is_refused(
    data: Path, tmp_path: Path, overrides: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        _train(_recipe(data), tmp_path / "run", **overrides)
    assert not (tmp_path / "run").exists()


def test_a_task_without_guesses_is_refused(tmp_path: Path) -> None:
    stages = [{"name": name, "epochs": 1} for name in ("a", "b")]
    stages[1]["data"] = {"name": "pseudo_labels"}
    recipe = {"task": "detection", "model": {"name": "tiny", "weights": None}, "stages": stages,
              "data": {"path": str(tmp_path), "pool": str(tmp_path)}}  # fmt: skip
    with pytest.raises(UsageError, match=r"'detection' does not learn from labels of its own"):
        _train(recipe, tmp_path / "run")


def test_a_damaged_list_of_labels_is_named(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "run")
    assert read_labels(run, "own") == {}
    run.write("stages/own.labels.jsonl", '{"path": "a", "label": "x"}\n{"path": 1}\n')
    with pytest.raises(RetinueError, match=r"own\.labels\.jsonl, line 2"):
        read_labels(run, "own")


def test_the_report_shows_each_round(run: Path, data: Path) -> None:
    page = write_report(run).read_text("utf-8")
    rows = json.loads((run / "stages/pseudo_labels.json").read_text("utf-8"))
    assert "Labels of its own" in page
    share = f"{100 * rows[1]['same'] / 12:.1f}"
    assert re.search(rf"<td>own-2</td>.*{share}\D+of 12</td>", page)
