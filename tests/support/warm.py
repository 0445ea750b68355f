"""Trainings in processes of their own, forked from one that has imported everything already.

`Warm()` starts that one; `warm.train(...)` forks a child from it, which may be told to kill itself
at a named moment, and gives the child's exit code and what it said. `processes=2` forks as many,
which train together.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

MOMENTS = {
    "before the first checkpoint": "retinue.run.checkpoint:CheckpointStore.save",
    "in a step": "retinue.training.trainer:Trainer._loss",
    "in validation": "retinue.training.trainer:validate",
    "between stages": "retinue.training.trainer:Trainer._begin",
    "in the cache's building": "retinue.training.features.segments:Writer.append",
    "before cached rows count": "retinue.training.features.segments:Writer.flush",
    "before a checkpoint counts": "retinue.run.checkpoint:sync_folder",
    "before the model file is replaced": "safetensors.torch:save_file",
    "in the final evaluation": "retinue.training.finish:evaluate",
}
"""What a process can be killed at, before it does it for the n-th time."""
IN_A_CHECKPOINT = "in a checkpoint's writing"


class Outcome(NamedTuple):
    code: int
    """As of `subprocess`: negative for a signal."""
    said: str
    """The error, if there was one."""
    codes: list[int]
    """Those of all the processes; `code` is the first that is not 0."""


class Warm:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def train(
        self,
        recipe: dict[str, Any] | Path,
        out: Path | None = None,
        *,
        moment: str | None = None,
        times: int = 1,
        by: int = signal.SIGKILL,
        processes: int = 1,
        rank: int | None = None,
        limit: int | None = None,
    ) -> Outcome:
        """Train `recipe` in `out`, or go on in the folder `recipe`. `rank`: the process that is
        killed; None: all. `limit`: instead of killing it, let the system refuse files of more
        bytes from that moment on."""
        job = {
            "recipe": str(recipe) if isinstance(recipe, Path) else recipe,
            "out": None if out is None else str(out),
            "moment": moment,
            "times": times,
            "by": int(by),
            "processes": processes,
            "rank": rank,
            "limit": limit,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Outcome(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


def _arm(moment: str, times: int, by: int, limit: int | None = None) -> None:
    count = 0
    if moment == IN_A_CHECKPOINT:
        import torch

        whole = torch.save

        def half(state: Any, file: Any) -> None:
            nonlocal count
            count += 1
            if count == times:
                file.write(b"half of a checkpoint")
                file.flush()
                os.kill(os.getpid(), by)
            whole(state, file)

        torch.save = half
        return
    module_name, _, path = MOMENTS[moment].partition(":")
    owner: Any = importlib.import_module(module_name)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    real = getattr(owner, name)

    def then(*arguments: Any, **keywords: Any) -> Any:
        nonlocal count
        count += 1
        if count == times and limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        elif count == times:
            os.kill(os.getpid(), by)
        return real(*arguments, **keywords)

    setattr(owner, name, then)


def _child(job: dict[str, Any], rank: int, port: int, told: int) -> None:
    import torch

    import retinue
    from retinue.errors import RetinueError

    if job["processes"] > 1:
        world = str(job["processes"])
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": world}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": world}
    torch.set_num_threads(1)
    if job["moment"] is not None and job["rank"] in (None, rank):
        _arm(job["moment"], job["times"], job["by"], job["limit"])
    code, said = 0, ""
    try:
        if job["out"] is None:
            retinue.train(job["recipe"], resume=True, report=False, quiet=True)
        else:
            retinue.train(job["recipe"], out=job["out"], report=False, quiet=True)
    except RetinueError as error:
        code, said = error.exit_code, str(error)
    except BaseException as error:
        import traceback

        traceback.print_exc()
        code, said = 70, f"{type(error).__name__}: {error}"
    os.write(told, said.encode()[:4000])
    os._exit(code)


def _run(job: dict[str, Any]) -> Outcome:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(job["processes"]):
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(heard)
            _child(job, rank, port, told)
        os.close(told)
        children.append((child, heard))
    outcomes: list[tuple[int, str]] = []
    for child, heard in children:
        said = b""
        while part := os.read(heard, 4096):
            said += part
        os.close(heard)
        _, status = os.waitpid(child, 0)
        outcomes.append((os.waitstatus_to_exitcode(status), said.decode()))
    first = next((outcome for outcome in outcomes if outcome[0]), outcomes[0])
    return Outcome(*first, [code for code, _ in outcomes])


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    # These trainings are not about engines, and compiling takes longer than they do.
    for package in ("openvino", "onnxruntime"):
        sys.modules[package] = None  # type: ignore[assignment]
    import finder
    import tiny
    import torch
    from PIL import Image

    import retinue.training.session
    from retinue.inference import engines  # noqa: F401 - imported while there is one thread
    from retinue.tasks.task import task_names, task_type

    # What a test registers, an installation would bring.
    slices = Path(__file__).parents[1] / "training" / "test_slices.py"
    spec = importlib.util.spec_from_file_location("test_slices", slices)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register()
    assert finder.Find.name == "find"
    assert retinue.training.session is not None
    torch.set_num_threads(1)
    tiny.register()
    import accelerate  # noqa: F401

    # What is imported only when it is needed, which takes longer than the training.
    with torch.device("meta"):
        tiny.Tiny()(torch.empty(2, 3, 32, 32))
    Image.init()
    for name in task_names():
        task_type(name).readers()

    gc.collect()
    gc.freeze()  # a training collects between its stages: not all of PyTorch each time
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a child prints is no answer
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            out.write(json.dumps(_run(json.loads(line))) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
