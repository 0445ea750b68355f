"""The commands on a real training, of a network that takes a second."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny
from ruamel.yaml import YAML

from retinue.cli.app import run as run_command

Command = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def _network() -> None:
    tiny.register()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; its pictures lie in `data` beside it."""
    folder = tmp_path_factory.mktemp("trained")
    data = tiny.write_pictures(folder / "data")
    with (folder / "mine.yaml").open("w", encoding="utf-8") as stream:
        YAML(typ="safe").dump(tiny.recipe(data), stream)
    line = ["train", str(folder / "mine.yaml"), "stages.1.epochs=2", "-q", "--out"]
    assert run_command([*line, str(folder / "run")]) == 0
    return folder / "run"


def test_a_run_has_what_the_design_says(trained: Path) -> None:
    wanted = (
        "recipe.yaml classes.json metrics.csv metrics.json best.safetensors last report.html plots "
        "train.log splits.csv predictions.parquet confusion.parquet environment.json"
    )
    assert set(wanted.split()) <= {path.name for path in trained.iterdir()}
    page = (trained / "report.html").read_text(encoding="utf-8")
    for part in ("cannot be read", "is left out"):
        assert part not in page
    for anchor in ("figures", "curves", "confusion", "mistakes", "batches", "recipe", "run"):
        assert f'<section id="{anchor}">' in page
    assert "blue 猫" in page
    assert "image/jpeg" in page


def test_evaluating_repeats_the_figures(retinue: Command, trained: Path, tmp_path: Path) -> None:
    figures = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    code, out, err = retinue("evaluate", trained, "--engine", "torch", "--json", "--out", tmp_path)
    assert code == 0, err
    told = json.loads(out)
    assert told["top1"] == figures["top1"]
    assert told["images"] == figures["images"]
    assert told["split"] == "test"
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == told
    wanted = {"metrics.json", "predictions.parquet", "confusion.parquet"}
    if figures["top1"] < 1:
        wanted.add("overlays.parquet")
    assert {p.name for p in tmp_path.iterdir()} == wanted
    code, out, _ = retinue("report", tmp_path)
    assert code == 0
    assert Path(out.strip()).is_file()


def test_the_confusion_is_counted_in_a_table_of_its_own(
    retinue: Command, trained: Path, tmp_path: Path
) -> None:
    """By the training and by an evaluation alike; `metrics.json` does not grow with the square of
    the classes."""
    assert retinue("evaluate", trained, "--engine", "torch", "--out", tmp_path).code == 0
    names = json.loads((trained / "classes.json").read_text(encoding="utf-8"))
    for folder in (trained, tmp_path):
        rows = pq.read_table(folder / "predictions.parquet").to_pylist()
        expected = Counter((row["label"], row["scores"].index(max(row["scores"]))) for row in rows)
        table = pq.read_table(folder / "confusion.parquet")
        counted = {(r["true"], r["predicted"]): r["count"] for r in table.to_pylist()}
        assert counted == dict(expected)
        assert json.loads(table.schema.metadata[b"classes"]) == names
        figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert sum(counted.values()) == figures["images"]
        assert "confusion" not in figures


def test_evaluating_overwrites_no_run_and_finds_out_at_once(
    retinue: Command, trained: Path, tmp_path: Path
) -> None:
    before = (trained / "metrics.json").read_bytes()
    code, out, err = retinue("evaluate", trained, "--out", trained)
    assert (code, out) == (2, "")
    assert "not overwritten" in err
    assert (trained / "metrics.json").read_bytes() == before
    (tmp_path / "file").touch()
    code, out, err = retinue("evaluate", trained, "--out", tmp_path / "file" / "x")
    assert (code, out) == (2, "")
    assert "cannot be made" in err
    assert "name another folder" in err
    assert err.count("\n") == 1


def test_predicting_skips_and_lists(retinue: Command, trained: Path, tmp_path: Path) -> None:
    picture = next((trained.parent / "data" / "red").iterdir())
    shutil.copy(picture, tmp_path / "fine.png")
    (tmp_path / "bad\nname.png").write_bytes(picture.read_bytes()[:100])
    model = trained / "best.safetensors"
    code, out, err = retinue("predict", model, tmp_path, "--json")
    assert code == 3
    (line,) = out.splitlines()
    assert json.loads(line)["path"] == str(tmp_path / "fine.png")
    assert len(json.loads(line)["classes"]) == 3
    assert "bad\\nname.png" in err
    code, _, err = retinue("predict", model, tmp_path, "--on-bad-image", "stop")
    assert code == 1
    assert "1 image cannot be read" in err
    code, out, _ = retinue(
        "predict", model, tmp_path / "fine.png", "--out", tmp_path / "o", "--draw"
    )
    assert code == 0
    assert (tmp_path / "o" / "predictions.jsonl").is_file()
    assert list((tmp_path / "o" / "drawn").rglob("*.png"))


@pytest.mark.usefixtures("only_torch")
def test_training_on_broken_pictures(retinue: Command, trained: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained.parent / "data", data)
    (data / "red" / "00.png").write_bytes(b"")
    line = ("train", trained.parent / "mine.yaml", f"data={data}", "stages.0.epochs=1",
            "stages.1.epochs=1", "-q", "--out", tmp_path / "run")  # fmt: skip
    code, _, err = retinue(*line)
    assert code == 1
    assert "00.png" in err
    assert not (tmp_path / "run").exists()
    code, out, err = retinue(*line, "data.on_bad_image=skip", "--json")
    assert code == 3
    told = json.loads(out)
    assert list(told["skipped"]) == [str(data / "red" / "00.png")]
    assert "1 file was skipped" in err
    assert "00.png" in Path(told["report"]).read_text(encoding="utf-8")


@pytest.mark.usefixtures("only_torch", "unreported")
def test_a_run_is_never_overwritten(retinue: Command, trained: Path) -> None:
    line = ("train", trained / "recipe.yaml", "stages.0.epochs=1", "stages.1.epochs=1", "-q",
            "--out", trained, "--json")  # fmt: skip
    code, out, _ = retinue(*line)
    assert code == 0
    assert json.loads(out)["run"] == f"{trained}-2"


@pytest.mark.usefixtures("unreported")
def test_resuming_what_is_done_only_tells(retinue: Command, trained: Path) -> None:
    figures = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    code, out, _ = retinue("train", trained, "--resume", "-q", "--json")
    assert code == 0
    assert json.loads(out)["figures"] == figures


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_a_checkpoint_and_the_way_on(
    trained: Path, tmp_path: Path, number: signal.Signals
) -> None:
    text = """
model: {name: mobilenet_v2_035, weights: null}
input: {size: 32}
stages: [{name: all, epochs: 500, batch_size: 8}]
device: cpu
tensorboard: false
"""
    (tmp_path / "long.yaml").write_text(text)
    folder = tmp_path / "run"
    line = [sys.executable, "-m", "retinue.cli", "train", str(tmp_path / "long.yaml"),
            f"data={trained.parent / 'data'}", "--out", str(folder)]  # fmt: skip
    training = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 90
        while not (folder / "metrics.csv").exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        training.send_signal(number)
        _, err = training.communicate(timeout=60)
    finally:
        training.kill()
    assert training.returncode == 128 + number
    last = err.splitlines()[-1]
    assert last.startswith("error: interrupted")
    assert last.endswith(f"retinue train {folder} --resume")
