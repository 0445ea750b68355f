"""JPEG files to JSONL: `retinue predict` against timm's own way of inference; and its memory.

    python benchmarks/predict.py [FOLDER …] [--network NAME …] [--rounds 5] [--precision bf16 int8]
                                 [--their-batch 256 …] [--memory 50000] [--json [FILE]]

Both are whole processes, from a cold shell to the last line of the file, by turns, on the same
weights (ours, and exported for timm) and up to 1,000 photographs of the folders. timm's is
`timm_inference.py`. Ours once before anything is kept, which is told beside, and then with the
engine that was compiled on this machine before; `--precision` adds what is chosen by hand. The
ratio is the median over rounds of their seconds through ours, with a bootstrap interval of 95 %,
and beside it on how many of the photographs both name the same class first.

EfficientNet-B0's weights are drawn, its BatchNorms settled on some of the photographs, which speed
does not ask about, but what fewer bits answer does; those of tf_efficientnet_lite0 and mobilenet_v2
are ImageNet's. What answers in fp32 although fewer bits were asked for (its answers would differ,
or it is no faster) has no figure.

`--memory N`: the resident memory of `retinue predict` over N files (links to the photographs, in
folders of 1,000), looked at twice a second: the most between a tenth and a fifth of the answers
against the most in the last tenth.

Without a folder: photographs of 500×375 pixels cut out of scikit-learn's two.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from input_pipeline import make_photographs
from results import add_json, leave
from retinue import modelfile
from retinue.inference.predictor import example_inputs
from retinue.modelfile import ModelDescription
from retinue.models.network import Network
from retinue.models.registry import create_model
from retinue.sample import Sample
from training_step import bootstrap

HERE = Path(__file__).parent
CASES = {
    "efficientnet_b0": "efficientnet_b0",
    "tf_efficientnet_lite0": "tf_efficientnet_lite0",
    "mobilenet_v2": "mobilenetv2_100",
}
"""Ours → timm's name of it."""
WEIGHTED = ("tf_efficientnet_lite0", "mobilenet_v2")
"""Networks whose ImageNet weights pip brings."""
MOST = 1000
TARGET = 3.0
SMALL = "mobilenet_v3_small"
"""The network whose answers take little beside all the rest."""
TOGETHER = 1000
"""Files in a folder."""
GROWTH = 5.0
"""Per cent of memory more at the end than after a tenth: the target."""


class Model(NamedTuple):
    """One network on the disk."""

    ours: Path
    theirs: Path
    """Its state dict for timm."""
    int8: Path | None


class Taken(NamedTuple):
    """One run of a process."""

    seconds: float
    said: str
    """On standard error."""


