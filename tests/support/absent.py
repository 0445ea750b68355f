"""What tests may use of libraries that need not be installed."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest


def supervision(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real one, or where it is not installed something that takes the same arguments."""
    try:
        import supervision

        return supervision
    except ImportError:
        made = types.ModuleType("supervision")

        class Detections(types.SimpleNamespace):
            pass

        made.Detections = Detections  # type: ignore[attr-defined]
        made.Classifications = types.SimpleNamespace  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "supervision", made)
        return made
