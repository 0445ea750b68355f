"""How PyTorch's threads wait for each other on a processor.

GNU's OpenMP, which PyTorch computes with on Linux, lets a thread that is done spin up to 300,000
times before it sleeps. While it spins it holds a core, which on a busy machine is the one that the
thread it waits for would need: two trainings beside each other then take ten times as long as one
after the other. With fewer turns nothing is lost at rest (`benchmarks/waiting_threads.py`).
"""

from __future__ import annotations

import os
import sys

TURNS = 10_000
_SAID = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "GOMP_CPU_AFFINITY", "OMP_PROC_BIND")
"""Who sets one of these has a machine of their own, or a way."""


def spin_less() -> bool:
    """Let threads that wait turn no more than `TURNS` times, in this process and in those that it
    starts; whether that was done. It is to be before PyTorch is imported, and leaves alone what the
    environment says itself."""
    if "torch" in sys.modules or any(name in os.environ for name in _SAID):
        return False
    os.environ["GOMP_SPINCOUNT"] = str(TURNS)
    return True
