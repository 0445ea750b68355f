"""The engine that `auto` takes against timm's same network in eager float32, channels-last.

    python benchmarks/engines.py [--network NAME …] [--batch N] [--rounds N] [--fewer-bits]
                                 [--photographs FOLDER] [--json [FILE]]

Both answer images of 224×224, each in a process of its own, by turns with a large float32 matrix
product, which says what the machine can do meanwhile; `--fewer-bits` adds bf16 and int8 (ranges
chosen by the same images), each by the faster of its engines. The ratio is the median over rounds
of timm's time through ours, with a bootstrap interval of 95 %. Weights are drawn: they do not
matter for speed.

`--photographs`: what fewer bits cost networks whose real weights are at hand, on the ImageNet
photographs of the folder (`labels.csv` with the columns `file` and `class_index`). Each half of
them is judged by networks whose int8 ranges were chosen by a quarter of the other half.
"""

from __future__ import annotations

import argparse
import csv
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from results import add_json, leave
from retinue.errors import RetinueError
from retinue.exporting.int8 import quantised
from retinue.inference.devices import fit_threads
from retinue.inference.engine import Engine
from retinue.inference.engines import compile_engine
from retinue.inference.predictor import example_inputs
from retinue.inference.runtimes.onnxruntime import OnnxRuntimeEngine, session
from retinue.inference.runtimes.openvino import OpenVINOEngine, core
from retinue.inference.tracing import onnx_program
from retinue.models.anatomy import count_macs
from retinue.models.registry import create_model
from retinue.models.timm import library
from retinue.sample import Sample
from training_step import bootstrap

# ours: timm's, claim, target
CASES = {
    "efficientnet_b0": ("efficientnet_b0", "inference-efficientnet_b0", 2.5),
    "mobilenet_v2": ("mobilenetv2_100", "inference-mobilenet_v2", 3.0),
    "resnet50": ("resnet50", "inference-resnet50", 1.0),
    "vit_b16": ("vit_base_patch16_224", "inference-vit_b_16", 1.0),
}
INT8_TARGETS = {"resnet50": 1.8, "vit_b16": 1.2}
SIZE = (224, 224)
WEIGHTED = ("mobilenet_v2", "tf_efficientnet_lite0")
"""Networks whose ImageNet weights pip brings."""
SIDE = 2048
"""Of the matrices, whose product is 2·SIDE³ operations."""


