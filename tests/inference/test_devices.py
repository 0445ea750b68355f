"""Which device is taken."""

from __future__ import annotations

import pytest
import torch

from retinue.errors import UsageError
from retinue.inference.devices import choose_device, wait


def test_devices() -> None:
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    assert choose_device("cpu") == "cpu"
    for wish in ("gpu", "cuda:x", "tpu:0"):
        with pytest.raises(UsageError, match="unknown device"):
            choose_device(wish)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no cuda device"):
            choose_device("cuda:0")


@pytest.mark.parametrize(
    ("device", "waited"),
    [("cpu", []), ("cuda:1", ["cuda cuda:1"]), (torch.device("cuda", 1), ["cuda cuda:1"]),
     ("mps", ["mps"])],
)  # fmt: skip
def test_what_has_a_queue_is_waited_for(
    device: str | torch.device, waited: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda on: noted.append(f"cuda {on}"))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: noted.append("mps"))
    wait(device)
    assert noted == waited
