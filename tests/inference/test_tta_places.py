"""Views of an image, looked at by a task with places: what is found comes back to the original."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import finder
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import retinue
from retinue import modelfile
from retinue.data.loader import Loader, in_order
from retinue.data.targets.boxes import Boxes
from retinue.data.views import EvalView
from retinue.errors import UsageError
from retinue.inference.evaluator import evaluate
from retinue.inference.predictor import Predictor, held, load
from retinue.inference.tta import turned, views
from retinue.modelfile import ModelDescription
from retinue.models.network import Network, Unit
from retinue.sample import Batch, Preprocessing, Sample
from retinue.tasks.results import BoxResult
from retinue.tasks.task import Task, register_task, task_type

SIZE = 32
WIDTH, HEIGHT = 120, 80
SPOTS = [(47.0, 21.0), (71.0, 52.0), (60.0, 40.0)]
"""x, y of the middle of a bright square of 12 pixels, in images of 120 × 80."""
FITS = {
    "crop": Preprocessing((SIZE, SIZE), fit="crop", crop_fraction=0.8),
    "squash": Preprocessing((SIZE, SIZE), fit="squash"),
    "letterbox": Preprocessing((SIZE, SIZE), fit="letterbox", pad_value=0),
}


class Brightness(Network):
    """Each pixel's brightness, as it is: it sees what stands where, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def units(self) -> list[Unit]:
        return []

    def forward(self, x: Tensor, *, start: int = 0) -> Tensor:
        return self.gain * x.mean(1)


@register_task
class Spot(finder.Find):
    """Finds the brightest place. A finding is a row (x, y) a view, in the original's pixels."""

    name: ClassVar[str] = "spot"

    def build(self, network: str, arguments: dict[str, Any], weights: str | None) -> Network:
        return Brightness()

    def decode(self, outputs: Any, batch: Batch) -> list[Any]:
        found = []
        for brightness, back in zip(outputs.double().cpu(), batch.to_original, strict=True):
            bright = (brightness > (brightness.min() + brightness.max()) / 2).double()
            sides = [torch.arange(side) + 0.5 for side in bright.shape]
            rows, columns = torch.meshgrid(sides, indexing="ij")
            middle = [float((bright * at).sum() / bright.sum()) for at in (columns, rows)]
            x, y, w = back @ (*middle, 1)
            found.append(np.array([[x / w, y / w]]))
        return found

    def merge(self, findings: Sequence[Any]) -> Any:
        return np.concatenate(findings)

    def result(self, finding: Any, path: str) -> BoxResult:
        rows = [[x - 6, y - 6, x + 6, y + 6, 1.0] for x, y in [finding.mean(axis=0)]]
        return super().result(np.array(rows), path)  # type: ignore[return-value]


def picture(x: float, y: float) -> np.ndarray[Any, Any]:
    pixels = np.full((HEIGHT, WIDTH, 3), 30, dtype=np.uint8)
    pixels[int(y - 6) : int(y + 6), int(x - 6) : int(x + 6)] = 240
    return pixels


def samples() -> list[Sample]:
    return [
        Sample(f"{n}", held(picture(x, y)), Boxes.made([[x - 6, y - 6, x + 6, y + 6]], [0]))
        for n, (x, y) in enumerate(SPOTS)
    ]


