"""Attention rollout: which parts of the image the tokens have taken in.

The attention is noted where it is computed, for as long as one forward pass takes; nothing is
hooked into the network, and nothing stays behind, whatever goes wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from retinue.errors import UsageError
from retinue.explaining.looking import Cells, Look
from retinue.inference.tracing import evaluating
from retinue.models.network import Network, Tokens
from retinue.sample import Size


class Attention(TorchFunctionMode):
    """Notes the attention of every `scaled_dot_product_attention` within, and every softmax over
    four dimensions, which is what attention is where it is not fused."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[Tensor] = []
        """(n, heads, queries, keys) each, in the order in which they were computed."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            self.layers.append(_attention(*args, **given))
        answer = func(*args, **given)
        if func in _SOFTMAX and isinstance(answer, Tensor) and answer.ndim == 4:
            self.layers.append(answer.float())
        return answer


_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> Tensor:
    """What each query takes of each key, in float32."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query.float() @ key.float().transpose(-2, -1) * scale
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        else:
            scores = scores + attn_mask
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return scores.softmax(-1)


def rollout(look: Look) -> Cells:
    """Attention rollout (Abnar and Zuidema, 2020, section 3): the product over the layers of half
    the mean of the heads and half the identity, which the shortcut stands for. It is the same for
    every class.

    Raises UsageError for a network without tokens, and for one whose attention cannot be followed.
    """
    tokens = tokens_of(look.network, look.size)
    with torch.inference_mode(), evaluating(look.network), Attention() as noted:
        look.network(look.inputs)
    count = tokens.prefix + tokens.rows * tokens.columns
    layers = [layer[0] for layer in noted.layers]
    if not layers or any(layer.shape[-2:] != (count, count) for layer in layers):
        raise UsageError(
            "not every layer lets every token see all others: attention cannot be followed",
            where=look.network.name or None,
            mend="choose gradcam",
        )
    taken = torch.eye(count, device=layers[0].device)
    for layer in layers:
        taken = (layer.mean(0) + torch.eye(count, device=layer.device)) / 2 @ taken
    read = taken[tokens.prefix :].mean(0) if tokens.read is None else taken[tokens.read]
    cells: Cells = read[tokens.prefix :].reshape(tokens.rows, tokens.columns).cpu().numpy()
    return cells


def tokens_of(network: Network, size: Size) -> Tokens:
    """How its tokens lie, of images of `size`. UsageError for a network that has none."""
    tokens = network.tokens(size)
    if tokens is None:
        raise UsageError(
            "the network has no tokens whose attention could be followed",
            where=network.name or None,
            mend="choose gradcam",
        )
    return tokens
