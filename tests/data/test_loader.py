"""Batches are the same for any number of threads; bad images get what was asked; nothing hangs."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from retinue.data import loader as module
from retinue.data.loader import Loader, worker_count
from retinue.data.options import AugmentOptions
from retinue.data.samplers import epoch_plan
from retinue.data.scan import scan
from retinue.data.views import EvalView, Item, TrainView
from retinue.errors import BadImageError
from retinue.sample import Preprocessing, Sample

if TYPE_CHECKING:
    from salted import SaltedFolder

picture, encoded = sys.modules["salted"].picture, sys.modules["salted"].encoded
SMALL = Preprocessing(size=(32, 32))
VIEW = TrainView(AugmentOptions(crop_scale=(0.3, 1), rotation=20), SMALL, 0)


def samples(n: int = 20) -> list[Sample]:
    return [
        Sample(f"{i}.jpg", image=encoded(picture(i), "JPEG"), label=i % 3, weight=1 + i / 10)
        for i in range(n)
    ]


def from_folder(folder: SaltedFolder) -> list[Sample]:
    return [Sample(str(p), label=0) for p in sorted([*folder.good, *folder.bad])]


def loader_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("retinue-loader")]


def test_any_number_of_threads_gives_the_same_batches() -> None:
    data = samples()
    plan = epoch_plan(20, 6, seed=1, epoch=4)
    reference = list(Loader(data, VIEW, workers=0).batches(plan, epoch=4))
    for workers in (1, 2, 5):
        batches = list(Loader(data, VIEW, workers=workers).batches(plan, epoch=4))
        assert len(batches) == len(reference) == 4
        for one, other in zip(batches, reference, strict=True):
            for name in ("images", "index", "labels", "weight", "to_original", "original_size"):
                assert torch.equal(getattr(one, name), getattr(other, name)), name
            assert one.paths == other.paths
    assert not loader_threads()


def test_what_a_batch_holds() -> None:
    data = samples()
    batch = next(Loader(data, VIEW, workers=2).batches([np.array([3, 1, 2])], epoch=7))
    assert batch.images.shape == (3, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.index.tolist() == [3, 1, 2]
    assert batch.paths == ["3.jpg", "1.jpg", "2.jpg"]
    assert batch.labels.tolist() == [0, 1, 2]
    assert torch.allclose(batch.weight, torch.tensor([1.3, 1.1, 1.2]))
    assert batch.epoch == 7
    assert batch.original_size.tolist() == [[64, 64]] * 3
    assert batch.to_original.dtype == torch.float64
    alone = VIEW(data[1], index=1, epoch=7).image
    assert np.array_equal(batch.images[1].permute(1, 2, 0).numpy(), alone)


def test_boxes_are_padded() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    boxes = np.array([[0, 0, 8, 8], [8, 8, 16, 20]], np.float32)
    data = [
        Sample("a", image=image, boxes=boxes, box_labels=np.array([4, 5])),
        Sample("b", image=image, boxes=boxes[:0], box_labels=np.array([], np.int64)),
        Sample("c", image=image, boxes=boxes[1:], box_labels=np.array([6])),
    ]
    view = EvalView(Preprocessing(size=(64, 64), fit="squash"))
    batch = next(Loader(data, view, workers=0).batches([np.arange(3)]))
    assert batch.boxes.shape == (3, 2, 4)
    assert batch.box_mask.tolist() == [[True, True], [False, False], [True, False]]
    assert batch.box_labels.tolist() == [[4, 5], [0, 0], [6, 0]]
    assert batch.boxes[2, 0].tolist() == [16, 16, 32, 40]
    assert batch.labels is None


@pytest.mark.parametrize("workers", [0, 2])
def test_stop_names_every_bad_image(salted: SaltedFolder, workers: int) -> None:
    data = from_folder(salted)
    with pytest.raises(BadImageError) as caught:
        list(Loader(data, VIEW, workers=workers).batches(epoch_plan(len(data), 8)))
    assert set(caught.value.reasons) == {str(path) for path in salted.bad}
    assert "on_bad_image=skip" in str(caught.value)
    assert not loader_threads()


@pytest.mark.parametrize("bad_images", ["substitute", "drop"])
def test_bad_images_are_replaced_or_dropped(salted: SaltedFolder, bad_images: str) -> None:
    data = from_folder(salted)
    plan = epoch_plan(len(data), 8)
    runs = []
    for workers in (0, 1, 4):
        loader = Loader(data, VIEW, workers=workers, bad_images=bad_images)
        runs.append(list(loader.batches(plan)))
        assert set(loader.skipped) == {str(path) for path in salted.bad}
    for run in runs[1:]:
        for one, other in zip(run, runs[0], strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.weight, other.weight)
            assert one.paths == other.paths
    bad = {str(path) for path in salted.bad}
    rows = [(path, w) for b in runs[0] for path, w in zip(b.paths, b.weight.tolist(), strict=True)]
    assert len(rows) == len(data)
    if bad_images == "drop":
        assert {path for path, weight in rows if weight == 0} == bad
    else:
        assert not bad & {path for path, _ in rows}
        assert all(weight == 1 for _, weight in rows)


def test_substitute_is_the_next_readable_one() -> None:
    data = samples(4)
    data[1] = Sample("bad", image=b"", label=9)
    data[2] = Sample("worse", image=b"x", label=9)
    loader = Loader(data, VIEW, workers=0, bad_images="substitute")
    batch = next(loader.batches([np.array([1])]))
    assert (batch.paths, batch.index.tolist(), batch.labels.tolist()) == (["3.jpg"], [1], [0])


def test_nothing_readable_is_left() -> None:
    data = [Sample(str(i), image=b"") for i in range(3)]
    loader = Loader(data, VIEW, workers=1, bad_images="substitute")
    with pytest.raises(BadImageError, match="no readable image is left"):
        list(loader.batches([np.arange(3)]))


def test_closing_early_ends_the_threads() -> None:
    batches = Loader(samples(), VIEW, workers=3).batches(epoch_plan(20, 2))
    next(batches)
    assert loader_threads()
    batches.close()
    assert not loader_threads()


class _Slow:
    """Records how much is read ahead, and can fail."""

    size = (8, 8)

    def __init__(self, fail_at: int = -1) -> None:
        self.calls = 0
        self.fail_at = fail_at

    def __call__(self, sample: Sample, *, index: int, epoch: int, out: np.ndarray) -> Item:
        self.calls += 1
        time.sleep(0.002)
        if index == self.fail_at:
            raise RuntimeError("a defect")
        out[...] = index
        return Item(out, np.eye(3), (8, 8))


def test_errors_in_threads_arrive_and_end_everything() -> None:
    with pytest.raises(RuntimeError, match="a defect"):
        list(Loader(samples(), _Slow(fail_at=11), workers=3).batches(epoch_plan(20, 4)))
    assert not loader_threads()


def test_reading_ahead_is_bounded() -> None:
    view = _Slow()
    data = samples(1) * 400
    batches = Loader(data, view, workers=2).batches(epoch_plan(400, 4, shuffle=False))
    next(batches)
    time.sleep(0.3)
    assert view.calls <= 4 * 4
    batches.close()


def test_threads_overlap() -> None:
    data = samples(1) * 100
    started = time.perf_counter()
    list(Loader(data, _Slow(), workers=4).batches(epoch_plan(100, 10)))
    assert time.perf_counter() - started < 0.8 * 100 * 0.002 + 0.1


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
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(40)), raising=False)
    assert worker_count("auto") == 16
    monkeypatch.delattr(module.os, "sched_getaffinity")
    monkeypatch.setattr(module.os, "cpu_count", lambda: None)
    assert worker_count("auto") == 1


@pytest.mark.parametrize("thorough", [False, True])
def test_scan(salted: SaltedFolder, thorough: bool) -> None:
    bad = scan(from_folder(salted), thorough)
    assert set(bad) == {str(path) for path in salted.bad}
    for path, word in salted.bad.items():
        assert word in bad[str(path)]


def test_quick_scan_is_not_fooled_by_a_thumbnail(tmp_path: Path) -> None:
    whole = encoded(picture(1, (96, 96)), "JPEG")
    thumbnail = encoded(picture(2, (16, 16)), "JPEG")
    block = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    content = whole[:2] + block + whole[2:]
    assert not scan([Sample("whole", image=content)], thorough=False)
    cut = Sample("cut", image=content[: len(content) - 300])
    assert scan([cut], thorough=False) == {"cut": "truncated: no end marker"}
