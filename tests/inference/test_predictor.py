"""A model file shown pictures: one at a time, in streams, and with bad ones among them."""

from __future__ import annotations

import io
import json
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from predictors import CLASSES, SMALL, Tiny, describe, randomise

from retinue import modelfile
from retinue.data.targets.one_class import OneClass
from retinue.errors import BadImageError, RetinueError, UsageError
from retinue.inference import engines
from retinue.inference import predictor as module
from retinue.inference.engines import TorchEngine, installed
from retinue.inference.evaluator import evaluate
from retinue.inference.inputs import expand
from retinue.inference.making import Making
from retinue.inference.predictor import Member, Predictor, Skipped, load
from retinue.inference.writers import PredictionFolder
from retinue.models import registry
from retinue.models.network import Network
from retinue.sample import Result, Sample
from retinue.tasks.classification.task import Classification
from retinue.tasks.results import ClassResult


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """`tiny` is known to the registry for as long as these tests run."""
    registry.list_models()
    entry = registry.NetworkEntry(
        name="tiny",
        family="tests",
        build=Tiny,
        preprocessing=SMALL,
        parameters=0,
        macs=0,
        paper="",
        reference="",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._ENTRIES, "tiny", entry)
        yield


@pytest.fixture(scope="module")
def network(tiny: None) -> Network:
    made = registry.create_model("tiny", num_classes=len(CLASSES))
    randomise(made)
    return made.eval()


@pytest.fixture(scope="module")
def model(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "best.safetensors"
    modelfile.write(path, network.state_dict(), describe())
    return path


@pytest.fixture(scope="module")
def ready(model: Path) -> Predictor:
    return load(model, device="cpu", engine="torch")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths = []
    for i in range(10):
        small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        path = folder / f"{i} 花.png"
        Image.fromarray(small).resize((50 + i, 40), Image.Resampling.BICUBIC).save(path)
        paths.append(str(path))
    return paths


def test_a_model_file_is_all_that_is_needed(ready: Predictor, photos: list[str]) -> None:
    assert ready.classes == tuple(CLASSES)
    result = ready(photos[0])
    assert isinstance(result, Result)
    assert result.path == photos[0]
    assert sorted(name for name, _ in result.classes) == CLASSES
    scores = [score for _, score in result.classes]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)


def test_a_run_folder_stands_for_its_model(model: Path, photos: list[str]) -> None:
    assert load(model.parent, engine="torch", device="cpu")(photos[0]) is not None


def test_loading_draws_nothing_from_the_global_generator(model: Path) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    load(model, device="cpu")
    assert torch.equal(before, torch.random.get_rng_state())


def test_predictions_equal_the_evaluation(ready: Predictor, photos: list[str]) -> None:
    samples = [Sample(path, target=OneClass(0, len(CLASSES))) for path in photos]
    table = evaluate(ready, samples, batch_size=3).tables["predictions"]
    for result, scores in zip(
        ready.predict(photos, batch_size=4), table["scores"].to_pylist(), strict=True
    ):
        assert isinstance(result, Result)
        found = dict(result.classes)
        assert [found[name] for name in CLASSES] == pytest.approx(scores, abs=1e-5)


def test_every_kind_of_image_gives_the_same_answer(ready: Predictor, photos: list[str]) -> None:
    expected = dict(ready(photos[3]).classes)
    image = Image.open(photos[3])
    for source in (Path(photos[3]), Path(photos[3]).read_bytes(), np.asarray(image), image):
        found = ready(source)
        assert dict(found.classes) == pytest.approx(expected, abs=1e-6)
        assert found.path == (photos[3] if isinstance(source, Path) else "image 0")


