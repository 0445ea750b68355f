"""Labels that are probably wrong: found where they were spoilt, and told where that is fair."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cleanlab", reason="needs the extra labels")

from retinue.page.record import read_run
from retinue.tasks.classification.suspects import find, suspects


def answers(n: int, classes: int, sure: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True classes, and probabilities that are right about them."""
    draws = np.random.default_rng(seed)
    truth = draws.integers(0, classes, n)
    scores = draws.dirichlet(np.ones(classes), n) * (1 - sure)
    scores[np.arange(n), truth] += sure
    return truth, scores.astype(np.float32)


def test_spoilt_labels_are_found_and_hardly_any_others() -> None:
    truth, scores = answers(600, 5, 0.9)
    labels = truth.copy()
    spoilt = np.random.default_rng(1).choice(600, 30, replace=False)
    labels[spoilt] = (labels[spoilt] + 1) % 5
    found = set(find(labels, scores).tolist())
    assert len(found & set(spoilt.tolist())) >= 28
    assert len(found - set(spoilt.tolist())) <= 2


def test_of_sound_labels_none_is_suspected() -> None:
    truth, scores = answers(300, 4, 0.9)
    assert len(find(truth, scores)) == 0


def test_the_worst_comes_first() -> None:
    truth, scores = answers(200, 3, 0.8)
    labels = truth.copy()
    labels[[5, 9]] = (labels[[5, 9]] + 1) % 3
    scores[5] = 0.3, 0.3, 0.3
    scores[5, truth[5]] = 0.4
    scores[9] = 0.01
    scores[9, truth[9]] = 0.98
    assert find(labels, scores).tolist()[0] == 9


def test_classes_without_images_and_one_class_alone_are_no_mistake() -> None:
    truth, scores = answers(100, 6, 0.8)
    assert len(find(np.where(truth == 3, 2, truth), scores)) >= 0
    assert len(find(np.zeros(10, np.int64), scores[:10])) == 0


def test_the_page_has_them_and_a_file_names_all(tmp_path: Path, make_anywhere) -> None:  # type: ignore[no-untyped-def]
    run = make_anywhere(tmp_path / "run", ["cat & <x>", "dog", "猫"], accuracy=0.9, images=300)
    section = suspects(read_run(run))
    assert section is not None
    with (run / "suspects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == section.values["count"] > 0
    assert all(row["label"] != row["answer"] for row in rows)
    first = [float(row["label_score"]) for row in rows]
    assert first == sorted(first)


def test_what_was_learnt_is_not_judged(tmp_path: Path, make_anywhere) -> None:  # type: ignore[no-untyped-def]
    run = make_anywhere(tmp_path / "run", ["a", "b", "c"], images=100)
    told = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(told | {"trained_on_this_split": True}))
    assert suspects(read_run(run)) is None
    assert not (run / "suspects.csv").exists()
