"""Which device `auto` means, and how many threads compute on a processor."""

from __future__ import annotations

import os

import torch

from retinue.data.cpus import usable_cpus
from retinue.errors import UsageError


def fit_threads() -> int:
    """Let PyTorch, and the engines that follow it, compute with no more threads than this process
    may use processors (a container has fewer than its machine); gives their number. What
    `OMP_NUM_THREADS` says stays."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))
    return torch.get_num_threads()


def choose_device(wish: str) -> str:
    """`auto` to the best device there is; UsageError for one that is not there."""
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
