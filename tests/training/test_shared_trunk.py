"""Stages whose frozen parts have their first units in common: these are computed once for both."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from small_views import COUNT, CPU, VIEWS, network, pixels, plan_of, samples_of, views_of
from torch import Tensor, nn

import retinue
from retinue.errors import Interrupted, RetinueError
from retinue.models.blocks import ClassifierHead
from retinue.models.network import split
from retinue.run.folder import RunFolder
from retinue.training import session
from retinue.training.features.cache import FeatureCache
from retinue.training.features.cached_views import CachedViews
from retinue.training.features.frozen import FrozenPart, TooCoarseError
from retinue.training.planning.rehearsal import Rehearsal
from retinue.training.recipe import load_recipe
from retinue.training.session import Run
from retinue.training.trainer import Trainer

VARIED = {"crop_scale": [0.5, 1.0]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 to learn from and 6 to judge by."""
    root = tmp_path_factory.mktemp("shared") / "data"
    for number, (split_name, each) in enumerate({"train": 4, "val": 2}.items()):
        tiny.write_pictures(root / split_name, each=each, side=30 + number)
    return root


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, ...], int]]:
    """(cut and where it goes on from, images) of each time that the frozen part was run."""
    found: list[tuple[tuple[int, ...], int]] = []
    real = FrozenPart.fields

    def fields(self: FrozenPart, engine: Any, inputs: Any, *taught: Any) -> Any:
        found.append(((self.cut, *self.via), len(split(inputs)[0])))
        return real(self, engine, inputs, *taught)

    monkeypatch.setattr(FrozenPart, "fields", fields)
    return found


def _counted(ways: list[tuple[tuple[int, ...], int]]) -> dict[tuple[int, ...], int]:
    return {way: sum(n for other, n in ways if other == way) for way, _ in ways}


def _recipe(data: Path, cache: Path, *names: str, **changes: Any) -> dict[str, Any]:
    """A stage for each of what learns, all with the same views; what is learnt on them is not much,
    and not by Adam, which makes steps of full size of what is only rounding."""
    stages = [
        {
            "name": name, "trainable": name, "epochs": 2, "batch_size": 8, "views": 2,
            "augment": VARIED, "optimizer": {"name": "sgd", "lr": 0.05},
        }
        for name in names
    ]  # fmt: skip
    return tiny.recipe(data, stages=stages, ema=None, cache={"folder": str(cache)}) | changes


def _train(recipe: dict[str, Any], out: Path) -> Run:
    return retinue.train(recipe, out=out, report=False, quiet=True)


def _trunk(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "environment.json").read_text())["trunk"])


def test_every_image_runs_once_through_the_units_that_stages_have_in_common(
    tmp_path: Path, data: Path, ways: list[Any], only_torch: None
) -> None:
    recipe = _recipe(data, tmp_path / "cache", "head", "last", "middle")
    run = _train(recipe, tmp_path / "run").folder
    views = 2 * 12 + 6
    assert _counted(ways) == {(1,): views, (2, 1): views, (3, 2, 1): views}
    trunk = _trunk(run)
    assert [trunk[name]["via"] for name in ("head", "last", "middle")] == [[2, 1], [1], []]
    assert set(trunk["last"]["spaces"]) < set(trunk["head"]["spaces"])
    ways.clear()
    again = _train(recipe, tmp_path / "again").folder
    assert ways == []
    for name, stage in trunk.items():
        assert _trunk(again)[name]["spaces"] == stage["spaces"], "nor is less the run's own"
    for name, value in tiny.last_network(run).items():
        assert value.equal(tiny.last_network(again)[name]), name


