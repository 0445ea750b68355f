"""Darknet's files become a model file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import retinue
from retinue import modelfile
from retinue.api import import_model
from retinue.cli.app import run as command
from retinue.errors import RetinueError, UsageError
from retinue.tasks.results import BoxResult

CFG = """[net]
width=64
height=64

[convolutional]
filters=12
size=1
stride=32
activation=linear

[yolo]
mask=0,1
anchors=8,8, 16,24
classes=1
num=2
"""
VALUES = 12 * 3 + 12


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """One cell of 32 pixels sees its own corner alone: the second anchor answers by the bias."""
    (tmp_path / "net.cfg").write_text(CFG)
    (tmp_path / "net.names").write_text("牛\n")
    header = np.array([0, 2, 0], np.int32).tobytes() + np.array([0], np.int64).tobytes()
    bias = np.zeros(12, np.float32)
    bias[[4, 5, 10, 11]] = -20, -20, 20, 20
    tensors = [
        bias,
        np.linspace(0, 1, 36, dtype=np.float32),
    ]  # biases come first; the photo is black
    (tmp_path / "net.weights").write_bytes(header + b"".join(part.tobytes() for part in tensors))
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    return tmp_path


def test_the_model_file_answers(files: Path) -> None:
    out = import_model(files / "net.cfg", files / "net.weights", names=files / "net.names")
    assert out == files / "net.safetensors"
    description, _ = modelfile.read(out)
    assert description.task_state["anchors"] == [[[8, 8], [16, 24]]]
    assert description.preprocessing["size"] == [64, 64]
    result = retinue.load(out, engine="torch")(files / "photo.png")
    assert isinstance(result, BoxResult)
    # A box of the second anchor's size in the middle of each of the four cells.
    found = sorted(box.xyxy for box in result.boxes)
    wanted = [(x - 8, y - 12, x + 8, y + 12) for x in (16, 48) for y in (16, 48)]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert {box.name for box in result.boxes} == {"牛"}


def test_nothing_is_replaced_unasked(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "net.safetensors").write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        import_model(files / "net.cfg", files / "net.weights")
    told = ["import", str(files / "net.cfg"), str(files / "net.weights"), "--force"]
    assert command(told) == 0
    assert capsys.readouterr().out.strip() == str(files / "net.safetensors")
    assert modelfile.read(files / "net.safetensors")[0].classes == ["class 0"]


def test_what_does_not_go_together_is_refused(files: Path) -> None:
    (files / "net.weights").write_bytes((files / "net.weights").read_bytes()[:-4])
    with pytest.raises(RetinueError, match=str(VALUES)):
        import_model(files / "net.cfg", files / "net.weights")
    assert not (files / "net.safetensors").exists()
    with pytest.raises(UsageError, match=r"describes no network.*\.cfg"):
        import_model(files / "photo.png", files / "net.weights")


@pytest.mark.parametrize("name", ["net.cfg", "net.weights", "net.names", "alias"])
def test_what_is_read_is_not_written_over(files: Path, name: str) -> None:
    (files / "alias").symlink_to(files / "net.cfg")
    before = (files / name).read_bytes()
    given = (files / "net.cfg", files / "net.weights")
    with pytest.raises(UsageError, match="would overwrite one of the files that it is made of"):
        import_model(*given, names=files / "net.names", out=files / name, force=True)
    assert (files / name).read_bytes() == before


def test_names_that_are_no_text_are_told_how_to_be(files: Path) -> None:
    (files / "net.names").write_bytes("猫咪\n".encode("gbk"))
    with pytest.raises(RetinueError, match=r"neither UTF-8 nor UTF-16, .*net\.names, save it as"):
        import_model(files / "net.cfg", files / "net.weights", names=files / "net.names")
