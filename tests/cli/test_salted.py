"""A folder salted with broken and odd files, through each of the commands that read pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny

from retinue.training.recipe import dump, load_recipe

if TYPE_CHECKING:
    from salted import SaltedFolder

Command = Callable[..., Any]


@pytest.fixture
def recipe(tmp_path: Path, salted: SaltedFolder) -> Path:
    tiny.register()
    values = tiny.recipe(salted.root, ema=None)
    values["stages"] = [{**values["stages"][1], "epochs": 1, "augment": {}}]
    path = tmp_path / "mine.yaml"
    path.write_text(dump(load_recipe(values)), encoding="utf-8")
    return path


def _bad_names(salted: SaltedFolder) -> set[str]:
    """Those that a training meets: a folder that is called like a picture is none of its files."""
    return {str(path) for path in salted.bad if path.is_file()}


def _shown(path: str) -> str:
    """A name as errors show it: one line."""
    return path.replace("\\", "\\\\").replace("\n", "\\n")


def test_data_check_finds_every_bad_file_and_ends_with_3(
    retinue: Command, salted: SaltedFolder
) -> None:
    code, out, err = retinue("data", "check", salted.root, "--json")
    assert code == 3
    found = out + err
    for path in _bad_names(salted):
        assert Path(path).name.splitlines()[0] in found, path
    assert json.loads(out)


def test_training_stops_naming_every_bad_file_and_leaves_nothing(
    retinue: Command, salted: SaltedFolder, recipe: Path, tmp_path: Path
) -> None:
    code, _, err = retinue("train", recipe, "-q", "--out", tmp_path / "run")
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    for path in _bad_names(salted):
        assert Path(_shown(path)).name in line, path
    assert "on_bad_image=skip" in line
    assert not (tmp_path / "run").exists()


def test_training_can_skip_them_and_ends_with_3(
    retinue: Command, salted: SaltedFolder, recipe: Path, tmp_path: Path
) -> None:
    out_folder = tmp_path / "run"
    code, out, err = retinue(
        "train", recipe, "data.on_bad_image=skip", "-q", "--out", out_folder, "--json"
    )
    assert code == 3, err
    told = json.loads(out)
    assert told["skipped"].keys() <= {str(path) for path in salted.bad}
    assert len(told["skipped"]) >= len(_bad_names(salted)) - 1  # the last batch may be left out
    for path in told["skipped"]:
        assert Path(_shown(path)).name in err


def test_predicting_skips_and_names_them_and_ends_with_3(
    retinue: Command, salted: SaltedFolder, recipe: Path, tmp_path: Path
) -> None:
    retinue("train", recipe, "data.on_bad_image=skip", "-q", "--out", tmp_path / "run")
    code, out, err = retinue("predict", tmp_path / "run", salted.root, "--json")
    assert code == 3
    answered = {json.loads(line)["path"] for line in out.splitlines()}
    assert not answered & {str(path) for path in salted.bad}
    good = {str(p) for p in salted.root.rglob("*") if p.is_file()} - _bad_names(salted)
    assert answered == good
    for path in _bad_names(salted):
        assert Path(_shown(path)).name in err, path