def test_it_learns_as_without_a_cache(tmp_path: Path, data: Path) -> None:
    """With the engine that is the fastest here."""
    recipe = _recipe(data, tmp_path / "cache", "head", "last")
    for stage in recipe["stages"]:
        stage |= {"augment": {"horizontal_flip": 0.0}, "views": None}
    shared = _train(recipe, tmp_path / "shared").folder
    assert _trunk(shared)["head"]["via"] == [2]
    for stage in recipe["stages"]:
        stage["cache_features"] = "off"
    ours, theirs = tiny.learnt(shared), tiny.learnt(_train(recipe, tmp_path / "off").folder)
    assert theirs.norm() > 0.03
    assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_a_later_stage_goes_on_from_what_an_earlier_one_has(
    tmp_path: Path, data: Path, ways: list[Any], only_torch: None
) -> None:
    """Though what lies behind has learnt since."""
    run = _train(_recipe(data, tmp_path / "cache", "last", "head"), tmp_path / "run").folder
    assert _counted(ways) == {(2,): 30, (3, 2): 30}
    assert [_trunk(run)[name]["via"] for name in ("last", "head")] == [[], [2]]


@pytest.mark.parametrize("cleared", [False, True])
def test_it_goes_on_bit_for_bit(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, only_torch: None, cleared: bool
) -> None:
    """In the middle of the stage that is made of what a later one keeps, also where the cache is
    empty by then."""
    recipe = _recipe(data, tmp_path / "cache", "head", "last", checkpoint={"every_steps": 1})
    whole = _train(recipe, tmp_path / "whole").folder
    shutil.rmtree(tmp_path / "cache")
    real = Trainer._step

    def step(self: Trainer, *arguments: Any) -> None:
        if self.progress.steps == 3:
            raise KeyboardInterrupt
        real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", step)
        with pytest.raises(Interrupted):
            _train(recipe, tmp_path / "run")
    if cleared:
        shutil.rmtree(tmp_path / "cache")
    retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    for name, value in tiny.last_network(whole).items():
        assert value.equal(tiny.last_network(tmp_path / "run")[name]), name


def test_without_room_for_both_each_stage_has_its_own(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, only_torch: None, ways: list[Any]
) -> None:
    real = FeatureCache.make_room
    asked: list[int] = []

    def make_room(self: FeatureCache, need: int) -> str | None:
        asked.append(need)
        return "it is too much" if len(asked) == 1 else real(self, need)

    monkeypatch.setattr(FeatureCache, "make_room", make_room)
    run = _train(_recipe(data, tmp_path / "cache", "head", "last"), tmp_path / "run").folder
    assert [_trunk(run)[name]["via"] for name in ("head", "last")] == [[], []]
    assert _counted(ways) == {(3,): 30, (2,): 30}
    assert asked[0] == asked[1] + asked[2]


def test_where_the_engine_cannot_go_on_the_frozen_part_is_computed_as_a_whole(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, only_torch: None, ways: list[Any]
) -> None:
    real = FrozenPart.compile

    def compiled(self: FrozenPart, *arguments: Any) -> Any:
        if self.via:
            raise RetinueError("torch disagrees with itself")
        return real(self, *arguments)

    monkeypatch.setattr(FrozenPart, "compile", compiled)
    run = _train(_recipe(data, tmp_path / "cache", "head", "last"), tmp_path / "run").folder
    assert [_trunk(run)[name]["via"] for name in ("head", "last")] == [[], []]
    assert _counted(ways) == {(3,): 30, (2,): 30}
    log = (run / "train.log").read_text(encoding="utf-8")
    assert "torch disagrees with itself; the frozen part is computed as a whole" in log


def test_what_is_kept_finer_than_a_later_stage_has_it_is_computed_as_a_whole(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, only_torch: None, ways: list[Any]
) -> None:
    """That keeps what is before it as it says."""
    real = FrozenPart.fields

    def fields(self: FrozenPart, engine: Any, inputs: Any, *taught: Any) -> Any:
        if self.cut == 3 and self.dtype == "float16":
            raise TooCoarseError("float16")
        return real(self, engine, inputs, *taught)

    monkeypatch.setattr(FrozenPart, "fields", fields)
    run = _train(_recipe(data, tmp_path / "cache", "head", "last"), tmp_path / "run").folder
    trunk = _trunk(run)
    assert [trunk[name]["via"] for name in ("head", "last")] == [[], []]
    assert [trunk[name]["dtype"] for name in ("head", "last")] == ["float32", "float16"]
    assert _counted(ways) == {(2,): 30, (3,): 30}  # the train split's were made before that


