"""What other libraries compute is answered without PyTorch, and as with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest
import torch

import retinue
from retinue.inference import devices
from retinue.inference.devices import choose_device, compute_threads, cores, no_gpu
from retinue.inference.predictor import Predictor, load
from retinue.inference.signature import Signature
from retinue.inference.speed import by_stages, measured
from retinue.inference.tta import turned_images
from retinue.sample import Sample

TASKS = ("classification", "multilabel", "detection")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exports.photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> dict[str, Path]:
    """A file of OpenVINO's for each task, one for three images at a time, and one of whole images;
    ONNX's exporter takes seconds, and its way differs in the session alone."""
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("exported")
    made = {}
    for task in TASKS:
        file = folder / f"{task}.safetensors"
        if task == "detection":
            exports.detector(file)
        else:
            exports.model(file, task=task)
        made[task] = retinue.export(file, "openvino", images=photographs).path
    first = folder / "classification.safetensors"
    for name, how in (("three", {"batch": 3}), ("whole", {"end_to_end": True})):
        out = folder / f"{name}.xml"
        made[name] = retinue.export(first, "openvino", images=photographs, out=out, **how).path
    return made


def with_tensors(model: Path, **how: Any) -> Predictor:
    made = load(model, **how)
    assert made.takes_arrays
    made.takes_arrays = False
    return made


@pytest.mark.parametrize("name", [*TASKS, "three", "whole"])
@pytest.mark.parametrize("tta", ["none", "dihedral"])
def test_arrays_and_tensors_come_to_the_same(
    exported: dict[str, Path], photographs: Path, name: str, tta: str
) -> None:
    files = sorted(photographs.iterdir())
    arrays, tensors = (
        list(make(exported[name], tta=tta).predict(files, batch_size=4))
        for make in (load, with_tensors)
    )
    exports.same(tensors, arrays, most=1e-6)


