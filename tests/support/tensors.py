"""Tensors to differentiate, and how near gradients must come."""

from __future__ import annotations

import torch
from torch import Tensor

LAST = torch.channels_last


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(shape, dtype=dtype)
    return x.contiguous(memory_format=LAST) if x.dim() == 4 else x


def made_by(y: Tensor) -> str:
    assert y.grad_fn is not None
    return y.grad_fn.name()


def agree(given: Tensor, expected: Tensor, most: float = 1e-11) -> None:
    """To rounding of what it is made of."""
    assert given.shape == expected.shape
    assert (given - expected).abs().max() <= most * (1 + expected.abs().max())
