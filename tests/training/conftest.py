from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 small pictures of three classes."""
    return tiny.write_pictures(tmp_path_factory.mktemp("pictures") / "data")


@pytest.fixture(autouse=True)
def _tiny_network() -> None:
    tiny.register()
    torch.set_num_threads(1)
