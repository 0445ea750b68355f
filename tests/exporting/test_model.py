"""Exports answer as their models do, from the image file on, or are not written at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import exports
import pytest
import tiny
import torch
from torch import Tensor, nn

import retinue
from retinue import modelfile
from retinue.cli.app import run
from retinue.errors import BadImageError, RetinueError, UsageError
from retinue.exporting import gate
from retinue.exporting import model as exporting
from retinue.exporting.writers import ELSEWHERE, WRITERS
from retinue.inference import exported, runtimes
from retinue.inference.exported import Export
from retinue.inference.predictor import load
from retinue.modelfile import ModelDescription
from retinue.models import registry

QUICK = ("torchscript", "openvino")
"""ONNX's exporter takes seconds for any network; `test_onnx` shows that way once."""


@pytest.mark.parametrize("to", QUICK)
def test_a_classifiers_export_answers_as_the_model(to: str, model: Path, photographs: Path) -> None:
    pytest.importorskip("openvino")
    done = retinue.export(model, to, images=photographs)
    assert done.path == model.with_suffix(runtimes.FORMATS[to].suffix)
    assert isinstance(done, exporting.Written)
    assert done.proof.images == 6
    exports.same(exports.answers(model, photographs), exports.answers(done.path, photographs))
    predictor = retinue.load(done.path)
    assert predictor.classes == exports.CLASSES
    assert predictor.description == modelfile.read_description(model)
    assert predictor.device == "cpu"
    with pytest.raises(UsageError, match=r"cannot be looked into or trained, .*best\."):
        _ = predictor.network
    with pytest.raises(UsageError, match=r"an export already, .*name the model file"):
        retinue.export(
            done.path, "torchscript", images=photographs, out=model.parent / "a.torchscript"
        )


@pytest.mark.parametrize("to", QUICK)
def test_a_detectors_export_finds_the_same(to: str, tmp_path: Path, photographs: Path) -> None:
    pytest.importorskip("openvino")
    model = exports.detector(tmp_path / "best.safetensors")
    done = retinue.export(model, to, images=photographs)
    assert isinstance(done, exporting.Written)
    assert done.proof.overlap is not None
    assert done.proof.overlap > 0.999
    found = exports.answers(done.path, photographs)
    assert min(len(result.parts()) for result in found) > 10
    exports.same(exports.answers(model, photographs), found)


