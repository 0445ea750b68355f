"""A container's share of its machine is followed, whichever kernel and runtime says it how."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from retinue.data import cpus, loader
from retinue.data.cpus import cpu_load, own_cpus, usable_cpus
from retinue.data.loader import worker_count
from retinue.inference import devices
from retinue.inference.devices import fit_threads


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may run on 64 processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


def _system(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def _v1(group: str, quota: int, period: int) -> dict[str, str]:
    return {f"{group}cpu.cfs_quota_us": str(quota), f"{group}cpu.cfs_period_us": str(period)}


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        # Docker and Kubernetes, version 2: one's own group is the mount.
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        # systemd: the slice above has the quota.
        (
            "0::/user.slice/a.scope\n",
            {
                "sys/fs/cgroup/user.slice/cpu.max": "300000 100000",
                "sys/fs/cgroup/user.slice/a.scope/cpu.max": "max 100000",
            },
            3,
        ),
        # The host's path, seen from inside, where it does not exist.
        ("0::/kubepods/pod7/abc\n", {"sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        # Version 1, alone and together with accounting, or with both versions mounted.
        (
            "4:memory:/x\n3:cpu,cpuacct:/docker/abc\n",
            _v1("sys/fs/cgroup/cpu,cpuacct/", 250000, 100000),
            3,
        ),
        (
            "1:cpu:/a/b\n0::/\n",
            _v1("sys/fs/cgroup/cpu/a/", 100000, 100000),
            1,
        ),
        (
            "1:cpu:/\n",
            _v1("sys/fs/cgroup/cpu/", -1, 100000),
            64,
        ),
        # Nothing, or nonsense.
        ("", {}, 64),
        ("no colons at all\n0::/\n", {"sys/fs/cgroup/cpu.max": "many few"}, 64),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "100000 0"}, 64),
        ("0::/../../..\n", {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
    ],
)
def test_the_quota_of_a_container_counts(
    tmp_path: Path, bound: None, groups: str, files: dict[str, str], expected: int
) -> None:
    assert usable_cpus(_system(tmp_path, groups, files)) == expected


def test_without_any_of_these_files_it_is_what_the_process_is_bound_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: None
) -> None:
    assert usable_cpus(tmp_path) == 64
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(tmp_path) == 1


@pytest.mark.parametrize(
    ("said", "bound", "launcher", "quota", "expected"),
    [
        ({}, 64, 64, "max", 64),  # alone
        ({"LOCAL_WORLD_SIZE": "8"}, 64, 64, "max", 8),  # torchrun, accelerate launch
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, 64, 64, "max", 8),
        ({"LOCAL_WORLD_SIZE": "8"}, 8, 64, "max", 8),  # bound to some of the launcher's
        ({"LOCAL_WORLD_SIZE": "8"}, 8, 64, "1600000", 2),  # of a container that has less
        ({"LOCAL_WORLD_SIZE": "2"}, 64, 64, "1600000", 8),
        ({"LOCAL_WORLD_SIZE": "8"}, 4, 4, "max", 1),
        ({"LOCAL_WORLD_SIZE": "many"}, 64, 64, "max", 64),
    ],
)
def test_processes_of_one_launcher_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    said: dict[str, str], bound: int, launcher: int, quota: str, expected: int,
) -> None:  # fmt: skip
    counts = {0: bound, os.getppid(): launcher}
    monkeypatch.setattr(os, "sched_getaffinity", lambda of: set(range(counts[of])), raising=False)
    for name in cpus._PROCESSES:
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    root = _system(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": f"{quota} 100000\n"})
    assert own_cpus(root) == expected


def test_workers_and_threads_follow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    for module in (loader, devices):
        monkeypatch.setattr(module, "usable_cpus", lambda: 2)
    try:
        torch.set_num_threads(8)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert worker_count("auto") == 2
        assert worker_count(5) == 5
        assert fit_threads() == torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert fit_threads() == 1  # never more
        monkeypatch.setenv("OMP_NUM_THREADS", "6")
        torch.set_num_threads(6)
        assert fit_threads() == 6
    finally:
        torch.set_num_threads(before)
    assert cpus.usable_cpus() >= 1


def test_the_load_is_that_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (6.0, 1.0, 1.0), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert cpu_load() == 1.5

    def unknown() -> tuple[float, float, float]:
        raise OSError

    monkeypatch.setattr(os, "getloadavg", unknown, raising=False)
    assert cpu_load() is None
    monkeypatch.delattr(os, "getloadavg")
    assert cpu_load() is None


def test_idleness_is_that_of_the_time_since(tmp_path: Path) -> None:
    """Of 100 ticks more, 60 were idle and 10 waited for a disk."""
    (tmp_path / "proc").mkdir()
    stat = tmp_path / "proc" / "stat"
    stat.write_text("cpu  100 0 50 1000 10 0 0 0 0 0\ncpu0 1 2 3 4 5\n")
    idleness = cpus.Idleness(tmp_path)
    assert idleness.share() is None  # no time has gone by
    stat.write_text("cpu  120 0 60 1060 20 0 0 0 7 7\ncpu0 1 2 3 4 5\n")
    assert idleness.share() == pytest.approx(0.7)
    stat.write_text("damaged")
    assert idleness.share() is None
    assert cpus.Idleness(tmp_path / "absent").share() is None
