"""How long PyTorch's threads spin is settled before it is imported, and only then."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from retinue import openmp

PROGRAM = "import os; print(os.environ.get('GOMP_SPINCOUNT', 'open'))"


def _said(before: str = "import retinue", **environment: str) -> str:
    plain = {k: v for k, v in os.environ.items() if k not in openmp._SAID}
    done = subprocess.run(
        [sys.executable, "-c", f"{before}; {PROGRAM}"], env=plain | environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_importing_retinue_settles_it() -> None:
    assert _said("pass") == "open"
    assert _said() == str(openmp.TURNS)


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "7")]
)
def test_what_the_environment_says_stays(name: str, value: str) -> None:
    assert _said(**{name: value}) == ("7" if name == "GOMP_SPINCOUNT" else "open")


def test_after_pytorch_it_is_too_late() -> None:
    """That reads it once; nothing is to say otherwise."""
    assert _said("import torch, retinue") == "open"