def test_pillow_images_are_turned_upright_and_16_bits_stay(ready: Predictor) -> None:
    rng = np.random.default_rng(1)
    pixels = np.asarray(Image.fromarray(rng.integers(0, 256, (3, 4), np.uint8)).resize((40, 30)))
    grey = np.repeat(pixels[..., None], 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    lying, upright = (ready(turned).classes for turned in (grey, np.rot90(grey, -1).copy()))
    # Turned before or after being resized: roundings differ, by one level of grey at most.
    apart = abs(dict(upright)["lily"] - dict(lying)["lily"])
    for source in (file.getvalue(), Image.open(file)):
        assert abs(dict(ready(source).classes)["lily"] - dict(upright)["lily"]) < apart / 10
    deep = Image.fromarray(pixels.astype(np.uint16) * 257)
    expected = dict(ready(grey).classes)
    assert dict(ready(deep).classes) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.zeros((8, 8), np.uint8), "repeat the grey channel"),
        (np.zeros((8, 8, 3), np.float32), "scale to 0–255"),
        (np.zeros((2, 8, 8, 3), np.uint8), "one image at a time"),
        (np.zeros((3, 8, 8), np.uint8), "height and width come first"),
        (np.zeros((0, 8, 3), np.uint8), "RGB uint8"),
        (np.zeros((8, 8, 4), np.uint8), "RGB uint8"),
        (3, "cannot be read from a int"),
        (None, "cannot be read from a NoneType"),
        (["a.jpg", "b.jpg"], "from a list, `predict` takes several of them"),
    ],
)
def test_what_is_no_image_is_refused_with_a_hint(
    ready: Predictor, array: object, hint: str
) -> None:
    with pytest.raises(UsageError, match=hint):
        ready(array)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, photos: list[str]) -> dict[str, str]:
    """Path to a part of the reason."""
    folder = tmp_path_factory.mktemp("bad")
    jpeg = io.BytesIO()
    Image.effect_noise((200, 200), 60).convert("RGB").save(jpeg, "JPEG")
    made = {
        "zero.jpg": (b"", "zero bytes"),
        "text\n.jpg": (b"hello", "not an image"),
        "cut short.jpg": (jpeg.getvalue()[:3000], "truncated"),
    }
    for name, (data, _) in made.items():
        (folder / name).write_bytes(data)
    found = {str(folder / name): reason for name, (_, reason) in made.items()}
    found[str(folder / "gone 花.jpg")] = "no such file"
    found[str(folder)] = "is a folder"
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_bad_files_are_skipped_by_name_and_the_order_stays(
    ready: Predictor, photos: list[str], bad: dict[str, str], batch_size: int
) -> None:
    worst = list(bad)
    sources = [*worst[:2], *photos[:2], worst[2], photos[2], *worst[3:], worst[0]]
    found = list(ready.predict(sources, batch_size=batch_size))
    assert [item.path for item in found] == sources
    for item in found:
        if item.path in bad:
            assert isinstance(item, Skipped)
            assert bad[item.path] in item.reason
        else:
            assert isinstance(item, Result)
            assert dict(item.classes) == pytest.approx(dict(ready(item.path).classes), abs=1e-5)


