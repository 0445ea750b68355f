"""A folder salted with broken and odd files, through each of the commands that read pictures.

None of them changes it, so that all share one, and one training on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import tiny

from retinue.cli.app import run as run_command
from retinue.training.recipe import dump, load_recipe

if TYPE_CHECKING:
    from salted import SaltedFolder

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def salted(tmp_path_factory: pytest.TempPathFactory) -> SaltedFolder:
    from salted import build

    return build(tmp_path_factory.mktemp("salted") / "salted")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, salted: SaltedFolder) -> Path:
    tiny.register()
    values = tiny.recipe(salted.root, ema=None)
    values["stages"] = [{**values["stages"][1], "epochs": 1, "augment": {}}]
    path = tmp_path_factory.mktemp("recipe") / "mine.yaml"
    path.write_text(dump(load_recipe(values)), encoding="utf-8")
    return path


class Trained(NamedTuple):
    """A training that skipped what is bad."""

    run: Path
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Trained:
    run = tmp_path_factory.mktemp("trained") / "run"
    line = ["train", str(recipe), "data.on_bad_image=skip", "-q", "--out", str(run), "--json"]
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = run_command(line)
    return Trained(run, code, out.getvalue(), err.getvalue())


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


def test_training_can_skip_them_and_ends_with_3(salted: SaltedFolder, trained: Trained) -> None:
    assert trained.code == 3, trained.err
    told = json.loads(trained.out)
    assert told["skipped"].keys() <= {str(path) for path in salted.bad}
    assert len(told["skipped"]) >= len(_bad_names(salted)) - 1  # the last batch may be left out
    for path in told["skipped"]:
        assert Path(_shown(path)).name in trained.err


def test_predicting_skips_and_names_them_and_ends_with_3(
    retinue: Command, salted: SaltedFolder, trained: Trained
) -> None:
    code, out, err = retinue("predict", trained.run, salted.root, "--json")
    assert code == 3
    answered = {json.loads(line)["path"] for line in out.splitlines()}
    assert not answered & {str(path) for path in salted.bad}
    good = {str(p) for p in salted.root.rglob("*") if p.is_file()} - _bad_names(salted)
    assert answered == good
    for path in _bad_names(salted):
        assert Path(_shown(path)).name in err, path
