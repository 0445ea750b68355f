"""Exports to whole images: prepared, answered and suppressed within the graph."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest
import torch
from PIL import Image

import retinue
from retinue.cli.app import run
from retinue.errors import RetinueError, UsageError
from retinue.exporting import model as exporting
from retinue.exporting.whole import Whole
from retinue.inference.predictor import load
from retinue.inference.tiles import Tiles, answers_by_tiles
from retinue.sample import Sample

QUICK = ("torchscript", "openvino")


def written(model: Path, to: str, photographs: Path, **more: Any) -> exporting.Written:
    pytest.importorskip("openvino")
    done = retinue.export(model, to, images=photographs, end_to_end=True, **more)
    assert isinstance(done, exporting.Written)
    return done


@pytest.mark.parametrize("to", QUICK)
def test_a_classifier(to: str, model: Path, photographs: Path) -> None:
    done = written(model, to, photographs)
    assert done.export.input == "pixels"
    exports.same(exports.answers(model, photographs), exports.answers(done.path, photographs), 1e-2)
    engine = load(done.path).members[0].plain("cpu")
    for height, width in ((40, 70), (90, 33), (8, 9)):
        images = torch.randint(0, 256, (3, height, width, 3), dtype=torch.uint8)
        said = engine(images)
        assert said["scores"].sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
        assert said["best"].dtype == torch.int64
        alone = torch.cat([engine(image[None])["scores"] for image in images])
        torch.testing.assert_close(said["scores"], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("to", QUICK)
def test_a_detector(to: str, tmp_path: Path, photographs: Path) -> None:
    """Boxes of [A, B] are those of [A] and of [B]; those of the model are found again."""
    model = exports.detector(tmp_path / "best.safetensors")
    done = written(model, to, photographs)
    assert done.proof.overlap is not None
    assert done.proof.overlap > 0.9
    engine = load(done.path).members[0].plain("cpu")
    file = sorted(photographs.iterdir())[1]
    image = torch.from_numpy(np.array(Image.open(file).convert("RGB")))
    both = torch.stack([image, image.flip(1)])
    said = engine(both)
    assert min(said["count"].tolist()) > 10
    for k in range(2):
        alone = engine(both[k : k + 1])
        for key, value in alone.items():
            torch.testing.assert_close(said[key][k : k + 1], value, rtol=1e-5, atol=1e-3)
    # In pixels of the image as given, best first, each within it.
    count = int(said["count"][0])
    boxes, scores = said["boxes"][0, :count], said["scores"][0, :count]
    assert (scores[:-1] >= scores[1:]).all()
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= image.shape[1]).all()
    assert (boxes[:, 3] <= image.shape[0]).all()
    assert (said["boxes"][0, count:] == 0).all()


def test_several_labels_each_with_its_threshold(tmp_path: Path, photographs: Path) -> None:
    model = exports.model(
        tmp_path / "m.safetensors", task="multilabel", state={"thresholds": [0.3, 0.5, 0.7]}
    )
    done = written(model, "torchscript", photographs)
    exports.same(exports.answers(model, photographs), exports.answers(done.path, photographs), 1e-2)
    said = load(done.path).members[0].plain("cpu")(torch.zeros(1, 9, 9, 3, dtype=torch.uint8))
    expected = said["scores"] >= torch.tensor([0.3, 0.5, 0.7])
    assert torch.equal(said["given"].bool(), expected)


def test_views_tiles_and_turned_photographs(tmp_path: Path, photographs: Path) -> None:
    """Whatever else a predictor does with images, it does with such an export, too."""
    model = exports.detector(tmp_path / "d.safetensors")
    done = written(model, "torchscript", photographs)
    image = Image.open(sorted(photographs.iterdir())[1]).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, quality=98)
    for tta in ("none", "flip"):
        found = [load(m, tta=tta)(tmp_path / "turned.jpg") for m in (model, done.path)]
        assert found[0].parts()
        assert abs(len(found[0].parts()) - len(found[1].parts())) <= 2
        for one, other in zip(found[0].parts()[:3], found[1].parts()[:3], strict=True):
            assert one.name == other.name
            assert one.score == pytest.approx(other.score, abs=0.02)
    (answer,) = answers_by_tiles(
        load(done.path), [Sample(str(sorted(photographs.iterdir())[3]))], Tiles(64, 0.2)
    )
    assert len(answer.finding) > 20
    with pytest.raises(UsageError, match="does not say what they rest on"):
        load(done.path).task.refuse_evidence()


@pytest.mark.parametrize("changes", [
    {"interpolation": "bilinear"}, {"mean": (0.5, 0.5, 0.5)}, {"crop_fraction": 0.95},
    {"fit": "squash"}, {"std": (0.5, 0.5, 0.5)},
])  # fmt: skip
def test_a_graph_that_prepares_otherwise_is_refused(
    changes: Any, model: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        exporting, "Whole", lambda how, *given: Whole(replace(how, **changes), *given)
    )
    with pytest.raises(RetinueError, match="would not prepare images as the model file says"):
        written(model, "torchscript", photographs)
    assert [p.name for p in model.parent.iterdir()] == [model.name]


def test_what_cannot_be(model: Path, tmp_path: Path, photographs: Path) -> None:
    with pytest.raises(UsageError, match=r"int8 is not for an export that takes whole images"):
        retinue.export(model, "openvino", images=photographs, end_to_end=True, precision="int8")
    with pytest.raises(UsageError, match=r"size=any is not for"):
        retinue.export(model, "openvino", images=photographs, end_to_end=True, size="any")
    soft = exports.detector(tmp_path / "soft.safetensors", options={"suppression": "soft"})
    with pytest.raises(UsageError, match="soft suppression has no graph"):
        retinue.export(soft, "openvino", images=photographs, end_to_end=True)


def test_serving_takes_framed_and_whole_ones(model: Path, photographs: Path) -> None:
    models = pytest.importorskip("retinue.serving.models")
    whole = written(model, "torchscript", photographs)
    settings = models.Settings()
    assert models.warmed(whole.path, load, settings, ()).whole
    plain = retinue.export(model, "torchscript", images=photographs, force=True)
    assert not models.warmed(plain.path, load, settings, ()).whole


@pytest.mark.slow
@pytest.mark.parametrize("make", [exports.model, exports.detector])
def test_onnx(make: Any, tmp_path: Path, photographs: Path) -> None:
    model = make(tmp_path / "best.safetensors")
    line = ["export", str(model), "--to", "onnx", "--end-to-end", "--images", str(photographs)]
    assert run(line) == 0
    report = json.loads((tmp_path / "best.onnx.proof.json").read_text(encoding="utf-8"))
    assert report["proof"]["images"] == 6
    assert len(exports.answers(tmp_path / "best.onnx", photographs)) == 6
    # Whoever runs it without retinue gets names, too.
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(tmp_path / "best.onnx"))
    image = np.array(Image.open(sorted(photographs.iterdir())[0]).convert("RGB"))
    names = [port.name for port in session.get_outputs()]
    said = dict(zip(names, session.run(None, {"images": image[None]}), strict=True))
    numbers = said["best" if "best" in said else "classes"]
    assert said["names"].tolist() == np.array(exports.CLASSES, object)[numbers].tolist()
