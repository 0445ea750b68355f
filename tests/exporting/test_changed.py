"""An export that was changed since it was proven is not taken for what was proven."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import retinue
from retinue.errors import RetinueError, UsageError
from retinue.files import sha256
from retinue.inference.exported import _refuse_changed, report_of


def test_a_file_that_was_changed_is_not_opened(model: Path, photographs: Path) -> None:
    file = retinue.export(model, "torchscript", images=photographs).path
    report = file.with_name(file.name + ".proof.json")
    _damage(file)
    with pytest.raises(
        RetinueError, match=r"^best\.torchscript is damaged or was changed: by its SHA-256"
    ) as told:
        retinue.load(file)
    assert report.name in str(told.value.mend)
    assert "retinue export MODEL --to torchscript" in str(told.value.mend)
    moved = file.with_name("renamed" + file.suffix)
    retinue.export(model, "torchscript", images=photographs, force=True).path.rename(moved)
    assert retinue.load(moved), "without a report beside it nothing is known against it"


@pytest.mark.parametrize(("target", "end"), [("torchscript", ""), ("openvino", ".bin")])
def test_a_file_that_was_changed_is_not_opened_under_another_name(
    model: Path, photographs: Path, target: str, end: str
) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    file = retinue.export(model, target, images=photographs).path
    copy = file.with_name(f"q{file.suffix}")
    for name in (f.name for f in file.parent.glob(f"{file.stem}.*") if f.suffix != ".safetensors"):
        shutil.copy(file.with_name(name), file.with_name(f"q{name.removeprefix(file.stem)}"))
    assert retinue.load(copy), "a copy under another name is as good"
    _damage(copy.with_suffix(end) if end else copy)
    with pytest.raises(RetinueError, match=rf"^q\{end or file.suffix} is damaged or was changed"):
        retinue.load(copy)


def test_external_data_of_a_renamed_graph_are_looked_at_too(tmp_path: Path) -> None:
    """The graph in `q.onnx` goes on naming `x.onnx.data`."""
    graph, data = tmp_path / "q.onnx", tmp_path / "x.onnx.data"
    graph.write_bytes(b"graph")
    data.write_bytes(b"weights")
    # A name that leads out of the folder is none.
    files = {"../x.onnx.data": "0", "x.onnx": sha256(graph), "x.onnx.data": sha256(data)}
    report_of(graph).write_text(json.dumps({"files": files}))
    _refuse_changed(graph)
    data.write_bytes(b"Weights")
    with pytest.raises(RetinueError, match=r"^x\.onnx\.data is damaged"):
        _refuse_changed(graph)


def _damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def test_damage_is_said_first_and_where_it_is(model: Path, photographs: Path) -> None:
    """Without the report, too, that would know the hashes."""
    pytest.importorskip("openvino")
    graph = retinue.export(model, "openvino", images=photographs).path
    graph.with_name(graph.name + ".proof.json").unlink()
    weights = graph.with_suffix(".bin")
    whole, good = graph.read_bytes(), weights.read_bytes()
    for damage in (good[: len(good) // 2], b"", bytes([good[0] ^ 1]) + good[1:]):
        weights.write_bytes(damage)
        with pytest.raises(RetinueError, match=r"^the weights are damaged.*SHA-256.*best\.bin"):
            retinue.load(graph)
    weights.write_bytes(good)
    for damage in (whole[: len(whole) // 2], b"", b"hello"):
        graph.write_bytes(damage)
        with pytest.raises(
            RetinueError, match=r"^a damaged file.*best\.xml.*--to openvino"
        ) as told:
            retinue.load(graph)
        assert "newer" not in str(told.value)
        assert "src/" not in str(told.value), "no places in OpenVINO's source"
    graph.write_bytes(whole.replace(b'type="Convolution"', b'type="Convolution9"'))
    with pytest.raises(RetinueError, match=r"cannot load it.*IR version \d+.*newer openvino"):
        retinue.load(graph)


def test_weights_alone_are_told_from_their_graph(model: Path, photographs: Path) -> None:
    pytest.importorskip("openvino")
    graph = retinue.export(model, "openvino", images=photographs).path
    with pytest.raises(UsageError, match=r"best\.bin, name the file beside it, '.*best\.xml'"):
        retinue.load(graph.with_suffix(".bin"))
