"""Views that went through the frozen part: each is what it would be uncached, whoever computed it,
for whatever list, and whatever happened on the way."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from retinue.data.colour import Colour
from retinue.data.loader import BadImages, Loader
from retinue.data.options import AugmentOptions, ColourOptions
from retinue.data.population import Population
from retinue.data.targets.one_class import OneClass
from retinue.data.views import EvalView, TrainView
from retinue.errors import BadImageError, RetinueError
from retinue.sample import Batch, BatchPlan, Pixels, Preprocessing, Row, Sample
from retinue.tasks.learner import TAUGHT
from retinue.training.features import cached_views
from retinue.training.features.cache import FeatureCache
from retinue.training.features.cached_views import CachedViews, Views
from retinue.training.features.frozen import FrozenPart, NotFiniteError
from retinue.training.features.keys import identity
from retinue.training.features.segments import Writer

COUNT, VIEWS, CUT = 7, 2, 2
HOW = Preprocessing(size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1), crop_fraction=1.0)
CPU = torch.device("cpu")
VARIED = AugmentOptions(crop_scale=(0.5, 1), colour=ColourOptions(brightness=0.3))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_views, "CHUNK", 2)
    monkeypatch.setattr("retinue.training.features.segments.SECONDS_BETWEEN_FLUSHES", 0.0)


@pytest.fixture(autouse=True)
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each chunk computed."""
    counts: list[int] = []
    real = FrozenPart.fields

    def counted(self: FrozenPart, engine: Any, inputs: torch.Tensor) -> Any:
        counts.append(len(inputs))
        return real(self, engine, inputs)

    monkeypatch.setattr(FrozenPart, "fields", counted)
    return counts


def _pixels(number: int) -> Pixels:
    return np.random.default_rng(number).integers(0, 256, (40, 36 + number, 3)).astype(np.uint8)


def _samples(order: Sequence[int] = range(COUNT), name: str = "") -> list[Sample]:
    """Noise, each image of another width."""
    return [
        Sample(f"{name}{k}", lambda k=k: _pixels(k), OneClass(k % 3, 3), weight=1 + k)  # type: ignore[misc]
        for k in order
    ]


def _network(seed: int = 0) -> tiny.Tiny:
    torch.manual_seed(seed)
    network = tiny.Tiny(num_classes=3).eval()
    network.name, network.arguments = "tiny", {"num_classes": 3}
    return network


def _views(
    folder: Path,
    samples: Sequence[Sample] | None = None,
    *,
    augment: AugmentOptions = VARIED,
    seed: int = 0,
    views: int = VIEWS,
    sizes: Sequence[tuple[int, int]] = ((32, 32),),
    bad_images: BadImages = "stop",
    frozen: FrozenPart | None = None,
    compute: bool = True,
) -> CachedViews:
    samples = _samples() if samples is None else samples
    strata = ("" if s.target is None else s.target.stratum() for s in samples)
    view = TrainView(augment, HOW, seed, Population.of(strata))
    made = CachedViews(
        frozen or FrozenPart(_network(), CUT, CPU),
        Views(
            Loader(view, samples, workers=1, bad_images=bad_images),
            Colour(HOW, augment.colour, seed),
            {"augment": augment.model_dump(mode="json"), "seed": seed},
            sizes,
            views,
        ),
        FeatureCache(folder, 10**9),
        "torch",
    )
    if compute:
        made.compute(lambda done, total: None, lambda line: None)
    return made


def _plan(
    views: CachedViews, epoch: int, size: tuple[int, int] = (32, 32), keys: Any = None
) -> BatchPlan:
    samples = views._samples
    keys = range(len(samples)) if keys is None else keys
    rows = [Row(k, (samples[k % len(samples)],), samples[k % len(samples)].weight) for k in keys]
    return BatchPlan(rows, size, epoch, total=3.0)


def _epoch(views: CachedViews, epoch: int, **changes: Any) -> Batch:
    (batch,) = views.batches([_plan(views, epoch, **changes)])
    return batch