def test_nothing_on_the_way_imports_torch(
    exported: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    """Each in its own process, as a person runs it; what it answers is what is answered here."""
    program = (
        "import json, sys\n"
        "from retinue.cli.app import run\n"
        "codes = [run(json.loads(line)) for line in sys.argv[1:]]\n"
        "heavy = {'torch', 'torchvision', 'accelerate', 'matplotlib', 'pandas', 'scipy'}\n"
        "print(codes, sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    lines = []
    for name, file in exported.items():
        out = str(tmp_path / name)
        lines.append(["predict", str(file), str(photographs), "--out", out])
    boxes, photo = str(exported["detection"]), str(photographs / "0.jpg")
    lines.append(["predict", boxes, photo, "--json", "--tta", "flip", "--set", "confidence=0.7"])
    lines.append(["predict", boxes, photo, "--out", str(tmp_path / "drawn"), "--draw", "--crops",
                  "--count", "--format", "coco"])  # fmt: skip
    lines.append(["predict", boxes, photo, "--fps", "2", "--json"])
    lines.append(["predict", boxes, photo, "--tiles", "40"])
    lines.append(["predict", str(exported["classification"]), str(bad), photo])
    done = subprocess.run(
        [sys.executable, "-c", program, *map(json.dumps, lines)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert last == f"{[0] * (len(exported) + 4) + [3]} []", done.stderr
    for name, file in exported.items():
        written = (tmp_path / name / "predictions.jsonl").read_text("utf-8").splitlines()
        here = exports.answers(file, photographs)
        assert [json.loads(line) for line in written] == [
            json.loads(json.dumps(r.as_dict())) for r in here
        ]


def test_onnx_runtime_takes_arrays(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    from retinue.inference.runtimes.onnxruntime import OnnxRuntimeEngine

    given: list[type] = []
    real = OnnxRuntimeEngine.__call__

    def noted(self: OnnxRuntimeEngine, x: Any) -> Any:
        given.append(type(x))
        return real(self, x)

    monkeypatch.setattr(OnnxRuntimeEngine, "__call__", noted)
    model = exports.model(tmp_path / "best.safetensors")
    file = retinue.export(model, "onnx", images=photographs).path
    files = sorted(photographs.iterdir())
    given.clear()
    arrays = list(load(file).predict(files, batch_size=4))
    assert set(given) == {np.ndarray}
    given.clear()
    tensors = list(with_tensors(file).predict(files, batch_size=4))
    assert set(given) == {torch.Tensor}
    exports.same(tensors, arrays, most=1e-6)
    exports.same(list(load(model, engine="torch").predict(files, batch_size=4)), arrays)


def test_a_heat_map_of_arrays(exported: dict[str, Path], photographs: Path) -> None:
    """The evidence is PyTorch's affair, whoever computed the outputs."""
    photo = sorted(photographs.iterdir())[0]
    warm = [next(iter(make(exported["detection"]).answers([Sample(str(photo))], heat=True)))
            .heat[0].evidence for make in (load, with_tensors)]  # fmt: skip
    np.testing.assert_allclose(*warm, atol=1e-6)


def test_speed_is_measured_of_arrays(exported: dict[str, Path], photographs: Path) -> None:
    samples = [Sample(str(path)) for path in sorted(photographs.iterdir())]
    predictor = load(exported["detection"])
    told = measured(predictor, samples, most=2)
    assert told is not None
    assert told["engine"] == "openvino"
    assert by_stages(predictor, samples, 1) is not None


def test_images_turn_alike() -> None:
    images = np.random.default_rng(0).integers(0, 255, (2, 3, 5, 7), np.uint8)
    for orientation in range(8):
        turned = turned_images(torch.from_numpy(images), orientation).numpy()
        assert np.array_equal(turned_images(images, orientation), turned)  # type: ignore[arg-type]


def test_a_signature_gives_back_what_it_was_given() -> None:
    one = Signature("tensor", ["float32"], {"a": "tensor", "b": "tensor"}, ["float32", "int64"])
    graph = [np.arange(3.0), np.arange(3, dtype=np.int32)]
    for x in (np.ones((3, 2)), torch.ones(3, 2, dtype=torch.float64)):
        (taken,) = one.arrays(x)  # type: ignore[arg-type]
        assert taken.dtype == np.float32
        answer = one.answer(graph, x)  # type: ignore[arg-type]
        assert all(type(leaf) is type(x) for leaf in answer.values())
        assert [str(leaf.dtype).removeprefix("torch.") for leaf in answer.values()] == [
            "float32", "int64",
        ]  # fmt: skip
        answer["a"][:] = 7  # its own memory
        assert graph[0][0] == 0
    assert one.answer([np.ones(1, np.float32), graph[1]], np.ones(3), own=True)["a"] == 1
    assert Signature.undescribed(json.loads(json.dumps(one.described()))) == one
    with pytest.raises(ValueError, match="compiled for"):
        one.arrays([np.ones(3)])  # type: ignore[list-item]
    for wrong in ("object", "os", "complex64", 3):
        with pytest.raises(ValueError, match="no types of numbers"):
            Signature("tensor", [wrong]).checked()  # type: ignore[list-item]
    with pytest.raises(ValueError, match="too few"):
        Signature("tensor", ["float32"], ["tuple", "tensor", "tensor"], ["int64"]).checked()


def test_cores_are_counted_once(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert cores(tmp_path) == 2
    assert cores(tmp_path / "none") == (os.cpu_count() or 1)


@pytest.mark.parametrize("name", ["nvidia0", "nvidiactl", "nvhost-gpu", "dxg", "kfd"])
def test_a_gpu_is_looked_for_before_pytorch_is_asked(tmp_path: Path, name: str) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "null").touch()
    linux = sys.platform.startswith("linux")
    assert no_gpu(tmp_path) is linux
    (tmp_path / "dev" / name).touch()
    assert not no_gpu(tmp_path)


def test_where_there_may_be_a_gpu_pytorch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "no_gpu", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == "cuda"


@pytest.mark.parametrize(
    "said", [{}, {"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "2"}, {"MKL_NUM_THREADS": "1"}]
)
def test_as_many_threads_as_pytorch_would_take(said: dict[str, str]) -> None:
    """Asked before PyTorch is there, and after."""
    program = (
        "from retinue.inference.devices import compute_threads, fit_threads\n"
        "before = fit_threads(), compute_threads()\n"
        "import torch\n"
        "print(*before, fit_threads(), torch.get_num_threads())\n"
    )
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**kept, **said}, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert len(set(done.stdout.split())) == 1
    assert compute_threads() == torch.get_num_threads()
