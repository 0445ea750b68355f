"""`retinue serve` as people start it, and as a system ends it."""

from __future__ import annotations

import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import begun, picture, started

PICTURE = picture()


def test_sigterm_under_load_loses_no_request_and_ends_as_done(
    classifier: Path, tmp_path: Path
) -> None:
    """Clients that keep their connection, and ones that come anew, until they are not let in."""
    # Where nothing can be written (a container whose root is read-only), nothing need be.
    home = {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent", "RETINUE_CACHE": "/proc/none"}
    process, address = started(classifier, "--engine", "torch", **home)
    statuses: list[int] = []
    lost: list[str] = []
    stop = threading.Event()

    def send(keep: bool) -> None:
        client = httpx.Client(timeout=20)
        while not stop.is_set():
            if not keep:
                client.close()
                client = httpx.Client(timeout=20)
            try:
                statuses.append(client.post(f"{address}/v1/predict", content=PICTURE).status_code)
            except httpx.ConnectError:
                return
            except httpx.HTTPError as error:
                lost.append(repr(error))
                return

    threads = [threading.Thread(target=send, args=(k % 2 == 0,)) for k in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=20)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert not lost
    assert set(statuses) == {200}
    assert len(statuses) > 10
    assert process.returncode == 0
    assert "Traceback" not in told
    assert '"route": "/v1/predict"' in told


def test_sigterm_while_models_are_loaded_ends_it_as_done(classifier: Path) -> None:
    """Sooner and sooner, until it comes before the models are there."""
    for delay in (0.2, 0.1, 0.05, 0.0):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = begun(classifier, "--port", port)
        end = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=20)
        assert process.returncode == 0, told
        # Nothing fails; what was timed meanwhile may be told.
        assert all('"level": "info"' in line for line in told[1].splitlines()), told
        if not told[0]:
            return
    pytest.fail("the models were always there before the signal")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.safetensors"], "there is no such model"),
        (["{model}", "{model}"], "two models are called 'flowers'"),
        (["{model}", "--samples", "nowhere"], "the samples folder does not exist"),
        (["{model}", "--key-file", "nowhere"], "the keys cannot be read"),
        (["{model}", "--set", "topk=3"], "top_k"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    classifier: Path, arguments: list[str], said: str, monkeypatch: Any, capsys: Any
) -> None:
    from retinue.cli.app import run

    given = [argument.format(model=classifier) for argument in arguments]
    code = run(["serve", *given, "--port", "0", "--engine", "torch"])
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: "), line
    assert said in line
    assert code == 2


def test_a_wide_address_without_a_key_is_warned_of(
    classifier: Path, monkeypatch: Any, capsys: Any
) -> None:
    from retinue import api
    from retinue.serving import server
    from retinue.serving.settings import Settings

    monkeypatch.setattr(server.Service, "run", lambda self: self.close())
    for settings, warned in (
        (Settings(host="0.0.0.0", port=0, decoders=1), True),
        (Settings(host="0.0.0.0", port=0, decoders=1, keys=("k" * 20,)), False),
        (Settings(port=0, decoders=1), False),
    ):
        api.serve(classifier, settings=settings)
        assert ("anyone there may use the models" in capsys.readouterr().err) is warned
