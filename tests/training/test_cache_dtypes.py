"""Trainings on features that are kept in float32, float16 or int8."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

import retinue
from retinue.errors import Interrupted, UsageError
from retinue.run.checkpoint import CheckpointStore
from retinue.training.features import dtypes
from retinue.training.features.cache import FeatureCache
from retinue.training.features.dtypes import Fields
from retinue.training.features.frozen import ERROR, FrozenPart, TooCoarseError
from retinue.training.options import CacheDtype
from retinue.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("only_torch")


def _recipe(tmp_path: Path, data: Path, dtype: str | None, **stage: Any) -> dict[str, Any]:
    values = {
        "trainable": "head", "epochs": 1, "batch_size": 6, "views": 2,
        "augment": {"crop_scale": [0.5, 1.0]}, **stage,
    }  # fmt: skip
    if dtype is not None:
        values["cache_dtype"] = dtype
    recipe = tiny.recipe(data, stages=[values], ema=None)
    return recipe | {"cache": {"folder": str(tmp_path / "cache")}}


def _train(folder: Path, recipe: Mapping[str, Any] | Path, **how: Any) -> tuple[Any, str]:
    """The record of the cached stage, and the log."""
    how = how or {"out": folder}
    run = retinue.train(recipe, report=False, quiet=True, **how)  # type: ignore[arg-type]
    log = (run.folder / "train.log").read_text(encoding="utf-8")
    return json.loads((run.folder / "environment.json").read_text())["trunk"]["train"], log


def _weights(folder: Path) -> torch.Tensor:
    return tiny.learnt(folder)


def test_each_kind_is_recorded_with_its_size_and_its_error(tmp_path: Path, pictures: Path) -> None:
    found: dict[str, Any] = {}
    for dtype in ("float32", "float16", "int8"):
        found[dtype], log = _train(tmp_path / dtype, _recipe(tmp_path, pictures, dtype))
        kept = found[dtype]
        assert kept["dtype"] == dtype
        line = next(line for line in log.splitlines() if "cached views in" in line)
        assert f"cached views in {dtype}, {kept['bytes'] / 1e6:,.1f} MB on disk, relative" in line
        assert f"{kept['relative_error']:.2g} on average" in line
    ours, half, exact = (found[dtype] for dtype in ("int8", "float16", "float32"))
    assert exact["relative_error"] == exact["error_bound"] == 0.0
    assert 0 < half["relative_error"] < half["largest_relative_error"] < 2**-11
    assert 2**-10 < ours["relative_error"] < ours["largest_relative_error"] < 0.01
    assert half["error_bound"] < ours["error_bound"]
    assert ours["bytes"] < half["bytes"] < exact["bytes"]
    assert len({space for kept in found.values() for space in kept["spaces"]}) == 3 * len(
        ours["spaces"]
    )
    sizes = FeatureCache(tmp_path / "cache", 0).sizes()
    for kept in found.values():
        on_disk = sum(sizes[space] for space in kept["spaces"])
        assert kept["bytes"] <= on_disk < kept["bytes"] + 2000  # the layout's file
    exactly = _weights(tmp_path / "float32")
    assert exactly.norm() > 0.01
    for dtype, most in (("float16", 0.002), ("int8", 0.05)):
        away = (_weights(tmp_path / dtype) - exactly).norm() / exactly.norm()
        assert 0 < away < most, dtype


def test_what_is_found_again_is_told_as_when_it_was_computed(
    tmp_path: Path, pictures: Path, computed: list[int]
) -> None:
    recipe = _recipe(tmp_path, pictures, "int8")
    first, _ = _train(tmp_path / "first", recipe)
    assert sum(computed) > 0
    computed.clear()
    assert _train(tmp_path / "second", recipe)[0] == first
    assert computed == []
    assert torch.equal(_weights(tmp_path / "first"), _weights(tmp_path / "second"))
    # The other kind takes nothing of it.
    assert _train(tmp_path / "default", _recipe(tmp_path, pictures, None))[0]["dtype"] == "float16"
    assert sum(computed) > 0


def _coarse_at(monkeypatch: pytest.MonkeyPatch, call: int) -> list[CacheDtype]:
    """What is computed in int8 is too coarse for the first time at this call; all that follow."""
    real, calls = FrozenPart.fields, list[CacheDtype]()

    def fields(self: FrozenPart, *arguments: Any) -> Fields:
        calls.append(self.dtype)
        if self.dtype == "int8" and len(calls) == call:
            raise TooCoarseError("int8")
        return real(self, *arguments)

    monkeypatch.setattr(FrozenPart, "fields", fields)
    return calls


@pytest.mark.parametrize("call", [1, "last"])
def test_one_kind_for_all_where_one_image_is_too_coarse(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, call: int | str
) -> None:
    """Whenever that is found: the last ones are of the validation split."""
    with monkeypatch.context() as patch:
        calls = _coarse_at(patch, 0)
        _train(tmp_path / "counted", _recipe(tmp_path / "counted", pictures, "int8"))
    number = len(calls) if call == "last" else int(call)
    with monkeypatch.context() as patch:
        after = _coarse_at(patch, number)
        kept, log = _train(tmp_path / "run", _recipe(tmp_path, pictures, "int8"))
    assert after == ["int8"] * number + ["float16"] * len(calls)
    assert kept["dtype"] == "float16"
    assert "as int8 the features of an image would change by more than 2.0%" in log
    assert "all are kept as float16" in log
    wanted, _ = _train(tmp_path / "wanted", _recipe(tmp_path, pictures, "float16"))
    assert kept == wanted
    assert torch.equal(_weights(tmp_path / "run"), _weights(tmp_path / "wanted"))


def test_it_goes_on_to_what_is_exact(tmp_path: Path, pictures: Path) -> None:
    """Features of 1e9 fit into neither of the others."""
    network = tiny.Tiny(num_classes=3)
    with torch.no_grad():
        network.last[1].weight.mul_(1e9)
    save_file(network.state_dict(), tmp_path / "large.safetensors")
    recipe = _recipe(tmp_path, pictures, "int8", optimizer={"name": "sgd", "lr": 1e-30})
    recipe["model"] = {"name": "tiny", "weights": str(tmp_path / "large.safetensors")}
    kept, log = _train(tmp_path / "run", recipe)
    assert kept["dtype"] == "float32"
    assert "as float16 the features of an image would change by more than 0.1%" in log
    assert log.count("all are kept as") == 2
    assert kept["relative_error"] == kept["error_bound"] == 0.0


@pytest.mark.parametrize("coarse", [False, True])
def test_a_resumed_stage_keeps_to_its_kind(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, coarse: bool
) -> None:
    """Also to one that it fell back to, though nothing would be too coarse any more."""
    recipe = _recipe(tmp_path, pictures, "int8") | {"checkpoint": {"every_steps": 1}}
    real = Trainer._step

    def step(self: Trainer, *arguments: Any) -> None:
        if self.progress.steps == 2:
            raise KeyboardInterrupt
        real(self, *arguments)

    def limited(patch: pytest.MonkeyPatch) -> None:
        if coarse:
            limits = {**dtypes.LIMITS, "int8": 1e-5}
            patch.setattr("retinue.training.features.frozen.LIMITS", limits)

    with monkeypatch.context() as patch:
        limited(patch)
        whole, _ = _train(tmp_path / "whole", recipe)
        patch.setattr(Trainer, "_step", step)
        with pytest.raises(Interrupted):
            _train(tmp_path / "run", recipe)
    resumed, _ = _train(tmp_path / "run", tmp_path / "run", resume=True)
    assert resumed == whole
    assert resumed["dtype"] == ("float16" if coarse else "int8")
    assert torch.equal(_weights(tmp_path / "run"), _weights(tmp_path / "whole"))


def test_a_stage_of_an_older_version_goes_on_in_float16(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(tmp_path, pictures, None)
    before, _ = _train(tmp_path / "run", recipe)
    real = CheckpointStore.load

    def older(self: CheckpointStore) -> Any:
        state = real(self)
        told = state["progress"]["trunk"]["train"]
        state["progress"]["trunk"]["train"] = {
            name: told[name] for name in ("units", "views", "engine", "spaces")
        }
        return state

    monkeypatch.setattr(CheckpointStore, "load", older)
    change = {"stages.0.epochs": 2}
    resumed, _ = _train(tmp_path / "run", tmp_path / "run", resume=True, overrides=change)
    assert resumed == before


def test_the_kind_may_not_change_on_the_way(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _train(tmp_path / "run", _recipe(tmp_path, pictures, "int8"))
    with pytest.raises(UsageError, match=r"stages\.0\.cache_dtype"):
        retinue.train(
            tmp_path / "run",
            resume=True,
            overrides={"stages.0.cache_dtype": "float16", "stages.0.epochs": 2},
            quiet=True,
        )


def test_the_error_of_each_image_lies_in_its_row() -> None:
    torch.manual_seed(0)
    network = tiny.Tiny(num_classes=3).eval()
    network.name, network.arguments = "tiny", {}
    part = FrozenPart(network, 1, torch.device("cpu"), dtype="int8")
    inputs = torch.randn(3, 3, 32, 32) * torch.tensor([1.0, 5.0, 0.1])[:, None, None, None]
    engine = part.compile(inputs, "torch")
    fields = part.fields(engine, inputs)
    exact = FrozenPart(network, 1, torch.device("cpu"), dtype="float32")
    wanted = exact.state(exact.fields(engine, inputs), (32, 32))
    found = part.state(fields, (32, 32))
    assert isinstance(wanted, torch.Tensor)
    away = (found - wanted).reshape(3, -1)
    relative = away.norm(dim=1) / wanted.reshape(3, -1).norm(dim=1)
    assert np.allclose(fields[ERROR][:, 0], relative.numpy(), rtol=1e-3)
    assert (away.abs().amax(1).numpy() <= fields[ERROR][:, 1] * 1.001).all()
    assert (away.abs().amax(1).numpy() > 0.8 * fields[ERROR][:, 1]).all()
