"""A detector's backbone, run once: three maps a view, and its boxes along with it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retinue.data.colour import Colour
from retinue.data.loader import Loader
from retinue.data.options import AugmentOptions, ColourOptions
from retinue.data.population import Population
from retinue.data.targets.boxes import Boxes
from retinue.data.tiles import tiled
from retinue.data.views import TrainView
from retinue.models.detector import Detector
from retinue.models.registry import create_model
from retinue.sample import Batch, BatchPlan, Preprocessing, Row, Sample
from retinue.tasks.detection.objective import DetectionObjective
from retinue.tasks.learner import Learner
from retinue.training.features.cache import FeatureCache
from retinue.training.features.cached_views import CachedViews
from retinue.training.features.frozen import FrozenPart
from retinue.training.features.keys import identity
from retinue.training.features.shown import Views
from retinue.training.losses import portion_loss
from retinue.training.options import StageOptions
from retinue.training.stage import cut_before, first_to_learn, freeze, train_mode

COUNT, VIEWS, CLASSES = 5, 2, 3
SIZES = ((64, 64), (96, 96))
CPU = torch.device("cpu")
YOLO = Preprocessing(size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1), fit="letterbox", pad_value=128)
PUBLISHED = {
    "jitter": 0.3,
    "fit_scale": (0.25, 2.0),
    "colour": ColourOptions(hsv=1.0, hsv_gains=(0.1, 0.7, 0.4), hsv_hue="factor"),
}
RECIPES = {
    "jitter": AugmentOptions(**PUBLISHED),
    "mosaic": AugmentOptions(**PUBLISHED, mosaic=0.7),
    "others": AugmentOptions(**PUBLISHED, copy_paste=0.4, blend=0.4, rotation=10),
}


def _pixels(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (70 + 5 * number, 110, 3), dtype=np.uint8)


def _samples(order: Sequence[int] = range(COUNT), boxes: int = 2) -> list[Sample]:
    samples = []
    for k in order:
        rng = np.random.default_rng(100 + k)
        corner = rng.uniform(0, 40, (boxes, 2))
        xyxy = np.concatenate([corner, corner + rng.uniform(15, 50, (boxes, 2))], axis=1)
        of = rng.integers(0, CLASSES, boxes).tolist()
        target = Boxes.made(xyxy, of, not_exhaustive=[2] if k == 1 else [])
        samples.append(Sample(f"{k}", lambda k=k: _pixels(k), target))  # type: ignore[misc]
    return samples


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    network = create_model("yolov3", backbone="mobilenet_v1_025", num_classes=CLASSES)
    assert isinstance(network, Detector)
    with torch.no_grad():
        # As drawn, all answers are about 0, whatever the features.
        for part in [*network.neck.modules(), *network.head.modules()]:
            if isinstance(part, torch.nn.Conv2d):
                part.weight.normal_(0, (2 / part.weight[0].numel()) ** 0.5)
        for name, value in network.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0, 0.2)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
    return network.eval()


def _cut(detector: Detector) -> int:
    return cut_before(detector, first_to_learn(detector, "neck", "key trainable"))


def _views(
    folder: Path,
    detector: Detector,
    augment: AugmentOptions,
    samples: Sequence[Sample] | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
    seed: int = 0,
    engine: Any = "torch",
) -> CachedViews:
    samples = _samples() if samples is None else samples
    view = TrainView(augment, YOLO, seed, Population.of_samples(samples))
    made = CachedViews(
        FrozenPart(detector, _cut(detector), CPU),
        Views(
            Loader(view, samples, workers=0),
            Colour(YOLO, augment.colour, seed),
            {"augment": augment.model_dump(mode="json"), "seed": seed},
            sizes,
            VIEWS,
        ),
        FeatureCache(folder, 10**9),
        engine,
    )
    made.compute(lambda done, total: None, lambda line: None)
    return made


def _plan(samples: Sequence[Sample], epoch: int, size: tuple[int, int]) -> BatchPlan:
    rows = [Row(k, (sample,), 1.0) for k, sample in enumerate(samples)]
    return BatchPlan(rows, size, epoch, total=float(len(rows)))


def _uncached(
    views: CachedViews,
    detector: Detector,
    augment: AugmentOptions,
    epoch: int,
    size: tuple[int, int],
) -> Batch:
    """The same views, rendered anew and run through the trunk."""
    samples, view = views._samples, views._loader.view
    rows, images = [], []
    for k, sample in enumerate(samples):
        key = int.from_bytes(identity(_pixels(int(sample.key)))[:7], "little")
        number = (epoch + k) % VIEWS
        cast = view.cast(k, key=key, epoch=number)
        plan = BatchPlan([Row(key, tuple(samples[p] for p in cast))], size, number)
        (batch,) = Loader(view, samples, workers=0).batches([plan])
        rows.append(batch)
        images.append(Colour(YOLO, augment.colour).varied(batch.images, batch.keys, number))
    with torch.inference_mode():
        state = detector.run(torch.cat(images), stop=_cut(detector))
    return replace(
        rows[0],
        inputs=tuple(leaf.clone() for leaf in state),
        targets={"each": [batch.targets for batch in rows]},
        to_original=np.concatenate([batch.to_original for batch in rows]),
    )


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", SIZES)
def test_taps_boxes_and_losses_are_those_of_an_uncached_batch(
    tmp_path: Path, detector: Detector, name: str, size: tuple[int, int]
) -> None:
    augment = RECIPES[name]
    views = _views(tmp_path, detector, augment)
    objective = DetectionObjective(
        anchors=detector.anchors, strides=detector.strides, classes=CLASSES
    )
    learner = Learner(detector, objective)
    for epoch in range(VIEWS):
        (cached,) = views.batches([_plan(views._samples, epoch, size)])
        plain = _uncached(views, detector, augment, epoch, size)
        # Deepest first, then the others: strides 32, 8 and 16.
        assert [leaf.shape[1] for leaf in cached.inputs] == [256, 64, 128]
        assert [size[0] // leaf.shape[2] for leaf in cached.inputs] == [32, 8, 16]
        for ours, theirs in zip(cached.inputs, plain.inputs, strict=True):
            # What was rounded to half, and nothing else.
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
            assert ours.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(cached.to_original, plain.to_original)
        for k, alone in enumerate(plain.targets["each"]):
            there = cached.targets["present"][k]
            assert there.sum() == alone["present"].sum()
            assert torch.equal(cached.targets["xyxy"][k][there], alone["xyxy"][0])
            assert torch.equal(cached.targets["of"][k][there], alone["of"][0])
            said = cached.targets["not_exhaustive"][k]
            assert said[said >= 0].tolist() == alone["not_exhaustive"][0].tolist()
        with torch.no_grad():
            halved = tuple(leaf.half().float() for leaf in plain.inputs)
            losses = [
                _loss(learner, inputs, cached, _cut(detector))
                for inputs in (cached.inputs, halved, plain.inputs)
            ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert losses[0] == pytest.approx(losses[2], rel=1e-3)
        assert losses[0] != losses[2]


def _loss(learner: Learner, inputs: Any, batch: Batch, cut: int) -> float:
    losses = learner(inputs, batch.targets, start=cut)
    weight, total = batch.weight, float(batch.weight.sum())
    loss, _ = portion_loss(
        losses, weight, total, portions=1, processes=1, over_all=lambda value: value
    )
    return float(loss.detach())


@pytest.mark.parametrize(
    "engine", ["openvino", pytest.param("onnxruntime", marks=pytest.mark.slow)]
)
def test_every_engine_keeps_the_taps_in_their_order(
    tmp_path: Path, detector: Detector, engine: str
) -> None:
    """At every size: what an engine has compiled takes one alone."""
    pytest.importorskip(engine)
    samples = _samples([0, 1])
    own = _views(tmp_path, detector, RECIPES["jitter"], samples)
    plans = [_plan(samples, 0, size) for size in SIZES]
    wanted = list(own.batches(plans))
    views = _views(tmp_path, detector, RECIPES["jitter"], samples, engine=engine)
    assert views.engine == engine
    for batch, by_torch in zip(views.batches(plans), wanted, strict=True):
        for ours, theirs in zip(batch.inputs, by_torch.inputs, strict=True):
            assert (ours - theirs).abs().max() < 0.05 * theirs.std()


def test_nothing_of_the_frozen_part_drifts(tmp_path: Path, detector: Detector) -> None:
    """Neither its weights nor what its norms have counted; the neck's own do change."""
    network = copy.deepcopy(detector)
    cut, first = _cut(network), first_to_learn(network, "neck", "key trainable")
    assert [unit.name for unit in network.units()][first:] == ["neck"]
    views = _views(tmp_path, network, RECIPES["mosaic"])
    objective = DetectionObjective(
        anchors=network.anchors, strides=network.strides, classes=CLASSES
    )
    learner = Learner(network, objective)
    freeze(network, first)
    train_mode(learner, first, StageOptions(trainable="neck", epochs=1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.01)
    for epoch in range(VIEWS):
        for start, size in ((cut, SIZES[0]), (cut, SIZES[1]), (0, SIZES[0])):
            plan = _plan(views._samples, epoch, size)
            (batch,) = views.batches([plan])
            # Also where the backbone runs with every batch.
            inputs = torch.rand(COUNT, 3, *size) if start == 0 else batch.inputs
            losses = learner(inputs, batch.targets, start=start)
            total = float(batch.weight.sum())
            loss, _ = portion_loss(
                losses, batch.weight, total, portions=1, processes=1, over_all=lambda v: v
            )
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    after = network.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"neck", "head"}
    counted = [name for name in before if name.endswith("num_batches_tracked")]
    assert all(after[name] == before[name] for name in counted if name.startswith("backbone"))
    assert all(after[name] == before[name] + 3 * VIEWS for name in counted if "neck" in name)
    assert all(p.grad is None for p in network.backbone.parameters())