def test_a_salted_folder_gives_every_file_once(
    ready: Predictor, salted: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with PredictionFolder(out, draw=ready.task.draw, base=salted.root) as folder:
        for item in ready.predict(expand([salted.root])):
            folder.add(item)
    lines = (out / "predictions.jsonl").read_text("utf-8").splitlines()
    read = {json.loads(line)["path"] for line in lines}
    assert read == {str(p) for p in salted.good}
    assert len(lines) == len(read)
    bad = {str(p): word for p, word in salted.bad.items() if not p.is_dir()}  # those are entered
    assert set(folder.skipped) == set(bad)
    for path, word in bad.items():
        assert word in folder.skipped[path]
    listed = (out / "skipped.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["path"] for line in listed} == set(folder.skipped)
    drawn = [p for p in (out / "drawn").rglob("*") if p.is_file() and p.name[0] != "."]
    assert len(drawn) == len(read)


def test_odd_but_readable_files_are_read(ready: Predictor, tmp_path: Path) -> None:
    grey = Image.effect_noise((50, 40), 60)
    grey.convert("CMYK").save(tmp_path / "cmyk.jpg")
    grey.convert("RGBA").quantize().save(tmp_path / "palette.png", transparency=3)
    Image.new("RGB", (1, 1), (9, 9, 9)).save(tmp_path / "one.png")
    grey.save(tmp_path / "moving.gif", save_all=True, append_images=[grey.rotate(90)])
    found = list(ready.predict(sorted(map(str, tmp_path.iterdir()))))
    assert [type(item) for item in found] == [ClassResult] * 4


def test_a_single_bad_image_raises(ready: Predictor, bad: dict[str, str]) -> None:
    with pytest.raises(BadImageError, match="zero bytes"):
        ready(next(iter(bad)))


def live_pictures(shape: tuple[int, int, int] = (40, 50, 3)) -> tuple[Iterator[Any], list[int]]:
    """Pictures without end, and two numbers: how many have been made, and how many are held."""
    counts = [0, 0]

    def gone() -> None:
        counts[1] -= 1

    def endless() -> Iterator[Any]:
        while True:
            picture = np.full(shape, counts[0] % 256, dtype=np.uint8)
            weakref.finalize(picture, gone)
            counts[0] += 1
            counts[1] += 1
            yield picture

    return endless(), counts


@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_an_endless_stream_is_answered_in_constant_memory(
    model: Path, only_torch: None, engine: str
) -> None:
    """From the first image on, whether or not compiling will pay."""
    made = load(model, device="cpu", engine=engine, workers=2)  # type: ignore[arg-type]
    source, counts = live_pictures()
    stream = made.predict(source, batch_size=4)
    for n in range(1, 160):
        answer = next(stream)
        assert answer.path == f"image {n - 1}"
        assert counts[0] - n <= 16
        assert counts[1] <= 20
    stream.close()  # type: ignore[attr-defined]
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith("retinue-loader") for name in names)


@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_one_at_a_time_each_is_answered_before_the_next_is_asked_for(
    model: Path, engine: str
) -> None:
    """As a camera wants it."""
    source, counts = live_pictures()
    made = load(model, device="cpu", engine=engine)  # type: ignore[arg-type]
    stream = made.predict(source, batch_size=1)
    for n in range(1, 10):
        assert isinstance(next(stream), ClassResult)
        assert counts[0] == n
        assert counts[1] <= 2


def test_a_source_that_breaks_off_ends_the_stream_with_its_error(
    ready: Predictor, photos: list[str]
) -> None:
    def cut() -> Iterator[str]:
        yield from photos[:2]
        raise ConnectionError("the camera is gone")

    with pytest.raises(ConnectionError, match="camera"):
        list(ready.predict(cut(), batch_size=4))
    assert not any(t.name.startswith("retinue-loader") for t in threading.enumerate())


def test_no_sources_give_no_results(ready: Predictor, model: Path) -> None:
    assert list(ready.predict([])) == []
    assert list(load(model, device="cpu").predict([])) == []
    with pytest.raises(UsageError, match="batch size"):
        list(ready.predict([], batch_size=0))


def test_auto_compiles_only_for_many_images(
    model: Path, photos: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not (installed("openvino") or installed("onnxruntime")):
        pytest.skip("needs a compiled engine")
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path))  # where nothing has been timed yet
    monkeypatch.setattr(engines, "race", lambda runs: dict.fromkeys(runs, 1.0))
    monkeypatch.setattr(module, "COMPILE_FROM", 8)
    made = load(model, device="cpu")
    few = list(made.predict(photos[:7]))
    assert made.engine == "torch"
    many = list(made.predict(photos, batch_size=4))
    assert made.engine in ("openvino", "onnxruntime")
    for one, other in zip(few, many, strict=False):
        assert isinstance(one, Result)
        assert isinstance(other, Result)
        assert dict(one.classes) == pytest.approx(dict(other.classes), abs=1e-4)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The examples that engines were compiled with."""
    examples: list[torch.Tensor] = []

    def note(network: Network, example: torch.Tensor, **how: Any) -> TorchEngine:
        examples.append(example)
        return TorchEngine(network)

    monkeypatch.setattr(engines, "compile_engine", note)
    return examples


@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_a_stream_is_compiled_with_some_of_what_has_gone_by(
    model: Path,
    photos: list[str],
    bad: dict[str, str],
    compiled: list[torch.Tensor],
    batch_size: int,
) -> None:
    """The first 64 that could be read; every eighth of them, in order, or, where that one has been
    there already, the next that has not."""
    sources = [*list(bad)[:2], *(photos[i % 10] for i in range(120))]
    made = load(model, device="cpu")
    stream = made.predict(sources, batch_size=batch_size)
    found = [next(stream) for _ in range(66)]
    assert compiled == []
    found.extend(stream)
    assert [item.path for item in found] == sources
    (example,) = compiled
    samples = [Sample(photos[i % 10]) for i in (0, 8, 16, 24, 32, 41, 49, 57)]
    torch.testing.assert_close(example, module.example_inputs(samples, SMALL))


def test_an_engine_by_name_is_compiled_with_the_first_that_can_be_read(
    model: Path, photos: list[str], bad: dict[str, str], compiled: list[torch.Tensor]
) -> None:
    made = load(model, device="cpu", engine="openvino")
    stream = made.predict([*list(bad)[:3], *photos, photos[0]], batch_size=4)
    found = [next(stream) for _ in range(4)]
    assert [type(item) for item in found] == [Skipped] * 3 + [ClassResult]
    assert [example.shape for example in compiled] == [(1, 3, 32, 32)]
    assert len(list(stream)) == 10
    assert len(compiled) == 1
    made = load(model, device="cpu", engine="openvino")
    next(made.predict(photos, batch_size=10))
    assert compiled[1].shape == (8, 3, 32, 32)


class Named(Tiny):
    """Its logits are not its only output."""

    def forward(self, x: Any, *, start: int = 0) -> Any:
        return {"logits": super().forward(x, start=start), "more": torch.zeros(len(x), 1)}


def test_a_class_that_an_engine_flips_is_seen_in_a_dict_of_outputs_too(
    monkeypatch: pytest.MonkeyPatch, photos: list[str]
) -> None:
    class Flipping(TorchEngine):
        def __call__(self, x: Any) -> Any:
            found = super().__call__(x)
            return {**found, "logits": -found["logits"]}

    def flipping(making: Making, *_: Any) -> TorchEngine:
        return Flipping(making.module)

    monkeypatch.setattr(engines, "_check", lambda name, device: None)
    monkeypatch.setattr(Making, "_engine", flipping)
    named = Named(num_classes=len(CLASSES))
    randomise(named)
    member = Member(named.eval(), Classification(CLASSES), describe())
    with pytest.raises(RetinueError, match=r"disagrees with torch: .* another best class for"):
        list(Predictor([member], engine="onnxruntime").predict(photos))


def test_an_engine_by_name_is_used_for_one_image_too(
    model: Path, photos: list[str], bad: dict[str, str]
) -> None:
    if not installed("openvino"):
        pytest.skip("needs openvino")
    made = load(model, device="cpu", engine="openvino")
    assert isinstance(next(made.predict(list(bad))), Skipped)  # nothing to judge it on yet
    made(photos[0])
    assert made.engine == "openvino"


def test_test_time_augmentation_is_the_files_or_ones_own(
    network: Network, tmp_path: Path, photos: list[str]
) -> None:
    path = tmp_path / "model.safetensors"
    modelfile.write(path, network.state_dict(), describe(tta="flip"))
    image = np.asarray(Image.open(photos[0]).resize((40, 40)))  # its middle is in the middle
    once = dict(load(path, device="cpu", tta="none")(image).classes)
    both = dict(load(path, device="cpu")(image).classes)
    mirrored = image[:, ::-1].copy()
    other = dict(load(path, device="cpu", tta="none")(mirrored).classes)
    for name in CLASSES:
        assert both[name] == pytest.approx((once[name] + other[name]) / 2, abs=1e-3)
    assert max(abs(both[name] - once[name]) for name in CLASSES) > 1e-2


def test_missing_models_are_named_with_a_hint(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean '.*/best\.safetensors'"):
        load(model.with_name("beast.safetensors"))
    with pytest.raises(UsageError, match=r"no best\.safetensors in the folder"):
        load(tmp_path)
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(UsageError, match="--resume"):
        load(tmp_path)
    with pytest.raises(UsageError, match="no such model"):
        load(tmp_path / "a" / "b.safetensors")


def test_files_that_are_no_models_are_refused(
    network: Network, tmp_path: Path, photos: list[str]
) -> None:
    with pytest.raises(RetinueError, match="safetensors"):
        load(photos[0])
    path = tmp_path / "model.safetensors"
    state = network.state_dict()
    key = next(iter(state))
    modelfile.write(path, {k: v for k, v in state.items() if k != key}, describe())
    with pytest.raises(RetinueError, match=f"1 missing \\({key}\\)"):
        load(path)
    modelfile.write(path, {**state, "extra": torch.zeros(1)}, describe())
    with pytest.raises(RetinueError, match=r"1 unexpected \(extra\)"):
        load(path)
    modelfile.write(path, {**state, key: torch.zeros(1)}, describe())
    with pytest.raises(RetinueError, match="1 of another shape"):
        load(path)
    modelfile.write(path, state, describe(task="segmentation"))
    with pytest.raises(UsageError, match="unknown task"):
        load(path)
    modelfile.write(path, state, describe(task_options={"colour": 1}))
    with pytest.raises(RetinueError, match="options that classification does not know"):
        load(path)


def test_permissions_are_a_reason(ready: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    Image.new("RGB", (9, 9)).save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    (found,) = ready.predict([path])
    assert isinstance(found, Skipped)
    assert found.reason == "permission denied"
