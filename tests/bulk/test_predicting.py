"""From sources to files by parts. Ray stands aside: its actor is called here, in any order, and
tests/bulk/test_ray.py has it do the same."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

import retinue
from retinue.bulk import cluster, predicting
from retinue.bulk.actors import Answering, Order, opened, raised, sha256
from retinue.bulk.manifest import FOLDER
from retinue.bulk.predicting import shares
from retinue.errors import RetinueError, UsageError
from retinue.inference.forms import json_line

Answers = Callable[..., Any]


@pytest.fixture(autouse=True)
def aside(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """In place of Ray: `actors` in turn, parts in a drawn order; `fail_after` so many of them."""
    how: dict[str, Any] = {"fail_after": None, "asked": []}

    def answered(order: Order, parts: list[Any], *, actors: int, **_: Any) -> Iterator[Any]:
        pool = [Answering(order) for _ in range(actors)]
        how["asked"].append([part["part"] for part in parts])
        for count, part in enumerate(random.Random(0).sample(parts, len(parts))):
            if how["fail_after"] == count:
                raise RetinueError("an actor died")
            batch = {key: [value] for key, value in part.items()}
            said = pool[count % actors](batch)
            if said["problem"][0]:
                raised(said["problem"][0])
            yield said["part"][0], said["lines"][0]

    class Connected:
        def __enter__(self) -> tuple[int, int]:
            return 4, 0

        def __exit__(self, *_: object) -> None:
            pass

    threads = torch.get_num_threads()
    monkeypatch.setattr(predicting, "answered", answered)
    monkeypatch.setattr(predicting, "connected", Connected)
    monkeypatch.setattr(predicting, "refuse_absent", lambda: None)
    yield how
    torch.set_num_threads(threads)  # an actor has a process of its own


def rows(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "predictions.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def alike(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """The same names in the same order; scores as far as float32 tells them, whose last digits
    depend on how many threads add them up."""

    def names(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "classes": [one["name"] for one in row.get("classes", [])]}

    def scores(all_: list[dict[str, Any]]) -> list[float]:
        return [one["score"] for row in all_ for one in row.get("classes", [])]

    same = list(map(names, found)) == list(map(names, expected))
    return same and scores(found) == pytest.approx(scores(expected), abs=1e-5)


def plain(model: Path, sources: Any, out: Path) -> list[dict[str, Any]]:
    """What `predict` alone answers, as rows."""
    done = retinue.predict(model, sources, out=out, engine="torch", batch_size=2)
    assert done.images
    return rows(out)


@pytest.mark.parametrize("actors", [1, 2, 4])
def test_the_same_answers_in_any_number_of_actors(
    model: Path, pictures: Path, tmp_path: Path, actors: int
) -> None:
    sources = [pictures, pictures / "02.png", pictures / "02.png"]
    done = retinue.predict(
        model, sources, out=tmp_path / "a", engine="ray", actors=actors, batch_size=2
    )
    found = rows(tmp_path / "a")
    assert [row.pop("id") for row in found] == list(range(13)), "each once, in order"
    bad = found.pop(3)
    assert bad["path"] == str(pictures / "03.png")
    assert "error" in bad
    assert alike(found, plain(model, sources, tmp_path / "b"))
    assert done.images == 12
    assert list(done.skipped) == [str(pictures / "03.png")]
    assert done.files == [tmp_path / "a" / "predictions.jsonl"]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["predictions.jsonl"]


def test_it_goes_on_where_it_stopped(
    model: Path,
    pictures: Path,
    tmp_path: Path,
    aside: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "a"
    how: dict[str, Any] = {"out": out, "engine": "ray", "batch_size": 2}
    aside["fail_after"] = 0
    with pytest.raises(RetinueError, match="an actor died"):
        retinue.predict(model, pictures, actors=2, **how)
    assert "are done" not in caplog.text
    aside["fail_after"] = 2
    with pytest.raises(RetinueError, match="an actor died"):
        retinue.predict(model, pictures, actors=2, **how)
    assert "3 of 11 rows are done and kept: the same command goes on from there" in caplog.text
    aside["asked"] = aside["asked"][1:]
    assert not (out / "predictions.jsonl").exists()
    kept = {p.name: p.stat().st_mtime_ns for p in (out / FOLDER).glob("part-*")}
    assert len(kept) == 2
    with pytest.raises(UsageError, match="unfinished prediction of other images"):
        retinue.predict(model, pictures / "00.png", **how)
    aside["fail_after"] = None
    retinue.predict(model, pictures, actors=3, **{**how, "batch_size": 4})
    assert sorted(aside["asked"][0]) == list(range(6))
    assert len(aside["asked"][1]) == 4, "only what was not done"
    assert not set(aside["asked"][1]) & {int(name[5:11]) for name in kept}
    found = rows(out)
    assert [row["id"] for row in found] == list(range(11))
    retinue.predict(model, pictures, **{**how, "out": tmp_path / "whole"})
    assert alike(found, rows(tmp_path / "whole"))
    again = retinue.predict(model, pictures / "00.png", **how)
    assert again.images == 1, "what is finished is replaced by what is asked for next"
    assert len(rows(out)) == 1


def test_all_parts_done_and_killed_before_they_were_joined(
    model: Path, pictures: Path, tmp_path: Path, aside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    how: dict[str, Any] = {"out": tmp_path, "engine": "ray", "batch_size": 4}
    with monkeypatch.context() as patch:
        patch.setattr(predicting, "_join", killed)
        with pytest.raises(KeyboardInterrupt):
            retinue.predict(model, pictures, **how)
    retinue.predict(model, pictures, **how)
    assert len(aside["asked"]) == 1, "no model was loaded anew"
    assert [row["id"] for row in rows(tmp_path)] == list(range(11))


def test_as_parquet(model: Path, pictures: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"engine": "ray", "batch_size": 2}
    retinue.predict(model, pictures, out=tmp_path / "p", format="parquet", **how)
    retinue.predict(model, pictures, out=tmp_path / "j", **how)
    table = pq.read_table(tmp_path / "p" / "predictions.parquet")
    assert table.column_names == ["id", "path", "classes", "error"]
    found = [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]
    assert found == rows(tmp_path / "j")
    # What was written can be predicted on again.
    done = retinue.predict(model, tmp_path / "p" / "predictions.parquet", out=tmp_path / "r", **how)
    assert done.images == 10


def test_only_broken_images_are_a_table_too(model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"x")
    retinue.predict(model, tmp_path / "bad.png", out=tmp_path / "p", format="parquet", engine="ray")
    table = pq.read_table(tmp_path / "p" / "predictions.parquet")
    assert table.column_names == ["id", "path", "error"]
    assert len(table) == 1


def test_what_will_not_do(model: Path, pictures: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "f"
    foreign.mkdir()
    (foreign / "predictions.jsonl").write_text("mine\n")
    (tmp_path / "file").write_text("x")
    for changes, said in (
        ({"out": None}, "needs a folder"),
        ({"draw": True}, "does not support draw"),
        ({"tiles": 64}, "does not support tiles"),
        ({"on_bad_image": "stop"}, "does not support on_bad_image"),
        ({"format": "csv"}, "not written as csv.*jsonl and parquet"),
        ({"actors": 0}, "at least one actor, not 0"),
        ({"actors": 5}, "5 actors do not fit: the cluster has 4 processors"),
        ({"device": "cuda"}, "no GPU"),
        ({"device": "cuda:1"}, "cannot be chosen"),
        ({"options": {"nonsense": 1}}, "nonsense"),
        ({"out": foreign}, "is not overwritten"),
        ({"out": tmp_path / "file"}, "a file, not a folder"),
    ):
        how: dict[str, Any] = {"out": tmp_path / "o", "engine": "ray", **changes}
        with pytest.raises(UsageError, match=said):
            retinue.predict(model, pictures, **how)
    assert (foreign / "predictions.jsonl").read_text() == "mine\n"
    with pytest.raises(UsageError, match="only the engine ray has actors"):
        retinue.predict(model, pictures, actors=2)


def test_another_model_on_some_machine(model: Path, tmp_path: Path) -> None:
    order = Order((str(model),), ("0" * 64,), "cpu", None, {}, 2, 1)
    with pytest.raises(RetinueError, match="another model under this path"):
        opened(order)
    told = Answering(order)({"part": [3], "start": [0], "rows": [b""]})
    assert told["part"] == [3]
    with pytest.raises(RetinueError, match=f"another model under this path, {model}"):
        raised(told["problem"][0])
    with pytest.raises(RetinueError, match="cannot read the model"):
        opened(Order((str(tmp_path / "m"),), ("0" * 64,), "cpu", None, {}, 2, 1))
    assert len(sha256(model)) == 64


@pytest.mark.parametrize("module", [None, ModuleType("ray")])
def test_without_ray(monkeypatch: pytest.MonkeyPatch, module: ModuleType | None) -> None:
    monkeypatch.delitem(sys.modules, "ray.data", raising=False)
    monkeypatch.setitem(sys.modules, "ray", module)
    with pytest.raises(UsageError, match=r"not installed.*pip install 'retinue\[ray\]'"):
        cluster.refuse_absent()


def test_how_a_cluster_is_divided() -> None:
    assert vars(shares(2, 0, "auto", None)) == {
        "actors": 1, "cpus": 2, "gpus": 0, "device": "cpu",
    }  # fmt: skip
    assert vars(shares(2, 0, "auto", 2))["cpus"] == 1
    assert vars(shares(64, 0, "cpu", None))["actors"] == 16
    eight = shares(64, 8, "auto", None)
    assert vars(eight) == {"actors": 8, "cpus": 8, "gpus": 1, "device": "cuda"}
    assert shares(64, 8, "cpu", 2).device == "cpu"
    with pytest.raises(UsageError, match="8 GPUs"):
        shares(64, 8, "cuda", 9)


def test_parts_whose_rows_have_nothing_are_of_the_same_table(tmp_path: Path) -> None:
    """Arrow takes an empty list for one of nothing; the other parts say of what it is."""
    places = [{"name": "a", "score": 0.5, "xyxy": [0.0, 1.0, 2.0, 3.0]}]
    parts = [
        [{"id": 0, "path": "a.png", "boxes": []}],
        [{"id": 1, "path": "b\udcff.png", "error": "broken"}],
        [{"id": 2, "path": "c.png", "boxes": places}],
        [{"id": 3, "path": "d.png", "boxes": []}],
    ]

    class Parts(list[bytes]):
        lines = list.__getitem__

    lines = Parts("".join(map(json_line, part)).encode() for part in parts)
    done = predicting.Done(4)
    predicting._to_parquet(lines, tmp_path / "p.parquet", done)  # type: ignore[arg-type]
    table = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["boxes"] for row in table] == [[], None, places, []]
    assert [row["path"] for row in table] == ["a.png", "b\\udcff.png", "c.png", "d.png"]
    assert (done.failed, list(done.skipped.values())) == (1, ["broken"])