@pytest.fixture(scope="module", params=FITS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model file; opening it goes by the registered name of the task."""
    path = tmp_path_factory.mktemp(request.param) / "best.safetensors"
    description = ModelDescription(
        task="spot",
        classes=["spot"],
        network="brightness",
        arguments={},
        preprocessing=FITS[request.param].as_dict(),
        tta="dihedral",
    )
    modelfile.write(path, Brightness().state_dict(), description)
    return path


def batch_of(predictor: Predictor) -> Batch:
    given = samples()
    loader = Loader(EvalView(predictor.preprocessing), workers=0)
    (batch,) = loader.batches(in_order(given, len(given), predictor.preprocessing.size))
    return batch


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("flip", 2), ("dihedral", 8)])
def test_what_every_view_finds_lies_in_the_originals_pixels(
    model: Path, tta: str, count: int
) -> None:
    predictor = load(model, device="cpu", engine="torch", tta=tta)
    found = predictor.findings(batch_of(predictor))
    assert len(found) == len(SPOTS)
    for places, (x, y) in zip(found, SPOTS, strict=True):
        assert places.shape == (count, 2)
        # Resampled once and looked at from all sides: the views differ by rounding alone.
        np.testing.assert_allclose(places, np.broadcast_to(places[0], places.shape), atol=1e-4)
        np.testing.assert_allclose(places[0], (x, y), atol=1.5)


def test_the_views_show_the_spot_in_other_places(model: Path) -> None:
    """So that the way back is not tested on images that look the same from all sides."""
    batch = batch_of(load(model, device="cpu", engine="torch"))
    for k in range(2):
        brightest = set()
        for orientation in views("dihedral"):
            seen = turned(batch, orientation).images[k].float().mean(0)
            brightest.add(int((seen * torch.arange(seen.numel()).reshape(seen.shape)).sum()))
        assert len(brightest) == 8


def test_a_view_decoded_without_its_own_way_back_is_wrong(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: what the test above would see if views were turned and their geometry forgotten."""
    from retinue.inference import tta

    monkeypatch.setattr(tta, "way_back", lambda orientation, size: np.eye(3))
    predictor = load(model, device="cpu", engine="torch", tta="flip")
    places = predictor.findings(batch_of(predictor))[0]
    assert abs(places[0] - places[1]).max() > 5


def test_the_file_says_which_views_and_the_caller_has_the_last_word(model: Path) -> None:
    x, y = SPOTS[1]
    for tta in (None, "none", "flip"):
        predictor = retinue.load(model, device="cpu", engine="torch", tta=tta)
        assert predictor.tta == tta or (tta is None and predictor.tta == "dihedral")
        (box,) = predictor(picture(x, y)).boxes  # type: ignore[attr-defined]
        assert box.xyxy == pytest.approx((x - 6, y - 6, x + 6, y + 6), abs=1.5)
    with pytest.raises(UsageError, match="did you mean 'flip'"):
        retinue.load(model, device="cpu", tta="flop")


def test_predicting_to_files_with_views(model: Path, tmp_path: Path) -> None:
    paths = []
    for n, (x, y) in enumerate(SPOTS):
        paths.append(tmp_path / f"{n}.png")
        Image.fromarray(picture(x, y)).save(paths[-1])
    how: dict[str, Any] = {"device": "cpu", "engine": "torch"}
    for tta in ("none", "dihedral"):
        said = retinue.predict(model, paths, tta=tta, **how)
        for result, (x, y) in zip(said.results, SPOTS, strict=True):
            corners = result.boxes[0].xyxy  # type: ignore[attr-defined]
            assert corners == pytest.approx((x - 6, y - 6, x + 6, y + 6), abs=1.5)
    out = retinue.predict(model, paths, out=tmp_path / "out", format="csv", draw=True, **how)
    lines = out.files[0].read_text().splitlines()
    assert lines[0] == "path,name,score,x1,y1,x2,y2"
    assert len(lines) == 1 + len(SPOTS)
    drawn = np.asarray(Image.open(tmp_path / "out" / "drawn" / "1.png"))
    x, y = map(int, SPOTS[1])
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    assert drawn[y, x].tolist() == [255, 240, 240]
    assert drawn[5, 5].tolist() == [30, 30, 30]


def test_judged_with_views(model: Path) -> None:
    """The meter of the task gets findings and targets in the same pixels."""
    predictor = load(model, device="cpu", engine="torch")

    class Middles(finder.FinderMeter):
        def update(self, findings: Sequence[Any], given: Sequence[Sample]) -> None:
            boxes = [np.concatenate([f - 6, f + 6, f[:, :1]], axis=1) for f in findings]
            super().update(boxes, given)

    predictor.task.meter = lambda *, tables=False: Middles()  # type: ignore[method-assign]
    judged = evaluate(predictor, samples(), batch_size=2)
    assert judged.figures["images"] == len(SPOTS)
    assert judged.figures["distance"] < 2
    assert judged.figures["miscount"] == 7  # eight views, one spot: this task merges nothing
    assert judged.figures["tta"] == "dihedral"


def test_several_models_find_in_the_originals_pixels(model: Path) -> None:
    predictor = load([model, model], device="cpu", engine="torch", tta="flip")
    places = predictor.findings(batch_of(predictor))[0]
    assert places.shape == (4, 2)
    np.testing.assert_allclose(places, np.broadcast_to(SPOTS[0], (4, 2)), atol=1.5)


@pytest.fixture
def unmerged() -> Iterator[type[Task]]:
    """A task that does not say how findings are merged."""

    class Unmerged(Spot):
        name: ClassVar[str] = "unmerged"
        merge = Task.merge  # type: ignore[assignment]

    from retinue.tasks import task

    register_task(Unmerged)
    yield Unmerged
    del task._TASKS["unmerged"]


def test_a_task_that_merges_nothing_says_so(
    unmerged: type[Task], model: Path, tmp_path: Path
) -> None:
    assert task_type("unmerged") is unmerged
    path = tmp_path / "best.safetensors"
    description = modelfile.read_description(model).model_copy(update={"task": "unmerged"})
    modelfile.write(path, Brightness().state_dict(), description)
    with pytest.raises(UsageError, match=r"'unmerged' has no test-time augmentation, key tta"):
        load(path, device="cpu", engine="torch", tta="flip")(picture(*SPOTS[0]))
    assert load(path, device="cpu", engine="torch", tta="none")(picture(*SPOTS[0])) is not None
