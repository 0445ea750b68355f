"""What is sent to a device, and how; the devices are told apart by name, so none is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from retinue.transfer import all_to_device, to_device


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What happens to tensors on their way to a device that is not there."""
    noted: list[Any] = []

    def pin(tensor: Tensor) -> Tensor:
        noted.append("pinned")
        return tensor

    def to(tensor: Tensor, device: torch.device, non_blocking: bool = False) -> Tensor:
        noted.append((device.type, tensor.dtype, non_blocking))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "to", to)
    return noted


def test_the_cpu_shares_the_memory() -> None:
    array = np.zeros(3)
    tensor = to_device(array, torch.device("cpu"))
    array[1] = 5
    assert tensor.tolist() == [0, 5, 0]
    assert tensor.dtype == torch.float64


def test_cuda_gets_pinned_memory_without_waiting(calls: list[Any]) -> None:
    to_device(np.zeros(3), torch.device("cuda", 1))
    assert calls == ["pinned", ("cuda", torch.float64, True)]


def test_apple_gets_no_float64(calls: list[Any]) -> None:
    to_device(np.zeros(3), torch.device("mps"))
    to_device(np.zeros(3, np.int64), torch.device("mps"))
    assert calls == [("mps", torch.float32, False), ("mps", torch.int64, False)]


def test_several_arrays_go_in_one_copy(calls: list[Any]) -> None:
    arrays = [np.arange(6).reshape(2, 3), np.array([0.5]), np.array([2**24])]
    tensors = all_to_device(arrays, torch.device("cuda"))
    assert calls == ["pinned", ("cuda", torch.float32, True)]
    assert [t.tolist() for t in tensors] == [[[0, 1, 2], [3, 4, 5]], [0.5], [2**24]]
