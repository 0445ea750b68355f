"""What a training runs on: device, precision, threads, versions; chosen once, then recorded."""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

import retinue
from retinue.data.cpus import usable_cpus
from retinue.data.loader import worker_count
from retinue.errors import UsageError
from retinue.inference.devices import choose_device, fit_threads
from retinue.inference.engine_cache import Choice, EngineCache
from retinue.inference.engines import candidates, installed
from retinue.processor import cpu_features, cpu_name, without_bfloat16

PACKAGES = (
    "torch",
    "accelerate",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "simplejpeg",
    "safetensors",
    "openvino",
    "onnxruntime",
)


OPEN = "auto"
"""A precision that `retinue.training.planning.precision` settles."""


@dataclass(frozen=True)
class Settings:
    """What `auto` came to. A resumed training takes these again, so that it stays exact."""

    device: str
    precision: str
    """`fp32`, `bf16` or `fp16`; `OPEN` until the training's own steps have been looked at."""
    threads: int
    world: int
    why: str = ""
    """Of the precision, where `auto` has chosen it by the training's steps: what completes
    `precision: float32, …`."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def is_main() -> bool:
    """Whether this is the process that writes and tells."""
    return bool(PartialState().is_main_process)


def versions() -> dict[str, str]:
    """Version of retinue, Python and every package that touches the figures."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    """Once a process: each is a search and a file read, and every cached space asks."""
    found = {"retinue": retinue.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def choose_precision(wish: str, device: str) -> str:
    """`auto` to bf16 on a GPU that has it, fp32 on one that has not. On a CPU it is still `OPEN`:
    which of the two is faster depends on the processor and on what is trained."""
    if wish == "auto":
        if device == "cpu":
            return OPEN
        return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"
    if wish == "fp16" and device == "cpu":
        raise UsageError("fp16 training needs a GPU", where="key precision", mend="precision=bf16")
    return wish


def build_accelerator(device: str, precision: str) -> Accelerator:
    """Accelerate's handle on devices, processes and mixed precision; one that is `OPEN` is not
    mixed."""
    _refuse_sharding()
    # Accelerate keeps its state for the whole process; a second training may want another, and
    # among several processes, whose group stays, the precision is settled later than the rest.
    AcceleratorState._reset_state(reset_partial_state="WORLD_SIZE" not in os.environ)
    if ":" in device:
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
    else:
        os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
    mixed = "no" if precision in ("fp32", OPEN) else precision
    # While one process computes what all will use, the others wait, for hours if need be.
    patient = InitProcessGroupKwargs(timeout=timedelta(days=2))
    made = Accelerator(cpu=device == "cpu", mixed_precision=mixed, kwargs_handlers=[patient])
    if made.num_processes > 1:
        atexit.unregister(_leave)
        atexit.register(_leave)
    return made


_SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
"""What launchers ask Accelerate for by the environment."""


def _refuse_sharding() -> None:
    """UsageError where the launcher wants a network spread over devices: checkpoints, averages of
    weights and the model file need it whole on each."""
    for variable, name in _SHARDING.items():
        if os.environ.get(variable, "").lower() in ("1", "true", "yes"):
            raise UsageError(
                f"{name} is not supported: each process has the whole network",
                where=f"the launcher, {variable}",
                mend="start it by torchrun, or accelerate launch --multi_gpu; accumulate, a smaller"
                " batch_size or precision=bf16 save memory",
            )


def _leave() -> None:
    """Its threads would otherwise be found running when the process is taken down, which now and
    then aborts it, and makes the launcher kill the others."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def facts() -> dict[str, Any]:
    """What there is on this machine, and what `auto` would choose: plain JSON values."""
    device = choose_device("auto")
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kept = EngineCache().choices()
    return {
        "system": platform.platform(),
        "versions": versions(),
        "cpu": {
            "name": cpu_name(),
            "cores": os.cpu_count(),
            "usable": usable_cpus(),
            "features": cpu_features(),
        },
        "devices": ["cpu", *(f"cuda:{k} ({torch.cuda.get_device_name(k)})" for k in range(cuda))]
        + (["mps"] if torch.backends.mps.is_available() else []),
        "engines": {name: installed(name) for name in ("torch", "onnxruntime", "openvino")},
        "auto": {
            "device": device,
            "engine": _engine(candidates(device)),
            "precision": _precision(choose_precision("auto", device)),
            "workers": worker_count("auto"),
            "threads": fit_threads(),
        },
        "timed_engines": _timed(one for one in kept if one.way != STEPS),
        "timed_precisions": _timed(one for one in kept if one.way == STEPS),
    }


MOST_TOLD = 8
"""Choices of a kind that are told, of those that were used last."""
STEPS = "steps of a training"
"""In the cache of engines, the way of a choice that is one of a precision."""


def _timed(choices: Iterable[Choice]) -> dict[str, str]:
    """Of what, and how it went; of several that are called the same, the later ones are numbered:
    they differ in size, threads or what learns."""
    found: dict[str, str] = {}
    for one in list(islice(choices, MOST_TOLD))[::-1]:
        name = f"{one.network or 'a network'}, {one.batch} at a time"
        same = sum(other == name or other.startswith(f"{name} (") for other in found)
        found[f"{name} ({same + 1})" if same else name] = one.recalled()
    return found


def _precision(chosen: str) -> str:
    """What `auto` would do."""
    if chosen != OPEN:
        return chosen
    if (why := without_bfloat16()) is not None:
        return f"fp32: {why}"
    return "the faster of fp32, bf16, timed by training where that is long enough"


def _engine(names: list[str]) -> str:
    """What `auto` would do."""
    return names[0] if len(names) == 1 else f"the fastest of {', '.join(names)}, timed by network"
