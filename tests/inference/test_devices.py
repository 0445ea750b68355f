"""Which device is taken."""

from __future__ import annotations

import pytest
import torch

from retinue.errors import UsageError
from retinue.inference.devices import choose_device


def test_devices() -> None:
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    assert choose_device("cpu") == "cpu"
    for wish in ("gpu", "cuda:x", "tpu:0"):
        with pytest.raises(UsageError, match="unknown device"):
            choose_device(wish)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no cuda device"):
            choose_device("cuda:0")