def test_onnx_and_its_metadata(model: Path, photographs: Path, tmp_path: Path) -> None:
    """The whole way by the command line; the file's own facts; both runtimes."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    recipe = {"model": {"name": "mobilenet_v2", "weights": "imagenet"}}
    exports.model(model, recipe=recipe)
    line = ["export", str(model), "--to", "onnx", "--images", str(photographs)]
    assert run(line) == 0
    file = tmp_path / "best.onnx"
    exports.same(exports.answers(model, photographs), exports.answers(file, photographs))
    exports.same(exports.answers(model, photographs), list(
        load(file, engine="openvino").predict(sorted(photographs.iterdir()))
    ))  # fmt: skip
    graph = onnx.load(file)
    onnx.checker.check_model(graph)
    assert [port.name for port in graph.graph.input] == ["images"]
    assert [port.name for port in graph.graph.output] == ["output"]
    assert str(tmp_path.parent) not in str(graph)
    assert "site-packages" not in str(graph)
    (entry,) = [one for one in graph.metadata_props if one.key == "retinue"]
    said = json.loads(entry.value)
    assert said["model"]["classes"] == list(exports.CLASSES)
    assert said["model"]["preprocessing"]["size"] == [32, 32]
    assert said["export"]["began_from"]["licence"].startswith("BSD-3-Clause")
    report = json.loads((tmp_path / "best.onnx.proof.json").read_text(encoding="utf-8"))
    assert report["proof"]["images"] == 6
    assert report["proof"]["error"] <= 1e-3
    assert report["engine"]["provider"] == "CPUExecutionProvider"
    assert report["engine"]["version"] == onnxruntime.__version__
    assert report["bytes"] == file.stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.onnx", "best.onnx.proof.json", "best.safetensors",
    ]  # fmt: skip
    # A newer format than the runtime knows: the file's and the runtime's versions are named.
    graph.ir_version = 99
    onnx.save(graph, tmp_path / "new.onnx")
    with pytest.raises(RetinueError, match=r"ONNX Runtime \d[\d.]+ cannot load it.*IR version 99"):
        load(tmp_path / "new.onnx")
    (tmp_path / "odd.onnx").write_bytes(b"no graph at all")
    with pytest.raises(
        RetinueError,
        match=r"^a damaged file, or no ONNX file at all.*retinue export MODEL --to onnx",
    ):
        load(tmp_path / "odd.onnx")


def test_torch_export(model: Path, photographs: Path) -> None:
    done = retinue.export(model, "torch-export", images=photographs)
    exports.same(exports.answers(model, photographs), exports.answers(done.path, photographs))


Change = Callable[[ModelDescription], dict[str, Any]]

SABOTAGE: dict[str, Change] = {
    "mean": lambda d: {"preprocessing": {**d.preprocessing, "mean": [0.5, 0.5, 0.5]}},
    "std": lambda d: {"preprocessing": {**d.preprocessing, "std": [0.5, 0.5, 0.5]}},
    "interpolation": lambda d: {"preprocessing": {**d.preprocessing, "interpolation": "bilinear"}},
    "fit": lambda d: {"preprocessing": {**d.preprocessing, "fit": "squash"}},
    "crop": lambda d: {"preprocessing": {**d.preprocessing, "crop_fraction": 0.95}},
    "classes": lambda d: {"classes": [*d.classes[1:], d.classes[0]]},
    "temperature": lambda d: {"task_state": {"temperature": 1.1}},
}  # fmt: skip


@pytest.mark.parametrize("wrong", SABOTAGE)
def test_what_prepares_or_names_otherwise_is_refused(
    wrong: str, model: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(export: Export, description: ModelDescription) -> str:
        changes = SABOTAGE[wrong](description)
        return exported.written(export, description.model_copy(update=changes))

    monkeypatch.setattr(exporting, "written", written)
    older = model.with_suffix(".torchscript")
    older.write_text("mine")
    with pytest.raises(RetinueError, match=r"does not answer as the model does|other classes"):
        retinue.export(model, "torchscript", images=photographs, force=True)
    assert older.read_text() == "mine"
    assert sorted(p.name for p in model.parent.iterdir()) == [model.name, older.name]


class _Wrong(nn.Module):
    def __init__(self, inner: nn.Module, kind: str) -> None:
        super().__init__()
        self.inner, self.kind = inner, kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "channels":
            return self.inner(x.flip(1))
        said = self.inner(x)
        return said.roll(1, 1) if self.kind == "rows" else said * 1.01


@pytest.mark.parametrize("wrong", ["channels", "rows", "scale"])
def test_a_graph_that_computes_otherwise_is_refused(
    wrong: str, model: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exporting._computing
    monkeypatch.setattr(exporting, "_computing", lambda *given: _Wrong(real(*given), wrong).eval())
    with pytest.raises(RetinueError, match="outputs differ by"):
        retinue.export(model, "torchscript", images=photographs)
    assert [p.name for p in model.parent.iterdir()] == [model.name]


def test_a_detector_that_places_otherwise_is_refused(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(export: Export, description: ModelDescription) -> str:
        state = {**description.task_state}
        state["anchors"] = [[(w + 1, h) for w, h in level] for level in state["anchors"]]
        return exported.written(export, description.model_copy(update={"task_state": state}))

    monkeypatch.setattr(exporting, "written", written)
    with pytest.raises(RetinueError, match="places overlap by"):
        retinue.export(
            exports.detector(tmp_path / "d.safetensors"), "torchscript", images=photographs
        )


class _Mates(tiny.Tiny):
    """Normalises by the batch that it sees, in eval mode, too."""

    def forward(self, x: Any, *, start: int = 0) -> Any:
        return super().forward(x - x.mean(0, keepdim=True), start=start)


def test_a_network_that_looks_at_batch_mates_is_refused(tmp_path: Path, photographs: Path) -> None:
    tiny.register()
    if "mates" not in registry.list_models():
        registry.register(replace(registry.find("tiny"), name="mates", build=_Mates))
    model = exports.model(tmp_path / "m.safetensors", "mates")
    with pytest.raises(RetinueError, match="depends on the images beside it"):
        retinue.export(model, "torchscript", images=photographs)


@pytest.mark.parametrize("to", QUICK)
def test_a_fixed_batch_answers_any_number(to: str, model: Path, photographs: Path) -> None:
    pytest.importorskip("openvino")
    done = retinue.export(model, to, images=photographs, batch=4)
    assert isinstance(done, exporting.Written)
    assert done.export.batch == 4
    exports.same(exports.answers(model, photographs), exports.answers(done.path, photographs))
    engine = load(done.path).members[0].plain("cpu")
    x = torch.randn(9, 3, 32, 32)
    torch.testing.assert_close(engine(x), torch.cat([engine(one[None]) for one in x]))


@pytest.mark.parametrize("size", [(224, 224), (256, 192)])
@pytest.mark.parametrize("to", QUICK)
def test_a_transformer_is_exact_at_the_size_it_is_exported_for(
    to: str, size: tuple[int, int], tmp_path: Path, photographs: Path
) -> None:
    """Positions are interpolated for other grids than their own, which is of 14 × 14."""
    pytest.importorskip("openvino")
    model = exports.model(tmp_path / "v.safetensors", "small_vit")
    done = retinue.export(model, to, images=photographs, size=size)
    assert isinstance(done, exporting.Written)
    assert done.description.prepared().size == size
    assert done.proof.error < 1e-3
    assert load(done.path).preprocessing.size == size


def test_a_transformer_of_any_size_is_refused_before_anything_is_written(
    tmp_path: Path, photographs: Path
) -> None:
    model = exports.model(tmp_path / "v.safetensors", "small_vit")
    with pytest.raises(UsageError, match="for images of one size: its positions"):
        retinue.export(model, "torchscript", images=photographs, size="any")
    with pytest.raises(UsageError, match=r"patches of 16 × 16.*size \(--size\)"):
        retinue.export(model, "torchscript", images=photographs, size=(60, 64))
    assert [p.name for p in tmp_path.iterdir()] == ["v.safetensors"]


def test_any_size(model: Path, photographs: Path) -> None:
    pytest.importorskip("openvino")
    done = retinue.export(model, "openvino", images=photographs, size="any")
    engine = load(done.path).members[0].plain("cpu")
    network = load(model, engine="torch").members[0].plain("cpu")
    for size in ((32, 32), (48, 40), (96, 33)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(engine(x), network(x), rtol=1e-3, atol=1e-4)


def test_own_data_is_what_it_is_proven_on(tmp_path: Path) -> None:
    tiny.register()
    data = tiny.write_pictures(tmp_path / "data", each=8)
    changes = {"stages": [{"trainable": "all", "epochs": 1, "batch_size": 8}], "ema": None}
    made = retinue.train(
        tiny.recipe(data, **changes), out=tmp_path / "run", report=False, quiet=True
    )
    done = retinue.export(made.folder, "torchscript")
    assert isinstance(done, exporting.Written)
    assert done.path == tmp_path / "run" / "best.torchscript"
    assert done.proof.images > 2
    assert all(name.endswith(".png") for name in done.report["images"])
    said = runtimes.opened(done.path, runtimes.FORMATS["torchscript"], "cpu").text
    assert said is not None
    assert str(tmp_path) not in said
    assert str(tmp_path) not in json.dumps(done.report)
    # Evaluating takes an export, too.
    figures = [
        retinue.evaluate(m, data=data, device="cpu", engine="auto")
        for m in (made.folder, done.path)
    ]
    assert figures[0]["top1"] == figures[1]["top1"]
    assert figures[1]["engine"] == "torch"


# --- what cannot be


def test_a_place_that_is_taken_is_told_before_images_are_looked_for(
    model: Path, tmp_path: Path
) -> None:
    """Where there are none for a proof, that would be told instead."""
    (tmp_path / "best.torchscript").write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        retinue.export(model, "torchscript")
    with pytest.raises(UsageError, match=r"files are called \.onnx"):
        retinue.export(model, "onnx", out=tmp_path / "m.pb")


def test_usage(model: Path, photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"proven on real images, .*--images"):
        retinue.export(model, "torchscript")
    with pytest.raises(UsageError, match=r"files are called \.onnx, .*name it m\.onnx"):
        retinue.export(model, "onnx", images=photographs, out=tmp_path / "m.pb")
    (tmp_path / "m.torchscript").write_text("mine")
    with pytest.raises(UsageError, match=r"there already.*--force"):
        retinue.export(model, "torchscript", images=photographs, out=tmp_path / "m.torchscript")
    with pytest.raises(UsageError, match="a state dict of timm has no size"):
        retinue.export(model, "timm", size=224)
    with pytest.raises(UsageError, match="unknown format 'Onxx', did you mean 'onnx'"):
        retinue.export(model, "Onxx")
    with pytest.raises(UsageError, match=r"a batch cannot have 0 images, batch"):
        retinue.export(model, "torchscript", images=photographs, batch=0)
    with pytest.raises(UsageError, match=r"cannot be of that size: size"):
        retinue.export(model, "torchscript", images=photographs, size=(0, 32))
    with pytest.raises(UsageError, match=r"not in fp64, .*take one of these"):
        retinue.export(model, "torchscript", images=photographs, precision="fp64")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"written in fp32, fp16, bf16, not in int8"):
        retinue.export(model, "torchscript", images=photographs, precision="int8")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(BadImageError, match="broken"):
        retinue.export(model, "torchscript", images=tmp_path / "none")
    assert run(["export", str(model), "--to", "torchscript", "--size", "12x"]) == 2


def test_a_missing_package_is_named(
    model: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match=r"'onnxscript', which is not installed.*retinue\[onnx\]"):
        retinue.export(model, "onnx", images=photographs)
    with pytest.raises(UsageError, match=r"'openvino', which is not installed"):
        retinue.export(model, "openvino", images=photographs)
    model.with_suffix(".xml").write_text("<net/>")
    with pytest.raises(UsageError, match=r"need the package 'openvino'"):
        load(model.with_suffix(".xml"))


def test_formats_that_are_written_elsewhere_name_the_package(model: Path) -> None:
    for to, package in (
        ("keras", "tensorflow"),
        ("savedmodel", "tensorflow"),
        ("coreml", "coremltools"),
    ):
        with pytest.raises(UsageError, match=rf"'{package}'.*prove.*use --to ") as told:
            retinue.export(model, to)
        way = str(told.value.mend).split()[2].rstrip(",")
        assert way in runtimes.FORMATS


@pytest.mark.parametrize("to", ["timm", "torchvision"])
def test_what_cannot_be_is_a_mistake_of_usage(
    to: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network that no library has, and a detector."""
    for file, words in (
        (model, f"{to} has no network that is tiny"),
        (exports.detector(tmp_path / "finds.safetensors"), "this model is a detector"),
    ):
        assert run(["export", str(file), "--to", to]) == 2
        assert words in capsys.readouterr().err


