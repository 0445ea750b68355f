"""Each class in pictures: which images stand for it, checked on a handful of made-up answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retinue.page.record import read_run
from retinue.report.html import write_report
from retinue.tasks.classification.members import members, shown

NAMES = ["a & <b>", "猫", "c"]


def run_of(folder: Path, rows: list[tuple[int, list[float]]]) -> Path:
    """A folder with the answers `rows`: label and probabilities."""
    folder.mkdir()
    table = pa.table({
        "path": [f"{k}.png" for k in range(len(rows))],
        "label": [label for label, _ in rows],
        "scores": pa.array([scores for _, scores in rows], pa.list_(pa.float32())),
    })  # fmt: skip
    pq.write_table(table, folder / "predictions.parquet")
    (folder / "classes.json").write_text(json.dumps(NAMES))
    told = {"task": "classification", "split": "test", "images": len(rows), "top1": 0.5}
    (folder / "metrics.json").write_text(json.dumps(told))
    return folder


ROWS = [
    *[(0, [0.9 - 0.01 * k, 0.05, 0.05 + 0.01 * k]) for k in range(8)],  # 0 … 7: right
    (0, [0.1, 0.8, 0.1]),  # 8: missed, taken for 1
    (1, [0.0, 0.9, 0.1]),  # 9: right
    (2, [0.2, 0.7, 0.1]),  # 10: missed, taken for 1
]


def test_images_stand_for_their_class_in_the_order_of_their_scores(tmp_path: Path) -> None:
    section = members(read_run(run_of(tmp_path / "run", ROWS)))
    assert section is not None
    group = next(one for one in section.values["groups"] if one["name"] == NAMES[0])
    assert (group["count"], group["missed"], group["given"]) == (9, 1, 0)
    found = {k["title"]: [card["path"] for card in k["cards"]] for k in group["kinds"]}
    assert found == {
        "typical": ["0.png", "1.png", "2.png", "3.png"],
        "hardly recognised": ["7.png", "6.png", "5.png", "4.png"],
        "missed": ["8.png"],
    }
    second = next(one for one in section.values["groups"] if one["name"] == NAMES[1])
    kinds = {k["title"]: [card["path"] for card in k["cards"]] for k in second["kinds"]}
    assert kinds == {"typical": ["9.png"], "others taken for it": ["8.png", "10.png"]}


def test_classes_with_most_mistakes_come_first(tmp_path: Path) -> None:
    # 2: its one image is missed; 1: of one own and two others; 0: one of nine.
    assert shown(read_run(run_of(tmp_path / "run", ROWS))) == [2, 1, 0]


def test_the_table_of_classes_leads_to_the_pictures(tmp_path: Path) -> None:
    text = write_report(run_of(tmp_path / "run", ROWS)).read_text(encoding="utf-8")
    for k in range(3):
        assert f'href="#class-{k}"' in text
        assert text.count(f'id="class-{k}"') == 1
    assert "is left out" not in text


def test_of_many_classes_the_worst_have_pictures(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    rows = [(k % 40, draws.dirichlet(np.ones(40)).tolist()) for k in range(200)]
    record = read_run(run_of(tmp_path / "run", rows))
    section = members(record)
    assert section is not None
    assert len(section.values["groups"]) == 12
    assert section.values["left_out"] == 28