def seconds(run: Callable[[], Any]) -> float:
    """What a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def of_timm(name: str, batch: int, asked: Connection) -> None:
    """A process: answers a batch for every question, by timm's network as one runs it first when it
    is to be fast."""
    network = library().create_model(name).eval().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, *SIZE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        while asked.recv():
            network(images)
            asked.send(True)


class Peer:
    """timm's network in a process of its own: how memory is taken and kept is the process's, and
    ours keeps it."""

    def __init__(self, name: str, batch: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._asked, other = context.Pipe()
        self._process = context.Process(target=of_timm, args=(name, batch, other), daemon=True)
        self._process.start()

    def __call__(self) -> None:
        self._asked.send(True)
        self._asked.recv()

    def close(self) -> None:
        """Ends it."""
        self._asked.send(False)
        self._process.join()


def in_int8(network: nn.Module, x: torch.Tensor) -> Iterator[Engine]:
    """The network in eight bits, by each engine."""
    program, signature = onnx_program(network, x)
    with tempfile.TemporaryDirectory() as folder:
        exact, small = Path(folder) / "exact.onnx", Path(folder) / "int8.onnx"
        program.save(str(exact))
        quantised(exact, small, x)
        yield OnnxRuntimeEngine(session(small), signature, "int8")
        model = core().read_model(small)
        for way in ("apart", "together"):
            yield OpenVINOEngine(model, signature, "int8", way)


def in_bf16(network: nn.Module, x: torch.Tensor) -> Iterator[Engine]:
    """The network in bfloat16, by each engine that has it and agrees."""
    for name in ("openvino", "torch"):
        try:
            yield compile_engine(network, x[:8], engine=name, precision="bf16")
        except RetinueError as error:
            print(f"  no bf16 by {name}: {error.what}", flush=True)


def fastest(engines: Iterator[Engine], x: torch.Tensor) -> Engine | None:
    """By a few calls of each."""
    made = list(engines)
    for engine in made:
        engine(x)
    return min(made, key=lambda one: min(seconds(lambda: one(x)) for _ in range(2)), default=None)


def compared(name: str, batch: int, rounds: int, fewer_bits: bool) -> Iterator[dict[str, Any]]:
    """Results of one network."""
    peer, claim, target = CASES[name]
    torch.manual_seed(0)
    network = create_model(name).eval()
    flops = 2 * count_macs(network, SIZE) * batch
    x = torch.randn(batch, 3, *SIZE)
    matrix = torch.randn(SIDE, SIDE)
    engines: dict[str, Engine | None] = {"fp32": compile_engine(network, x[:8])}
    if fewer_bits:
        engines["bf16"] = fastest(in_bf16(network, x), x)
        engines["int8"] = fastest(in_int8(network, x), x)
    theirs_alone = Peer(peer, batch)
    runs: dict[str, Callable[[], Any]] = {"theirs": theirs_alone}
    for kind, engine in engines.items():
        if engine is not None:
            runs[kind] = lambda engine=engine: engine(x)
    runs["matrices"] = lambda: matrix @ matrix
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {kind: [] for kind in runs}
    for number in range(rounds):
        for kind in list(runs)[:: 1 if number % 2 else -1]:
            taken[kind].append(seconds(runs[kind]))
    theirs_alone.close()
    limit = 2 * SIDE**3 / statistics.median(taken["matrices"])
    case = f"{name}, {SIZE[0]}×{SIZE[1]}, batch {batch}"
    theirs = batch / statistics.median(taken["theirs"])
    targets = {"fp32": target, "int8": INT8_TARGETS.get(name)}
    for kind, engine in engines.items():
        if engine is None:
            continue
        ratios = [one / other for one, other in zip(taken["theirs"], taken[kind], strict=True)]
        low, high = bootstrap(ratios)
        spent = statistics.median(taken[kind])
        way = getattr(engine, "way", "")
        by = f"{engine.name} {way}".strip()
        yield {
            "claim": claim if kind == "fp32" else kind,
            "case": case,
            "peer": "timm, eager, channels-last, float32",
            "ratio": statistics.median(ratios),
            "low": low,
            "high": high,
            "spread": "95 % interval",
            "target": targets.get(kind),
            "ours": batch / spent,
            "theirs": theirs,
            "unit": "images/s",
            "note": f"{by}; {flops / spent / 1e9:.0f} GFLOP/s",
        }
        if kind == "fp32":
            shares = [
                flops / one / (2 * SIDE**3 / other)
                for one, other in zip(taken[kind], taken["matrices"], strict=True)
            ]
            low, high = bootstrap(shares)
            yield {
                "claim": "limit", "case": case, "peer": "a large float32 matrix product",
                "ratio": statistics.median(shares), "low": low, "high": high,
                "spread": "95 % interval", "target": 0.9, "ours": flops / spent / 1e9,
                "theirs": limit / 1e9, "unit": "GFLOP/s", "note": by,
            }  # fmt: skip


def costs(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """What the network loses of its top-1 accuracy."""
    network = create_model(name, weights="imagenet").eval()
    with open(folder / "labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    place = {path.name: path for path in folder.rglob("*.[jJ]*")}
    samples = [Sample(str(place[Path(row["file"]).name])) for row in rows]
    labels = torch.tensor([int(row["class_index"]) for row in rows])
    how = network.preprocessing
    right: dict[str, int] = {}
    by: dict[str, str] = {}
    for half in (0, 1):
        ranges = example_inputs(samples[half::8], how, len(samples))
        judged = range(1 - half, len(rows), 2)
        print(f"{name}: {len(judged)} photographs, {len(ranges)} others for the ranges", flush=True)
        engines = {"fp32": compile_engine(network, ranges[:8])}
        if (rough := fastest(in_bf16(network, ranges), ranges[:16])) is not None:
            engines["bf16"] = rough
        engines["int8"] = next(in_int8(network, ranges))
        by |= {kind: engine.name for kind, engine in engines.items()}
        for start in range(0, len(judged), 50):
            some = judged[start : start + 50]
            x = example_inputs([samples[k] for k in some], how, len(some))
            for kind, engine in engines.items():
                hits = engine(x).argmax(1) == labels[list(some)]
                right[kind] = right.get(kind, 0) + int(hits.sum())
    exact = right["fp32"] / len(rows)
    for kind in list(right)[1:]:
        found = right[kind] / len(rows)
        yield {
            "claim": "precision-cost", "case": f"{name}, {kind}", "ratio": None, "low": None,
            "high": None, "ours": 100 * (exact - found), "unit": "points of top-1",
            "better": "less",
            "note": f"{100 * found:.1f} % instead of {100 * exact:.1f} % on {len(rows)}"
            f" photographs, by {by[kind]}",
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--fewer-bits", action="store_true", help="bf16 and int8, too")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER")
    add_json(parser)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("retinue").setLevel(logging.INFO if options.json != "-" else logging.WARNING)
    fit_threads()
    results = []
    for name in options.network:
        for one in compared(name, options.batch, options.rounds, options.fewer_bits):
            results.append(one)
            if options.json != "-":
                print(
                    f"{one['claim']}: {one['case']}: {one['ratio']:.2f} "
                    f"({one['low']:.2f}–{one['high']:.2f}), {one['ours']:.1f} and "
                    f"{one['theirs']:.1f} {one['unit']}, {one['note']}",
                    flush=True,
                )
    for name in WEIGHTED if options.photographs else ():
        for one in costs(name, options.photographs):
            results.append(one)
            if options.json != "-":
                print(f"{one['case']} costs {one['ours']:.1f} {one['unit']}: {one['note']}")
    leave("engines", results, options.json)


if __name__ == "__main__":
    main()
