"""Views that went through the frozen part: each is what it would be uncached, whoever computed it,
for whatever list, and whatever happened on the way."""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from small_views import (
    COUNT,
    CPU,
    CUT,
    HOW,
    VARIED,
    VIEWS,
    epoch_of,
    network,
    pixels,
    plan_of,
    same,
    samples_of,
    views_of,
)

from retinue.data.colour import Colour
from retinue.data.loader import Loader
from retinue.data.options import AugmentOptions
from retinue.data.views import EvalView
from retinue.errors import RetinueError
from retinue.sample import BatchPlan, Pixels, Row, Sample
from retinue.tasks.learner import TAUGHT
from retinue.training.features import cached_views
from retinue.training.features.cache import FeatureCache
from retinue.training.features.cached_views import CachedViews
from retinue.training.features.frozen import FrozenPart, NotFiniteError
from retinue.training.features.keys import identity
from retinue.training.features.segments import Writer
from retinue.training.features.shown import Views


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize(
    "augment", [VARIED, AugmentOptions(mosaic=0.5), AugmentOptions(splice=0.5, rotation=20)]
)
def test_a_batch_is_what_it_would_be_uncached(
    tmp_path: Path, augment: AugmentOptions, size: tuple[int, int]
) -> None:
    """View v of an image is drawn with its content as key and v as epoch; in epoch e sample p shows
    view e + p."""
    views = views_of(tmp_path, augment=augment, sizes=[size])
    samples = views._samples
    loader, colour = Loader(views._loader.view, samples, workers=0), Colour(HOW, augment.colour)
    for epoch in range(3):
        batch = epoch_of(views, epoch, size=size)
        assert batch.epoch == epoch
        assert batch.total == 3.0
        assert batch.weight.tolist() == [1.0 + k for k in range(COUNT)]
        for k in range(COUNT):
            view = (epoch + k) % VIEWS
            key = int.from_bytes(identity(pixels(k))[:7], "little")
            shown = tuple(samples[p] for p in loader.view.cast(k, key=key, epoch=view))
            plan = BatchPlan([Row(key, shown, samples[k].weight)], size, view)
            (alone,) = loader.batches([plan])
            with torch.inference_mode():
                state = network().run(colour.varied(alone.images, alone.keys, view), stop=CUT)
            assert torch.allclose(batch.inputs[k], state[0], rtol=1e-3, atol=1e-3)
            assert np.array_equal(batch.to_original[k], alone.to_original[0])
            assert batch.original_size[k].tolist() == [36 + k, 40]
            label = batch.targets["label"][k]
            wanted = alone.targets["label"][0]
            if label.dim() > wanted.dim():  # others in the batch have shares
                wanted = torch.nn.functional.one_hot(wanted, 3).float()
            assert torch.allclose(label, wanted)
            assert batch.samples[k].key == f"{k}"


pytestmark = pytest.mark.usefixtures("small_chunks", "computed")


def test_a_sample_that_comes_again_in_an_epoch_shows_its_next_view(tmp_path: Path) -> None:
    views = views_of(tmp_path, views=3)
    again = epoch_of(views, 0, keys=[4, 4 + COUNT, 4 + 2 * COUNT, 4 + 3 * COUNT])
    epochs = [epoch_of(views, epoch).inputs[4] for epoch in range(3)]
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
    whole = views_of(tmp_path / "whole")
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
            views_of(tmp_path / "stopped")
    resumed = views_of(tmp_path / "stopped")
    for epoch in range(VIEWS):
        same(epoch_of(resumed, epoch), epoch_of(whole, epoch))


@pytest.mark.parametrize("after", [1, 5])
def test_what_was_computed_before_an_interruption_is_not_computed_again(
    tmp_path: Path, computed: list[int], after: int
) -> None:
    views = views_of(tmp_path, compute=False)
    told: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        views.compute(interrupt, lambda line: None)
    assert told[-1][1] == COUNT * VIEWS == len(views)
    assert told[-1][0] == sum(computed)
    views_of(tmp_path)
    assert sum(computed) == COUNT * VIEWS


def test_nothing_is_computed_twice_for_other_lists(tmp_path: Path, computed: list[int]) -> None:
    """The same pictures under other names, in another order, a part of them, with others."""
    first = views_of(tmp_path)
    assert sum(computed) == COUNT * VIEWS
    computed.clear()
    order = [3, 0, 6, 2, 5, 1, 4]
    other = views_of(tmp_path, samples_of(order, "elsewhere/"))
    fold = views_of(tmp_path, samples_of([1, 4, 6]))
    assert computed == []
    for views, positions in ((other, order), (fold, [1, 4, 6])):
        for k, position in enumerate(positions):
            for view in range(VIEWS):
                # The view that is shown depends on the place, what it shows does not.
                ours = epoch_of(views, (view - k) % VIEWS).inputs[k]
                theirs = epoch_of(first, (view - position) % VIEWS).inputs[position]
                assert torch.equal(ours, theirs)
    views_of(tmp_path, samples_of([*range(COUNT), COUNT]))
    assert sum(computed) == VIEWS
    computed.clear()
    views_of(tmp_path, views=3)
    assert sum(computed) == COUNT


