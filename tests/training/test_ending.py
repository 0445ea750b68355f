"""However a training ends before its time, what it says is true, and how to go on is said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from warm import Warm

import retinue
from retinue import api
from retinue.errors import Interrupted, RetinueError
from retinue.run.folder import RunFolder
from retinue.run.stopping import Terminated, terminable
from retinue.training import finish, prepare, session

pytestmark = pytest.mark.usefixtures("torch_alone")


def _recipe(data: Path) -> dict[str, Any]:
    return tiny.recipe(data, stages=[{"epochs": 1, "batch_size": 8}], ema=None)


def _train(recipe: Any, out: Path, **options: Any) -> Any:
    return retinue.train(recipe, out=out, quiet=True, **{"report": False, **options})


@pytest.fixture(autouse=True)
def _signals_as_in_a_terminal() -> Iterator[None]:
    """In the background, a shell lets SIGINT be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


MOMENTS = {
    "at the start": (session, "load_recipe", False),
    "in the scan": (session, "open_data", False),
    "before anything is written": (session, "with_absolute_paths", False),
    "when the data is written down": (session, "write_down", True),
    "while examples are drawn": (prepare, "draw_examples", True),
    "in the final evaluation": (finish, "evaluate", True),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_time_says_how_to_go_on(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, moment: str, number: int
) -> None:
    module, name, begun = MOMENTS[moment]
    run = tmp_path / "run"
    real = getattr(module, name)

    def stopped(*arguments: Any, **keywords: Any) -> Any:
        os.kill(os.getpid(), number)
        return real(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, stopped)
        with pytest.raises(Interrupted) as told:
            _train(_recipe(pictures), run)
    assert told.value.exit_code == 128 + number
    if not begun:
        assert "nothing had begun: the same command starts it" in str(told.value)
        assert not run.exists()
        return
    assert f"go on with: retinue train {run} --resume" in str(told.value)
    with monkeypatch.context() as patch:
        if moment == "in the final evaluation":
            patch.setattr(module, name, stopped)
            with pytest.raises(Interrupted, match="--resume"):
                retinue.train(run, resume=True, quiet=True)
    assert retinue.train(run, resume=True, report=False, quiet=True).figures["images"]


def test_a_signal_in_the_report_says_that_the_training_is_done(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        api.training, "write_report", lambda _: os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(Interrupted, match=r"training is done; its report: retinue report") as told:
        _train(_recipe(pictures), tmp_path / "my run", report=True)
    assert told.value.exit_code == 143
    assert f"'{tmp_path / 'my run'}'" in str(told.value.mend)  # fit for a shell
    assert json.loads((tmp_path / "my run" / "metrics.json").read_text())["images"]


def test_who_handles_sigterm_already_goes_on_to() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
    with pytest.raises(Terminated), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# --- two at once ---------------------------------------------------------------------------------


def test_who_is_at_work_in_a_folder_is_said(tmp_path: Path, pictures: Path) -> None:
    run = _train(_recipe(pictures), tmp_path / "run").folder
    (run / "metrics.json").unlink()
    with RunFolder(run).locked(), pytest.raises(RetinueError) as refused:
        retinue.train(run, resume=True, quiet=True)
    assert f"another training is at work here: process {os.getpid()} on " in refused.value.what
    assert not (run / ".holder").exists()
    (run / ".holder").write_text("half a li")  # of one that was killed
    assert retinue.train(run, resume=True, report=False, quiet=True).figures


def test_a_second_training_with_the_same_folder_says_where_it_goes(
    tmp_path: Path, pictures: Path
) -> None:
    first = RunFolder.create(tmp_path / "run", "run")
    with first.locked():
        first.write("recipe.yaml", "the first one's")
        second = _train(_recipe(pictures), tmp_path / "run").folder
    assert second == tmp_path / "run-2"
    log = (second / "train.log").read_text(encoding="utf-8")
    assert f"{tmp_path / 'run'} is taken: process {os.getpid()} on" in log
    assert (first.path / "recipe.yaml").read_text() == "the first one's"


# --- a disk that is full -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "moment", "kept"),
    [
        (8_000, "before the first checkpoint", False),
        (2_000, "before the model file is replaced", True),
    ],
)
def test_a_write_that_the_system_refuses_is_told_in_our_words(
    tmp_path: Path, pictures: Path, warm: Warm, limit: int, moment: str, kept: bool
) -> None:
    """By the kernel: at the first checkpoint nothing is left that could go on; later there is."""
    run = tmp_path / "run"
    outcome = warm.train(_recipe(pictures), run, moment=moment, limit=limit)
    assert outcome.code == 1, outcome
    assert "cannot be written" in outcome.said
    assert "File too large" in outcome.said
    assert "enforce fail" not in outcome.said
    assert run.exists() == kept
    assert ("--resume" in outcome.said) == kept
    if kept:
        assert f"go on with: retinue train {run} --resume" in outcome.said
        assert warm.train(run).code == 0


def test_a_full_disk_from_the_beginning(tmp_path: Path, pictures: Path) -> None:
    """A real one, where the tests may mount it: every size of it ends in a line of ours."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(RetinueError, match="No space left on device") as told:
            _train(_recipe(pictures), place / "run")
        assert "--resume" not in str(told.value)
        assert "enforce fail" not in str(told.value)
        assert os.listdir(place) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


# --- damage in a run -----------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["empty", "flipped", "gone"])
def test_every_damaged_file_of_a_checkpoint_has_its_line(
    tmp_path: Path, pictures: Path, damage: str
) -> None:
    whole = _train(_recipe(pictures), tmp_path / "run").folder
    (whole / "metrics.json").unlink()
    files = [p.relative_to(whole) for p in (whole / "last").rglob("*") if p.is_file()]
    assert len(files) == 4
    for file in files:
        run = Path(shutil.copytree(whole, tmp_path / "damaged"))
        content = bytearray((run / file).read_bytes())
        if damage == "gone":
            (run / file).unlink()
        elif damage == "flipped":
            content[len(content) // 2] ^= 0xFF
            (run / file).write_bytes(content)
        else:
            (run / file).write_bytes(content[: len(content) // 2] if damage == "half" else b"")
        if file.name == "state.pt" or (file.name == "state.blake2b" and damage != "gone"):
            with pytest.raises(RetinueError, match="the checkpoint cannot be read") as told:
                retinue.train(run, resume=True, report=False, quiet=True)
            assert "weights_only" not in str(told.value)
        else:
            assert retinue.train(run, resume=True, report=False, quiet=True).figures["images"]
        shutil.rmtree(run)
    shutil.rmtree(whole / "last")
    with pytest.raises(RetinueError, match="the checkpoint of this training is gone"):
        retinue.train(whole, resume=True, report=False, quiet=True)


def test_what_kills_have_left_in_a_run_is_swept(tmp_path: Path, pictures: Path) -> None:
    run = _train(_recipe(pictures), tmp_path / "run").folder
    (run / "metrics.json").unlink()
    left = [
        run / ".best.safetensors.abcd1234.partial",
        run / "last" / ".current.abcd1234.partial",
        run / "last" / "000009.partial",
        run / "plots" / ".a.png.abcd1234.partial",
    ]
    (run / "plots").mkdir(exist_ok=True)
    for path in left:
        path.mkdir() if path.suffix == ".partial" and path.name[0] != "." else path.touch()
    with RunFolder(run).locked():
        pass
    assert not any(path.exists() for path in left)
