"""What a training runs on: device, precision, threads, versions; chosen once, then recorded."""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

import retinue
from retinue.data.cpus import cpu_flags, cpu_name, usable_cpus
from retinue.data.loader import worker_count
from retinue.errors import UsageError
from retinue.inference.devices import choose_device, fit_threads
from retinue.inference.engine_cache import EngineCache
from retinue.inference.engines import candidates, installed

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


@dataclass(frozen=True)
class Settings:
    """What `auto` came to. A resumed training takes these again, so that it stays exact."""

    device: str
    precision: str
    threads: int
    world: int

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


def cpu_features() -> list[str]:
    """The vector extensions that matter for speed, as the system names them."""
    wanted = (
        "avx2",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "amx_bf16",
        "amx_int8",
        "asimd",
        "sve",
    )
    flags = set(cpu_flags())
    return [name for name in wanted if name in flags]


def choose_precision(wish: str, device: str) -> str:
    """`auto` to bf16 on a GPU that has it and fp32 elsewhere.

    On a CPU bf16 helps some networks and harms others (depthwise convolutions), so it is only
    taken when asked for.
    """
    if wish == "auto":
        return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"
    if wish == "fp16" and device == "cpu":
        raise UsageError("fp16 training needs a GPU", where="key precision", mend="precision=bf16")
    return wish


def build_accelerator(device: str, precision: str) -> Accelerator:
    """Accelerate's handle on devices, processes and mixed precision."""
    _refuse_sharding()
    if "WORLD_SIZE" not in os.environ:
        # Accelerate keeps its state for the whole process; a second training may want another.
        AcceleratorState._reset_state(reset_partial_state=True)
    if ":" in device:
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
    else:
        os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
    mixed = "no" if precision == "fp32" else precision
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
            "precision": choose_precision("auto", device),
            "workers": worker_count("auto"),
            "threads": fit_threads(),
        },
        "timed_engines": {
            f"{one.network or 'a network'}, {one.batch} at a time": one.recalled()
            for one in EngineCache().choices()[:MOST_TOLD][::-1]
        },
    }


MOST_TOLD = 8
"""Choices of an engine that are told, of those that were used last."""


def _engine(names: list[str]) -> str:
    """What `auto` would do."""
    return names[0] if len(names) == 1 else f"the fastest of {', '.join(names)}, timed by network"
