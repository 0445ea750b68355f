"""What is sent to a device, and how; the devices are told apart by name, so none is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from retinue.sample import Batch
from retinue.transfer import all_to_device, beside, on_device, to_device


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


def test_copies_go_beside_what_is_computed_which_waits_for_them(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order that CUDA asks for: copied on their own stream; then the one that computes waits
    for that; and the memory, which is the copies', is not given away before that one is done."""

    @contextmanager
    def on(stream: Any) -> Iterator[None]:
        calls.append(f"on {stream}")
        yield
        calls.append("back")

    class Computing:
        def wait_stream(self, stream: Any) -> None:
            calls.append(f"waits for {stream}")

    computing = Computing()
    held: list[Any] = []

    def record(tensor: Tensor, stream: Any) -> None:
        assert stream is computing
        calls.append("held")
        held.append(tensor)

    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    monkeypatch.setattr(Tensor, "record_stream", record)
    batch = Batch(
        torch.zeros((2, 3, 4, 4), dtype=torch.uint8), [], np.arange(2), torch.ones(2),
        np.zeros((2, 3, 3)), np.zeros((2, 2), np.int64), targets={"label": torch.tensor([0, 1])},
    )  # fmt: skip
    copies: Any = "copies"
    moved = on_device(batch, torch.device("cuda"), copies)
    sent = [("cuda", dtype, True) for dtype in (torch.uint8, torch.float32, torch.int64)]
    assert calls == [
        "on copies", *[step for one in sent for step in ("pinned", one)], "back",
        "waits for copies", "held", "held", "held",
    ]  # fmt: skip
    for one, other in zip(held, (moved.images, moved.weight, moved.targets["label"]), strict=True):
        assert one is other


def test_only_cuda_has_a_stream_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"copies to {device}")
    assert beside(torch.device("cpu")) is None
    assert beside(torch.device("mps")) is None
    assert beside(torch.device("cuda", 1)) == "copies to cuda:1"
