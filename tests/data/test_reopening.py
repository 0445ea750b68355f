"""Images that are opened again soon are read and decoded once, and look the same."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from retinue.data import reopening as module
from retinue.data.decode import Encoded
from retinue.data.options import AugmentOptions
from retinue.data.population import Population
from retinue.data.reopening import reopening
from retinue.data.views import EvalView, TrainView
from retinue.sample import Preprocessing, Sample

HOW = Preprocessing(size=(32, 32), crop_fraction=1.0)


class Reads:
    """Pictures in memory, and how often each was read and decoded, at which scale."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch, kind: str = "JPEG") -> None:
        rng = np.random.default_rng(0)
        self.read: Counter[str] = Counter()
        self.decoded: Counter[tuple[str, int]] = Counter()
        self.samples = []
        for k in range(count):
            small = Image.fromarray(rng.integers(0, 256, (20, 20, 3)).astype(np.uint8))
            file = io.BytesIO()
            small.resize((200, 200)).save(file, kind, quality=20)
            self.samples.append(Sample(f"{k}", self._reader(f"{k}", file.getvalue()), None))
        real = Encoded.decode

        def decode(encoded: Encoded, at_least: tuple[int, int] | None = None) -> object:
            self.decoded[encoded.path, encoded.scale(at_least)] += 1
            return real(encoded, at_least)

        monkeypatch.setattr(Encoded, "decode", decode)

    def _reader(self, name: str, content: bytes):  # type: ignore[no-untyped-def]
        def read() -> bytes:
            self.read[name] += 1
            return content

        return read


def _view() -> TrainView:
    augment = AugmentOptions(crop_scale=(0.1, 1.0))
    return TrainView(augment, HOW, 0, Population.of([""] * 3))


def _rendered(view: TrainView, reads: Reads, epochs: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    found = []
    for epoch in range(epochs):
        for k, sample in enumerate(reads.samples):
            out = np.empty((32, 32, 3), np.uint8)
            view.render([sample], key=k, epoch=epoch, size=(32, 32), out=out)
            found.append(out)
    return found


def test_each_is_read_once_and_decoded_once_a_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, view = Reads(3, monkeypatch), _view()
    plain = _rendered(view, reads, 8)
    scales = set(reads.decoded)
    assert set(reads.read.values()) == {8}
    assert len({scale for _, scale in scales}) > 1  # the crops need several
    reads.read.clear()
    reads.decoded.clear()
    opening = view.opening
    with reopening(view, 3):
        kept = _rendered(view, reads, 8)
    assert set(reads.read.values()) == {1}
    assert reads.decoded == dict.fromkeys(scales, 1)
    assert view.opening is opening
    for one, other in zip(kept, plain, strict=True):
        assert np.array_equal(one, other)


def test_no_more_are_kept_than_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, view = Reads(3, monkeypatch), _view()
    with reopening(view, 2):  # by turns: the one that is asked for has always just gone
        _rendered(view, reads, 4)
    assert set(reads.read.values()) == {4}


def test_what_is_large_is_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 7_000)  # less than of 50 × 50 pixels, a quarter's
    reads, view = Reads(1, monkeypatch), _view()
    with reopening(view, 3):
        _rendered(view, reads, 8)
    assert set(reads.read.values()) == {1}
    assert sum(reads.decoded.values()) == 8


def test_what_takes_much_memory_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a PNG does, whose pixels are there once it is open."""
    reads, view = Reads(1, monkeypatch, kind="PNG"), _view()
    with reopening(view, 3):
        _rendered(view, reads, 4)
    assert reads.read == {"0": 1}
    reads.read.clear()
    monkeypatch.setattr(module, "LARGEST", 3 * 200 * 200)
    with reopening(view, 3):
        _rendered(view, reads, 4)
    assert reads.read == {"0": 4}


def test_a_view_that_varies_nothing_is_left_as_it_is() -> None:
    view = EvalView(HOW)
    before = dict(vars(view))
    with reopening(view, 3):
        assert vars(view) == before
