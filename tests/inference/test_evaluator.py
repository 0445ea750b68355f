"""Evaluation on real files, with what cannot be read, in several orientations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from retinue.data.decode import to_rgb
from retinue.data.geometry import apply
from retinue.data.loader import Loader, in_order
from retinue.data.targets.one_class import OneClass
from retinue.data.views import EvalView
from retinue.errors import BadImageError, RetinueError, UsageError
from retinue.inference.engine import Engine
from retinue.inference.evaluator import evaluate
from retinue.inference.predictor import COMPILE_FROM, Member, Predictor, example_inputs, held
from retinue.inference.tta import turned, views
from retinue.modelfile import ModelDescription
from retinue.sample import Preprocessing, Sample
from retinue.tasks.classification.task import Classification

SMALL = Preprocessing(size=(16, 16), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
COLOURS = {"red": (220, 10, 10), "green": (10, 220, 10), "blue": (10, 10, 220)}


class Mean(nn.Module):
    """Logits are ten times the mean colour: right on pictures of one colour."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.9)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.drop(10 * x.mean((2, 3)))
        return out


class TopRow(nn.Module):
    """Looks at the upper half only: its answer depends on the orientation."""

    def forward(self, x: Tensor) -> Tensor:
        return 10 * x[:, :, : x.shape[2] // 2].mean((2, 3))


def of(label: int) -> OneClass:
    return OneClass(label, len(COLOURS))


def ready(network: nn.Module, preprocessing: Preprocessing = SMALL, **how: Any) -> Predictor:
    """A predictor of `network`, which knows the three colours."""
    description = ModelDescription(
        task="classification",
        classes=list(COLOURS),
        network="none",
        arguments={},
        preprocessing=preprocessing.as_dict(),
    )
    member = Member(network, Classification(list(COLOURS)), description)  # type: ignore[arg-type]
    return Predictor([member], **{"engine": "torch", "workers": 1, **how})


@pytest.fixture
def split(tmp_path: Path) -> list[Sample]:
    samples = []
    for label, (name, colour) in enumerate(COLOURS.items()):
        for i in range(3):
            path = tmp_path / f"{name} {i}.png"
            Image.new("RGB", (20 + i, 24), colour).save(path)
            samples.append(Sample(str(path), target=of(label), weight=float(i)))
    return samples


def test_figures_and_tables(split: list[Sample]) -> None:
    seen = []
    network = Mean().train()
    found = evaluate(ready(network), split, batch_size=4, progress=lambda i, n: seen.append((i, n)))
    assert found.figures["images"] == 9  # also those with weight 0 in training
    assert found.figures["top1"] == 1.0
    assert found.figures["engine"] == "torch"
    assert found.figures["images_per_second"] > 0
    json.dumps(found.figures, allow_nan=False)
    table = found.tables["predictions"]
    assert table["path"].to_pylist() == [s.key for s in split]
    assert table["label"].to_pylist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert {"true", "predicted", "count"} <= set(found.tables["confusion"].column_names)
    assert found.tables["confusion"]["count"].to_pylist() == [3, 3, 3]
    assert found.skipped == {}
    assert seen == [(4, 9), (8, 9), (9, 9)]
    assert network.training
    assert network.drop.training


@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_every_batch_size_and_engine_gives_the_same_figures(
    engine: str, split: list[Sample]
) -> None:
    many = split * (COMPILE_FROM // len(split) + 1)
    first = evaluate(ready(Mean(), workers=0), many, batch_size=9)
    made = ready(Mean(), engine=engine)
    for batch_size in (1, 4):
        found = evaluate(made, many, batch_size=batch_size)
        assert found.figures["engine"] == made.engine
        assert found.figures["loss"] == pytest.approx(first.figures["loss"], rel=1e-5)
        assert found.figures["per_class"] == first.figures["per_class"]


@pytest.mark.parametrize(
    ("count", "how", "compiled"),
    [
        (COMPILE_FROM - 1, {"engine": "auto"}, False),
        (COMPILE_FROM, {"engine": "auto"}, True),
        (2, {"engine": "openvino"}, True),
        (2, {"engine": "auto", "precision": "bf16"}, True),
    ],
)
def test_a_few_images_pay_for_no_timing(
    split: list[Sample], monkeypatch: pytest.MonkeyPatch,
    count: int, how: dict[str, Any], compiled: bool,
) -> None:  # fmt: skip
    asked: list[str] = []

    def compile_it(self: Member, example: torch.Tensor, engine: str, *given: Any) -> Engine:
        asked.append(engine)
        return self.plain("cpu")

    monkeypatch.setattr(Member, "compiled", compile_it)
    found = evaluate(ready(Mean(), **how), (split * COMPILE_FROM)[:count])
    assert found.figures["top1"] == 1.0
    assert asked == ([how["engine"]] if compiled else [])


def test_bad_images_are_left_out_and_named(split: list[Sample], tmp_path: Path) -> None:
    bad = tmp_path / "花 broken\n.jpg"
    bad.write_bytes(b"no picture")
    empty = tmp_path / "empty.png"
    empty.touch()
    salted = [
        split[0],
        Sample(str(bad), target=of(1)),
        *split[1:],
        Sample(str(empty), target=of(0)),
    ]
    made = ready(Mean())
    found = evaluate(made, salted, batch_size=4)
    assert set(found.skipped) == {str(bad), str(empty)}
    assert "zero bytes" in found.skipped[str(empty)]
    assert found.figures["images"] == 9
    assert found.figures["top1"] == 1.0
    assert found.tables["predictions"]["path"].to_pylist() == [s.key for s in split]
    assert evaluate(made, salted, batch_size=1).figures["loss"] == pytest.approx(
        found.figures["loss"]
    )
    with pytest.raises(BadImageError, match="broken"):
        evaluate(made, salted, bad_images="stop")
    with pytest.raises(BadImageError, match="no readable image is left"):
        evaluate(made, [Sample(str(empty), target=of(0))])
    with pytest.raises(RetinueError, match="no images"):
        evaluate(made, [])


def test_images_without_a_label_have_answers_and_no_figures(split: list[Sample]) -> None:
    unknown = [Sample(s.key) for s in split[:2]]
    found = evaluate(ready(Mean()), [*unknown, *split[3:]], batch_size=4)
    assert found.figures["images"] == 6
    assert found.tables["predictions"]["label"].to_pylist()[:3] == [-1, -1, 1]
    assert sum(found.tables["confusion"]["count"].to_pylist()) == 6


def test_images_need_not_be_files(split: list[Sample], tmp_path: Path) -> None:
    """Bytes from wherever, and pixels: the answers are those of the files."""
    expected = evaluate(ready(Mean()), split, batch_size=4)
    held_bytes = [Sample(f"b{i}", held(Path(s.key).read_bytes()), s.target)
                  for i, s in enumerate(split)]  # fmt: skip
    pixels = [Sample(f"p{i}", held(np.array(to_rgb(Image.open(s.key)))), s.target)
              for i, s in enumerate(split)]  # fmt: skip
    for samples in (held_bytes, pixels):
        found = evaluate(ready(Mean()), samples, batch_size=4)
        assert found.tables["predictions"]["path"].to_pylist() == [s.key for s in samples]
        assert found.tables["predictions"]["scores"] == expected.tables["predictions"]["scores"]


def test_tables_can_be_written(split: list[Sample], tmp_path: Path) -> None:
    """A name that is no valid text is escaped, not lost."""
    odd = Sample("caf\udce9", held(Path(split[0].key).read_bytes()), of(0))
    found = evaluate(ready(Mean()), [odd, *split])
    for name, table in found.tables.items():
        pq.write_table(table, tmp_path / name)
    assert pq.read_table(tmp_path / "predictions")["path"][0].as_py() == "caf\\udce9"


def test_examples_are_spread_and_skip_the_bad(split: list[Sample], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    inputs = example_inputs([Sample(str(bad)), *split], SMALL, count=4)
    assert inputs.shape == (3, 3, 16, 16)
    assert inputs.mean((2, 3)).argmax(1).tolist() == [0, 1, 2]
    with pytest.raises(BadImageError):
        example_inputs([Sample(str(bad))], SMALL)


def test_views() -> None:
    assert views("none") == [0]
    assert views("flip") == [0, 4]
    assert views("dihedral") == list(range(8))
    with pytest.raises(UsageError, match="did you mean 'flip'"):
        views("flips")


@pytest.mark.parametrize("orientation", range(8))
def test_turning_a_batch_equals_the_view_of_that_orientation(orientation: int) -> None:
    """Each pixel of the turned batch comes from where that pixel of the plain one did."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    loader = Loader(EvalView(SMALL), workers=0)
    (batch,) = loader.batches(in_order([Sample("a", held(image))], 1, SMALL.size))
    before = batch.images.clone()
    ours = turned(batch, orientation)

    def as_there(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(height, width, …), mirrored and turned clockwise by NumPy."""
        return np.rot90(array[:, ::-1] if orientation & 4 else array, -(orientation & 3))

    upright = batch.images[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(ours.images[0].permute(1, 2, 0).numpy(), as_there(upright))
    rows, columns = np.mgrid[:16, :16] + 0.5
    centres = np.stack([columns, rows], -1)
    np.testing.assert_allclose(
        apply(ours.to_original[0], centres.reshape(-1, 2)),
        apply(batch.to_original[0], as_there(centres).reshape(-1, 2)),
        atol=1e-9,
    )
    assert torch.equal(batch.images, before)
    assert ours.targets == {}
    assert ours.samples == batch.samples
    assert ours.original_size.tolist() == [[40, 30]]


def test_orientations_are_averaged() -> None:
    image = np.zeros((16, 16, 3), dtype=np.uint8)
    image[:8, :, 0] = 255  # red above
    image[8:, :, 1] = 128  # a darker green below
    sample = Sample("a", held(image), of(0))
    whole = Preprocessing((16, 16), (0.0,) * 3, (1.0,) * 3, crop_fraction=1.0)
    once = evaluate(ready(TopRow(), whole), [sample])
    all_views = evaluate(ready(TopRow(), whole, tta="dihedral"), [sample])
    assert once.figures["tta"] == "none"
    assert all_views.figures["tta"] == "dihedral"
    up = torch.tensor([10.0, 0.0, 0.0]).softmax(0)
    down = torch.tensor([0.0, 1280 / 255, 0.0]).softmax(0)
    side = torch.tensor([5.0, 640 / 255, 0.0]).softmax(0)
    expected = (2 * up + 2 * down + 4 * side) / 8
    scores = [e.tables["predictions"]["scores"][0].as_py() for e in (once, all_views)]
    assert scores[0] == pytest.approx(up.tolist(), abs=1e-4)
    assert scores[1] == pytest.approx(expected.tolist(), abs=1e-4)


def test_quarter_turns_of_an_oblong_input_are_refused() -> None:
    oblong = Preprocessing(size=(16, 24))
    with pytest.raises(UsageError, match="square"):
        ready(Mean(), oblong, tta="dihedral")
    ready(Mean(), oblong, tta="flip")


class Broken(nn.Module):
    """Gives no number for one of the classes, on pictures that are not red."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        logits = 10 * x.mean((2, 3))
        red = (logits[:, :1] > 5).expand(-1, 1)
        spoilt = torch.where(red, logits[:, 2:], torch.full_like(logits[:, 2:], self.value))
        return torch.cat([logits[:, :2], spoilt], 1)


NOT_FINITE = [float("nan"), float("inf"), float("-inf")]
TOLD = r"answer is not finite, '.*green 0\.png', .*optimizer\.lr"


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("tta", ["none", "flip"])
def test_an_answer_that_is_not_finite_is_refused_by_the_images_name(
    split: list[Sample], value: float, tta: str
) -> None:
    predictor = ready(Broken(value), tta=tta)
    with pytest.raises(RetinueError, match=TOLD):
        evaluate(predictor, split, split="test")
    with pytest.raises(RetinueError, match=TOLD):
        list(predictor.predict([sample.key for sample in split]))


@pytest.mark.parametrize("value", NOT_FINITE)
def test_one_broken_model_among_several_is_not_averaged_away(
    split: list[Sample], value: float
) -> None:
    sound, broken = ready(Mean()), ready(Broken(value))
    both = Predictor([*sound.members, *broken.members], engine="torch", workers=1)
    with pytest.raises(RetinueError, match=TOLD):
        evaluate(both, split)


@pytest.mark.parametrize("engine", ["auto", "openvino", "onnxruntime"])
def test_whatever_the_engine_the_image_is_named(
    split: list[Sample], engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime" if engine == "auto" else engine)
    with pytest.raises(RetinueError, match=TOLD):
        evaluate(ready(Broken(float("nan")), engine=engine), split)
    assert "disagrees" not in caplog.text


def test_a_bad_image_is_no_fault_of_the_models(split: list[Sample], tmp_path: Path) -> None:
    """Its row only fills the batch: what the network says of it is nobody's answer."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    reds = [Sample(str(broken), target=of(1)), *split[:3]]
    judged = evaluate(ready(Broken(float("nan"))), reds)
    assert judged.figures["top1"] == 1.0
    assert list(judged.skipped) == [str(broken)]
