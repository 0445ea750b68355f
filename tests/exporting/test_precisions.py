"""Exports in other numbers: what they cost, what they really compute in, and benchmarks of all."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import exports
import pytest
import tiny
import torch

import retinue
from retinue import modelfile
from retinue.cli.app import run
from retinue.errors import RetinueError, UsageError
from retinue.exporting import eight_bits, writers
from retinue.exporting import model as exporting
from retinue.exporting.cost import Cost
from retinue.inference.engine_cache import EngineCache
from retinue.inference.predictor import load
from retinue.sample import Sample


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt to tell three colours."""
    tiny.register()
    root = tmp_path_factory.mktemp("trained")
    data = tiny.write_pictures(root / "data", each=20)
    changes = {
        "stages": [{"trainable": "all", "epochs": 8, "batch_size": 8,
                    "optimizer": {"name": "adamw", "lr": 0.01}}],
        "ema": None,
    }  # fmt: skip
    recipe = tiny.recipe(data, **changes)
    return retinue.train(recipe, out=root / "run", report=False, quiet=True).folder


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_eight_bits_say_what_they_cost(to: str, trained: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    done = retinue.export(trained, to, precision="int8", most_lost=0.2, force=True)
    assert isinstance(done, exporting.Written)
    assert done.path.name == ("best.int8.onnx" if to == "onnx" else "best.int8.xml")
    cost = done.report["cost"]
    assert cost["figure"] == "top1"
    assert cost["model"] == retinue.evaluate(trained, device="cpu", engine="torch")["top1"]
    assert cost["export"] == retinue.evaluate(
        done.path, data=trained.parent / "data", device="cpu"
    )["top1"] or cost["images"] < 60  # fmt: skip
    assert any("it costs" in line for line in done.lines())
    assert any(line.startswith("  classes       “") and "” and “" in line for line in done.lines())
    predictor = load(done.path)
    assert predictor.members[0].plain("cpu").precision == "int8"
    # Eight bits indeed: an answer is not what it was, and near it.
    one = load(trained, engine="torch", device="cpu").members[0].plain("cpu")
    x = torch.randn(8, 3, 32, 32)
    off = (predictor.members[0].plain("cpu")(x) - one(x)).abs().max() / one(x).std()
    assert 1e-4 < float(off) < 1


def test_a_model_file_answers_in_eight_bits_and_says_what_that_costs(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path))
    made: list[Any] = []
    handlers = list(logging.getLogger().handlers)
    own = eight_bits.export_model
    monkeypatch.setattr(
        eight_bits, "export_model",
        lambda *a, **how: made.append(a) or own(a[0], replace(a[1], most_lost=0.2), a[2], **how),
    )  # fmt: skip
    exact = retinue.load(trained, device="cpu", engine="torch")
    x = torch.randn(8, 3, 32, 32)
    expected = next(iter(exact.outputs(x)))
    for engine in ("auto", "openvino", "onnxruntime"):
        caplog.clear()
        predictor = retinue.load(trained, device="cpu", precision="int8", engine=engine)  # type: ignore[arg-type]
        assert engine in ("auto", predictor.engine)
        said = next(iter(predictor.outputs(x)))
        assert 1e-4 < float((said - expected).abs().max() / expected.std()) < 1
        (cost,) = [r for r in caplog.records if "int8 costs" in r.message]
        assert cost.levelname == "WARNING"
        assert cost.message.endswith((", by onnxruntime", ", by openvino")), (
            "engines differ a little"
        )
    (timed,) = EngineCache().choices()
    caplog.clear()
    caplog.set_level("INFO", "retinue")
    monkeypatch.setattr(eight_bits, "race", None)  # it is not timed again
    again = retinue.load(trained, device="cpu", precision="int8")
    assert again.engine == timed.engine
    assert "engine in int8, as timed before" in caplog.text
    assert len(made) == 1, "kept for the next time"
    assert logging.getLogger().handlers == handlers, "or every line would come twice"
    (file,) = (tmp_path / "engines").glob("*.graph")
    file.write_bytes(file.read_bytes()[:-100])
    figures = retinue.evaluate(trained, precision="int8", device="cpu")
    assert figures["precision"] == "int8"
    assert len(made) == 2, "made anew where it is damaged"
    with pytest.raises(UsageError, match="torch does not compute in int8"):
        retinue.load(trained, precision="int8", engine="torch")
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "empty"))
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((trained / "best.safetensors").read_bytes())
    with pytest.raises(UsageError, match="ranges for int8 are chosen by the model's own images"):
        retinue.load(alone, precision="int8")


