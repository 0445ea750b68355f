"""Running a command in this process, and in one of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from retinue.cli.app import run


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def retinue(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`retinue("train", "finetune")` → exit code, standard output, standard error."""

    def command(*arguments: object, debug: bool = False) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments], debug=debug)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return command


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training ends without its page, whose drawings take longer than itself."""
    from retinue import api

    monkeypatch.setattr(api.training, "write_report", lambda run: Path(run) / "report.html")


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same as a process of its own."""

    def command(*arguments: object, **how: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "retinue.cli", *map(str, arguments)],
            capture_output=True, text=True, timeout=120, check=False, **how,
        )  # type: ignore[call-overload,no-any-return]  # fmt: skip

    return command
