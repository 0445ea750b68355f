"""What is said while a training runs, in a file and on a terminal."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest

from retinue.inference.engine_cache import ONCE
from retinue.run import log
from retinue.run.log import LOGGER, Bar, console, epoch_line


def _wait_for(path: Path, text: str) -> str:
    until = time.monotonic() + 10
    while text not in (said := path.read_text(encoding="utf-8")) and time.monotonic() < until:
        time.sleep(0.01)
    return said


def test_a_long_silence_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log, "EVERY_SECONDS", 0.02)
    with console(tmp_path / "train.log") as bar:
        bar.begin("frozen part", 1000)
        bar.left = lambda: 200.0
        bar.advance(300)
        said = _wait_for(tmp_path / "train.log", "300 of")
    assert "frozen part: 300 of 1,000, 3:20 min left" in said
    assert "frozen part: 300 of 1,000, 3:20 min left" in capsys.readouterr().err


def test_what_is_to_be_said_once_stands_once_in_each_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        with console(tmp_path / name):
            for line in ("of one", "of another", "of one"):
                LOGGER.info("recalled %s", line, extra=ONCE)
                LOGGER.info("a step")
        said = [line.split(" ", 2)[2] for line in (tmp_path / name).read_text().splitlines()]
        assert said == ["recalled of one", "a step", "recalled of another", "a step", "a step"]
        assert capsys.readouterr().err.splitlines() == said


def test_whoever_speaks_need_not_be_spoken_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "EVERY_SECONDS", 0.5)
    with console(tmp_path / "train.log", quiet=True) as bar:
        bar.begin("steps", 10)
        for _ in range(12):
            LOGGER.info("a line")
            time.sleep(0.1)
    assert "0 of 10" not in (tmp_path / "train.log").read_text(encoding="utf-8")


def test_a_terminal_has_the_bar_and_the_file_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(log, "EVERY_SECONDS", 0.02)
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with console(tmp_path / "train.log") as bar:
        bar.begin("steps", 1000)
        bar.left = lambda: 65.0
        bar.advance(7)
        _wait_for(tmp_path / "train.log", "7 of 1,000")
        bar.advance(8)
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "1:05 min left" in shown
    assert "7 of 1,000" not in shown


def test_nothing_is_said_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "EVERY_SECONDS", 0.0)
    with console(None, quiet=True) as bar:
        bar.begin("steps", 10)
    assert not LOGGER.handlers


def test_without_a_forecast_the_bar_judges_by_its_own_pace() -> None:
    bar = Bar()
    assert bar.line() == ""
    bar.begin("evaluating", 100)
    assert bar.line() == "evaluating: 0 of 100"
    bar.advance(50)
    assert bar.line() == "evaluating: 50 of 100, 0 s left"


def test_an_epoch_is_one_short_line() -> None:
    row = {"epoch": 61, "lr": 3e-4, "train_loss": 0.43211, "train_top1": 0.9, "val_top1": 0.8812}
    row |= {f"val_{name}": 0.5 for name in ("top5", "loss", "ece", "balanced_accuracy", "auc")}
    line = epoch_line("blocks epoch 61/68", row, "top1", best=True, left="4:12 min left")
    assert line == ("blocks epoch 61/68  loss 0.4321  val top1 0.8812 *  lr 3.0e-04  4:12 min left")
    assert len(line) < 100
