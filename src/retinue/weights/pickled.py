"""Files that PyTorch wrote, which are pickles: only tensors and plain values are read from them."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retinue.errors import RetinueError, some
from retinue.weights.prefixes import is_network, one_of

_ALONE = "where it was made, save the state dict alone: torch.save(model.state_dict(), path)"


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, out of what training scripts put around it.

    Raises:
        RetinueError: damaged, in need of executing code, without weights, with several networks',
            or with a tensor that no network takes.
    """
    loaded = _load(path)
    found = _state_dicts(loaded) if isinstance(loaded, Mapping) else {}
    if len(found) > 1:
        found = {name: each for name, each in found.items() if is_network(each)} or found
    if not found:
        raise RetinueError(
            f"no weights in the file, {_outline(loaded)}", where=str(path), mend=_ALONE
        )
    tensors = found[one_of(tuple(found), path)]
    for key, tensor in tensors.items():
        if reason := _unusual(tensor):
            raise RetinueError(
                f"the tensor {key} {reason}",
                where=str(path),
                mend="save it as an ordinary one, of real numbers",
            )
    return tensors


def _load(path: Path) -> object:
    """What PyTorch reads without executing anything.

    What it says itself is not passed on: it advises to read in the way that does execute code.
    """
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            said = str(error)
        except Exception:  # damaged pickles make torch raise nearly anything
            said = ""
    if re.search(r"Unsupported (global|class)|GLOBAL|Trying to (call|instantiate)", said):
        named = re.search(r"GLOBAL ([\w.]+)", said)
        raise RetinueError(
            f"the weights hold more than tensors{f' ({named[1]})' if named else ''}, and reading"
            " them could execute code",
            where=str(path),
            mend=_ALONE,
        )
    if any("pickle protocol" in str(each.message) for each in warned):
        raise RetinueError(
            "the file is pickled with another protocol than 2, the one that is read without"
            " executing code",
            where=str(path),
            mend="where it was made, torch.save(model.state_dict(), path) without pickle_protocol",
        )
    raise RetinueError(
        "damaged weights: cut short, altered, or not PyTorch's",
        where=str(path),
        mend="copy or download the file again",
    )


def _outline(loaded: object) -> str:
    """What is there instead of weights."""
    if not isinstance(loaded, Mapping):
        return f"which holds a {type(loaded).__name__}"
    keys = [repr(key) for key in loaded]
    return f"whose keys are {some(keys, 8, between=', ')}" if keys else "which holds nothing"


def _unusual(tensor: Tensor) -> str:
    """Why the values of a pickled tensor cannot be copied into a network's; empty: they can."""
    if tensor.is_meta:
        return "has a shape and no values"
    if tensor.layout != torch.strided:
        return "is sparse"
    if tensor.is_quantized:
        return "is quantised"
    return "is complex" if tensor.is_complex() else ""


_WRAPPERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema",
    "state_dict", "model_state_dict", "model_state", "model", "net", "network",
)  # fmt: skip
"""What training scripts call the weights; first the averaged ones, which are the better."""
_MOST_WRAPPED = 4
"""One within another."""


def _state_dicts(loaded: Mapping[Any, Any]) -> dict[str, dict[str, Tensor]]:
    """The state dicts that may be meant, by the names that lead to them."""
    seen: set[int] = set()  # a damaged one may hold itself

    def search(level: Mapping[Any, Any], names: tuple[str, ...]) -> dict[str, dict[str, Tensor]]:
        if id(level) in seen or len(names) > _MOST_WRAPPED or "param_groups" in level:
            return {}  # that is an optimiser's
        seen.add(id(level))
        inner = {str(key): value for key, value in level.items() if isinstance(value, Mapping)}
        for name in _WRAPPERS:
            if name in inner and (found := search(inner[name], (*names, name))):
                return found
        tensors = {str(key): value for key, value in level.items() if isinstance(value, Tensor)}
        if any(t.ndim and t.dtype != torch.uint8 for t in tensors.values()):  # no random state
            return {".".join(names): tensors}
        found = {}
        for name, value in inner.items():
            found |= search(value, (*names, name))
        return found or ({"": tensors} if tensors and not names else {})

    return search(loaded, ())