def test_what_goes_on_from_rows_that_were_made_anew_is_found_by_what_they_show(
    tmp_path: Path,
) -> None:
    """Where an image cannot be read any more by then, another stands in for it."""
    samples, there = samples_of(), [True]

    def fading() -> Any:
        return pixels(2) if there else b"broken"

    samples[2] = replace(samples[2], read=fading)
    part = FrozenPart(network(), 3, CPU, via=[2])
    made = views_of(tmp_path, samples, bad_images="substitute", frozen=part, compute=False)
    real = made._compiled

    def late(*arguments: Any) -> Any:
        engine = real(*arguments)
        there.clear()
        for path in tmp_path.rglob("*.rows"):
            content = bytearray(path.read_bytes())
            content[::64] = bytes(255 - byte for byte in content[::64])
            with path.open("r+b") as file:
                file.write(content)
        return engine

    made._compiled = late  # type: ignore[method-assign]
    made.compute(lambda done, total: None, lambda line: None)
    assert made.skipped.keys() == {"2"}
    there.append(True)
    again = views_of(tmp_path, samples, bad_images="substitute", frozen=part)
    fresh = views_of(tmp_path / "fresh", samples, bad_images="substitute", frozen=part)
    one, other = (next(each.batches([plan_of(each, 0)])) for each in (again, fresh))
    assert not again.skipped
    assert torch.equal(one.inputs, other.inputs)


def test_what_is_made_of_rows_is_near_what_images_give(tmp_path: Path) -> None:
    """And the rows of both lie apart."""
    direct = views_of(tmp_path, frozen=FrozenPart(network(), 3, CPU))
    via = views_of(tmp_path, frozen=FrozenPart(network(), 3, CPU, via=[2, 1]))
    assert not set(direct.spaces) & set(via.spaces)
    assert len(via.spaces) == 3
    for epoch in range(VIEWS):
        ours, theirs = (next(v.batches([plan_of(v, epoch)])) for v in (via, direct))
        assert not torch.equal(ours.inputs, theirs.inputs)  # of rows that are rounded
        off = torch.linalg.vector_norm(ours.inputs - theirs.inputs)
        assert off < 1e-3 * torch.linalg.vector_norm(theirs.inputs)
        assert torch.equal(ours.targets["label"], theirs.targets["label"])
        assert np.array_equal(ours.to_original, theirs.to_original)


