"""The benchmark compares like with like."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from salted import SaltedFolder


FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("input_pipeline", FOLDER / "input_pipeline.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        spec.loader.exec_module(module)
    return module


def test_both_sides_give_alike_batches(benchmark: ModuleType, salted: SaltedFolder) -> None:
    paths = [path for path in salted.good if path.name[0].isdigit()] * 2
    ours, theirs = benchmark.retinue_pipeline(0.1)(paths), benchmark.pillow_pipeline(0.1)(paths)
    assert ours.shape == theirs.shape == (32, 3, 224, 224)
    assert ours.dtype == theirs.dtype == torch.float32
    gap = ours.mean(dim=(0, 2, 3)) - theirs.mean(dim=(0, 2, 3))
    assert gap.abs().max() < 0.35
    assert abs(ours.std() - theirs.std()) < 0.2


def test_interval(benchmark: ModuleType) -> None:
    mean, low, high = benchmark.interval([2.0, 8.0] * 20)
    assert mean == pytest.approx(4.0)
    assert 2.0 < low < 4.0 < high < 8.0


def test_prints_json(
    benchmark: ModuleType, salted: SaltedFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = salted.root / "plain"
    folder.mkdir()
    for path in salted.good[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    threads = torch.get_num_threads()
    try:
        benchmark.main(["--data", str(folder), "--rounds", "2", "--json"])
    finally:
        torch.set_num_threads(threads)
    results = json.loads(capsys.readouterr().out)
    cases = {(result["claim"], result["case"]) for result in results}
    assert {("input-packed-pillow", "plain"), ("input-pillow", "plain, with hue")} <= cases
    assert all(r["low"] <= r["ratio"] <= r["high"] for r in results)


def test_an_interpreter_without_tensorflow_is_said_to_be_none(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    """It runs as another program, whose own words go nowhere."""
    with pytest.raises(SystemExit, match="has it TensorFlow"):
        benchmark.TfData("true", [tmp_path / "a.jpg"], 0.0, 0.0)
