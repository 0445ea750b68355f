"""Inference asks nobody outside."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest


def test_openvino_reports_its_use_to_nobody() -> None:
    pytest.importorskip("openvino")
    program = """
import retinue.inference
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub", done.stderr
    importlib.import_module("retinue.inference")
    with pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")
