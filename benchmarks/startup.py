"""How soon a command answers: wall and processor time from a cold shell, beside those of importing
PyTorch, which hardly a program for the same work does without.

    python benchmarks/startup.py [--rounds 7] [--only predict] [--model FILE] [--image FILE]

Every command is a process of its own, `python -m retinue.cli …`; all of them and the peers take
turns, so that whatever else the machine does meets all alike. Told are the medians, and the least
and the most. Without `--model` three networks with drawn weights are made, one for each task, with
exports of them and an engine that is kept in a cache of the benchmark's own; without `--image` a
photograph is made up. timm is a peer where it can be imported.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from PIL import Image

PEER = "import torch"
NETWORKS = {
    "classification": "efficientnet_b0", "multilabel": "mobilenet_v2", "detection": "yolov3_tiny",
}  # fmt: skip
LISTS = {
    "--version": ["--version"],
    "--help": ["--help"],
    "models": ["models"],
    "models 'RESNET*'": ["models", "RESNET*"],
    "models resnet50": ["models", "resnet50"],
    "recipes": ["recipes"],
    "checks --help": ["checks", "--help"],
}
CLAIMS = {"models": "startup-lists", "recipes": "startup-lists"}
TARGETS = {"startup-lists": 1.0, "startup-predict": 2.0}
"""Seconds: of processor time, and on the clock."""


@dataclass(frozen=True)
class Command:
    """A process."""

    name: str
    arguments: Sequence[str]
    """Of the interpreter."""
    claim: str = "startup"
    environment: Mapping[str, str] = field(default_factory=dict)


class Taken(NamedTuple):
    """Seconds of one run."""

    wall: float
    processor: float
    """In user mode, of all threads."""


def taken(command: Command, environment: Mapping[str, str]) -> Taken:
    """One run of it. SystemExit for one that fails: what says no says it sooner."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command.arguments],
        env={**environment, **command.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{command.name}: {done.stderr.decode(errors='replace').strip()}")
    return Taken(wall, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)


def retinue(name: str, arguments: Sequence[str], claim: str = "startup") -> Command:
    """A command of ours."""
    return Command(f"retinue {name}", ["-m", "retinue.cli", *arguments], claim)


def lists() -> list[Command]:
    """What needs no model."""
    found = [retinue(name, arguments, CLAIMS.get(arguments[0], "startup"))
             for name, arguments in LISTS.items()]  # fmt: skip
    completing = {
        "_RETINUE_COMPLETE": "complete_bash",
        "COMP_WORDS": "retinue models resn",
        "COMP_CWORD": "2",
    }
    program = "from retinue.cli.app import app; app(prog_name='retinue')"
    return [*found, Command("completion", ["-c", program], environment=completing)]


def peers() -> list[Command]:
    """Those that can be imported here."""
    found = [Command(f"python -c '{PEER}'", ["-c", PEER], "")]
    timm = Command("python -c 'import timm'", ["-c", "import timm"], "")
    try:
        taken(timm, os.environ)
    except SystemExit:
        return found
    return [*found, timm]


def predictions(models: Sequence[Path], image: Path) -> list[Command]:
    """One image with each of the models."""
    return [
        retinue(f"predict {model.name} one.jpg", ["predict", str(model), str(image)],
                "startup-predict")
        for model in models
    ]  # fmt: skip


def made(folder: Path, environment: Mapping[str, str]) -> list[Path]:
    """Model files of the three tasks, an ONNX file and one of OpenVINO's."""
    import torch

    from retinue import modelfile
    from retinue.modelfile import ModelDescription
    from retinue.tasks.task import task_type

    found = []
    for name, called in NETWORKS.items():
        torch.manual_seed(0)
        task = task_type(name)([f"class {k}" for k in range(5)])
        network = task.build(called, {}, None)
        description = ModelDescription(
            task=name, classes=list(task.classes), task_state=task.state(), network=network.name,
            arguments=dict(network.arguments), preprocessing=network.preprocessing.as_dict(),
        )  # fmt: skip
        file = folder / f"{name}.safetensors"
        modelfile.write(file, network.state_dict(), description)
        found.append(file)
    images = folder / "photographs"
    images.mkdir()
    for k in range(16):
        photograph(images / f"{k}.jpg", seed=k)
    exports = []
    for to, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
        arguments = ["export", str(found[0]), "--to", to, "--images", str(images)]
        taken(retinue(f"export --to {to}", arguments), environment)
        exports.append(found[0].with_suffix(suffix))
    for model in found:  # so many images that an engine is compiled, which is kept
        arguments = ["predict", str(model), *[str(images)] * 5]
        taken(retinue(f"predict {model.name} photographs", arguments), environment)
    return [*exports, *found]


def photograph(file: Path, seed: int = 0) -> Path:
    """Made up: 640 × 480, with edges and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:480, :640]
    waves = [np.sin(x / rng.uniform(9, 60) + y / rng.uniform(9, 60)) for _ in range(3)]
    pixels = 128 + 70 * np.stack(waves, 2) + rng.normal(0, 12, (480, 640, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    return file


def measured(
    commands: Sequence[Command], rounds: int, environment: Mapping[str, str]
) -> dict[str, list[Taken]]:
    """Of each command so many runs, by turns, after one that does not count."""
    runs: dict[str, list[Taken]] = {command.name: [] for command in commands}
    for number in range(rounds + 1):
        for command in commands if number % 2 else commands[::-1]:
            one = taken(command, environment)
            if number:
                runs[command.name].append(one)
    return runs


def spread(values: Sequence[float]) -> str:
    """`0.25 (0.24–0.31)`."""
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def table(runs: Mapping[str, Sequence[Taken]]) -> str:
    """Markdown."""
    peer = next(name for name in runs if PEER in name)
    rows = [
        f"| command | wall, s | user CPU, s | `{PEER}`, times |",
        "|---|---:|---:|---:|",
    ]
    theirs = median(one.processor for one in runs[peer])
    for name, each in runs.items():
        wall, own = ([getattr(one, what) for one in each] for what in ("wall", "processor"))
        ratio = theirs / max(median(own), 1e-9)
        rows.append(f"| `{name}` | {spread(wall)} | {spread(own)} | {ratio:.1f} |")
    return "\n".join(rows)


def results(
    commands: Sequence[Command], runs: Mapping[str, Sequence[Taken]]
) -> list[dict[str, object]]:
    """As benchmarks/README.md tells: seconds on the clock for predictions, else the processor's."""
    peer = next(command.name for command in commands if not command.claim)
    told: list[dict[str, object]] = []
    for command in commands:
        if not command.claim:
            continue
        what = "wall" if command.claim == "startup-predict" else "processor"
        own, theirs = ([getattr(one, what) for one in runs[name]] for name in (command.name, peer))
        ratios = [b / max(a, 1e-9) for a, b in zip(own, theirs, strict=True)]
        told.append({
            "claim": command.claim, "case": command.name, "peer": peer,
            "ratio": median(ratios), "low": min(ratios), "high": max(ratios),
            "spread": "least and most", "target": TARGETS.get(command.claim), "better": "less",
            "ours": median(own), "theirs": median(theirs),
            "unit": "s" if what == "wall" else "s of user time", "note": "",
        })  # fmt: skip
    return told


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="commands with this in their names")
    parser.add_argument("--model", type=Path, nargs="+", help="model files, exports or run folders")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "pycache")  # as an installed package has
        models = options.model
        commands = lists()
        if models is None and (options.only in "predict" or "predict" in options.only):
            environment["RETINUE_CACHE"] = str(folder / "cache")
            models = made(folder, environment)
        if models:
            commands += predictions(models, options.image or photograph(folder / "one.jpg"))
        commands = [*peers(), *(one for one in commands if options.only in one.name)]
        runs = measured(commands, options.rounds, environment)
    if options.json != "-":
        print(table(runs))
    if options.json:
        leave = importlib.import_module("results").leave
        leave("startup", results(commands, runs), options.json)


if __name__ == "__main__":
    main()
