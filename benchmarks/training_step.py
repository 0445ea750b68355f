"""A training step of ours against timm's same network in plain eager float32.

    python benchmarks/training_step.py [--network NAME …] [--batch N] [--rounds N] [--json]

A step is forward, loss, backward and SGD with momentum, on the same images. timm's is what one
writes first: contiguous, float32. Ours is channels-last, and for ResNet under bfloat16 autocast
where trial steps are faster with it. The two alternate, so that what else the machine does meets
both; the figure is the median over rounds of timm's time through ours, with a bootstrap interval
of 95 %.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from retinue.models.registry import create_model

# network: size of the images, whether bfloat16 is tried, target
CASES = {"resnet50": (224, True, 2.0), "efficientnet_b0": (224, False, 0.97)}


def import_timm():
    """timm imports torchvision, whose compiled operators a CPU-only torch lacks; only their names
    are needed."""
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define("nms" + boxes)
        library.define("qnms" + boxes)
    import timm

    return timm


def stepper(
    network: nn.Module, loss_of: Callable[[], torch.Tensor], *, bfloat16: bool
) -> Callable[[], float]:
    """A function that takes one training step and returns its seconds; `loss_of` does the forward
    pass, too."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    network.train()

    def step() -> float:
        began = time.perf_counter()
        precision = torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext()
        with precision:
            loss = loss_of()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return time.perf_counter() - began

    return step


def alternated(
    theirs: Callable[[], float], ours: Callable[[], float], rounds: int
) -> list[tuple[float, float]]:
    """Seconds of both in each round, who begins in turn."""
    pairs = []
    for k in range(rounds):
        if k % 2:
            mine = ours()
            pairs.append((theirs(), mine))
        else:
            pairs.append((theirs(), ours()))
    return pairs


def bootstrap(ratios: list[float], draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the median."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (draws, len(ratios))), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def measure(name: str, *, batch: int, rounds: int) -> dict[str, object]:
    """The figures of one network."""
    size, try_bfloat16, target = CASES[name]
    torch.manual_seed(0)
    images = torch.randn(batch, 3, size, size)
    labels = torch.randint(0, 1000, (batch,))
    # Equal work: stochastic depth and dropout off on both sides, as timm has them.
    plain = import_timm().create_model(name)
    own = create_model(name, drop_path=0.0, dropout=0.0).to(memory_format=torch.channels_last)
    last = images.to(memory_format=torch.channels_last)
    cross_entropy = nn.functional.cross_entropy
    theirs = stepper(plain, lambda: cross_entropy(plain(images), labels), bfloat16=False)

    def loss() -> torch.Tensor:
        return cross_entropy(own(last)["logits"], labels)

    ours = stepper(own, loss, bfloat16=False)
    precision = "float32"
    theirs(), ours()
    if try_bfloat16:
        faster = stepper(own, loss, bfloat16=True)
        faster()
        if min(faster() for _ in range(2)) < min(ours() for _ in range(2)):
            ours, precision = faster, "bfloat16"
    pairs = alternated(theirs, ours, rounds)
    ratios = [t / o for t, o in pairs]
    low, high = bootstrap(ratios)
    return {
        "network": name,
        "ratio": round(statistics.median(ratios), 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "target": target,
        "precision": precision,
        "timm_ms": round(1000 * statistics.median(t for t, _ in pairs), 1),
        "retinue_ms": round(1000 * statistics.median(o for _, o in pairs), 1),
        "batch": batch,
        "size": size,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "amx": amx(),
    }


def amx() -> bool | None:
    """Whether the CPU multiplies bfloat16 matrices in hardware tiles; None: not known."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.network:
        figures = measure(name, batch=arguments.batch, rounds=arguments.rounds)
        if arguments.json:
            print(json.dumps(figures), flush=True)
            continue
        print(
            f"training step, {name}: {figures['ratio']:.2f}× timm's speed "
            f"[{figures['low']:.2f}, {figures['high']:.2f}], target {figures['target']:g} "
            f"({figures['precision']}, {figures['retinue_ms']:.0f} against "
            f"{figures['timm_ms']:.0f} ms, batch {figures['batch']}, {figures['threads']} threads, "
            f"AMX: {'yes' if figures['amx'] else 'no'})",
            flush=True,
        )


if __name__ == "__main__":
    main()