def test_a_model_file_answers_in_bf16(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path))
    photo = next((trained.parent / "data").rglob("*.png"))
    exact = retinue.load(trained, device="cpu", engine="torch")(photo)
    predictor = retinue.load(trained, device="cpu", engine="torch", precision="bf16")
    found = predictor(photo)
    assert predictor.members[0].compiled is not None
    assert [e.precision for e in predictor._compiled or []] == ["bf16"]  # from the first image on
    assert dict(found.classes) != dict(exact.classes)  # type: ignore[attr-defined]
    assert found.classes[0][0] == exact.classes[0][0]  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="cannot be run in fp16"):
        load(trained, precision="fp16")


def test_an_export_computes_as_it_was_exported(model: Path, photographs: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = retinue.export(model, "onnx", images=photographs)
    assert isinstance(done, exporting.Written)
    for precision in ("bf16", "int8"):
        with pytest.raises(UsageError, match="export"):
            retinue.load(done.path, precision=precision)  # type: ignore[arg-type]


def test_eight_bits_are_chosen_by_images_as_predict_prepares_them(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def stop(job: writers.Job) -> None:
        assert job.calibration is not None
        seen.append(job.calibration)
        raise RetinueError("enough")

    monkeypatch.setattr(exporting, "writer_of", lambda *_: writers.Writer(stop, ("int8",)))
    with pytest.raises(RetinueError, match="enough"):
        retinue.export(trained, "openvino", precision="int8", force=True)
    predictor = load(trained, engine="torch", device="cpu")
    from retinue.training.evaluation import samples_of

    splits = samples_of(modelfile.find_model(trained), predictor.classes)
    samples = [Sample(s.key, s.read) for s in splits["train"]]
    loader_inputs: list[Any] = []
    from retinue.data.loader import Loader

    loader = Loader(predictor.intake.view, workers=0)
    for batch in loader.batches(predictor.intake.plans(samples, 16)):
        loader_inputs += [inputs for _, inputs in predictor.inputs(batch)]
    assert torch.equal(seen[0], torch.cat(loader_inputs))


def test_eight_bits_that_cost_too_much_are_refused(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    photographs = exports.photographs(tmp_path / "photographs")
    with pytest.raises(RetinueError, match=r"int8 costs more than -1.*--most-lost") as refused:
        retinue.export(
            trained, "openvino", precision="int8", images=photographs, most_lost=-1,
            out=tmp_path / "m.xml",
        )  # fmt: skip
    assert not (tmp_path / "m.xml").exists()
    assert "give more images with images=… (--images)" in str(refused.value), "one counts more"


def test_of_few_images_it_is_said_what_loss_they_can_show() -> None:
    """One of 11 is 0.09; of 50, one is as much as is allowed."""
    few = Cost("top1", "top-1", 0.3636, 0.2727, 11, "test")
    assert few.told() == (
        "0.0909: top-1 0.2727 instead of 0.3636, on 11 images of the test split"
        " (so few cannot show a loss below 0.09)"
    )
    assert "so few" not in replace(few, images=50).told()
    assert "so few" in replace(few, images=49).told()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("to", ["torchscript", "openvino"])
def test_sixteen_bits(to: str, precision: Any, trained: Path) -> None:
    pytest.importorskip("openvino")
    try:
        done = retinue.export(trained, to, precision=precision, force=True)
    except UsageError as error:
        pytest.skip(str(error))  # bf16 is not on every processor
    assert isinstance(done, exporting.Written)
    assert done.path.name.startswith(f"best.{precision}.")
    assert 0 < (done.proof.error or 0) <= exporting.gate.ALLOWED[precision].error
    exact = retinue.export(trained, to, force=True)
    if to == "openvino":  # there, bf16 is how it is asked to compute
        sizes = [one.path.with_suffix(".bin").stat().st_size for one in (done, exact)]
        assert sizes[0] < sizes[1] if precision == "fp16" else sizes[0] == sizes[1]
    else:
        assert done.path.stat().st_size < exact.path.stat().st_size
    if to == "openvino":
        computes = "bfloat16" if precision == "bf16" else "float32"
        assert done.report["engine"]["computes"] == computes


def test_fp32_is_fp32(trained: Path) -> None:
    """OpenVINO would compute in bf16 by itself, and write weights in fp16."""
    pytest.importorskip("openvino")
    done = retinue.export(trained, "openvino", force=True)
    engine = done.report["engine"]  # type: ignore[union-attr]
    assert (engine["name"], engine["provider"], engine["computes"]) == (
        "openvino",
        "CPU",
        "float32",
    )
    text = done.path.read_text(encoding="utf-8")
    assert 'element_type="f16"' not in text
    assert 'precision="FP16"' not in text


def test_benchmark(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    line = ["benchmark", str(trained), "--to", "openvino", "--to", "torchscript"]
    line += ["--precision", "fp32", "--precision", "fp16", "--json"]
    assert run(line) == 0
    rows = json.loads(capsys.readouterr().out)
    told = [(row["format"], row["precision"], row["engine"]) for row in rows]
    assert told == [
        ("safetensors", "fp32", "torch"),
        ("openvino", "fp32", "openvino"), ("torchscript", "fp32", "torch"),
        ("openvino", "fp16", "openvino"), ("torchscript", "fp16", "torch"),
    ]  # fmt: skip
    for row in rows:
        assert row["why"] == ""
        assert row["provider"]
        assert row["computes"]
        assert row["latency_ms"] > 0
        assert row["images_per_second"] > 0
        assert row["bytes"] > 1000
    assert rows[0]["error"] == 0
    assert rows[0]["bytes"] == modelfile.find_model(trained).stat().st_size
    assert 0 < rows[1]["error"] < 1e-3
    assert rows[3]["error"] > 1e-5
    assert not [p for p in trained.iterdir() if "staged" in p.name]


def test_benchmark_says_what_cannot_be_had(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["benchmark", str(trained), "--to", "torchscript", "--precision", "int8"]
    assert run(line) == 0
    out = capsys.readouterr().out
    assert "torchscript, int8, torch: TorchScript files are written in fp32, fp16, bf16" in out
    with pytest.raises(UsageError, match="unknown format 'onxx', did you mean 'onnx'"):
        retinue.benchmark(trained, formats=["onxx"])


def test_benchmark_of_an_export(trained: Path, tmp_path: Path) -> None:
    photographs = exports.photographs(tmp_path / "photographs")
    done = retinue.export(trained, "torchscript", force=True)
    (row,) = retinue.benchmark(done.path, images=photographs)
    assert (row.format, row.engine, row.error) == ("torchscript", "torch", 0)
    assert row.bytes == done.path.stat().st_size


def test_benchmark_of_a_whole_export(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its outputs are no others' outputs: there is no error of theirs to tell."""
    photographs = exports.photographs(tmp_path / "photographs")
    done = retinue.export(trained, "torchscript", end_to_end=True, force=True)
    assert run(["benchmark", str(done.path), "--images", str(photographs)]) == 0
    heading, row = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert dict(zip(heading, row, strict=True))["error"] == "–"
