from __future__ import annotations

import pytest
import tiny


@pytest.fixture(autouse=True, scope="session")
def _tiny_network() -> None:
    tiny.register()