def test_litert(model: Path, photographs: Path) -> None:
    """Fixed to one image at a time, and answers any number."""
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("litert_torch")
    done = retinue.export(model, "litert", images=photographs)
    assert isinstance(done, exporting.Written)
    assert (done.path.name, done.export.batch) == ("best.tflite", 1)
    exports.same(exports.answers(model, photographs), exports.answers(done.path, photographs))
    assert load(done.path).engine == "litert"


def test_litert_says_what_is_missing(
    model: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("litert_torch", "ai_edge_litert"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=r"'litert_torch', which is not installed.*retinue.litert"):
        retinue.export(model, "litert", images=photographs)
    model.with_suffix(".tflite").write_bytes(b"TFL3")
    with pytest.raises(UsageError, match=r"'ai_edge_litert', which is not.*retinue.litert"):
        load(model.with_suffix(".tflite"))


def test_broken_images_are_passed_over(model: Path, photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    for k, file in enumerate(sorted(photographs.iterdir())):
        (tmp_path / "mixed" / file.name).write_bytes(file.read_bytes() if k % 2 else b"broken")
    done = retinue.export(model, "torchscript", images=tmp_path / "mixed")
    assert isinstance(done, exporting.Written)
    assert done.proof.images == 3


def test_files_that_are_no_exports(model: Path, photographs: Path, tmp_path: Path) -> None:
    foreign = torch.jit.trace(tiny.Tiny().eval(), torch.zeros(1, 3, 32, 32))  # type: ignore[no-untyped-call]
    foreign.save(str(tmp_path / "f.torchscript"))
    with pytest.raises(RetinueError, match="retinue has not exported it"):
        load(tmp_path / "f.torchscript")
    (tmp_path / "f.torchscript").write_bytes(b"PK\3\4")
    with pytest.raises(RetinueError, match=r"^a damaged file, or no TorchScript file at all"):
        load(tmp_path / "f.torchscript")
    done = retinue.export(model, "torchscript", images=photographs)
    with pytest.raises(UsageError, match="run by torch, not by openvino"):
        load(done.path, engine="openvino")


@pytest.mark.parametrize("damage", [
    "", "[]", '{"export": {}}', '{"export": {"format_version": 1}, "model": {}}',
    '{"export": {"format_version": 1, "format": "onnx", "output_types": ["os"]}, "model": {}}',
])  # fmt: skip
def test_a_damaged_description(damage: str) -> None:
    with pytest.raises(RetinueError, match="what it says of itself is damaged"):
        exported.described(damage, Path("it.onnx"))


def test_a_newer_export() -> None:
    with pytest.raises(RetinueError, match=r"format 9; this release reads up to 1"):
        exported.described('{"export": {"format_version": 9}, "model": {}}', Path("it.onnx"))


def test_every_format_has_its_writer_and_its_name() -> None:
    from retinue.cli.export import Numbers, Target
    from retinue.exporting.elsewhere import LIBRARIES

    assert list(WRITERS) == list(runtimes.FORMATS)
    assert [one.value for one in Target] == [*runtimes.FORMATS, *LIBRARIES, *ELSEWHERE]
    assert [one.value for one in Numbers] == ["fp32", "fp16", "bf16", "int8"]
    for name, form in runtimes.FORMATS.items():
        assert runtimes.format_of(f"a/b{form.suffix.upper()}") is form
        assert form.name == name
    assert runtimes.format_of("best.safetensors") is None


def test_files_in_a_hubs_cache(model: Path, photographs: Path, tmp_path: Path) -> None:
    """There, files lie once, under the names of their hashes, and links lead to them."""
    pytest.importorskip("openvino")
    done = retinue.export(model, "openvino", images=photographs)
    snapshot, blobs = tmp_path / "snapshots" / "main", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for k, file in enumerate(runtimes.files_of(done.path)):
        (blobs / f"{k}ab").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", f"{k}ab"))
    exports.same(
        exports.answers(done.path, photographs),
        exports.answers(snapshot / done.path.name, photographs),
    )
    (blobs / "0ab").write_bytes(b"short")
    with pytest.raises(RetinueError, match=r"^the weights are damaged.*snapshots/main/best\.bin"):
        load(snapshot / done.path.name)


def test_external_data_in_a_hubs_cache(model: Path, photographs: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    done = retinue.export(model, "onnx", images=photographs)
    snapshot, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    snapshot.mkdir()
    blobs.mkdir()
    onnx.save(
        onnx.load(done.path), blobs / "model.onnx", save_as_external_data=True,
        location="model.onnx.data", size_threshold=100,
    )  # fmt: skip
    for name in ("model.onnx", "model.onnx.data"):
        (blobs / name).rename(blobs / f"{len(name)}ab")
        (snapshot / name).symlink_to(blobs / f"{len(name)}ab")
    for engine in ("onnxruntime", "openvino"):
        found = load(snapshot / "model.onnx", engine=engine).predict(sorted(photographs.iterdir()))  # type: ignore[arg-type]
        exports.same(exports.answers(done.path, photographs), list(found))


def test_openvino_without_its_weights(model: Path, photographs: Path) -> None:
    pytest.importorskip("openvino")
    done = retinue.export(model, "openvino", images=photographs)
    done.path.with_suffix(".bin").unlink()
    with pytest.raises(UsageError, match=r"weights are not beside it, .*best\.bin"):
        load(done.path)


def test_openvino_with_the_weights_of_another_model(
    model: Path, photographs: Path, tmp_path: Path
) -> None:
    """A copy of one file that was forgotten, or a process that was killed between the two."""
    pytest.importorskip("openvino")
    done = retinue.export(model, "openvino", images=photographs)
    weights = done.path.with_suffix(".bin")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    exported.report_of(done.path).unlink()  # which would tell, too
    with pytest.raises(RetinueError, match=r"not those of the graph beside them .*best\.bin"):
        load(done.path)


def test_helping_imports_no_torch() -> None:
    code = (
        "import sys\nfrom retinue.cli.app import run\nrun(['export', '--help'])\n"
        "assert not {'torch', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_gate_looks_at_images_spread_over_all(photographs: Path, model: Path) -> None:
    from retinue.sample import Sample

    files = sorted(photographs.iterdir())
    samples = [Sample(str(files[k % 6]), name=str(k)) for k in range(100)]
    chosen = gate.readable(samples, load(model, engine="torch"), 10)
    places = [int(sample.name) for sample in chosen]
    assert len(places) == 10
    assert places[0] == 0
    assert places[-1] > 85
