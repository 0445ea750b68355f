"""The processors: how many this process may use, by what a container allows and not by what the
machine has; and how busy they are."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cpus(root: Path = Path("/")) -> int:
    """Processors that this process may run on at once, at least 1: those that it is bound to, and
    no more than the quota of its control groups (cgroup v2 or v1, as containers have them) gives
    the time of. `root`: where the system's files lie."""
    quotas = [quota for quota in _quotas(root) if quota > 0]
    return max(1, min([_bound(), *(math.ceil(quota - 0.01) for quota in quotas)]))


def own_cpus(root: Path = Path("/")) -> int:
    """Of the `usable_cpus` those that fall to this process, at least 1: a launcher that has started
    several on this machine tells each how many they are. Processors that it has bound this one to
    are its own already; a quota is of all of them."""
    beside, bound = _processes(), _bound()
    its_own = beside == 1 or bound < _bound(os.getppid())
    quotas = [math.ceil(quota / beside - 0.01) for quota in _quotas(root) if quota > 0]
    return max(1, min([bound if its_own else bound // beside, *quotas]))


_PROCESSES = (
    "LOCAL_WORLD_SIZE",
    "MPI_LOCALNRANKS",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MV2_COMM_WORLD_LOCAL_SIZE",
)
"""How many processes of a training there are on this machine, as torchrun, Accelerate's launcher
and those of MPI tell each of them."""


def _processes() -> int:
    said = (os.environ.get(name, "") for name in _PROCESSES)
    return next((int(one) for one in said if one.isdecimal() and int(one) > 0), 1)


def _bound(process: int = 0) -> int:
    """Processors that the `process` (0: this one) may run on; all where nobody can tell."""
    try:
        return len(os.sched_getaffinity(process))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def cpu_load() -> float | None:
    """What ran or waited to run in the last minute, on average, by the number of the machine's
    processors: above 1 they are all busy. None where the system does not say."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return None


def _quotas(root: Path) -> Iterator[float]:
    """In processors, those of each group that this process is in, and of those that hold it."""
    for controllers, path in _groups(root):
        v2 = not controllers
        mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"] if v2 else [
            f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"
        ]  # fmt: skip
        inner = Path(path.lstrip("/"))
        for mount in mounts:
            # Seen from inside a container, its own group is often the whole of what is mounted.
            for group in dict.fromkeys((inner, *inner.parents, Path())):
                quota = (_v2 if v2 else _v1)(root / mount / group)
                if quota is not None:
                    yield quota


def _groups(root: Path) -> Iterator[tuple[str, str]]:
    """(controllers, path) of the groups that may have a quota; no controllers: of version 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers or "cpu" in controllers.split(","):
            yield controllers, path


def _v2(group: Path) -> float | None:
    quota, _, period = _read(group / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _v1(group: Path) -> float | None:
    return _ratio(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """None where there is no quota: `max`, −1, or no such file."""
    try:
        return float(quota) / float(period) if float(quota) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class Idleness:
    """How much of the machine's processors' time has been idle since this was made."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before = self._ticks()

    def share(self) -> float | None:
        """Between 0 and 1, whoever works there; None where the system does not tell."""
        before, now = self._before, self._ticks()
        if before is None or now is None or now[1] <= before[1]:
            return None
        return (now[0] - before[0]) / (now[1] - before[1])

    def _ticks(self) -> tuple[int, int] | None:
        """Idle ones, waiting for a disk included, and all."""
        line, _, _ = _read(self._root / "proc/stat").partition("\n")
        name, *numbers = line.split()[:9] or [""]
        if name != "cpu" or len(numbers) < 5 or not all(map(str.isdecimal, numbers)):
            return None
        ticks = [int(number) for number in numbers]
        return ticks[3] + ticks[4], sum(ticks)