def test_what_the_pixels_depend_on_is_computed_anew(tmp_path: Path, computed: list[int]) -> None:
    first = epoch_of(views_of(tmp_path), 0)
    inverted = [replace(s, read=lambda k=k: 255 - pixels(k)) for k, s in enumerate(samples_of())]  # type: ignore[misc]
    changes: list[dict[str, Any]] = [
        {"seed": 1},
        {"augment": AugmentOptions(crop_scale=(0.4, 1))},
        {"frozen": FrozenPart(network(1), CUT, CPU)},
        {"samples": inverted},
    ]
    for change in changes:
        computed.clear()
        other = epoch_of(views_of(tmp_path, **change), 0)
        assert sum(computed) == COUNT * VIEWS, change
        assert not torch.equal(other.inputs, first.inputs)
    computed.clear()
    same(epoch_of(views_of(tmp_path), 0), first)
    assert computed == []


def test_each_size_has_its_own_rows(tmp_path: Path, computed: list[int]) -> None:
    sizes = [(24, 24), (32, 32), (40, 40)]
    views = views_of(tmp_path, sizes=sizes[:2])
    assert len(views) == 2 * COUNT * VIEWS == sum(computed)
    computed.clear()
    views = views_of(tmp_path, sizes=sizes)
    assert sum(computed) == COUNT * VIEWS
    plans = [plan_of(views, 0, size) for size in sizes]
    shapes = [tuple(batch.inputs.shape[1:]) for batch in views.batches(plans)]
    assert shapes == [(8, 6, 6), (8, 8, 8), (8, 10, 10)]
    for size in sizes:
        for epoch in (0, 1):
            alone = views_of(tmp_path, sizes=[size])
            same(epoch_of(views, epoch, size=size), epoch_of(alone, epoch, size=size))


def test_what_is_missing_and_what_it_takes(tmp_path: Path) -> None:
    views = views_of(tmp_path, compute=False)
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
    plain = views_of(tmp_path)
    computed.clear()
    taught = views_of(tmp_path, frozen=FrozenPart(network(), CUT, CPU, teacher, "its hash"))
    assert sum(computed) == COUNT * VIEWS
    ours, theirs = epoch_of(taught, 1), epoch_of(plain, 1)
    same(ours, theirs)
    assert TAUGHT not in theirs.targets
    loader = Loader(taught._loader.view, workers=0)
    for k in range(COUNT):
        view = (1 + k) % VIEWS
        row = taught._shown.row((view, k))
        (alone,) = loader.batches([BatchPlan([row], (32, 32), view)])
        with torch.inference_mode():
            inputs = Colour(HOW, VARIED.colour).varied(alone.images, alone.keys, view)
            wanted = teacher(inputs)[0]
        assert torch.allclose(ours.targets[TAUGHT][k], wanted, rtol=1e-3, atol=1e-3)
    computed.clear()
    views_of(tmp_path, frozen=FrozenPart(network(), CUT, CPU, teacher, "another's"))
    assert sum(computed) == COUNT * VIEWS


def test_a_view_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Not a row that weighs nothing."""
    views = views_of(tmp_path / "cache", samples_of([0, 1, 2]), bad_images="drop")
    more = views_of(tmp_path / "cache", samples_of([0, 1, 3, 2]), bad_images="drop", compute=False)
    assert views.missing((32, 32)) == []
    with pytest.raises(RetinueError, match=r"a view of '3' is not cached, '.*cache'") as told:
        epoch_of(more, 0)
    more.skipped["3"] = "broken"
    assert epoch_of(more, 0).weight.tolist() == [1, 2, 0, 3]
    assert told.value.resumable


def test_evaluations_views_are_found_by_whatever_training(
    tmp_path: Path, computed: list[int]
) -> None:
    def made(samples: list[Sample]) -> CachedViews:
        loader = Loader(EvalView(HOW), samples, workers=1)
        wanted = Views(loader, Colour(HOW), {"preprocessing": HOW.as_dict()}, [(32, 32)])
        cache = FeatureCache(tmp_path, 10**9)
        views = CachedViews(FrozenPart(network(), CUT, CPU), wanted, cache, "torch")
        views.compute(lambda done, total: None, lambda line: None)
        return views

    first = made(samples_of())
    assert sum(computed) == COUNT
    fold = made(samples_of([5, 2]))
    assert sum(computed) == COUNT
    assert torch.equal(epoch_of(fold, 0).inputs, epoch_of(first, 0).inputs[[5, 2]])
    (batch,) = Loader(EvalView(HOW), workers=0).batches([plan_of(first, 0)])
    with torch.inference_mode():
        state = network().run(Colour(HOW).normalised(batch.images), stop=CUT)
    assert torch.allclose(epoch_of(first, 3).inputs, state, rtol=1e-3, atol=1e-3)


def test_images_for_which_the_frozen_part_gives_no_numbers_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = samples_of(name="photos/")
    real = Colour.varied

    def varied(self: Colour, *arguments: Any) -> torch.Tensor:
        inputs = real(self, *arguments)
        inputs[1:4:2] = torch.inf
        return inputs

    monkeypatch.setattr(Colour, "varied", varied)
    monkeypatch.setattr(cached_views, "CHUNK", 16)
    with pytest.raises(RetinueError, match="not finite, 'photos/1'; 'photos/3', cache_features"):
        views_of(tmp_path / "one", samples)
    with pytest.raises(RetinueError) as caught:
        views_of(tmp_path / "four", samples, augment=AugmentOptions(mosaic=1.0))
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
        views_of(tmp_path / "cache")


def test_an_image_is_read_once_for_all_its_views(tmp_path: Path) -> None:
    """And once to tell what is in it."""
    read: Counter[int] = Counter()

    def reader(k: int) -> Pixels:
        read[k] += 1
        return pixels(k)

    samples = [replace(s, read=partial(reader, k)) for k, s in enumerate(samples_of())]
    views_of(tmp_path, samples, views=5)
    assert read == dict.fromkeys(range(COUNT), 2)