def _same(one: Batch, other: Batch) -> None:
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(one.targets["label"], other.targets["label"])
    assert torch.equal(one.weight, other.weight)
    assert np.array_equal(one.to_original, other.to_original)
    assert np.array_equal(one.original_size, other.original_size)
    assert [s.key for s in one.samples] == [s.key for s in other.samples]


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize(
    "augment", [VARIED, AugmentOptions(mosaic=0.5), AugmentOptions(splice=0.5, rotation=20)]
)
def test_a_batch_is_what_it_would_be_uncached(
    tmp_path: Path, augment: AugmentOptions, size: tuple[int, int]
) -> None:
    """View v of an image is drawn with its content as key and v as epoch; in epoch e sample p shows
    view e + p."""
    views = _views(tmp_path, augment=augment, sizes=[size])
    samples = views._samples
    loader, colour = Loader(views._loader.view, samples, workers=0), Colour(HOW, augment.colour)
    for epoch in range(3):
        batch = _epoch(views, epoch, size=size)
        assert batch.epoch == epoch
        assert batch.total == 3.0
        assert batch.weight.tolist() == [1.0 + k for k in range(COUNT)]
        for k in range(COUNT):
            view = (epoch + k) % VIEWS
            key = int.from_bytes(identity(_pixels(k))[:7], "little")
            shown = tuple(samples[p] for p in loader.view.cast(k, key=key, epoch=view))
            plan = BatchPlan([Row(key, shown, samples[k].weight)], size, view)
            (alone,) = loader.batches([plan])
            with torch.inference_mode():
                state = _network().run(colour.varied(alone.images, alone.keys, view), stop=CUT)
            assert torch.allclose(batch.inputs[k], state[0], rtol=1e-3, atol=1e-3)
            assert np.array_equal(batch.to_original[k], alone.to_original[0])
            assert batch.original_size[k].tolist() == [36 + k, 40]
            label = batch.targets["label"][k]
            wanted = alone.targets["label"][0]
            if label.dim() > wanted.dim():  # others in the batch have shares
                wanted = torch.nn.functional.one_hot(wanted, 3).float()
            assert torch.allclose(label, wanted)
            assert batch.samples[k].key == f"{k}"


def test_a_sample_that_comes_again_in_an_epoch_shows_its_next_view(tmp_path: Path) -> None:
    views = _views(tmp_path, views=3)
    again = _epoch(views, 0, keys=[4, 4 + COUNT, 4 + 2 * COUNT, 4 + 3 * COUNT])
    epochs = [_epoch(views, epoch).inputs[4] for epoch in range(3)]
    for k in range(4):
        assert torch.equal(again.inputs[k], epochs[k % 3])
    assert not torch.equal(again.inputs[0], again.inputs[1])
    assert again.keys.tolist() == [4, 11, 18, 25]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("what", ["append", "flush"])
@pytest.mark.parametrize("number", [1, 3, 6, 8])
def test_stopped_between_two_writes_the_targets_stay_with_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, what: str, before: bool
) -> None:
    whole = _views(tmp_path / "whole")
    real, calls = getattr(Writer, what), []

    def stopped(*arguments: Any) -> None:
        calls.append(1)
        if not before:
            real(*arguments)
        if len(calls) == number:
            raise KeyboardInterrupt
        if before:
            real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, what, stopped)
        with pytest.raises(KeyboardInterrupt):
            _views(tmp_path / "stopped")
    resumed = _views(tmp_path / "stopped")
    for epoch in range(VIEWS):
        _same(_epoch(resumed, epoch), _epoch(whole, epoch))


@pytest.mark.parametrize("after", [1, 5])
def test_what_was_computed_before_an_interruption_is_not_computed_again(
    tmp_path: Path, computed: list[int], after: int
) -> None:
    views = _views(tmp_path, compute=False)
    told: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        views.compute(interrupt, lambda line: None)
    assert told[-1][1] == COUNT * VIEWS == len(views)
    assert told[-1][0] == sum(computed)
    _views(tmp_path)
    assert sum(computed) == COUNT * VIEWS


def test_nothing_is_computed_twice_for_other_lists(tmp_path: Path, computed: list[int]) -> None:
    """The same pictures under other names, in another order, a part of them, with others."""
    first = _views(tmp_path)
    assert sum(computed) == COUNT * VIEWS
    computed.clear()
    order = [3, 0, 6, 2, 5, 1, 4]
    other = _views(tmp_path, _samples(order, "elsewhere/"))
    fold = _views(tmp_path, _samples([1, 4, 6]))
    assert computed == []
    for views, positions in ((other, order), (fold, [1, 4, 6])):
        for k, position in enumerate(positions):
            for view in range(VIEWS):
                # The view that is shown depends on the place, what it shows does not.
                ours = _epoch(views, (view - k) % VIEWS).inputs[k]
                theirs = _epoch(first, (view - position) % VIEWS).inputs[position]
                assert torch.equal(ours, theirs)
    _views(tmp_path, _samples([*range(COUNT), COUNT]))
    assert sum(computed) == VIEWS
    computed.clear()
    _views(tmp_path, views=3)
    assert sum(computed) == COUNT


