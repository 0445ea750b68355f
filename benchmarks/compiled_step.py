"""A training step under `torch.compile` against the same one in plain eager, on a CPU.

    python benchmarks/compiled_step.py [NETWORK …] [--batch N] [--size N] [--rounds N]

A step is forward, loss, backward and SGD with momentum, in float32 and in bfloat16 as trainings
compute it (`retinue.training.mixed`). The four take turns in one process; ratios are of medians of
the processor's seconds. The first compiled step, told apart, is mostly the compiler's: a training
that compiles has to win that back.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from retinue.inference.devices import fit_threads
from retinue.inference.memory import keep_freed
from retinue.models.registry import create_model
from retinue.training.mixed import on_cpu

NETWORKS = ("mobilenet_v2", "efficientnet_b0", "resnet50")
CLASSES = 100


def stepper(
    name: str, precision: str, batch: int, size: int, *, compiled: bool
) -> Callable[[], float]:
    """What takes a step and gives its loss."""
    torch.manual_seed(0)
    # Compiled dropout draws otherwise.
    network = create_model(name, num_classes=CLASSES, dropout=0.0, drop_path=0.0)
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    model = torch.compile(network, dynamic=False) if compiled else network
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((batch, 3, size, size), generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % CLASSES

    def step() -> float:
        with on_cpu(precision):
            loss = nn.functional.cross_entropy(model(images)["logits"].float(), labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("network", nargs="*", default=NETWORKS)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    fit_threads()
    keep_freed()
    for name in options.network:
        ways = {}
        losses: dict[tuple[str, bool], float] = {}
        for precision in ("fp32", "bf16"):
            for compiled in (False, True):
                step = stepper(name, precision, options.batch, options.size, compiled=compiled)
                began = time.perf_counter()
                losses[precision, compiled] = step()
                ways[precision, compiled] = step
                if compiled:
                    print(f"{name}, {precision}: {time.perf_counter() - began:.0f} s to compile")
        taken: dict[tuple[str, bool], list[float]] = {way: [] for way in ways}
        for number in range(options.rounds):
            for way in list(ways)[:: 1 if number % 2 else -1]:
                clock = time.process_time()
                ways[way]()
                taken[way].append(time.process_time() - clock)
        middle = {way: statistics.median(each) for way, each in taken.items()}
        for precision in ("fp32", "bf16"):
            ratio = middle[precision, False] / middle[precision, True]
            apart = abs(losses[precision, False] - losses[precision, True])
            print(
                f"{name}, {precision}: compiled {ratio:.2f} times as fast as eager"
                f" ({middle[precision, True]:.3f} and {middle[precision, False]:.3f} s a step;"
                f" their first losses differ by {apart:.1e})",
                flush=True,
            )


if __name__ == "__main__":
    main()