def test_entries_are_never_another_ones(
    tmp_path: Path, detector: Detector, computed: list[int]
) -> None:
    """Two lists over one folder, other labels, another data set under the same names, another
    size, another trunk: each gets what it would get alone, and shares what is the same."""
    augment, size = RECIPES["jitter"], SIZES[0]

    def look(folder: Path, samples: Sequence[Sample], side: tuple[int, int] = size) -> list[Batch]:
        views = _views(folder, detector, augment, samples, [side])
        return [b for e in range(VIEWS) for b in views.batches([_plan(samples, e, side)])]

    first, second = _samples([0, 1, 2]), _samples([3, 2, 1])
    relabelled = [replace(s, target=Boxes.made([[0, 0, 60, 60]], [0])) for s in first]
    inverted = [replace(s, read=lambda k=int(s.key): 255 - _pixels(k)) for s in first]  # type: ignore[misc]
    for number, (samples, side, count) in enumerate(
        [
            (first, size, 3 * VIEWS),
            (second, size, VIEWS),
            (relabelled, size, 0),
            (inverted, size, 3 * VIEWS),
            (first, SIZES[1], 3 * VIEWS),
            (second, SIZES[1], VIEWS),
            (first, size, 0),
        ]
    ):
        computed.clear()
        shared = look(tmp_path / "shared", samples, side)
        assert sum(computed) == count
        alone = look(tmp_path / f"alone {number}", samples, side)
        for ours, theirs in zip(shared, alone, strict=True):
            assert all(map(torch.equal, ours.inputs, theirs.inputs))
            assert all(torch.equal(ours.targets[k], theirs.targets[k]) for k in theirs.targets)
            assert np.array_equal(ours.to_original, theirs.to_original)
    told = look(tmp_path / "shared", relabelled)[0].targets
    assert told["of"].eq(0).all()