def test_what_the_pixels_depend_on_is_computed_anew(tmp_path: Path, computed: list[int]) -> None:
    first = _epoch(_views(tmp_path), 0)
    inverted = [replace(s, read=lambda k=k: 255 - _pixels(k)) for k, s in enumerate(_samples())]  # type: ignore[misc]
    changes: list[dict[str, Any]] = [
        {"seed": 1},
        {"augment": AugmentOptions(crop_scale=(0.4, 1))},
        {"frozen": FrozenPart(_network(1), CUT, CPU)},
        {"samples": inverted},
    ]
    for change in changes:
        computed.clear()
        other = _epoch(_views(tmp_path, **change), 0)
        assert sum(computed) == COUNT * VIEWS, change
        assert not torch.equal(other.inputs, first.inputs)
    computed.clear()
    _same(_epoch(_views(tmp_path), 0), first)
    assert computed == []


def test_a_damaged_row_is_computed_anew(tmp_path: Path, computed: list[int]) -> None:
    whole = _views(tmp_path / "cache")
    batches = [_epoch(whole, epoch) for epoch in range(VIEWS)]
    row_bytes = whole._frozen.layout((32, 32)).dtype.itemsize
    whole.close()
    (rows,) = (tmp_path / "cache").rglob("*.rows")
    content = bytearray(rows.read_bytes())
    assert len(content) == COUNT * VIEWS * row_bytes
    for row in (2, 9):
        content[row * row_bytes + 77] ^= 0x10
    rows.write_bytes(content)
    computed.clear()
    mended = _views(tmp_path / "cache")
    assert sum(computed) == 2
    for epoch, batch in enumerate(batches):
        _same(_epoch(mended, epoch), batch)
    computed.clear()
    _views(tmp_path / "cache")
    assert computed == []


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(0, len(content), 16):
        content[at] ^= 0x5A
    with open(path, "r+b") as file:  # in place
        file.write(content)


def _replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _forbidden(path: Path) -> None:
    path.chmod(0)


