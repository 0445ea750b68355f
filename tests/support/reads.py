"""Catching what reads a value back from the device, which makes the host wait for it.

On a machine without a device, every tensor counts as one that is on it: so code that works on host
tensors on purpose is named in `ignore`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Operations whose answer, or whose answer's shape, the host needs to go on.
READING = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.allclose,
    aten.nonzero,
    aten.nonzero_numpy,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
}
METHODS = ("cpu", "tolist", "numpy", "__array__")


class DeviceReadError(AssertionError):
    """A value was read where none should be."""


class _Watch(TorchDispatchMode):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if _reads(func.overloadpacket, args, kwargs or {}):
            self.note(str(func))
        return func(*args, **(kwargs or {}))


def _reads(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if packet in READING:
        return True
    if packet is aten.index or packet is aten.index_put_ or packet is aten.index_put:
        masked = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        return masked and (packet is aten.index or args[2].numel() != 1)  # else it is a fill
    if packet is aten.repeat_interleave:
        return kwargs.get("output_size") is None
    if packet is aten._to_copy or packet is aten.copy_:
        to = kwargs.get("device") if packet is aten._to_copy else args[0].device
        from_ = args[0 if packet is aten._to_copy else 1].device
        return to is not None and torch.device(to).type == "cpu" and from_.type != "cpu"
    return False


@contextmanager
def counted_reads(
    *, ignore: Iterable[str] = (), stop: bool = False
) -> Iterator[list[tuple[str, str]]]:
    """A list that every read of this thread is added to: (what, the callers' files and lines).

    `ignore`: parts of file names; what is read by or below code of such a file does not count.
    """
    found: list[tuple[str, str]] = []
    thread = threading.get_ident()
    ignored = tuple(ignore)

    def note(what: str) -> None:
        if threading.get_ident() != thread:
            return
        places = []
        frame = sys._getframe(2)
        while frame is not None:
            name = frame.f_code.co_filename.replace("\\", "/")
            if any(part in name for part in ignored):
                return
            places.append(f"{name}:{frame.f_lineno}")
            frame = frame.f_back
        ours = [place for place in places if "/torch/" not in place and "pytest" not in place]
        found.append((what, " < ".join(ours[:4])))
        if stop:
            raise DeviceReadError(f"{what} at {found[-1][1]}")

    with ExitStack() as stack:
        for name in METHODS:
            stack.enter_context(_patched(name, note))
        stack.enter_context(_Watch(note))
        yield found


@contextmanager
def no_reads(*, ignore: Iterable[str] = ()) -> Iterator[None]:
    """Raises `DeviceReadError` at the first read of this thread."""
    with counted_reads(ignore=ignore, stop=True):
        yield


@contextmanager
def steps_without_reads(monkeypatch: Any) -> Iterator[list[int]]:
    """Inside, no step of a training may read; the steps that were done. The optimisers of PyTorch
    read their own step counter, which they keep on the host."""
    from retinue.training.trainer import Trainer

    done: list[int] = []
    real = Trainer._step

    def step(self: Trainer, stage: Any, portions: Any) -> None:
        with no_reads(ignore=["torch/optim/"]):
            real(self, stage, portions)
        done.append(self.progress.steps)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", step)
        yield done


@contextmanager
def _patched(name: str, note: Callable[[str], None]) -> Iterator[None]:
    own = Tensor.__dict__.get(name)
    before = getattr(Tensor, name)

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        note(f"Tensor.{name}")
        return before(self, *args, **kwargs)

    setattr(Tensor, name, method)
    try:
        yield
    finally:
        if own is None:
            delattr(Tensor, name)
        else:
            setattr(Tensor, name, own)