def test_a_damaged_row_is_made_anew_with_what_it_is_made_of(
    tmp_path: Path, ways: list[Any]
) -> None:
    part = FrozenPart(network(), 3, CPU, via=[1])
    before = views_of(tmp_path, frozen=part)
    wanted = next(before.batches([plan_of(before, 0)])).inputs
    before.close()
    for path in tmp_path.rglob("*.rows"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    ways.clear()
    again = views_of(tmp_path, frozen=part)
    assert _counted(ways) == {(1,): 1, (3, 1): 1}
    assert torch.equal(next(again.batches([plan_of(again, 0)])).inputs, wanted)


@pytest.mark.parametrize("bad", ["substitute", "drop"])
def test_images_that_cannot_be_read(tmp_path: Path, bad: Any) -> None:
    def broken() -> bytes:
        return b"broken"

    samples = samples_of()
    samples[2] = replace(samples[2], read=broken)

    def views(name: str, *via: int) -> CachedViews:
        part = FrozenPart(network(), 3, CPU, via=via)
        return views_of(tmp_path / name, samples, bad_images=bad, frozen=part)

    ours, theirs = views("via", 2), views("direct")
    one, other = (next(each.batches([plan_of(each, 0)])) for each in (ours, theirs))
    assert ours.skipped.keys() == theirs.skipped.keys() == {"2"}
    assert torch.equal(one.weight, other.weight)
    assert (one.weight == 0).sum() == (bad == "drop")
    assert [s.key for s in one.samples] == [s.key for s in other.samples]
    there = one.weight > 0
    assert torch.allclose(one.inputs[there], other.inputs[there], rtol=1e-2, atol=1e-3)


def test_what_a_teacher_says_of_the_image_comes_along(tmp_path: Path) -> None:
    class Teacher(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": x.mean((2, 3))}

    ours, theirs = (
        views_of(tmp_path, frozen=FrozenPart(network(), 3, CPU, Teacher(), "its hash", via=via))
        for via in ([2], [])
    )
    taught = [next(v.batches([plan_of(v, 1)])).targets["taught"]["logits"] for v in (ours, theirs)]
    assert taught[0].shape == (COUNT, 3)
    assert torch.equal(*taught)


def test_what_is_not_finite_is_named(tmp_path: Path) -> None:
    spoilt = network()
    with torch.no_grad():
        spoilt.last[0].weight.fill_(1e38)
    with pytest.raises(RetinueError, match=r"not finite.*'0'"):
        views_of(tmp_path, frozen=FrozenPart(spoilt, 3, CPU, via=[2]))


@pytest.mark.parametrize(
    ("views", "absent"),
    [
        ({"head": 2, "last": 5}, [1.0, 1 - 2 / 5]),
        ({"head": 5, "head-again": 1, "last": 5}, [1.0, 1.0, 0.0]),
    ],
)
def test_the_time_is_told_of_one_way(
    tmp_path: Path, data: Path, only_torch: None, views: dict[str, int], absent: list[float]
) -> None:
    recipe = _recipe(data, tmp_path / "cache", *views)
    for stage, count in zip(recipe["stages"], views.values(), strict=True):
        stage |= {"views": count, "epochs": 5, "trainable": stage["name"].removesuffix("-again")}
    loaded, dataset, settings = session.opened(recipe, {}, [], quiet=True)
    with session.console(None, quiet=True) as bar:
        training = session.prepared(
            RunFolder(tmp_path / "run"), loaded, dataset, settings, bar, session.Clock()
        )
    rates = Rehearsal(training).rates(load_recipe(recipe))
    assert [rate.absent for rate in rates] == pytest.approx(absent)


class Pooled(tiny.Tiny):
    """The same with a head that says what it begins with."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.head = ClassifierHead(16, 3, dropout=0.0)


def test_of_what_the_head_pools_the_pooled_form_is_kept() -> None:
    torch.manual_seed(0)
    pooled = Pooled(num_classes=3).eval()
    pooled.name, pooled.arguments = "tiny", {"num_classes": 3}
    part, plain = FrozenPart(pooled, 3, CPU), FrozenPart(network(), 3, CPU)
    x = torch.randn(5, 3, 32, 40)
    fields = part.fields(part.compile(x, "torch"), x)
    assert fields["state0"].shape == (5, 16)
    assert part.layout((32, 40)).fields[0].shape == (16,)
    assert plain.layout((32, 40)).fields[0].shape == (4, 5, 16)
    state = part.state(fields, (32, 40))
    with torch.no_grad():
        whole, on = pooled(x), pooled(state, start=3)
    assert torch.allclose(on, whole, rtol=1e-3, atol=1e-3)
    pooled.load_state_dict(network().state_dict())
    assert FrozenPart(pooled, 3, CPU).key((32, 40), "torch") != plain.key((32, 40), "torch")
    assert FrozenPart(pooled, 2, CPU).key((32, 40), "torch") == FrozenPart(network(), 2, CPU).key(
        (32, 40), "torch"
    )  # before that they are the same
