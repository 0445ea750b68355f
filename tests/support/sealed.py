"""Commands that folders without permissions are closed to, whoever runs the tests."""

from __future__ import annotations

import os
import shutil

import pytest

_CAPABILITIES = "-dac_override,-dac_read_search"


def bound() -> list[str]:
    """What to put before a command. Skips where root cannot be bound to permissions."""
    if not hasattr(os, "geteuid"):
        pytest.skip("permissions are another matter here")
    if os.geteuid():
        return []
    if (tool := shutil.which("setpriv")) is None:
        pytest.skip("root needs setpriv to be bound to permissions")
    return [tool, "--bounding-set", _CAPABILITIES, "--inh-caps", _CAPABILITIES]