def test_tiles_have_entries_of_their_own(tmp_path: Path, detector: Detector) -> None:
    samples = tiled(_samples([0, 1]), 64, 0.2)
    assert len(samples) == 2 + 2 * 4
    augment = RECIPES["jitter"]
    views = _views(tmp_path, detector, augment, samples, SIZES[:1])
    (batch,) = views.batches([_plan(samples, 0, SIZES[0])])
    assert len({row.numpy().tobytes() for row in batch.inputs[0]}) == len(samples)
    assert len({way.tobytes() for way in batch.to_original}) == len(samples)
    # Each is found again, in another order, and as it would be alone.
    order = samples[::-1]
    other = _views(tmp_path, detector, augment, order, SIZES[:1])
    alone = _views(tmp_path / "alone", detector, augment, order, SIZES[:1])
    plans = [_plan(order, epoch, SIZES[0]) for epoch in range(VIEWS)]
    for ours, theirs in zip(other.batches(plans), alone.batches(plans), strict=True):
        assert all(map(torch.equal, ours.inputs, theirs.inputs))
        assert torch.equal(ours.targets["xyxy"], theirs.targets["xyxy"])


def test_a_batch_without_any_box_is_cached_too(tmp_path: Path, detector: Detector) -> None:
    samples = _samples(boxes=0)
    views = _views(tmp_path, detector, RECIPES["mosaic"], samples, SIZES[:1])
    (batch,) = views.batches([_plan(samples, 0, SIZES[0])])
    assert batch.targets["xyxy"].shape == (COUNT, 0, 4)
