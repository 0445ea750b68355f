"""Evaluation on real files, with what cannot be read, in several orientations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from retinue.data.views import EvalView
from retinue.errors import BadImageError, RetinueError, UsageError
from retinue.inference.engines import compile_engine
from retinue.inference.evaluator import evaluate, example_inputs
from retinue.inference.tta import turned, views
from retinue.sample import Batch, Preprocessing, Sample
from retinue.tasks.classification import Classification

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


@pytest.fixture
def split(tmp_path: Path) -> list[Sample]:
    samples = []
    for label, (name, colour) in enumerate(COLOURS.items()):
        for i in range(3):
            path = tmp_path / f"{name} {i}.png"
            Image.new("RGB", (20 + i, 24), colour).save(path)
            samples.append(Sample(str(path), label=label, weight=float(i)))
    return samples


@pytest.fixture
def task() -> Classification:
    return Classification(list(COLOURS))


def test_figures_and_table(split: list[Sample], task: Classification) -> None:
    seen = []
    network = Mean().train()
    found = evaluate(
        network, task, split, SMALL, batch_size=4, progress=lambda i, n: seen.append((i, n))
    )
    assert found.figures["images"] == 9  # also those with weight 0 in training
    assert found.figures["top1"] == 1.0
    assert found.figures["engine"] == "torch"
    assert found.figures["images_per_second"] > 0
    json.dumps(found.figures, allow_nan=False)
    assert found.table["path"].to_pylist() == [s.path for s in split]
    assert found.table["label"].to_pylist() == [s.label for s in split]
    assert found.skipped == {}
    assert seen == [(4, 9), (8, 9), (9, 9)]
    assert network.training
    assert network.drop.training


@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_every_batch_size_and_engine_gives_the_same_figures(
    engine: str, split: list[Sample], task: Classification
) -> None:
    made = compile_engine(Mean(), example_inputs(split, SMALL), engine=engine)  # type: ignore[arg-type]
    first = evaluate(Mean(), task, split, SMALL, batch_size=9, workers=0)
    for batch_size in (1, 4):
        found = evaluate(made, task, split, SMALL, batch_size=batch_size)
        assert found.figures["engine"] == made.name
        assert found.figures["loss"] == pytest.approx(first.figures["loss"], rel=1e-5)
        assert found.figures["per_class"] == first.figures["per_class"]


def test_bad_images_are_left_out_and_named(
    split: list[Sample], task: Classification, tmp_path: Path
) -> None:
    bad = tmp_path / "花 broken\n.jpg"
    bad.write_bytes(b"no picture")
    empty = tmp_path / "empty.png"
    empty.touch()
    salted = [split[0], Sample(str(bad), label=1), *split[1:], Sample(str(empty), label=0)]
    found = evaluate(Mean(), task, salted, SMALL, batch_size=4)
    assert set(found.skipped) == {str(bad), str(empty)}
    assert found.figures["images"] == 9
    assert found.figures["top1"] == 1.0
    with pytest.raises(BadImageError, match="broken"):
        evaluate(Mean(), task, salted, SMALL, bad_images="stop")
    with pytest.raises(BadImageError, match="no readable image is left"):
        evaluate(Mean(), task, [Sample(str(empty), label=0)], SMALL)
    with pytest.raises(RetinueError, match="no images"):
        evaluate(Mean(), task, [], SMALL)


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
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    upright = EvalView(SMALL)(Sample("a", image))
    there = EvalView(SMALL, orientation)(Sample("a", image))
    images = torch.from_numpy(upright.image).permute(2, 0, 1)[None]
    to_original = torch.from_numpy(upright.to_original)[None]
    batch = Batch(images, torch.zeros(1, dtype=torch.int64), ["a"], to_original=to_original)
    ours = turned(batch, orientation)
    assert torch.equal(ours.images[0].permute(1, 2, 0), torch.from_numpy(there.image.copy()))
    assert ours.to_original is not None
    np.testing.assert_allclose(ours.to_original[0].numpy(), there.to_original, atol=1e-9)


def test_orientations_are_averaged(task: Classification, tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), dtype=np.uint8)
    image[:8, :, 0] = 255  # red above
    image[8:, :, 1] = 128  # a darker green below
    sample = Sample("a", image, label=0)
    whole = Preprocessing((16, 16), (0.0,) * 3, (1.0,) * 3, crop_fraction=1.0)
    once = evaluate(TopRow(), task, [sample], whole).table["scores"][0].as_py()
    all_views = evaluate(TopRow(), task, [sample], whole, tta="dihedral")
    assert all_views.figures["tta"] == "dihedral"
    up = torch.tensor([10.0, 0.0, 0.0]).softmax(0)
    down = torch.tensor([0.0, 1280 / 255, 0.0]).softmax(0)
    side = torch.tensor([5.0, 640 / 255, 0.0]).softmax(0)
    expected = (2 * up + 2 * down + 4 * side) / 8
    assert once == pytest.approx(up.tolist(), abs=1e-4)
    assert all_views.table["scores"][0].as_py() == pytest.approx(expected.tolist(), abs=1e-4)


def test_quarter_turns_of_an_oblong_input_are_refused(
    split: list[Sample], task: Classification
) -> None:
    with pytest.raises(UsageError, match="square"):
        evaluate(Mean(), task, split, Preprocessing(size=(16, 24)), tta="dihedral")
