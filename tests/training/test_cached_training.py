"""Trainings on cached features, and what they leave for the next one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import save_file
from warm import Warm

import retinue
import retinue.api
from retinue.errors import Interrupted, RetinueError, UsageError
from retinue.inference import engines
from retinue.inference.making import Making
from retinue.training import stage_data
from retinue.training.features import keys
from retinue.training.features.cache import FeatureCache
from retinue.training.features.cached_views import CachedViews
from retinue.training.features.frozen import FrozenPart
from retinue.training.options import StageOptions
from retinue.training.session import Run
from retinue.training.trainer import Trainer

VARIED = {"crop_scale": [0.5, 1.0]}


def _train(tmp_path: Path, recipe: dict[str, Any], name: str = "run") -> Run:
    return retinue.train(recipe, out=tmp_path / name, report=False, quiet=True)


def _one(data: Path, **stage: Any) -> dict[str, Any]:
    values = {"trainable": "all", "epochs": 1, "batch_size": 8, **stage}
    return tiny.recipe(data, stages=[values], ema=None)


@pytest.mark.parametrize("trainable", ["head", 1, "middle"])
def test_cached_features_train_as_the_trunk_itself_does(
    tmp_path: Path, pictures: Path, trainable: str | int, request: pytest.FixtureRequest
) -> None:
    if trainable != "middle":  # the engines are much the same
        request.getfixturevalue("only_torch")
    # Not Adam: where a gradient is zero but for rounding, it makes steps of full size of the rest.
    stage = {
        "trainable": trainable,
        "epochs": 2,
        "augment": {"horizontal_flip": 0.0},
        "optimizer": {"name": "sgd", "lr": 0.05},
    }
    cached = _train(tmp_path, _one(pictures, cache_features="on", **stage), "cached")
    run = _train(tmp_path, _one(pictures, cache_features="off", **stage), "off")
    environment = json.loads((cached.folder / "environment.json").read_text())
    assert environment["trunk"]["train"]["engine"] in {"openvino", "onnxruntime", "torch"}
    assert set(environment["trunk"]["train"]["spaces"]) <= set(
        retinue.api.clean(dry_run=True).spaces
    )
    assert environment["trunk"]["train"]["spaces"]
    ours, theirs = tiny.learnt(cached.folder), tiny.learnt(run.folder)
    assert theirs.norm() > 0.03
    assert (ours - theirs).norm() < 0.05 * theirs.norm()  # features are kept as float16


@pytest.mark.parametrize("dry", [False, True])
def test_a_cache_that_cannot_be_written_is_refused_before_anything_is_made(
    pictures: Path, tmp_path: Path, dry: bool
) -> None:
    (tmp_path / "file").write_text("in the way")
    how: dict[str, Any] = {"trainable": "head", "augment": {"horizontal_flip": 0.0}}
    recipe = _one(pictures, cache_features="on", **how)
    recipe["cache"] = {"folder": str(tmp_path / "file" / "cache")}
    how = {"dry_run": True} if dry else {"out": tmp_path / "run"}
    with pytest.raises(UsageError, match=r"^the features of stage .* cannot be cached: '.*file"):
        retinue.train(recipe, quiet=True, **how)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def split_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 to learn from, 6 to judge by, 3 for the end."""
    root = tmp_path_factory.mktemp("split") / "data"
    for number, (split, each) in enumerate({"train": 4, "val": 2, "test": 1}.items()):
        tiny.write_pictures(root / split, each=each, side=30 + number)
    return root


