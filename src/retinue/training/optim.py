"""Optimisers over a network's parameter groups."""

from __future__ import annotations

import torch

from retinue.models.network import Network
from retinue.training.options import OptimizerOptions


def build_optimizer(network: Network, options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimiser over what requires a gradient.

    One group for each unit and kind of parameter. Each has an `lr_scale`, which the schedule's
    rate is multiplied with: `layer_decay` to the power of the unit's distance from the head, times
    `head_lr_scale` for the head itself. Weight decay is for the weights of convolutions and linear
    layers: not for biases and normalisation, nor for class tokens and position embeddings.
    """
    links = network.parameter_groups()
    weights = {
        id(p) for name, p in network.named_parameters() if p.ndim > 1 and name.endswith("weight")
    }
    groups = []
    for depth, (name, parameters) in enumerate(links):
        scale = options.layer_decay ** (len(links) - 1 - depth)
        if depth == len(links) - 1:
            scale *= options.head_lr_scale
        learning = [p for p in parameters if p.requires_grad]
        for kind, members, decay in (
            ("weights", [p for p in learning if id(p) in weights], options.weight_decay),
            ("others", [p for p in learning if id(p) not in weights], 0.0),
        ):
            if members:
                groups.append(
                    {
                        "params": members,
                        "lr": options.lr * scale,
                        "lr_scale": scale,
                        "weight_decay": decay,
                        "name": f"{name} {kind}",
                    }
                )
    match options.name:
        case "sgd":
            nesterov = options.nesterov and options.momentum > 0
            return torch.optim.SGD(
                groups, lr=options.lr, momentum=options.momentum, nesterov=nesterov
            )
        case "adam":
            return torch.optim.Adam(groups, lr=options.lr, betas=options.betas, eps=options.eps)
        case "adamw":
            return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps)
        case "rmsprop":
            return torch.optim.RMSprop(
                groups, lr=options.lr, momentum=options.momentum, eps=options.eps
            )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Every group learns at `rate` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
