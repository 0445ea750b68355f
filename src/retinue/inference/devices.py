"""Which device `auto` means, and how many threads compute on a processor. Where neither a GPU nor
PyTorch has a say in it, neither is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from retinue.data.cpus import usable_cpus
from retinue.errors import UsageError

if TYPE_CHECKING:
    import torch

_DRIVERS = ("nvidia[0-9]*", "nvidiactl", "nvhost-*", "nvgpu", "dxg", "kfd")
"""What Linux has below `/dev` where a GPU computes: NVIDIA's, its boards', WSL's, AMD's."""


def fit_threads() -> int:
    """Let PyTorch, and the engines that follow it, compute with no more threads than this process
    may use processors (a container has fewer than its machine); gives their number. What
    `OMP_NUM_THREADS` says stays."""
    torch = sys.modules.get("torch")
    if torch is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))
    return compute_threads()


def compute_threads() -> int:
    """With how many threads a network is computed: PyTorch's number, or, where that has not been
    imported, the one that it would have after `fit_threads`."""
    if (ask := getattr(sys.modules.get("torch"), "get_num_threads", None)) is not None:
        number: int = ask()
        return number
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        said = os.environ.get(name, "").strip()
        if said.isdecimal() and int(said) > 0:
            # It is only OpenMP's that says more than there is room for.
            return int(said) if "OMP_NUM_THREADS" in os.environ else min(int(said), usable_cpus())
    return min(cores(), usable_cpus())


def cores(root: Path = Path("/")) -> int:
    """Cores of the machine: of processors that share one, only one computes."""
    shared = root.glob("sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list")
    return len(set(_texts(shared))) or os.cpu_count() or 1


def _texts(files: Iterable[Path]) -> Iterable[str]:
    for file in files:
        try:
            yield file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            continue


def device_kind(device: str) -> str:
    """`cuda` of `cuda:0`."""
    return device.partition(":")[0]


def wait(device: str | torch.device) -> None:
    """Until it has done all that it was told."""
    kind = device_kind(str(device))
    if kind == "cpu":
        return
    import torch

    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


def no_gpu(root: Path = Path("/")) -> bool:
    """Whether this machine certainly has none that PyTorch could compute on; asks only the system,
    not PyTorch, and only of Linux that is known."""
    if not sys.platform.startswith("linux"):
        return False
    return not any(next((root / "dev").glob(name), None) for name in _DRIVERS)


def choose_device(wish: str) -> str:
    """`auto` to the best device there is; UsageError for one that is not there."""
    if wish == "cpu" or (wish == "auto" and no_gpu()):
        return "cpu"
    import torch

    if wish == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = wish.partition(":")
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind not in there or (number and not number.isdecimal()):
        raise UsageError(
            f"unknown device {wish!r}", where="key device", mend="there are auto, cpu, cuda:N, mps"
        )
    if not there[kind]:
        raise UsageError(
            f"there is no {kind} device here", where="key device", mend="use device=auto"
        )
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UsageError(
            f"there is no {wish}, only {count} CUDA device(s)",
            where="key device",
            mend="use device=cuda:0",
        )
    return wish