def _moved(data: Path, to: Path) -> Path:
    """The same pictures elsewhere, under names that bring them in the opposite order."""
    for path in data.rglob("*.png"):
        place = to / path.relative_to(data).with_name(f"{99 - int(path.stem)}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return to


def test_a_second_training_computes_nothing_that_a_first_one_has(
    tmp_path: Path, split_pictures: Path, computed: list[int], only_torch: None
) -> None:
    def train(data: Path, name: str, *, seed: int = 0, side: int = 32, **changes: Any) -> Run:
        stage = {"trainable": "head", "views": 2, "augment": VARIED}
        network = {"name": "tiny", "weights": str(weights), "dropout": 0.0}
        recipe = _one(data, **{**stage, **changes}) | {"seed": seed, "model": network}
        recipe["input"] = {"size": side}
        recipe["cache"] = {"folder": str(tmp_path / "cache")}
        computed.clear()
        return _train(tmp_path, recipe, name)

    weights = _train(tmp_path, _one(split_pictures), "weights").best
    train(split_pictures, "first")
    assert sum(computed) == 2 * 12 + 6
    # Another rate, another number of epochs, another head: a sweep.
    train(split_pictures, "sweep", epochs=3, batch_size=6)
    assert computed == []
    elsewhere = _moved(split_pictures, tmp_path / "elsewhere")
    train(elsewhere, "elsewhere")
    assert computed == []
    for path in (elsewhere / "train").rglob("*99.png"):
        path.unlink()
    train(elsewhere, "fold")
    assert computed == []
    train(elsewhere, "more", views=3)
    assert sum(computed) == 9
    # Of the validation split nothing is drawn.
    train(elsewhere, "seed", seed=1)
    assert sum(computed) == 2 * 9
    train(elsewhere, "varied", augment={"crop_scale": [0.4, 1.0]})
    assert sum(computed) == 2 * 9
    train(elsewhere, "larger", side=40)
    assert sum(computed) == 2 * 9 + 6
    train(elsewhere, "deeper", trainable="last")
    assert sum(computed) == 2 * 9 + 6

    rows = sorted((tmp_path / "cache").rglob("*.rows"), key=lambda path: path.stat().st_size)
    with rows[-1].open("r+b") as file:
        content = bytearray(file.read())
        content[len(content) // 2] ^= 1
        file.seek(0)
        file.write(content)
    train(elsewhere, "mended", trainable="last")
    assert sum(computed) == 1


def test_what_makes_pixels_and_features_is_computed_with_anew(
    tmp_path: Path, split_pictures: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch,
    only_torch: None,
) -> None:  # fmt: skip
    """And a sweep over seeds in which nothing is drawn shares everything. Of which packages and
    numbers each of the two is made, the test of the keys knows."""
    weights = _train(tmp_path, _one(split_pictures), "weights").best
    still = {"horizontal_flip": 0.0}
    recipe = _one(split_pictures, trainable="head", cache_features="on", augment=still)
    recipe["model"] = {"name": "tiny", "weights": str(weights)}
    recipe["cache"] = {"folder": str(tmp_path / "cache")}

    def count(seed: int = 0) -> int:
        computed.clear()
        _train(tmp_path, recipe | {"seed": seed})
        return sum(computed)

    real = keys.versions
    assert count() == 18
    assert count() == count(seed=1) == 0
    for package in ("simplejpeg", "torch"):
        with monkeypatch.context() as patch:
            patch.setattr(keys, "versions", lambda other=package: real() | {other: "0.1"})
            assert count() == 18, package
    monkeypatch.setattr(keys, "versions", lambda: real() | {"safetensors": "0.1"})
    assert count() == 0


def test_the_log_says_why_nothing_is_cached(
    tmp_path: Path, pictures: Path, only_torch: None
) -> None:
    def log(**changes: Any) -> str:
        stage = {"trainable": "head", "epochs": None, "steps": 1, **changes}
        run = _train(tmp_path, _one(pictures, **stage))
        assert json.loads((run.folder / "environment.json").read_text())["trunk"] == {"train": None}
        return (run.folder / "train.log").read_text(encoding="utf-8")

    assert "the augmentation is drawn anew in every epoch (views=K caches K of them)" in log()
    assert "mixes pixels of several images" in log(augment={"mixing": {"mixup": 0.2}})
    assert "cache_features is off" in log(cache_features="off")


def test_a_cache_that_does_not_keep_what_was_computed_is_named(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, only_torch: None
) -> None:
    """As for a process that sees another folder than the one that computes."""
    monkeypatch.setattr(CachedViews, "compute", lambda *_: None)
    recipe = _one(pictures, trainable="head", views=1)
    recipe["cache"] = {"folder": str(tmp_path / "cache")}
    with pytest.raises(RetinueError, match=r"does not find it.*/cache', set cache\.folder"):
        _train(tmp_path, recipe)


def test_both_splits_are_computed_by_one_engine(
    tmp_path: Path, split_pictures: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though of one of them there may be something of another engine already."""
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "user"))  # where nothing has been timed yet
    monkeypatch.setattr(engines, "race", lambda runs: dict.fromkeys(runs, 1.0))
    weights = _train(tmp_path, _one(split_pictures), "weights").best
    recipe = _one(split_pictures, trainable="head", views=1)
    recipe["model"] = {"name": "tiny", "weights": str(weights)}
    recipe["cache"] = {"folder": str(tmp_path / "cache")}

    def train(name: str, **changes: Any) -> tuple[str, int]:
        computed.clear()
        recipe["stages"][0].update(changes)
        run = _train(tmp_path, recipe, name)
        environment = json.loads((run.folder / "environment.json").read_text())
        return environment["trunk"]["train"]["engine"], sum(computed)

    first = train("first")
    assert first == (engines.candidates()[0], 18)
    needs: list[int] = []
    real = FeatureCache.make_room
    monkeypatch.setattr(
        FeatureCache, "make_room", lambda self, need: needs.append(need) or real(self, need)
    )
    own = Making._engine
    with monkeypatch.context() as patch:
        patch.setattr(
            Making, "_engine", lambda *of: own(*of) if of[1] != first[0] else Path(of[1]).unlink()
        )
        other = train("other", augment=VARIED)
    assert other[0] != first[0]
    assert other[1] == 18
    assert needs[0] > sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.rows")) / 2
    assert train("again", augment=VARIED) == (other[0], 0)


def test_what_an_error_leaves_is_not_held(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, only_torch: None
) -> None:
    recipe = _one(pictures, trainable="head", views=1)
    recipe["cache"] = {"folder": str(tmp_path / "cache")}
    _train(tmp_path, recipe)
    recipe["stages"][0]["views"] = 2

    def fields(*_: Any) -> Any:
        assert [*(tmp_path / "cache").rglob("*.lease")]
        raise RetinueError("no")

    monkeypatch.setattr(FrozenPart, "fields", fields)
    with pytest.raises(RetinueError, match="no"):
        _train(tmp_path, recipe, "failing")
    assert not [*(tmp_path / "cache").rglob("*.lease")]


@pytest.mark.parametrize("refused", [None, "no room"])
def test_room_is_made_for_a_resumed_stage_too(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, only_torch: None,
    refused: str | None,
) -> None:  # fmt: skip
    """Another training may have used it meanwhile; that there is none does not stop it."""
    real = Trainer._step

    def step(self: Trainer, *arguments: Any) -> None:
        if self.progress.steps == 1:  # the first one's checkpoint is written
            raise KeyboardInterrupt
        real(self, *arguments)

    recipe = _one(pictures, trainable="head", views=1)
    recipe["cache"] = {"folder": str(tmp_path / "cache")}
    recipe["checkpoint"] = {"every_steps": 1}
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", step)
        with pytest.raises(Interrupted):
            _train(tmp_path, recipe)
    asked: list[int] = []

    def make_room(self: FeatureCache, need: int) -> str | None:
        asked.append(need)
        return refused

    monkeypatch.setattr(FeatureCache, "make_room", make_room)
    shutil.rmtree(tmp_path / "cache")
    retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    assert len(asked) == 1
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["trunk"]["train"]


@pytest.mark.parametrize(
    ("asked", "mend"),
    [({"cache_features": "on"}, "cache_features=auto"), ({"views": 2}, "leave views out")],
)
@pytest.mark.parametrize("trainable", [3, "stem", "head"])
def test_where_nothing_can_be_cached_it_cannot_be_asked_for(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, only_torch: None,
    trainable: str | int, asked: dict[str, Any], mend: str,
) -> None:  # fmt: skip
    """Everything learns, whatever it is called, or there is no place to cut."""
    if trainable == "head":
        monkeypatch.setattr(tiny.Tiny, "cuts", lambda _: [0])
    draws = 0.5 if "views" in asked else 0.0
    stage = {"trainable": trainable, "augment": {"horizontal_flip": draws}, "epochs": 1}
    recipe = tiny.recipe(
        pictures, ema=None, stages=[{"name": "first", **stage}, {**stage, **asked}]
    )
    where = rf"key stages\.1\.{next(iter(asked))}, .*trainable=head.*{mend}"
    with pytest.raises(UsageError, match=where):
        _train(tmp_path, recipe)


def test_views_of_which_nothing_is_drawn_are_refused() -> None:
    """They would all be the same."""
    values = {"trainable": "head", "epochs": 1, "views": 2}
    assert StageOptions.model_validate(values).views == 2
    with pytest.raises(ValueError, match="views has no effect with an augmentation that draws"):
        StageOptions.model_validate({**values, "augment": {"horizontal_flip": 0.0}})


# --- several processes ---------------------------------------------------------------------------


def _broken(data: Path) -> set[str]:
    """Spoil a picture of each class to learn from and to judge by."""
    broken = {path for split in ("train", "val") for path in (data / split).rglob("01.png")}
    for path in broken:
        path.write_bytes(b"broken")
    return {str(path) for path in broken}


def test_all_processes_reach_the_same_exchanges_whatever_each_of_them_finds(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, only_torch: None
) -> None:
    """With nothing missing, or all, or the decision made before."""
    told: list[str] = []
    for name in ("broadcast_object_list", "gather_object"):
        real = getattr(stage_data, name)

        def exchange(values: Any, name: str = name, real: Any = real) -> Any:
            told.append(name)
            return real(values)

        monkeypatch.setattr(stage_data, name, exchange)
    recipe = _one(pictures, trainable="head", views=1)
    recipe["cache"] = {"folder": str(tmp_path / "cache")}
    exchanges = []
    for name in ("everything", "nothing"):
        told.clear()
        _train(tmp_path, recipe, name)
        exchanges.append(told.copy())
    assert exchanges[0] == exchanges[1]
    assert exchanges[0].count("broadcast_object_list") == 3


def test_all_processes_know_the_files_that_one_of_them_found_bad(
    tmp_path: Path, split_pictures: Path, warm: Warm
) -> None:
    data = shutil.copytree(split_pictures, tmp_path / "data")
    broken = _broken(data)
    recipe = _one(data, trainable="head", views=2, epochs=4, augment=VARIED)
    recipe["data"]["on_bad_image"] = "skip"
    recipe["model"]["dropout"] = 0.0
    learnt = []
    for processes in (2, 1):
        run = tmp_path / f"by {processes}"
        recipe["cache"] = {"folder": str(tmp_path / f"cache of {processes}")}
        outcome = warm.train(recipe, run, processes=processes)
        assert outcome.code == 0, outcome
        environment = json.loads((run / "environment.json").read_text())
        assert set(environment["skipped"]) == broken
        learnt.append(tiny.last_network(run)["head.fc.weight"])
    assert torch.allclose(*learnt, rtol=1e-4, atol=1e-5)


def test_all_processes_end_with_the_error_of_the_one_that_computes(
    tmp_path: Path, split_pictures: Path, warm: Warm
) -> None:
    tensors = tiny.Tiny(num_classes=3).state_dict()
    tensors["stem.0.weight"].fill_(1e38)
    save_file(tensors, tmp_path / "weights.safetensors")
    recipe = _one(split_pictures, trainable="head", views=1)
    recipe["model"]["weights"] = str(tmp_path / "weights.safetensors")
    recipe["cache"] = {"folder": str(tmp_path / "cache")}
    outcome = warm.train(recipe, tmp_path / "run", processes=2)
    assert outcome.codes == [1, 1], outcome
    assert "not finite" in outcome.said


def test_pictures_that_change_while_their_features_are_computed_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the cache would give them under the name of the old ones, to every later training."""
    data = tiny.write_pictures(tmp_path / "data", each=6)
    picture = data / "red" / "00.png"
    before = picture.read_bytes()
    after = (data / "green" / "00.png").read_bytes()
    recipe = _one(data, trainable="head", augment={"horizontal_flip": 0})
    recipe["cache"] = {"folder": str(tmp_path / "cache")}
    real = CachedViews._compiled

    def late(self: CachedViews, *arguments: Any) -> Any:
        picture.write_bytes(after)
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(CachedViews, "_compiled", late)
        with pytest.raises(RetinueError, match=r"image was changed while.*red/00\.png") as told:
            _train(tmp_path, recipe)
    assert "go on with: retinue train" in str(told.value.mend)
    retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    picture.write_bytes(before)
    known = _train(tmp_path, recipe, "again").folder
    recipe["cache"] = {"folder": str(tmp_path / "another cache")}
    fresh = _train(tmp_path, recipe, "fresh").folder
    for name, value in tiny.last_network(known).items():
        assert value.equal(tiny.last_network(fresh)[name]), name
