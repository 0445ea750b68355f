"""The memory of freed tensors stays with the process, where nobody has said otherwise."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from retinue.inference import memory

FAULTS = """
import resource
from retinue.inference.memory import keep_freed
print(keep_freed())
def work():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        b"x" * 40_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
work()
print(work())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize("said", [None, "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"])
def test_pages_are_mapped_once(said: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if "MALLOC" not in k and k != "LD_PRELOAD"}
    environment.pop("GLIBC_TUNABLES", None)
    if said is not None:
        environment[said] = "65536" if said[0] == "M" else "glibc.malloc.mmap_max=65536"
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    assert kept == str(said is None)
    if said is None:
        assert int(faults) < 1_000  # of 10,000 pages a time
    else:
        assert int(faults) > 10_000


def test_where_one_threshold_is_refused_the_other_stays_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """glibc would no longer raise the refused one by itself."""
    monkeypatch.setattr(memory, "_is_said", lambda: False)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))
    asked: list[int] = []

    def mallopt(which: int, value: int) -> int:
        asked.append(which)
        return int(value <= 32 << 20)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    assert not memory.keep_freed()
    assert asked == [-3]


RESIDENT = """
import torch
from retinue.inference.eager import TorchEngine
from retinue.inference.memory import give_back
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 1_000_000
TorchEngine(torch.nn.Identity())
before = resident()
held = [torch.ones(10_000_000) for _ in range(3)]
top = torch.ones(1_000)
del held
kept = resident() - before
give_back()
print(kept, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_pytorch_as_an_engine_keeps_memory_until_it_is_given_back() -> None:
    environment = {k: v for k, v in os.environ.items() if "MALLOC" not in k and k != "LD_PRELOAD"}
    environment.pop("GLIBC_TUNABLES", None)
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    kept, left = map(int, done.stdout.split())
    assert kept > 100  # MB, of three tensors of 40
    assert left < 40
