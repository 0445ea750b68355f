"""Batches are the same for any number of threads; bad images get what was asked; nothing hangs."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from rows import look, plan_of, sample_of

from retinue.data.loader import Loader, in_order, worker_count
from retinue.data.options import AugmentOptions
from retinue.data.population import Population
from retinue.data.random import draw
from retinue.data.targets.boxes import Boxes
from retinue.data.targets.one_class import OneClass
from retinue.data.views import EvalView, Seen, TrainView
from retinue.errors import BadImageError
from retinue.sample import BatchPlan, Preprocessing, Row, Sample

if TYPE_CHECKING:
    from salted import SaltedFolder

picture, encoded = sys.modules["salted"].picture, sys.modules["salted"].encoded
SIZE = (32, 32)
SMALL = Preprocessing(size=SIZE)
VIEW = TrainView(AugmentOptions(crop_scale=(0.3, 1), rotation=20), SMALL, 0)


def samples(n: int = 20) -> list[Sample]:
    return [
        sample_of(encoded(picture(i), "JPEG"), f"{i}.jpg", OneClass(i % 3, 3), 1 + i / 10)
        for i in range(n)
    ]


def epoch(
    data: Sequence[Sample], batch_size: int, *, seed: int = 0, epoch: int = 0, shuffle: bool = True
) -> list[BatchPlan]:
    """The plans of an epoch over `data`."""
    n = len(data)
    order = draw(seed, epoch, 0, "epoch plan").permutation(n) if shuffle else np.arange(n)
    starts = range(0, n, batch_size)
    return [plan_of(data, order[k : k + batch_size].tolist(), epoch=epoch) for k in starts]


def names(batch: Any) -> list[str]:
    return [sample.key for sample in batch.samples]


def from_folder(folder: SaltedFolder) -> list[Sample]:
    return [Sample(str(p), target=OneClass(0, 1)) for p in sorted([*folder.good, *folder.bad])]


def loader_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("retinue-loader")]


def test_any_number_of_threads_gives_the_same_batches() -> None:
    data = samples()
    plans = epoch(data, 6, seed=1, epoch=4)
    reference = list(Loader(VIEW, data, workers=0).batches(plans))
    for workers in (1, 2, 5):
        batches = list(Loader(VIEW, data, workers=workers).batches(plans))
        assert len(batches) == len(reference) == 4
        for one, other in zip(batches, reference, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.weight, other.weight)
            assert torch.equal(one.targets["label"], other.targets["label"])
            for name in ("keys", "to_original", "original_size"):
                assert np.array_equal(getattr(one, name), getattr(other, name)), name
            assert names(one) == names(other)
            assert (one.epoch, one.total) == (other.epoch, other.total)
    assert not loader_threads()


def test_what_a_batch_holds() -> None:
    data = samples()
    batch = next(Loader(VIEW, data, workers=2).batches([plan_of(data, [3, 1, 2], epoch=7)]))
    assert batch.images.shape == (3, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.keys.tolist() == [3, 1, 2]
    assert batch.keys.dtype == np.int64
    assert batch.samples == [data[3], data[1], data[2]]
    assert len(batch) == 3
    assert batch.targets["label"].tolist() == [0, 1, 2]
    assert torch.allclose(batch.weight, torch.tensor([1.3, 1.1, 1.2]))
    assert batch.epoch == 7
    assert batch.total == pytest.approx(3.6)
    assert batch.original_size.tolist() == [[64, 64]] * 3
    assert batch.to_original.dtype == np.float64
    alone = look(VIEW, data[1], key=1, epoch=7, size=SIZE)
    assert np.array_equal(batch.images[1].permute(1, 2, 0).numpy(), alone.image)
    assert np.array_equal(batch.to_original[1], alone.to_original)


def test_boxes_are_padded() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    boxes = np.array([[0, 0, 8, 8], [8, 8, 16, 20]], np.float32)
    data = [
        sample_of(image, "a", Boxes.made(boxes, [4, 5])),
        sample_of(image, "b", Boxes.made(boxes[:0], [])),
        sample_of(image, "c", Boxes.made(boxes[1:], [6])),
    ]
    view = EvalView(Preprocessing(size=(64, 64), fit="squash"))
    batch = next(Loader(view, data, workers=0).batches([plan_of(data, size=(64, 64))]))
    assert batch.targets["xyxy"].shape == (3, 2, 4)
    assert batch.targets["present"].tolist() == [[True, True], [False, False], [True, False]]
    assert batch.targets["of"].tolist() == [[4, 5], [0, 0], [6, 0]]
    assert batch.targets["xyxy"][2, 0].tolist() == [16, 16, 32, 40]
    assert "label" not in batch.targets


def test_nothing_is_known_of_any_image() -> None:
    data = [sample_of(encoded(picture(1), "JPEG"))]
    (batch,) = Loader(EvalView(SMALL), workers=0).batches([plan_of(data)])
    assert batch.targets == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_stop_names_every_bad_image(salted: SaltedFolder, workers: int) -> None:
    data = from_folder(salted)
    with pytest.raises(BadImageError) as caught:
        list(Loader(VIEW, data, workers=workers).batches(epoch(data, 8)))
    assert set(caught.value.reasons) == {str(path) for path in salted.bad}
    assert "on_bad_image=skip" in str(caught.value)
    assert not loader_threads()


@pytest.mark.parametrize("bad_images", ["substitute", "drop"])
def test_bad_images_are_replaced_or_dropped(salted: SaltedFolder, bad_images: str) -> None:
    data = from_folder(salted)
    plans = epoch(data, 8)
    runs = []
    for workers in (0, 1, 4):
        loader = Loader(VIEW, data, workers=workers, bad_images=bad_images)
        runs.append(list(loader.batches(plans)))
        assert set(loader.skipped) == {str(path) for path in salted.bad}
    for run in runs[1:]:
        for one, other in zip(run, runs[0], strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.weight, other.weight)
            assert names(one) == names(other)
    bad = {str(path) for path in salted.bad}
    rows = [(path, w) for b in runs[0] for path, w in zip(names(b), b.weight.tolist(), strict=True)]
    assert len(rows) == len(data)
    if bad_images == "drop":
        assert {path for path, weight in rows if weight == 0} == bad
    else:
        assert not bad & {path for path, _ in rows}
        assert all(weight == 1 for _, weight in rows)


def test_substitute_is_the_next_readable_one() -> None:
    data = samples(4)
    data[1] = sample_of(b"", "bad", OneClass(9, 10), 3.5)
    data[2] = sample_of(b"x", "worse", OneClass(9, 10))
    loader = Loader(VIEW, data, workers=0, bad_images="substitute")
    batch = next(loader.batches([plan_of(data, [1])]))
    assert names(batch) == ["3.jpg"]
    assert batch.targets["label"].tolist() == [0]
    # What the row counts, and what its draws are keyed by, stay its own.
    assert (batch.keys.tolist(), batch.weight.tolist()) == ([1], [3.5])
    assert np.array_equal(
        batch.images[0].permute(1, 2, 0).numpy(), look(VIEW, data[3], key=1, size=SIZE).image
    )
    assert set(loader.skipped) == {"bad", "worse"}


def test_nothing_readable_is_left() -> None:
    data = [sample_of(b"", str(i)) for i in range(3)]
    loader = Loader(VIEW, data, workers=1, bad_images="substitute")
    with pytest.raises(BadImageError, match="no readable image is left"):
        list(loader.batches([plan_of(data)]))


# A row of several images, of which another one is bad


PASTE = TrainView(AugmentOptions(copy_paste=1.0), SMALL, 0, Population.of("aaaa"))


def of_two() -> tuple[list[Sample], BatchPlan]:
    """Four samples, the third of them bad, and a row that pastes it into the first."""
    data = samples(4)
    data[2] = sample_of(b"no image", "bad.jpg", OneClass(2, 3))
    return data, BatchPlan([Row(0, (data[0], data[2]), 0.5)], SIZE, epoch=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_second_image_of_a_row_is_substituted(workers: int) -> None:
    data, plan = of_two()
    loader = Loader(PASTE, data, workers=workers, bad_images="substitute")
    ((batch, (rendered,)),) = loader.rendered([plan])
    assert list(loader.skipped) == ["bad.jpg"]
    # The next one behind the row's place that is not known to be bad.
    assert rendered.row == Row(0, (data[0], data[1]), 0.5)
    expected = look(PASTE, data[0], data[1], key=0, epoch=3, size=SIZE)
    assert np.array_equal(batch.images[0].permute(1, 2, 0).numpy(), expected.image)
    assert names(batch) == ["0.jpg"]
    assert batch.weight.tolist() == [0.5]
    torch.testing.assert_close(batch.targets["label"], OneClass.collate([expected.target])["label"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_of_which_any_image_is_bad_is_dropped(workers: int) -> None:
    data, plan = of_two()
    loader = Loader(PASTE, data, workers=workers, bad_images="drop")
    ((batch, (rendered,)),) = loader.rendered([plan])
    assert list(loader.skipped) == ["bad.jpg"]
    assert rendered.seen is None
    assert not batch.images.any()
    assert batch.weight.tolist() == [0]
    assert batch.targets == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_the_second_image_of_a_row_stops_everything(workers: int) -> None:
    data, plan = of_two()
    with pytest.raises(BadImageError) as caught:
        list(Loader(PASTE, data, workers=workers).batches([plan]))
    assert set(caught.value.reasons) == {"bad.jpg"}
    assert not loader_threads()


# Streams and threads


def test_closing_early_ends_the_threads() -> None:
    batches = Loader(VIEW, workers=3).batches(epoch(samples(), 2))
    next(batches)
    assert loader_threads()
    batches.close()
    assert not loader_threads()


class _Slow:
    """Records how much is read ahead, and can fail."""

    def __init__(self, fail_at: int = -1) -> None:
        self.calls = 0
        self.fail_at = fail_at

    def cast(self, position: int, *, key: int, epoch: int) -> tuple[int, ...]:
        return (position,)

    def render(
        self, row: Sequence[Sample], *, key: int, epoch: int, size: tuple[int, int], out: np.ndarray
    ) -> tuple[Seen, list[tuple[int, int]]]:
        self.calls += 1
        self.work()
        if key == self.fail_at:
            raise RuntimeError("a defect")
        out[...] = key % 256
        return Seen(None, np.eye(3), (8, 8)), [(8, 8)]

    def work(self) -> None:
        time.sleep(0.002)


def test_errors_in_threads_arrive_and_end_everything() -> None:
    with pytest.raises(RuntimeError, match="a defect"):
        list(Loader(_Slow(fail_at=11), workers=3).batches(epoch(samples(), 4)))
    assert not loader_threads()


def test_reading_ahead_is_bounded() -> None:
    view = _Slow()
    data = samples(1) * 400
    batches = Loader(view, workers=2).batches(epoch(data, 4, shuffle=False))
    next(batches)
    time.sleep(0.3)
    assert view.calls <= 4 * 4
    batches.close()


class _Meeting(_Slow):
    """Lets nobody go on before `parties` are at work at the same time."""

    def __init__(self, parties: int, patience: float) -> None:
        super().__init__()
        self.barrier = threading.Barrier(parties, timeout=patience)

    def work(self) -> None:
        self.barrier.wait()


def test_threads_overlap() -> None:
    plans = epoch(samples(1) * 20, 4)
    batches = list(Loader(_Meeting(4, 30), workers=4).batches(plans))
    assert [len(batch) for batch in batches] == [4] * 5
    for workers in (0, 3):  # so few never meet
        with pytest.raises(threading.BrokenBarrierError):
            list(Loader(_Meeting(4, 0.2), workers=workers).batches(plans))
    assert not loader_threads()


def test_batches_of_one_overlap_across_batches() -> None:
    batches = list(Loader(_Meeting(4, 30), workers=4).batches(epoch(samples(1) * 20, 1)))
    assert len(batches) == 20


class _Image:
    """Reads one image; can be watched."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __call__(self) -> bytes:
        return self.content


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_without_length_and_end(workers: int) -> None:
    taken = 0

    def stream() -> Iterator[Sample]:
        nonlocal taken
        for k in itertools.count():
            taken += 1
            yield sample_of(np.full((8, 8, 3), k % 256, np.uint8), f"{k}")

    batches = Loader(EvalView(SMALL), workers=workers).batches(in_order(stream(), 3, SIZE))
    assert taken == 0
    for number in range(40):
        batch = next(batches)
        first = 3 * number
        assert batch.keys.tolist() == [first, first + 1, first + 2]
        assert names(batch) == [str(first), str(first + 1), str(first + 2)]
        assert (batch.images[:, 0, 0, 0] == torch.tensor(batch.keys % 256)).all()
        assert taken <= first + 3 + (4 * 3 if workers else 0)
    batches.close()
    assert not loader_threads()


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_does_not_grow_with_the_stream(workers: int) -> None:
    content, alive = encoded(picture(1, (8, 8)), "PNG"), weakref.WeakSet[_Image]()
    canvases = weakref.WeakSet[torch.Tensor]()
    most = [0, 0]

    def stream() -> Iterator[Sample]:
        for k in range(600):
            image = _Image(content)
            alive.add(image)
            yield Sample(f"{k}", image)

    batches = Loader(EvalView(SMALL), workers=workers, bad_images="drop")
    for batch in batches.batches(in_order(stream(), 4, (8, 8))):
        canvases.add(batch.images)
        most = [max(most[0], len(alive)), max(most[1], len(canvases))]
        del batch
    assert most[0] <= 5 * 4
    assert most[1] <= 2


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_plans_in_order(count: int) -> None:
    data = [Sample(f"{k}", weight=7.0) for k in range(count)]
    plans = list(in_order(iter(data), 2, (5, 6)))
    assert [len(plan.rows) for plan in plans] == [2] * (count // 2) + [1] * (count % 2)
    rows = [row for plan in plans for row in plan.rows]
    # Each counts once, whatever its weight in training.
    assert rows == [Row(k, (sample,), 1.0) for k, sample in enumerate(data)]
    assert all((plan.size, plan.total) == ((5, 6), len(plan.rows)) for plan in plans)


@pytest.mark.parametrize("work", ["decode", "warp", "resize"])
def test_the_lock_is_released(work: str) -> None:
    """What threads are good for: Python goes on while one of these calls runs."""
    image = np.zeros((4000, 4000, 3), np.uint8)
    content = simplejpeg.encode_jpeg(image)
    turned = np.array([[0.9, 0.1, 0], [-0.1, 0.9, 0]])
    calls = {
        "decode": lambda: simplejpeg.decode_jpeg(content),
        "warp": lambda: cv2.warpAffine(image, turned, (4000, 4000)),
        "resize": lambda: Image.fromarray(image).resize((3000, 3000), Image.Resampling.BICUBIC),
    }
    thread = threading.Thread(target=calls[work])
    ticks = 0
    started = time.perf_counter()
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        ticks += 1
    # Were it held, there would be a tick before and one after, however long the call takes.
    assert ticks > 5, f"{ticks} ticks in {time.perf_counter() - started:.3f} s"


def test_worker_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_count(3) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(40)), raising=False)
    assert worker_count("auto") == 16
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert worker_count("auto") == 1
