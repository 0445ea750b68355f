"""What the scripts leave for `docs/benchmarks.md`: one form of JSON, told in README.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
"""What is told of here stands on the page."""


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json` prints the results, `--json FILE` writes them down."""
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="print the results as JSON, or write them into FILE (benchmarks/results/NAME.json)",
    )


def leave(benchmark: str, results: Sequence[Mapping[str, Any]], file: str | None) -> None:
    """Write `results` into `file`; `-` prints them alone, None does nothing."""
    if file == "-":
        json.dump(list(results), sys.stdout, indent=2)
        print()
    elif file is not None:
        whole = {
            "benchmark": benchmark,
            "command": command(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine(),
            "results": [_rounded(result) for result in results],
        }
        place = Path(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _rounded(result: Mapping[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in result.items()}


def command() -> str:
    """How this was called, without `--json` and the folders that a path lies in."""
    given, kept = iter(sys.argv[1:]), []
    for one in given:
        if one == "--json":
            next(given, None)
        elif not one.startswith("--json="):
            path = Path(one)
            kept.append(path.name if path.is_absolute() else one)
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *kept])


def machine() -> dict[str, Any]:
    """The class of this machine: what decides how its figures compare with another's."""
    from retinue.data.cpus import usable_cpus
    from retinue.processor import cpu_features, cpu_name

    wanted = ("torch", "timm", "openvino", "onnxruntime", "numpy", "opencv-python-headless")
    return {
        "cpu": cpu_name(),
        "features": cpu_features(),
        "cores": usable_cpus(),
        "system": platform.system(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "versions": {name: found for name in wanted if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(package)
    return None
