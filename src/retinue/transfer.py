"""From the host to the device without waiting for either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinue.sample import Batch


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """`array` as a tensor on `device`; on the CPU it shares the array's memory.

    To a CUDA device it goes from pinned memory, so that the host goes on at once (a copy from
    pageable memory waits for the device). Apple's devices know no float64: there it becomes
    float32.
    """
    return sent(torch.from_numpy(array), device)


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The same for a tensor on the host."""
    device = torch.device(device)
    if device.type == "cpu":
        return tensor
    if device.type == "mps" and tensor.dtype == torch.float64:
        tensor = tensor.float()
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def beside(device: torch.device) -> torch.cuda.Stream | None:
    """A stream of copies to `device`, beside what it computes; None: it has none."""
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def on_device(
    batch: Batch, device: torch.device | str, stream: torch.cuda.Stream | None = None
) -> Batch:
    """The same batch with its tensors on `device`; what is NumPy's stays on the host. By a `stream`
    of copies it comes while the device still computes what it was told before; what it is told
    from now on waits for the copy, and the host for nothing."""
    if stream is None:
        return _moved(batch, device)
    with torch.cuda.stream(stream):
        moved = _moved(batch, device)
    computing = torch.cuda.current_stream(device)
    computing.wait_stream(stream)
    for tensor in (moved.images, moved.weight, *moved.targets.values()):
        # The memory is the other stream's, which would give it away once nobody here holds it.
        tensor.record_stream(computing)
    return moved


def _moved(batch: Batch, device: torch.device | str) -> Batch:
    return replace(
        batch,
        images=sent(batch.images, device),
        weight=sent(batch.weight, device),
        targets={name: sent(value, device) for name, value in batch.targets.items()},
    )


def all_to_device(arrays: Sequence[npt.NDArray[Any]], device: torch.device) -> list[Tensor]:
    """Several arrays in one copy, as float32: whole numbers are exact up to 2²⁴."""
    flat = np.concatenate([array.ravel().astype(np.float32) for array in arrays])
    pieces = torch.split(to_device(flat, device), [array.size for array in arrays])
    return [piece.view(a.shape) for piece, a in zip(pieces, arrays, strict=True)]
