"""A training step of ours against timm's same network in plain eager float32.

    python benchmarks/training_step.py [--network NAME …] [--batch N] [--rounds N] [--bfloat16]
        [--clock cpu] [--json [FILE]]

A step is forward, loss, backward and SGD with momentum. Both begin with the same weights, timm's
translated, and get the same images and labels in the same order, so that their losses must be the
same curve: the greatest relative difference stands beside the ratio. One of more than `TOLERANCE`
fails, unless rounding alone moves the curve (half) as far: timm's own network is then given the
images of each batch in other orders, which are the same sums in other orders. Each side has a
process of its own, as memory is taken and kept by the process: timm's network is eager, float32 and
channels-last; ours is as `retinue train` has it, with `--bfloat16` under autocast, too (then
`BFLOAT16` holds for the losses). The two alternate, so that what else the machine does meets both;
the figure is the median over rounds of timm's time through ours, with a bootstrap interval of 95 %.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from results import add_json, leave
from retinue.training.mixed import on_cpu
from retinue.turns import turns

TOLERANCE = 1e-3
"""Of the losses, relative, in float32, where rounding does not move them further."""
BFLOAT16 = 5e-2
WARM = 2
"""Steps that do not count, but in the curve."""


class Case(NamedTuple):
    """A network."""

    theirs: str
    """timm's name of it."""
    target: float
    amx: float
    """The target where the processor multiplies bfloat16 matrices in tiles."""


CASES = {
    "efficientnet_b0": Case("efficientnet_b0", 1.6, 2.5),
    "mobilenet_v2": Case("mobilenetv2_100", 1.3, 2.5),
    "resnet50": Case("resnet50", 1.05, 2.5),
    "vit_base_patch16": Case("vit_base_patch16_224", 1.0, 2.5),
}


def build_theirs(name: str) -> nn.Module:
    """timm's network."""
    from retinue.models.timm import library

    torch.manual_seed(0)
    network: nn.Module = library().create_model(CASES[name].theirs)
    return network


def build_ours(name: str, weights: Path) -> nn.Module:
    """Our network with timm's `weights`."""
    from retinue.models.registry import create_model, find
    from retinue.weights.layout import recognise, translate
    from retinue.weights.loading import load_into

    state = load_file(weights)
    layout = recognise(state, find(name).family)
    # Equal work: stochastic depth and dropout off on both sides, as timm has them.
    network = create_model(name, **layout.arguments, drop_path=0.0, dropout=0.0)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert load_into(network, translate(layout, state, shapes)).complete
    return network