DAMAGES = (Path.unlink, _emptied, _halved, _flipped, _replaced_by_a_folder, _forbidden)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_cache_is_only_a_cache(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Whatever happens to any file of it, before or meanwhile, gives what it gave before."""
    whole = _views(tmp_path / "cache")
    batches = [_epoch(whole, epoch) for epoch in range(VIEWS)]
    whole.close()
    names = sorted(p.relative_to(tmp_path / "cache") for p in (tmp_path / "cache").rglob("*.*"))
    kinds = {name.suffix for name in names}
    assert {".json", ".rows", ".keys"} <= kinds
    (tmp_path / "cache" / "lock").touch()
    for number, name in enumerate([*names, Path("lock")]):
        before, meanwhile = (tmp_path / f"{when} {number}" for when in ("before", "meanwhile"))
        for copy in (before, meanwhile):
            shutil.copytree(tmp_path / "cache", copy)
        damage(before / name)
        mended = _views(before)
        for epoch, batch in enumerate(batches):
            _same(_epoch(mended, epoch), batch)
        mended.close()
        in_use = _views(meanwhile)
        _same(_epoch(in_use, 0), batches[0])
        if name.suffix != ".lease":
            damage(meanwhile / name)
        for epoch, batch in enumerate(batches):
            _same(_epoch(in_use, epoch), batch)
        in_use.close()


def test_a_cache_that_is_removed_while_it_is_used(tmp_path: Path) -> None:
    views = _views(tmp_path / "cache")
    batches = [_epoch(views, epoch) for epoch in range(VIEWS)]
    shutil.rmtree(tmp_path / "cache")
    for epoch, batch in enumerate(batches):
        _same(_epoch(views, epoch), batch)
    views.close()


def test_a_file_or_link_in_the_place_of_a_folder_of_the_cache_gives_way(tmp_path: Path) -> None:
    views = _views(tmp_path / "cache")
    batch = _epoch(views, 0)
    views.close()
    (folder,) = (p for p in (tmp_path / "cache").iterdir() if p.is_dir())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    for make in (Path.touch, lambda path: path.symlink_to(elsewhere)):
        shutil.rmtree(folder)
        make(folder)
        again = _views(tmp_path / "cache")
        _same(_epoch(again, 0), batch)
        again.close()
    assert [p.name for p in elsewhere.iterdir()] == ["mine"]


def test_each_size_has_its_own_rows(tmp_path: Path, computed: list[int]) -> None:
    sizes = [(24, 24), (32, 32), (40, 40)]
    views = _views(tmp_path, sizes=sizes[:2])
    assert len(views) == 2 * COUNT * VIEWS == sum(computed)
    computed.clear()
    views = _views(tmp_path, sizes=sizes)
    assert sum(computed) == COUNT * VIEWS
    plans = [_plan(views, 0, size) for size in sizes]
    shapes = [tuple(batch.inputs.shape[1:]) for batch in views.batches(plans)]
    assert shapes == [(8, 6, 6), (8, 8, 8), (8, 10, 10)]
    for size in sizes:
        for epoch in (0, 1):
            alone = _views(tmp_path, sizes=[size])
            _same(_epoch(views, epoch, size=size), _epoch(alone, epoch, size=size))


def test_what_is_missing_and_what_it_takes(tmp_path: Path) -> None:
    views = _views(tmp_path, compute=False)
    assert views.missing((32, 32)) == [(v, p) for v in range(VIEWS) for p in range(COUNT)]
    need = views.bytes_missing()
    views.compute(lambda done, total: None, lambda line: None)
    assert views.missing((32, 32)) == []
    assert views.bytes_missing() == 0
    held = [*tmp_path.rglob("*.rows"), *tmp_path.rglob("*.keys")]
    assert sum(path.stat().st_size for path in held) == need


def test_the_answer_of_a_teacher_comes_with_the_view(tmp_path: Path, computed: list[int]) -> None:
    torch.manual_seed(5)
    teacher = tiny.Tiny(num_classes=3).eval()
    plain = _views(tmp_path)
    computed.clear()
    taught = _views(tmp_path, frozen=FrozenPart(_network(), CUT, CPU, teacher, "its hash"))
    assert sum(computed) == COUNT * VIEWS
    ours, theirs = _epoch(taught, 1), _epoch(plain, 1)
    _same(ours, theirs)
    assert TAUGHT not in theirs.targets
    loader = Loader(taught._loader.view, workers=0)
    for k in range(COUNT):
        view = (1 + k) % VIEWS
        row = Row(taught._draw_key(k), (taught._samples[k],))
        (alone,) = loader.batches([BatchPlan([row], (32, 32), view)])
        with torch.inference_mode():
            inputs = Colour(HOW, VARIED.colour).varied(alone.images, alone.keys, view)
            wanted = teacher(inputs)[0]
        assert torch.allclose(ours.targets[TAUGHT][k], wanted, rtol=1e-3, atol=1e-3)
    computed.clear()
    _views(tmp_path, frozen=FrozenPart(_network(), CUT, CPU, teacher, "another's"))
    assert sum(computed) == COUNT * VIEWS


def _with_files(folder: Path) -> list[Sample]:
    """Files, of which 2 and 5 are none that can be read."""
    folder.mkdir()
    samples = []
    for k in range(COUNT):
        path = folder / f"{k}.png"
        Image.fromarray(_pixels(k)).save(path)
        samples.append(Sample(str(path), target=OneClass(k % 3, 3)))
    Path(samples[2].key).write_bytes(b"broken")
    Path(samples[5].key).unlink()
    return samples


def test_bad_images_that_are_dropped_weigh_nothing(tmp_path: Path) -> None:
    samples = _with_files(tmp_path / "data")
    views = _views(tmp_path / "cache", samples, bad_images="drop")
    assert {Path(key).name for key in views._loader.skipped} == {"2.png", "5.png"}
    batch = _epoch(views, 0)
    assert batch.weight.tolist() == [1, 1, 0, 1, 1, 0, 1]
    assert (batch.inputs[[2, 5]] == 0).all()
    assert batch.targets["label"].tolist() == [0, 1, -1, 0, 1, -1, 0]


def test_another_stands_in_for_a_bad_image(tmp_path: Path, computed: list[int]) -> None:
    samples = _with_files(tmp_path / "data")
    views = _views(tmp_path / "cache", samples, bad_images="substitute")
    batch = _epoch(views, 0)
    assert batch.weight.tolist() == [1.0] * COUNT
    shown = [Path(sample.key).stem for sample in batch.samples]
    assert [s for k, s in enumerate(shown) if k not in (2, 5)] == ["0", "1", "3", "4", "6"]
    assert not {"2", "5"} & set(shown)
    assert batch.targets["label"].tolist() == [int(s) % 3 for s in shown]
    computed.clear()
    # Who knows from the start finds the same.
    again = _views(tmp_path / "cache", samples, bad_images="substitute", compute=False)
    again._loader.skipped.update(views._loader.skipped)
    again.refresh()
    assert again.missing((32, 32)) == []
    _same(_epoch(again, 0), batch)


def test_a_view_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Not a row that weighs nothing."""
    views = _views(tmp_path / "cache", _samples([0, 1, 2]), bad_images="drop")
    more = _views(tmp_path / "cache", _samples([0, 1, 3, 2]), bad_images="drop", compute=False)
    assert views.missing((32, 32)) == []
    with pytest.raises(RetinueError, match=r"a view of '3' is not cached, '.*cache'") as told:
        _epoch(more, 0)
    more.skipped["3"] = "broken"
    assert _epoch(more, 0).weight.tolist() == [1, 2, 0, 3]
    assert told.value.resumable


def test_bad_images_are_all_named(tmp_path: Path) -> None:
    samples = _with_files(tmp_path / "data")
    with pytest.raises(BadImageError, match=r"5\.png"):
        _views(tmp_path / "cache", samples)
    Path(samples[5].key).write_bytes(b"broken, too")
    with pytest.raises(BadImageError, match=r"2\.png.*5\.png"):
        _views(tmp_path / "cache", samples)


def test_evaluations_views_are_found_by_whatever_training(
    tmp_path: Path, computed: list[int]
) -> None:
    def made(samples: list[Sample]) -> CachedViews:
        loader = Loader(EvalView(HOW), samples, workers=1)
        wanted = Views(loader, Colour(HOW), {"preprocessing": HOW.as_dict()}, [(32, 32)])
        cache = FeatureCache(tmp_path, 10**9)
        views = CachedViews(FrozenPart(_network(), CUT, CPU), wanted, cache, "torch")
        views.compute(lambda done, total: None, lambda line: None)
        return views

    first = made(_samples())
    assert sum(computed) == COUNT
    fold = made(_samples([5, 2]))
    assert sum(computed) == COUNT
    assert torch.equal(_epoch(fold, 0).inputs, _epoch(first, 0).inputs[[5, 2]])
    (batch,) = Loader(EvalView(HOW), workers=0).batches([_plan(first, 0)])
    with torch.inference_mode():
        state = _network().run(Colour(HOW).normalised(batch.images), stop=CUT)
    assert torch.allclose(_epoch(first, 3).inputs, state, rtol=1e-3, atol=1e-3)


def test_images_for_which_the_frozen_part_gives_no_numbers_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = _samples(name="photos/")
    real = Colour.varied

    def varied(self: Colour, *arguments: Any) -> torch.Tensor:
        inputs = real(self, *arguments)
        inputs[1:4:2] = torch.inf
        return inputs

    monkeypatch.setattr(Colour, "varied", varied)
    monkeypatch.setattr(cached_views, "CHUNK", 16)
    with pytest.raises(RetinueError, match="not finite, 'photos/1'; 'photos/3', cache_features"):
        _views(tmp_path / "one", samples)
    with pytest.raises(RetinueError) as caught:
        _views(tmp_path / "four", samples, augment=AugmentOptions(mosaic=1.0))
    named = (caught.value.where or "").split("; ")
    assert {"'photos/1'", "'photos/3'"} < set(named) <= {f"'{sample.key}'" for sample in samples}
    assert len(set(named)) == len(named)


def test_no_more_than_twenty_are_named() -> None:
    names = [f"{k}.jpg" for k in range(30)]
    assert "'19.jpg' and 10 more" in str(NotFiniteError(range(30), names))
    assert "20.jpg" not in str(NotFiniteError(range(30), names))


def test_a_full_disk_is_told_before_a_row_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RetinueError, match=r"No space left.*\.rows.*cache\.folder=FOLDER"):
        _views(tmp_path / "cache")
