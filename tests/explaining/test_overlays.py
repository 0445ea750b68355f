"""What a report shows of its mistakes, made when the model is judged."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bright
import numpy as np
import pyarrow.parquet as pq
import pytest
from detection_runs import run_of
from PIL import Image
from squares import CLASSES, picture, predictor

from retinue import api, load
from retinue.data.targets.one_class import OneClass
from retinue.data.targets.several_labels import SeveralLabels
from retinue.errors import UsageError
from retinue.explaining.overlays import for_the_page, overlays
from retinue.inference.evaluator import evaluate
from retinue.page.pictures import OVERLAYS, PICTURES
from retinue.page.record import read_run
from retinue.page.section import ANYTHING
from retinue.sample import Sample
from retinue.tasks.task import task_type

WRONG = 3
"""Images that are called by another class than their colour's."""


def judged(folder: Path, task: str) -> tuple[Any, list[Sample]]:
    """A run folder as far as a page needs it, whose answers are right but for the labels."""
    made, samples = predictor(task), []
    (folder / "猫 & dog").mkdir(parents=True)
    for k in range(9):
        path = folder / f"猫 & dog/{k}.png"
        Image.fromarray(picture((64, 32), (16, 0, 40, 24, k % 3))).save(path)
        of = (k + (k < WRONG)) % 3
        target: Any = OneClass(of, 3) if task == "classification" else SeveralLabels((of,), 3)
        samples.append(Sample(str(path), target=target))
    found = evaluate(made, samples)
    for name, table in found.tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    (folder / "metrics.json").write_text(
        json.dumps({"task": task, "split": "test", **found.figures})
    )
    (folder / "classes.json").write_text(json.dumps(list(CLASSES)))
    return made, samples


def mistakes(made: Any, folder: Path) -> dict[str, Any]:
    """What the section of the mistakes is rendered with."""
    record = read_run(folder)
    (build,) = (one for one in made.task.sections().builders if one.__name__ == "mistakes")
    section = build(record)
    assert section is not None
    return section.values


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_mistakes_carry_what_they_rest_on(tmp_path: Path, task: str) -> None:
    made, samples = judged(tmp_path, task)
    assert not mistakes(made, tmp_path)["explained"]  # an older run has none
    asked = made.task.sections().to_explain(read_run(tmp_path))
    # Of several labels both that were given, and those that were missed.
    assert len(asked) == WRONG * (1 if task == "classification" else 2)
    table = overlays(made, samples, asked)
    pq.write_table(table, tmp_path / OVERLAYS)
    shown = mistakes(made, tmp_path)
    assert shown["explained"]
    cards = shown.get("cards") or [card for group in shown["groups"] for card in group["cards"]]
    carried = [base64.b64decode(card["overlay"].split(",")[1]) for card in cards]
    assert sorted(carried) == sorted(row["image"] for row in table.to_pylist())
    pixels = np.asarray(Image.open(io.BytesIO(carried[0]))).astype(int)
    assert pixels.shape == (32, 64, 3)


def test_the_page_shows_them(tmp_path: Path) -> None:
    made, samples = judged(tmp_path, "classification")
    asked = made.task.sections().to_explain(read_run(tmp_path))
    pq.write_table(overlays(made, samples, asked), tmp_path / OVERLAYS)
    page = Path(api.write_report(tmp_path)).read_text(encoding="utf-8")
    assert page.count('class="frame why"') == WRONG
    assert 'alt="what red rests on"' in page
    assert "in red, what spoke most for the answer" in page
    assert "cannot be read" not in page


def test_images_that_have_gone_and_models_without_a_method(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, samples = judged(tmp_path, "classification")
    asked = made.task.sections().to_explain(read_run(tmp_path))
    assert overlays(made, samples[1:], asked).num_rows == len(asked) - 1
    with caplog.at_level("INFO", "retinue"):
        assert overlays(predictor(members=2), samples, asked).num_rows == 0
    assert "the report shows no explanations: an explanation is of one network" in caplog.text
    Path(samples[0].key).write_bytes(b"no image any more")
    assert overlays(made, samples, asked).num_rows == len(asked) - 1


def test_a_slow_model_explains_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, samples = judged(tmp_path, "classification")
    wanted = made.task.sections().to_explain(read_run(tmp_path))
    monkeypatch.setattr("retinue.explaining.overlays._SECONDS", 0)
    with caplog.at_level("INFO", "retinue"):
        table = overlays(made, samples, wanted)
    assert table["path"].to_pylist() == [wanted[0].path]
    assert "the report explains 1 of its 3 mistakes" in caplog.text


@pytest.mark.parametrize("content", [b"", b"PAR1 damaged", None])
def test_a_damaged_table_is_none(tmp_path: Path, content: bytes | None) -> None:
    made, _ = judged(tmp_path, "classification")
    if content is None:
        pq.write_table(pq.read_table(tmp_path / "predictions.parquet"), tmp_path / OVERLAYS)
    else:
        (tmp_path / OVERLAYS).write_bytes(content)
    assert not mistakes(made, tmp_path)["explained"]


def test_nothing_is_asked_where_nothing_is_known(tmp_path: Path) -> None:
    made, _ = judged(tmp_path, "classification")
    (tmp_path / "predictions.parquet").unlink()
    assert list(made.task.sections().to_explain(read_run(tmp_path))) == []
    with pytest.raises(UsageError):
        read_run(tmp_path / "nowhere")


def test_a_detectors_worst_images_carry_its_heat(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run")
    sections = task_type("detection").sections()
    wanted = sections.to_explain(read_run(folder))
    assert [(Path(one.path).name, one.name) for one in wanted] == [
        ("0.png", ANYTHING), ("7.png", ANYTHING),
    ]  # fmt: skip
    finds = load(bright.model(tmp_path / "finds.safetensors"), device="cpu", engine="torch")
    table = overlays(finds, [Sample(one.path) for one in wanted], wanted)
    assert table["target"].to_pylist() == ["", ""]
    pq.write_table(table, folder / OVERLAYS)
    (build,) = (one for one in sections.builders if one.__name__ == "examples")
    section = build(read_run(folder))
    assert section is not None
    assert section.values["explained"]
    assert sum(card["overlay"] is not None for card in section.values["cards"]) == 2
    page = Path(api.write_report(folder)).read_text(encoding="utf-8")
    part = page.split('<section id="examples">')[1].split("</section>")[0]
    assert part.count("<img") == 2 * (2 + 5) + 2


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_images_without_a_file_of_their_own_are_shown(tmp_path: Path, task: str) -> None:
    """As those in shards: read while the model is judged, as far as the page shows them."""
    made, samples = judged(tmp_path, task)
    within = []
    for k, sample in enumerate(samples):
        read = Path(sample.key).read_bytes
        if k == 0:
            read = partial(bytes, 3)  # broken since
        within.append(replace(sample, key=f"{sample.key}.tar/{k}", read=read, shard="s.tar"))
    for name, table in evaluate(made, within[1:]).tables.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    bare = Path(api.write_report(tmp_path)).read_text(encoding="utf-8")
    assert "file not found" in bare
    (tmp_path / PICTURES).write_bytes(b"of an earlier judgement")
    tables = for_the_page(made, within, tmp_path, {"predictions"})
    assert not (tmp_path / PICTURES).exists()
    for name, table in tables.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    page = Path(api.write_report(tmp_path)).read_text(encoding="utf-8")
    assert "file not found" not in page
    assert page.count("data:image/jpeg") > bare.count("data:image/jpeg")
    assert set(tables) == {"overlays", "pictures"}
    assert "pictures" not in for_the_page(made, samples, tmp_path, ()), "these are found"
