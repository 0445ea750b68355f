"""Several models that answer together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import finder  # the task `find`  # noqa: F401
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import retinue
from retinue import modelfile
from retinue.data.targets.one_class import OneClass
from retinue.errors import UsageError
from retinue.inference.engines import installed
from retinue.inference.evaluator import evaluate
from retinue.inference.predictor import load
from retinue.modelfile import ModelDescription
from retinue.models import registry
from retinue.sample import Preprocessing, Sample
from retinue.tasks.results import BoxResult
from retinue.tasks.task import task_type

NAMES = ["blue", "green", "red"]
SMALL = Preprocessing(size=(32, 32), crop_fraction=1.0)


@pytest.fixture(scope="module", autouse=True)
def _network() -> Iterator[None]:
    """`tiny` is known to the registry for as long as these tests run."""
    own = "tiny" not in registry.list_models()
    tiny.register()
    yield
    if own:
        del registry._ENTRIES["tiny"]


def write(path: Path, seed: int, **changes: Any) -> Path:
    """A model file of `tiny` with weights of its own."""
    values: dict[str, Any] = {
        "task": "classification",
        "classes": NAMES,
        "network": "tiny",
        "arguments": {"num_classes": len(changes.get("classes", NAMES))},
        "preprocessing": SMALL.as_dict(),
        **changes,
    }
    description = ModelDescription(**values)
    kind = task_type(description.task)
    task = kind(description.classes, kind.options_type(), description.task_state)
    network = task.build("tiny", dict(description.arguments), None)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    modelfile.write(path, network.state_dict(), description)
    return path


@pytest.fixture(scope="module")
def models(_network: None, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [write(folder / f"{seed}" / "best.safetensors", seed) for seed in range(3)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(0, 256, (32 + i, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return sorted(map(str, folder.iterdir()))


def probabilities(models: Any, photos: list[str], **how: Any) -> np.ndarray[Any, Any]:
    """(photos, classes)"""
    made = load(models, device="cpu", **{"engine": "torch", **how})
    answers = [dict(result.classes) for result in made.predict(photos)]  # type: ignore[union-attr]
    return np.array([[answer[name] for name in NAMES] for answer in answers])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_they_answer_with_the_mean_of_their_probabilities(
    models: list[Path], photos: list[str], count: int
) -> None:
    each = np.stack([probabilities(model, photos) for model in models[:count]])
    np.testing.assert_allclose(
        probabilities(models[:count], photos), each.mean(axis=0), rtol=0, atol=1e-6
    )
    if count > 1:
        assert np.abs(each[0] - each[1]).max() > 0.05  # they do differ


def test_views_and_models_count_alike(models: list[Path], photos: list[str]) -> None:
    each = np.stack([probabilities(model, photos, tta="flip") for model in models[:2]])
    both = probabilities(models[:2], photos, tta="flip")
    np.testing.assert_allclose(both, each.mean(axis=0), rtol=0, atol=1e-6)
    assert np.abs(both - probabilities(models[:2], photos)).max() > 1e-3


def test_run_folders_and_files_may_be_mixed(models: list[Path], photos: list[str]) -> None:
    made = load([models[0].parent, str(models[1])], device="cpu", engine="torch")
    assert made.classes == tuple(NAMES)
    assert len(made.members) == 2
    expected = probabilities(models[:2], photos[:1])[0]
    assert dict(made(photos[0]).classes)["red"] == pytest.approx(expected[2], abs=1e-6)  # type: ignore[attr-defined]


def test_a_models_own_calibration_is_heeded(
    models: list[Path], photos: list[str], tmp_path: Path
) -> None:
    """A member's temperature is its own, not the first one's."""
    warm = write(tmp_path / "warm.safetensors", 1, task_state={"temperature": 3.0})
    each = [probabilities(model, photos) for model in (models[0], warm)]
    assert np.abs(each[1] - probabilities(models[1], photos)).max() > 0.01
    np.testing.assert_allclose(
        probabilities([models[0], warm], photos), np.mean(each, axis=0), rtol=0, atol=1e-6
    )


def test_each_view_is_divided_by_the_temperature(photos: list[str], tmp_path: Path) -> None:
    """Before its softmax, and only then averaged."""
    warm = write(tmp_path / "warm.safetensors", 1, task_state={"temperature": 3.0})
    mirrored = []
    for photo in photos:
        mirrored.append(str(tmp_path / Path(photo).name))
        with Image.open(photo) as image:
            side = min(image.size)
            # Square, so that the crop of the mirrored one is the mirrored crop.
            square = image.crop((0, 0, side, side)).resize((32, 32))
            square.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored[-1])
            square.save(tmp_path / f"plain-{Path(photo).name}")
    plain = [str(tmp_path / f"plain-{Path(photo).name}") for photo in photos]
    each = [probabilities(warm, files) for files in (plain, mirrored)]
    assert np.abs(each[0] - each[1]).max() > 1e-3
    np.testing.assert_allclose(
        probabilities(warm, plain, tta="flip"), np.mean(each, axis=0), rtol=0, atol=1e-6
    )


def test_they_are_judged_by_what_they_say_together(models: list[Path], photos: list[str]) -> None:
    samples = [Sample(photo, target=OneClass(i % 3, 3)) for i, photo in enumerate(photos)]
    made = load(models[:2], device="cpu", engine="torch")
    judged = evaluate(made, samples, batch_size=3)
    expected = probabilities(models[:2], photos)
    table = judged.tables["predictions"]
    np.testing.assert_allclose(np.array(table["scores"].to_pylist()), expected, rtol=0, atol=1e-6)
    labels = np.arange(len(photos)) % 3
    assert judged.figures["top1"] == pytest.approx((expected.argmax(1) == labels).mean())
    own = -np.log(expected[np.arange(len(photos)), labels]).mean()
    assert judged.figures["loss"] == pytest.approx(own, rel=1e-4)


@pytest.mark.parametrize("name", ["openvino", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_each_is_compiled(models: list[Path], photos: list[str], name: Any) -> None:
    if not installed(name):
        pytest.skip(f"needs {name}")
    made = load(models[:2], device="cpu", engine=name)
    found = [dict(result.classes) for result in made.predict(photos)]  # type: ignore[union-attr]
    assert made.engine == name
    expected = probabilities(models[:2], photos)
    np.testing.assert_allclose([[f[n] for n in NAMES] for f in found], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"classes": ["blue", "red", "green"]}, "other classes"),
        ({"classes": ["blue", "red"]}, "other classes"),
        ({"preprocessing": Preprocessing(size=(32, 32)).as_dict()}, "another preprocessing"),
        ({"preprocessing": Preprocessing(size=(32, 48)).as_dict()}, "another preprocessing"),
        ({"task": "find", "arguments": {}}, "another task"),
    ],
)
def test_who_answers_another_question_is_refused_by_name(
    models: list[Path], tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    odd = write(tmp_path / "odd.safetensors", 7, **changes)
    with pytest.raises(UsageError, match=rf"{what} .*odd\.safetensors"):
        load([*models, odd], device="cpu")
    load(odd, device="cpu")  # by itself, it is fine


def test_no_model_at_all() -> None:
    with pytest.raises(UsageError, match="no model"):
        load([])
    with pytest.raises(UsageError, match="no model"):
        retinue.evaluate([])


def test_a_missing_one_is_named(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such model.*gone"):
        load([models[0], tmp_path / "gone.safetensors"])


def test_other_augmentation_and_options_do_not_keep_them_apart(
    models: list[Path], photos: list[str], tmp_path: Path
) -> None:
    """The first one says how."""
    other = write(tmp_path / "other.safetensors", 1, tta="flip", task_options={"top_k": 1})
    np.testing.assert_allclose(
        probabilities([models[0], other], photos), probabilities(models[:2], photos), atol=1e-6
    )


def test_from_the_api(models: list[Path], photos: list[str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    for i, photo in enumerate(photos):
        place = data / NAMES[i % 3] / Path(photo).name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(Path(photo).read_bytes())
    how: dict[str, Any] = {"engine": "torch", "device": "cpu"}
    figures = retinue.evaluate(models[:2], data=data, out=tmp_path / "out", **how)
    assert figures["images"] == len(photos)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == figures
    said = retinue.predict(models[:2], photos, **how)
    expected = probabilities(models[:2], photos)
    assert [dict(r.classes)["green"] for r in said.results] == pytest.approx(  # type: ignore[attr-defined]
        expected[:, 1].tolist(), abs=1e-6
    )
    turned = retinue.predict(models[:2], photos, tta="dihedral", **how)
    assert turned.results != said.results
    assert retinue.load(models[:2], tta="flip", **how).tta == "flip"


def test_what_several_find_in_one_place_is_one(tmp_path: Path, photos: list[str]) -> None:
    """Of a task with places: a model and its copy find what the one does."""
    changes = {"task": "find", "arguments": {}, "task_state": {"threshold": 0.9}}
    files = [write(tmp_path / f"{name}.safetensors", 3, **changes) for name in "ab"]
    one, two = (load(model, device="cpu", engine="torch") for model in (files[0], files))
    rows = found(one(photos[0]))
    assert len(rows) > 1
    np.testing.assert_allclose(found(two(photos[0])), one.task.merge([rows]), atol=1e-5)


def found(result: Any) -> np.ndarray[Any, Any]:
    """As `finder` has it: x1, y1, x2, y2, score of each patch."""
    assert isinstance(result, BoxResult)
    return np.array([[*box.xyxy, box.score] for box in result.boxes])
