"""How fast a model answers, as the model card says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image
from torch import Tensor

from retinue.inference import speed
from retinue.inference.predictor import Member, Predictor
from retinue.inference.speed import by_stages, measured
from retinue.modelfile import ModelDescription
from retinue.sample import Batch, Preprocessing, Sample
from retinue.tasks.classification.task import Classification

NAMES = ["a", "b", "c"]


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """A text that is called an image, and three images."""
    (tmp_path / "0.png").write_text("no image")
    for k in range(1, 4):
        pixels = np.full((40, 50, 3), 60 * k, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    return [Sample(str(tmp_path / f"{k}.png")) for k in range(4)]


class Noted(Predictor):
    """Notes the batches that it is asked of."""

    def __init__(self, tta: str = "none") -> None:
        description = ModelDescription(
            task="classification", classes=NAMES, network="tiny", arguments={"num_classes": 3},
            preprocessing=Preprocessing(size=(32, 32)).as_dict(),
        )  # fmt: skip
        network = tiny.Tiny(num_classes=3).eval()
        super().__init__([Member(network, Classification(NAMES), description)],
                         engine="torch", tta=tta)  # fmt: skip
        self.batches: list[Batch] = []

    def findings(self, batch: Batch) -> list[object]:
        self.batches.append(batch)
        return super().findings(batch)


def test_one_alone_and_many_together_are_measured(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "SECONDS", 60.0)  # enough on a machine that has other work
    predictor = Noted("flip")
    found = measured(predictor, samples, most=7)
    assert found is not None
    assert found["engine"] == "torch"
    assert found["device"] == "cpu"
    assert found["views"] == 2
    assert found["batch"] == 7, "of three images, some are there more than once"
    assert {len(batch) for batch in predictor.batches} == {1, 7}
    alone = [batch for batch in predictor.batches if len(batch) == 1]
    assert 1 < len(alone) <= 1 + speed.RUNS, "the first one does not count"
    assert 0 < found["latency_ms"] < 1000
    assert found["images_per_second"] > 1000 / found["latency_ms"] / 5
    keys = {sample.key for batch in predictor.batches for sample in batch.samples}
    assert keys == {sample.key for sample in samples[1:]}
    for batch in predictor.batches:
        assert len(batch.images) == len(batch.samples) == len(batch.to_original) == len(batch)


def test_a_slow_network_is_not_asked_of_many(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    predictor = Noted()
    found = measured(predictor, samples)
    assert found is not None
    assert found["batch"] == 1
    assert len(predictor.batches) == 4


def test_without_a_readable_image_nothing_is_measured(samples: list[Sample]) -> None:
    assert measured(Noted(), samples[:1]) is None


PAUSES = {"decode": 0.06, "preprocess": 0.01, "network": 0.02, "postprocess": 0.015}


class Clock:
    """Stands still but for what takes its time."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Paused(Noted):
    """Takes so long for each stage."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def inputs(self, batch: Batch) -> Iterator[tuple[Batch, Tensor]]:
        self.clock.sleep(PAUSES["preprocess"])
        yield from super().inputs(batch)

    def outputs(self, inputs: Tensor) -> Iterator[Any]:
        self.clock.sleep(PAUSES["network"])
        yield from super().outputs(inputs)

    def merged(self, found: Any) -> list[Any]:
        self.clock.sleep(PAUSES["postprocess"])
        return super().merged(found)


def test_each_stage_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("retinue.inference.speed.time", clock)
    pixels = np.full((400, 500, 3), 99, np.uint8)
    reads = 0

    def read() -> Any:
        nonlocal reads
        reads += 1
        clock.sleep(PAUSES["decode"])
        return pixels

    found = by_stages(Paused(clock), [Sample("a", read)], 5)
    assert found is not None
    for stage, pause in PAUSES.items():
        assert found[f"{stage}_ms"] == pytest.approx(1000 * pause), stage
    assert found["milliseconds"] == pytest.approx(sum(found[f"{s}_ms"] for s in PAUSES), abs=0.01)
    assert found["fps"] == pytest.approx(1000 / found["milliseconds"], rel=1e-3)
    assert (found["runs"], found["images"], found["views"]) == (5, 1, 1)
    assert reads == 1 + 2 * 6, "once to see whether it can be read; twice a run, the first included"


def test_frames_bring_the_time_of_their_decoding(samples: list[Sample]) -> None:
    found = by_stages(Noted("flip"), samples, 3, decoding=0.5)
    assert found is not None
    assert found["decode_ms"] == 500
    assert (found["images"], found["views"]) == (3, 2)
    assert by_stages(Noted(), samples[:1], 3) is None