def run(arguments: Sequence[str | Path], environment: Mapping[str, str]) -> Taken:
    """Runs it. SystemExit for one that fails."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    taken = Taken(time.perf_counter() - began, done.stderr.decode(errors="replace").strip())
    if done.returncode:
        raise SystemExit(f"{arguments}: {taken.said}")
    return taken


def retinue(*arguments: str | Path) -> list[str | Path]:
    """A command of ours."""
    return ["-m", "retinue.cli", *arguments]


def settled(network: Network, photographs: Sequence[Path]) -> Network:
    """With BatchNorm's statistics of real images, so that what is drawn tells them apart."""
    norms = [one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = None  # the mean of all that it sees
    samples = [Sample(str(path)) for path in photographs]
    images = example_inputs(samples, network.preprocessing, 32)
    with torch.inference_mode():
        network(images)
        classifier = [one for one in network.eval().modules() if isinstance(one, torch.nn.Linear)]
        classifier[-1].bias -= network(images).mean(0)  # or one class would come first everywhere
    return network


def described(network: Network) -> ModelDescription:
    """A classifier of ImageNet's classes, which are called by their numbers."""
    return ModelDescription(
        task="classification",
        classes=[str(k) for k in range(1000)],
        network=network.name,
        arguments=dict(network.arguments),
        preprocessing=network.preprocessing.as_dict(),
    )


def made(
    name: str, photographs: Sequence[Path], folder: Path, environment: Mapping[str, str], int8: bool
) -> Model:
    """The network `name` for both sides."""
    torch.manual_seed(0)
    if name in WEIGHTED:
        network = create_model(name, weights="imagenet").eval()
    else:
        network = settled(create_model(name).eval(), photographs)
    ours = folder / f"{name}.safetensors"
    modelfile.write(ours, network.state_dict(), described(network))
    theirs = folder / f"{name}.timm.safetensors"
    if name in CASES:
        run(retinue("export", ours, "--to", "timm", "--out", theirs), environment)
    small = folder / f"{name}.int8.onnx" if int8 else None
    if small is not None:
        images = folder / "ranges"
        linked(photographs[:: max(len(photographs) // 100, 1)], images, 100)
        command = retinue("export", ours, "--to", "onnx", "--precision", "int8")
        # How much it loses is told with its speed.
        run([*command, "--images", images, "--most-lost", "1", "--out", small], environment)
    return Model(ours, theirs, small)


def linked(photographs: Sequence[Path], folder: Path, count: int) -> Path:
    """`folder` with `count` files, again and again these."""
    for k in range(count):
        place = folder / f"{k // TOGETHER:04d}" / f"{k:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        source = photographs[k % len(photographs)]
        try:
            os.link(source, place)
        except OSError:  # another disk, or more links than this one has
            place.symlink_to(source.resolve())
    return folder


def best(file: Path, name: str, of: Callable[[dict[str, Any]], Any]) -> dict[str, str]:
    """Name of each file → the class that comes first."""
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {Path(row[name]).name: str(of(row)) for row in rows}


def compared(
    name: str,
    model: Model,
    folder: Path,
    scratch: Path,
    environment: Mapping[str, str],
    options: argparse.Namespace,
) -> Iterator[dict[str, Any]]:
    """Results of one network on the photographs in `folder`."""
    count = sum(1 for _ in folder.rglob("*.jpg"))
    ours: dict[str, list[str | Path]] = {
        "fp32": retinue("predict", model.ours, folder, "--out", scratch / "fp32")
    }
    if "bf16" in options.precision:
        command = retinue("predict", model.ours, folder, "--precision", "bf16")
        ours["bf16"] = [*command, "--out", scratch / "bf16"]
    if model.int8 is not None:
        ours["int8"] = retinue("predict", model.int8, folder, "--out", scratch / "int8")
    theirs: dict[str, list[str | Path]] = {}
    for batch in options.their_batch:
        command = [HERE / "timm_inference.py", CASES[name], model.theirs, folder]
        theirs[f"timm {batch}"] = [*command, scratch / f"{batch}.jsonl", "--batch-size", str(batch)]
    first = {}
    for kind, command in list(ours.items()):
        once = run(command, environment)
        if kind != "fp32" and "fp32" in once.said:
            print(f"{name}, {kind}: {once.said}", file=sys.stderr, flush=True)
            del ours[kind]
        first[kind] = once.seconds
    runs = {**theirs, **ours}
    taken: dict[str, list[float]] = {kind: [] for kind in runs}
    for number in range(options.rounds):
        for kind in list(runs)[:: 1 if number % 2 else -1]:
            taken[kind].append(run(runs[kind], environment).seconds)
    peer = min(theirs, key=lambda kind: statistics.median(taken[kind]))
    batch = peer.removeprefix("timm ")
    said = best(scratch / f"{batch}.jsonl", "filename", lambda row: row["index"][0])
    for kind in ours:
        file = scratch / kind / "predictions.jsonl"
        answers = best(file, "path", lambda row: row["classes"][0]["name"])
        assert answers.keys() == said.keys(), "not the same files"
        same = sum(answers[file] == said[file] for file in said) / count
        ratios = [one / other for one, other in zip(taken[peer], taken[kind], strict=True)]
        low, high = bootstrap(ratios)
        spent = statistics.median(taken[kind])
        yield {
            "claim": "end-to-end",
            "case": f"{name}, {count:,} photographs of {options.called}, {kind}",
            "peer": f"timm's way of inference, float32, channels-last, batches of {batch}",
            "ratio": statistics.median(ratios),
            "low": low,
            "high": high,
            "spread": "95 % interval",
            "target": TARGET if kind == "fp32" and name == "efficientnet_b0" else None,
            "ours": count / spent,
            "theirs": count / statistics.median(taken[peer]),
            "unit": "images/s",
            "note": f"{100 * same:.1f} % with the same class first, of {len({*said.values()})};"
            f" {spent:.1f} s, the first time {first[kind]:.1f} s",
        }


def memory_of(
    command: Sequence[str | Path], written: Path, environment: Mapping[str, str]
) -> list[tuple[float, float]]:
    """Bytes of the answers in the folder `written` and MB of resident memory, twice a second."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], env=environment, stdout=subprocess.DEVNULL
    )
    found: list[tuple[float, float]] = []
    while process.poll() is None:
        with suppress(OSError, StopIteration):
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
            size = sum(file.stat().st_size for file in written.rglob("*.jsonl*"))
            found.append((size, int(line.split()[1]) / 1000))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return found


def growth(found: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The most memory between a tenth and a fifth of the answers, and in the last tenth."""
    whole = max(size for size, _ in found)
    early = [mb for size, mb in found if whole / 10 <= size <= whole / 5]
    late = [mb for size, mb in found if size >= 0.9 * whole]
    if not early or not late:
        raise SystemExit("too few images: it was over too soon")
    return max(early), max(late)


def remembered(
    photographs: Sequence[Path], count: int, scratch: Path, environment: Mapping[str, str]
) -> dict[str, Any]:
    """What memory does over `count` files."""
    model = made(SMALL, photographs, scratch, environment, int8=False).ours
    few = linked(photographs, scratch / "few", 100)
    run(retinue("predict", model, few, "--out", scratch / "before"), environment)  # is kept now
    many = linked(photographs, scratch / "many", count)
    out = scratch / "out"
    began = time.perf_counter()
    found = memory_of(retinue("predict", model, many, "--out", out), out, environment)
    seconds = time.perf_counter() - began
    lines = (out / "predictions.jsonl").read_bytes().count(b"\n")
    assert lines == count, f"{lines} answers"
    early, late = growth(found)
    return {
        "claim": "memory", "case": f"{SMALL}, {count:,} photographs", "ratio": None, "low": None,
        "high": None, "ours": 100 * (late / early - 1), "unit": "% more at the end",
        "target": GROWTH, "better": "less",
        "note": f"{early:.0f} MB between a tenth and a fifth, {late:.0f} MB in the last tenth;"
        f" {seconds:.0f} s",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--network", nargs="*", choices=CASES, default=["efficientnet_b0"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", nargs="*", choices=("bf16", "int8"), default=[])
    parser.add_argument("--their-batch", nargs="+", type=int, default=[256], metavar="N",
                        help="the fastest of them is the peer")  # fmt: skip
    parser.add_argument("--images", type=int, default=MOST, help="at most")
    parser.add_argument("--memory", type=int, metavar="N", help="its memory over N files, too")
    add_json(parser)
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        environment = {**os.environ, "RETINUE_CACHE": str(scratch / "cache")}
        if options.folders:
            found = [p for folder in options.folders for p in sorted(folder.rglob("*.[jJ][pP]*"))]
            if not found:
                parser.error("no JPEGs there")
            photographs = found[:: max(len(found) // options.images, 1)][: options.images]
            options.called = ", ".join(folder.resolve().name for folder in options.folders)
        else:
            (scratch / "made").mkdir()
            photographs = make_photographs(scratch / "made", (500, 375), options.images)
            options.called = "500×375"
        for name in options.network:
            own = scratch / name
            own.mkdir()
            model = made(name, photographs, own, environment, "int8" in options.precision)
            folder = linked(photographs, own / "photographs", len(photographs))
            for one in compared(name, model, folder, own, environment, options):
                results.append(one)
                if options.json != "-":
                    print(line(one), flush=True)
        if options.memory:
            results.append(remembered(photographs, options.memory, scratch, environment))
            if options.json != "-":
                print(f"memory: {results[-1]['ours']:.1f} % more: {results[-1]['note']}")
    leave("files to answers", results, options.json)


def line(result: Mapping[str, Any]) -> str:
    """For people."""
    return (
        f"{result['case']}: {result['ratio']:.2f}× {result['peer']} ({result['low']:.2f}–"
        f"{result['high']:.2f}), {result['ours']:.0f} and {result['theirs']:.0f} {result['unit']};"
        f" {result['note']}"
    )


if __name__ == "__main__":
    main()
