"""PyTorch's threads that wait for each other: as retinue has them, which sleep soon, against GNU's
OpenMP as it is, whose spin; on a machine at rest, beside a loop of Python, and beside a training.

    python benchmarks/waiting_threads.py [--rounds 5] [--beside nothing loop training] [--seconds 4]

Both are processes of their own and take turns. Each tells the images a second of an EfficientNet-B0
in eager PyTorch, batches of 16 at 224×224, or of its training step, which is also the training
beside it, of the same kind. The figures: the median ratio, with the least and the most.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median

KINDS: Mapping[str, Mapping[str, str]] = {"ours": {}, "spinning": {"GOMP_SPINCOUNT": "300000"}}
"""The environment of each: what OpenMP does by itself is said aloud, or retinue would settle it."""
BESIDE = ("nothing", "loop", "training")
WORKS = ("inference", "training step")
BATCH = 16


def images_a_second(work: str, network: str, seconds: float) -> float:
    """What this process does, whose environment says how its threads wait."""
    create_model = importlib.import_module("retinue").create_model  # before PyTorch
    import torch

    from retinue.inference.eager import TorchEngine

    torch.manual_seed(0)
    model = create_model(network, num_classes=10)
    x = torch.randn(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    once: Callable[[], object]
    if work == "inference":
        engine = TorchEngine(model.eval())

        def once() -> object:
            return engine(x)
    else:
        model.train().to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        labels = torch.arange(BATCH) % 10

        def once() -> object:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x)["logits"], labels).backward()
            return optimizer.step()

    once()
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        once()
        done += BATCH
    return done / spent


def command(work: str, network: str, seconds: float) -> list[str]:
    """What starts this script for one of the works."""
    one = [sys.executable, __file__, "--one", work, "--network", network]
    return [*one, "--seconds", str(seconds)]


@contextmanager
def beside(what: str, network: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Another process at work meanwhile."""
    if what == "nothing":
        yield
        return
    loop = [sys.executable, "-c", "while True: pass"]
    started = loop if what == "loop" else command("training step", network, 3600)
    other = subprocess.Popen(started, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        other.kill()
        other.wait()


def asked(kind: str, work: str, what: str, network: str, seconds: float) -> float:
    """Of a process of that kind, beside `what`."""
    said = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {k: v for k, v in os.environ.items() if k not in said} | dict(KINDS[kind])
    with beside(what, network, environment):
        done = subprocess.run(
            command(work, network, seconds), env=environment, check=True, capture_output=True,
            text=True,
        )  # fmt: skip
    return float(done.stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", nargs="+", choices=BESIDE, default=BESIDE)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--network", default="efficientnet_b0")
    parser.add_argument("--one", choices=WORKS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(images_a_second(options.one, options.network, options.seconds))
        return
    for what in options.beside:
        for work in WORKS:
            ratios = []
            speeds: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for number in range(options.rounds):
                for kind in KINDS if number % 2 else reversed(KINDS):
                    found = asked(kind, work, what, options.network, options.seconds)
                    speeds[kind].append(found)
                ratios.append(speeds["ours"][-1] / speeds["spinning"][-1])
            ours, theirs = (median(speeds[kind]) for kind in KINDS)
            print(
                f"{options.network}, {work}, beside {what}: {median(ratios):.2f}"
                f" ({min(ratios):.2f}–{max(ratios):.2f}); {ours:.1f} and {theirs:.1f} images/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
