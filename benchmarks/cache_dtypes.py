"""What each `cache_dtype` takes on disk, loses, and comes to after a short training.

    python benchmarks/cache_dtypes.py DATA [--network NAME] [--seeds 0 1 2] [--out DIR] [--json]

DATA has class folders in `train/` and `val/` or `test/`. The recipe is that of `staged_cache.py`,
shorter: the head alone, then the head and the last block, with two augmented views of each image;
the last weights are judged. The kinds alternate, each a `retinue train` of its own with an empty
cache of features. For each kind: bytes of both stages' features, the mean and largest relative
error, the top-1 of each seed, and the seconds of all processors. What is already in DIR is kept.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from retinue.training.options import CacheDtype
from staged_cache import RECIPE, asked, trained

KINDS: tuple[CacheDtype, ...] = get_args(CacheDtype)
SHORTER = ("stages.0.epochs=3", "stages.1.epochs=5", "evaluation.keep=last")


def training(kind: CacheDtype, data: Path, seed: int, folder: Path, recipe: str) -> dict[str, Any]:
    """Top-1, seconds of all processors, and what was kept of each stage's features."""
    told = folder.with_suffix(".json")
    if told.is_file():
        return dict(json.loads(told.read_text()))
    kinds = [f"stages.{number}.cache_dtype={kind}" for number in range(2)]
    spent = trained(recipe, data, folder, f"seed={seed}", *kinds, *SHORTER)
    stages = json.loads((folder / "environment.json").read_text())["trunk"]
    result = {
        "top1": json.loads((folder / "metrics.json").read_text())["top1"],
        "processor": spent["processor"],
        "dtypes": [stage["dtype"] for stage in stages.values()],
        "bytes": [stage["bytes"] for stage in stages.values()],
        "relative_error": [stage["relative_error"] for stage in stages.values()],
        "largest_relative_error": [stage["largest_relative_error"] for stage in stages.values()],
    }
    told.write_text(json.dumps(result))
    return result


def line(kind: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """For people."""
    size = sum(runs[0]["bytes"]) / 1e6
    mean = max(max(run["relative_error"]) for run in runs)
    most = max(max(run["largest_relative_error"]) for run in runs)
    each = " ".join(f"{run['top1']:.1%}" for run in runs)
    seconds = statistics.median(run["processor"] for run in runs)
    return (
        f"{kind:8} {size:8.1f} MB  relative error {mean:.2%}, at most {most:.2%}"
        f"  top-1 {statistics.mean(run['top1'] for run in runs):.1%} ({each})  {seconds:.0f} s"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = asked(__doc__, "cache-dtypes")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["float16", "int8"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    recipe = RECIPE.format(network=options.network, last=options.last, cache="on", views=2)
    done: dict[str, list[dict[str, Any]]] = {kind: [] for kind in options.kinds}
    for seed in options.seeds:
        for kind, runs in done.items():
            place = options.out / f"{kind}-{seed}"
            runs.append(training(kind, options.data, seed, place, recipe))  # type: ignore[arg-type]
    print(json.dumps(done) if options.json else "\n".join(line(*one) for one in done.items()))


if __name__ == "__main__":
    main()
