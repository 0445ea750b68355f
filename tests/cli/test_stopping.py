"""SIGTERM, as `docker stop` and batch systems send it, to a command that is at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import bright
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


class _Paths:
    """Standard input: a picture's path, and the signal while the next is waited for."""

    def __init__(self, path: str, number: int) -> None:
        self._blocks = [f"{path}\n".encode() * 40]
        self._number = number

    def read(self, size: int = -1) -> bytes:
        if self._blocks:
            return self._blocks.pop()
        os.kill(os.getpid(), self._number)
        time.sleep(0.2)
        return b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_prediction_that_is_stopped_leaves_nothing_half_written(
    tmp_path: Path,
    retinue: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    number: int,
    code: int,
) -> None:
    # What a shell starts in the background, this suite perhaps, has SIGINT ignored.
    before_all = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before_all))
    model = bright.model(tmp_path / "m.safetensors")
    path = bright.saved(tmp_path / "a.png", [(5, 5, 20, 20, 0)])
    out = tmp_path / "out"
    how = ("--engine", "torch", "--device", "cpu", "--batch-size", "4", "--count")
    assert retinue("predict", model, path, "--out", out, *how)[0] == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    monkeypatch.setattr(sys, "stdin", _Paths(path, number))
    assert retinue("predict", model, "-", "--out", out, *how) == (code, "", "interrupted\n")
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_native_threads_do_not_abort_the_end() -> None:
    """As where a server is stopped while it compiles a model: the thread comes back from native
    code when there is no interpreter any more."""
    program = """
import threading, time, torch
from retinue.cli.app import end
def work():
    while True:
        torch.linalg.inv(torch.eye(300))
threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
print("all of it")
end(7)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, "all of it\n", "")
