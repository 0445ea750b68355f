"""Ray itself: two actors, a hundred rows, a kill and a resume; and what becomes of dead actors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bulk_memory import family, memory
from PIL import Image

import retinue

pytest.importorskip("ray.data", reason="needs pip install 'retinue[ray]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

SCRIPT = Path(__file__).parents[1] / "support" / "by_ray.py"
MOST = 2_000_000_000
"""Bytes of memory that all processes together may have."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for k in range(96):
        Image.fromarray(rng.integers(0, 255, (64, 80, 3), np.uint8)).save(folder / f"{k:02d}.jpg")
    (folder / "05.jpg").write_bytes((folder / "05.jpg").read_bytes()[:200])
    return folder


def sources(photos: Path) -> list[str]:
    """A hundred rows: one path three times, one that is not there, one broken."""
    twice = str(photos / "07.jpg")
    listed = photos.parent / "list.txt"
    listed.write_text(f"{twice}\n{photos / 'absent.jpg'}\n{photos / '00.jpg'}\n")
    return [str(photos), twice, f"@{listed}"]


def start(model: Path, out: Path, actors: int, named: list[str], **env: str) -> Any:
    command = [sys.executable, str(SCRIPT), str(model), str(out), str(actors), *named]
    return subprocess.Popen(
        command, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def test_a_kill_and_a_resume(model: Path, photos: Path, tmp_path: Path) -> None:
    named, out = sources(photos), tmp_path / "out"
    first = start(model, out, 2, named)
    most = 0
    while len(list((out / ".bulk").glob("part-*.jsonl"))) < 3:
        assert first.poll() is None, first.communicate()
        most = max(most, memory(family(first.pid)))
        time.sleep(0.05)
    everybody = family(first.pid)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    kept = {path: path.read_bytes() for path in (out / ".bulk").glob("part-*.jsonl")}
    assert 3 <= len(kept) < 25, "killed on the way"
    assert not (out / "predictions.jsonl").exists()
    assert most < MOST

    second = start(model, out, 1, named)
    told, said = second.communicate(timeout=300)
    assert second.returncode == 0, said
    assert "done 98 2" in told.splitlines()
    found = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in found] == list(range(100)), "each row once, in order"
    before = [json.loads(line) for text in kept.values() for line in text.splitlines()]
    assert [row for row in before if row not in found] == [], "what was done stayed"
    times = Counter(row["path"] for row in found)
    assert times[str(photos / "07.jpg")] == 3
    assert [row["id"] for row in found if "error" in row] == [5, 98]

    retinue.predict(model, named, out=tmp_path / "plain", engine="torch", batch_size=4)
    text = (tmp_path / "plain" / "predictions.jsonl").read_text()
    expected = [json.loads(line) for line in text.splitlines()]
    answers = [row for row in found if "error" not in row]
    assert [row["path"] for row in answers] == [row["path"] for row in expected]
    for ours, theirs in zip(answers, expected, strict=True):
        assert [one["name"] for one in ours["classes"]] == [o["name"] for o in theirs["classes"]]
        scores = [one["score"] for one in theirs["classes"]]
        assert [one["score"] for one in ours["classes"]] == pytest.approx(scores, abs=1e-5)
    until = time.monotonic() + 60  # Ray's helpers look now and then whether they are needed
    while (left := [p for p in everybody if Path(f"/proc/{p}/exe").exists()]) and (
        time.monotonic() < until
    ):
        time.sleep(0.2)
    assert left == [], "nothing is left running"


def test_an_only_actor_that_dies_ends_it(model: Path, photos: Path, tmp_path: Path) -> None:
    """By an image that always kills it: the command ends, and what was done stays done."""
    died = start(model, tmp_path, 1, [str(photos)], DIE="50.jpg")
    _, said = died.communicate(timeout=300)
    assert died.returncode == 1
    assert "an actor died, and died again" in said
    kept = len(list((tmp_path / ".bulk").glob("part-*.jsonl")))
    assert kept > 0
    again = start(model, tmp_path, 2, [str(photos)])
    told, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert "done 95 1" in told.splitlines()


def test_an_actor_that_dies_once_is_started_anew(model: Path, photos: Path, tmp_path: Path) -> None:
    out, once = tmp_path / "out", tmp_path / "once"
    again = start(model, out, 1, [str(photos)], DIE="50.jpg", ONCE=str(once))
    told, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert "done 95 1" in told.splitlines()
    assert once.exists()


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"RAISE": "first"}, "a machine of the cluster has another model under this path, "),
        ({"RAISE": "later", "DIE": "50.jpg"}, "an actor failed: ZeroDivisionError: no luck"),
    ],
)
def test_what_goes_wrong_in_an_actor_is_told(
    model: Path, photos: Path, tmp_path: Path, when: dict[str, str], said: str
) -> None:
    failed = start(model, tmp_path, 1, [str(photos)], **when)
    _, lines = failed.communicate(timeout=300)
    assert failed.returncode == 1
    assert f"error: {said}" in lines


def test_a_signal_ends_it_in_good_order(model: Path, photos: Path, tmp_path: Path) -> None:
    how = ["--engine", "ray", "--actors", "1", "--batch-size", "2", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "retinue.cli", "predict", str(model), str(photos), *how]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(list((tmp_path / ".bulk").glob("part-*.jsonl"))) < 3:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 128 + signal.SIGTERM, "and not aborted by Ray on the way"
    assert "the same command goes on from there" in said