ORDERS: dict[str, Callable[[int], Iterable[int]]] = {
    "as it is": range,
    "reversed": lambda batch: reversed(range(batch)),
    "even ones first": lambda batch: [*range(0, batch, 2), *range(1, batch, 2)],
}
"""Of a batch's images."""
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def stepper(
    network: nn.Module,
    batch: int,
    size: int,
    loss_of: Callable[..., torch.Tensor],
    clock: Callable[[], float],
    *,
    fused: bool,
    order: Callable[[int], Iterable[int]],
) -> Callable[..., tuple[float, float]]:
    """A function that takes the next training step, in bfloat16 or not, and returns its seconds
    and loss."""
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.9, fused=fused)
    generator = torch.Generator().manual_seed(1)
    # Few images, again and again, so that there is something to learn.
    images = torch.randn((2, batch, 3, size, size), generator=generator)
    labels = torch.randint(0, 1000, (2, batch), generator=generator)
    images, labels = images[:, list(order(batch))], labels[:, list(order(batch))]
    sets = [i.contiguous(memory_format=torch.channels_last) for i in images]
    done = 0

    def step(*, bfloat16: bool) -> tuple[float, float]:
        nonlocal done
        x, y = sets[done % 2], labels[done % 2]
        done += 1
        began = clock()
        with on_cpu("bf16" if bfloat16 else "fp32"):
            loss = loss_of(network, x, y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return clock() - began, float(loss.detach())

    return step


@dataclass(frozen=True)
class Work:
    """What a side's steps are of."""

    name: str
    """Of the network."""
    weights: Path
    batch: int
    size: int
    clock: str
    """Of `CLOCKS`."""
    ours: bool = False
    order: str = "as it is"
    """Of `ORDERS`."""


def side(work: Work, asked: Connection) -> None:
    """A process: a step for every question, whose content is whether it is in bfloat16."""
    cross_entropy = nn.functional.cross_entropy
    how: dict[str, Any] = {"batch": work.batch, "size": work.size, "clock": CLOCKS[work.clock]}
    # Ours as retinue.training.optim has it.
    how |= {"fused": work.ours, "order": ORDERS[work.order]}
    if work.ours:
        from retinue.inference.devices import fit_threads
        from retinue.inference.memory import keep_freed

        fit_threads()
        keep_freed()
        network = build_ours(work.name, work.weights)
        step = stepper(network, loss_of=lambda n, x, y: cross_entropy(n(x)["logits"], y), **how)
    else:
        network = build_theirs(work.name)
        step = stepper(network, loss_of=lambda n, x, y: cross_entropy(n(x), y), **how)
    asked.send(torch.get_num_threads())
    while (question := asked.recv()) is not None:
        asked.send(step(bfloat16=question))


class Side:
    """The process of a side, to be asked for steps."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self._asked, other = context.Pipe()
        self._process = context.Process(target=side, args=(work, other), daemon=True)
        self._process.start()
        self.threads: int = self._asked.recv()
        self.losses: list[float] = []

    def step(self, *, bfloat16: bool = False) -> float:
        """Seconds of the next step."""
        self._asked.send(bfloat16)
        seconds, loss = self._asked.recv()
        self.losses.append(loss)
        return float(seconds)

    def close(self) -> None:
        """Ends it."""
        self._asked.send(None)
        self._process.join()


def alternated(
    theirs: Callable[[], float], ours: Callable[[], float], rounds: int
) -> list[tuple[float, float]]:
    """Seconds of both in each round, who begins in turn."""
    both = turns({"theirs": theirs, "ours": ours}, least=0)
    return [(*taken["theirs"], *taken["ours"]) for taken in itertools.islice(both, rounds)]


def bootstrap(ratios: list[float], draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the median."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (draws, len(ratios))), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def apart(some: Sequence[float], others: Sequence[float]) -> float:
    """The greatest relative difference of two curves."""
    return max(abs(a - b) / abs(a) for a, b in zip(some, others, strict=True))


def same_curve(found: Mapping[str, Any]) -> bool:
    """Whether the losses differ no more than precision and rounding allow."""
    if found["bfloat16"]:
        return bool(found["difference"] <= BFLOAT16)
    return bool(found["difference"] <= max(TOLERANCE, 2 * (found["rounding"] or 0.0)))


def measure(
    name: str,
    *,
    batch: int,
    rounds: int,
    bfloat16: bool = False,
    clock: str = "wall",
    size: int = 224,
) -> dict[str, Any]:
    """The figures of one network; `bfloat16`: ours under autocast."""
    from retinue.processor import cpu_features

    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "timm.safetensors"
        state = {k: v.contiguous().clone() for k, v in build_theirs(name).state_dict().items()}
        save_file(state, weights)
        work = Work(name, weights, batch, size, clock)
        theirs, ours = (Side(replace(work, ours=k)) for k in (False, True))
    for _ in range(WARM):
        theirs.step()
        ours.step(bfloat16=bfloat16)
    pairs = alternated(theirs.step, lambda: ours.step(bfloat16=bfloat16), rounds)
    theirs.close()
    ours.close()
    ratios = [t / o for t, o in pairs]
    low, high = bootstrap(ratios)
    difference = apart(theirs.losses, ours.losses)
    rounding = None
    if difference > TOLERANCE and not bfloat16:
        for order in list(ORDERS)[1:]:
            again = Side(replace(work, order=order))
            for _ in theirs.losses:
                again.step()
            again.close()
            rounding = max(rounding or 0.0, apart(theirs.losses, again.losses))
    note = f"losses of {len(ours.losses)} steps differ by {difference:.1e} at most, from "
    note += f"{theirs.losses[0]:.3f} to {theirs.losses[-1]:.3f}"
    if rounding is not None:
        note += f"; timm's with the images in other orders by up to {rounding:.1e}"
    return {
        "claim": f"training-{name}",
        "case": f"batches of {batch} at {size}×{size}, {'bfloat16' if bfloat16 else 'float32'}",
        "peer": "timm, eager float32, channels-last",
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
        "spread": "95 % interval",
        "target": case.amx if bfloat16 and "amx_bf16" in cpu_features() else case.target,
        "ours": batch / statistics.median(o for _, o in pairs),
        "theirs": batch / statistics.median(t for t, _ in pairs),
        "unit": "images/s" if clock == "wall" else "images a processor's second",
        "threads": ours.threads,
        "rounds": rounds,
        "bfloat16": bfloat16,
        "losses": [round(loss, 5) for loss in ours.losses],
        "their_losses": [round(loss, 5) for loss in theirs.losses],
        "difference": difference,
        "rounding": rounding,
        "note": note,
    }


def line(found: Mapping[str, Any]) -> str:
    """For people."""
    return (
        f"training step, {found['claim'][9:]}, {found['case']}: {found['ratio']:.2f}× timm's speed "
        f"[{found['low']:.2f}, {found['high']:.2f}], target {found['target']:g} "
        f"({found['ours']:.1f} against {found['theirs']:.1f} images/s, {found['threads']} threads; "
        f"{found['note']})"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--network", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu disturbs less beside other work"
    )
    parser.add_argument("--bfloat16", action="store_true", help="ours under autocast, too")
    add_json(parser)
    options = parser.parse_args(arguments)
    results = []
    precisions = (False, True) if options.bfloat16 else (False,)
    for name, bfloat16 in itertools.product(options.network, precisions):
        found = measure(
            name,
            batch=options.batch,
            rounds=options.rounds,
            bfloat16=bfloat16,
            clock=options.clock,
        )
        results.append(found)
        if options.json != "-":
            print(line(found), flush=True)
    leave("training step", results, options.json)
    if not all(map(same_curve, results)):
        sys.exit("the losses are not the same curve")


if __name__ == "__main__":
    main()
