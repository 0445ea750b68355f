"""The Dockerfile, as far as it can be judged without Docker: what it builds from, who runs it, and
that its command is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from retinue.cli.app import run
from retinue.documents import parse_json

ROOT = Path(__file__).resolve().parents[2]
LINES = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text("utf-8")).splitlines()
STEPS = [line.split(None, 1) for line in LINES if line and not line.startswith("#")]


def of(name: str) -> list[str]:
    return [rest for step, rest in STEPS if step == name]


def test_it_builds_from_packages_alone() -> None:
    assert {text.split()[0] for text in of("FROM")} == {"python:3.13-slim"}
    assert not of("ADD")
    for command in of("RUN"):
        assert re.match(r"(python -m venv|/opt/retinue/bin/pip install) ", command)
        assert not re.search(r"https?://|curl|wget|git\+|apt", command)
    for files in of("COPY"):
        for source in [word for word in files.split()[:-1] if not word.startswith("--")]:
            assert source.startswith("/opt/") or (ROOT / source).exists()


def test_nobody_runs_it_and_it_can_be_watched_and_stopped() -> None:
    names = [step for step, _ in STEPS]
    last = len(names) - 1 - names[::-1].index("FROM")
    assert names.index("USER") > last
    assert of("USER") == ["nobody"]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "/healthz" in of("HEALTHCHECK")[0]
    assert of("STOPSIGNAL") == ["SIGTERM"]
    assert of("ENTRYPOINT")[0].startswith('["')  # no shell, which would keep the signal


def test_its_command_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    entry = parse_json(of("ENTRYPOINT")[0])
    assert entry[0] == "retinue"
    assert run([*entry[1:], "--port", "0", "/nowhere/models"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: there is no such model, /nowhere/models")


def test_its_extras_are_there() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (extras,) = [text.split("=", 1)[1] for text in of("ARG") if text.startswith("EXTRAS")]
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
