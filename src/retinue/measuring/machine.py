"""What the machine can do at most, in the same run as what is measured: a large matrix product, and
how much memory was taken."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from retinue.inference.devices import wait

SIDE = 2048
SECONDS = 0.3
"""About so long a matrix product is repeated."""
TURNS = 3
"""So often, by turns with what is measured: whatever else the machine does meets both."""
TRIES = 3
"""And so often at least: the fastest counts."""
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def matrix_product(device: torch.device | str, precision: str = "fp32") -> float:
    """FLOP a second of a square matrix product of `SIDE` on the `device`, with PyTorch's threads,
    which all engines compute with: the fastest of several. A product that takes long, as one in
    bfloat16 on a CPU that only emulates it, is a smaller one."""
    device, kind = torch.device(device), _TYPES.get(precision, torch.float32)
    side = SIDE if device.type == "cpu" else 4 * SIDE
    small = torch.ones((side // 8, side // 8), dtype=kind, device=device)
    # The first has threads to start; a busy machine lets some wait.
    seconds = min(_seconds(lambda: small @ small, device) for _ in range(TRIES))
    if 8**3 * seconds > 20 * SECONDS:
        return 2 * (side // 8) ** 3 / seconds
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn((side, side), generator=generator).to(device, kind) for _ in range(2))
    out = a @ b
    wait(device)
    taken: list[float] = []
    while len(taken) < TRIES or sum(taken) < SECONDS:
        taken.append(_seconds(lambda: torch.mm(a, b, out=out), device))
    return 2 * side**3 / min(taken)


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - began


def peak_memory(device: torch.device | str) -> dict[str, int]:
    """Bytes at most so far: `process`, and on a GPU `device`, what torch had taken there. What a
    system does not tell is not there."""
    found: dict[str, int] = {}
    with suppress(ImportError):  # Windows
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found["process"] = used if sys.platform == "darwin" else 1024 * used
    if torch.device(device).type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device)
    return found
