"""docs/benchmarks.md: a table for each claim, of what the other scripts left in results/.

    python benchmarks/page.py [--check]

Each of them is called with `--json benchmarks/results/NAME.json` first. What nobody has measured
stands there as not measured yet. `--check` writes nothing, and fails if the page is another.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import FOLDER

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
INPUT = "python benchmarks/input_pipeline.py --json benchmarks/results/input_pipeline.json"
TENSORFLOW = (
    "python benchmarks/input_pipeline.py --tensorflow PYTHON --json benchmarks/results/tf_data.json"
)
TRAINING = "python benchmarks/training_step.py --json benchmarks/results/training_step.json"
ENGINES = "python benchmarks/engines.py --json benchmarks/results/engines.json"
STAGED = "python benchmarks/staged_cache.py DATA --json benchmarks/results/staged_cache.json"
STARTUP = "python benchmarks/startup.py --json benchmarks/results/startup.json"
PREDICT = (
    "python benchmarks/predict.py FOLDER --precision bf16 int8 --memory 50000"
    " --json benchmarks/results/predict.json"
)


@dataclass(frozen=True)
class Claim:
    """Something that is said to be fast."""

    key: str
    title: str
    target: str
    command: str


@dataclass(frozen=True)
class Chapter:
    """Claims that belong together."""

    title: str
    text: str
    claims: Sequence[Claim]


CHAPTERS = (
    Chapter(
        "Inference",
        "Images a second of each engine, and of the one that `auto` takes, against timm's own"
        " network in eager PyTorch, float32, channels-last, batches of 16 at 224×224.",
        (
            Claim("inference-efficientnet_b0", "EfficientNet-B0", "≥ 2.5×", ENGINES),
            Claim("inference-mobilenet_v2", "MobileNetV2", "≥ 3×", ENGINES),
            Claim("inference-resnet50", "ResNet-50", "≥ 90 % of the machine's limit", ENGINES),
            Claim("inference-vit_b_16", "ViT-B/16", "≥ 90 % of the machine's limit", ENGINES),
            Claim("limit", "Share of a large matrix product's FLOP/s", "≥ 0.9", ENGINES),
            Claim("int8", "Eight bits", "ResNet-50 ≥ 1.8× (VNNI: 3×), ViT-B/16 ≥ 1.2×", ENGINES),
            Claim("bf16", "bfloat16", "with AMX: ResNet-50 ≥ 8×, ViT-B/16 ≥ 5×", ENGINES),
            Claim("precision-cost", "What lower precision costs in accuracy", "told", ENGINES),
            Claim(
                "end-to-end",
                "JPEG files to JSONL, whole processes, engine cached",
                "EfficientNet-B0 ≥ 3×",
                PREDICT,
            ),
            Claim(
                "memory",
                "Memory of `predict` over 50,000 images",
                "< 5 % more at the end than after a tenth",
                PREDICT,
            ),
        ),
    ),
    Chapter(
        "How soon a command answers",
        "Seconds from a cold shell.",
        (
            Claim("startup-predict", "`predict` of one image, its engine cached", "< 2 s", STARTUP),
            Claim("startup-lists", "`models`, `recipes`", "< 1 s", STARTUP),
            Claim("startup", "Other commands", "", STARTUP),
        ),
    ),
    Chapter(
        "Training",
        "A step (forward, loss, backward, SGD) against timm's own network in eager float32, at"
        " equal loss curves.",
        (
            Claim("training-efficientnet_b0", "EfficientNet-B0", "≥ 1.6×", TRAINING),
            Claim("training-mobilenet_v2", "MobileNetV2", "≥ 1.3×", TRAINING),
            Claim("training-resnet50", "ResNet-50", "≥ 1.05×", TRAINING),
            Claim("training-vit_base_patch16", "ViT-B/16", "≥ 1×", TRAINING),
            Claim(
                "staged-cache",
                "Staged fine-tuning on eight cached views, against the same without a cache",
                "≥ 3× for 30 epochs at equal accuracy",
                STAGED,
            ),
        ),
    ),
    Chapter(
        "Input",
        "Training images a second and core: decode, random crop, flip, colour, normalise, batch.",
        (
            Claim("input-jpeg", "From JPEG files, against timm's transforms", "≥ 2×", INPUT),
            Claim("input-packed", "From packed images, against timm's transforms", "≥ 4×", INPUT),
            Claim("input-pillow", "From JPEG files, against Pillow alone", "", INPUT),
            Claim("input-packed-pillow", "From packed images, against Pillow alone", "", INPUT),
            Claim(
                "input-tfdata", "Against a `tf.data` pipeline doing the same", "≥ 1.5×", TENSORFLOW
            ),
        ),
    ),
    Chapter(
        "On a GPU",
        "Images a second in training and the share of the bf16 peak, against timm under automatic"
        " mixed precision.",
        (
            Claim("gpu-eager", "Against timm, eager", "≥ 1.5×", ""),
            Claim("gpu-compiled", "Against timm, compiled", "≥ 1.05×", ""),
        ),
    ),
    Chapter(
        "Scale",
        "",
        (
            Claim(
                "scale",
                "What a data set of 1,280,000 images takes before its first step",
                "index 20 s and 2 GB, first step 60 s",
                "python benchmarks/scale.py --train --json benchmarks/results/scale.json",
            ),
        ),
    ),
)
HEAD = """# Benchmarks

<!-- written by `python benchmarks/page.py`, from benchmarks/results/ -->

How fast retinue is beside what people would use instead. A ratio is of two things measured
alternately in one run on one machine, above 1 where retinue is faster, with its spread; what is
absolute (images a second) holds for that machine alone. What is not measured yet says so. Each
table has the command that makes it, in a checkout: run it on your machine, which decides more than
anything here. `benchmarks/README.md` of the checkout has more comparisons, and
[`retinue bench`](bench.md) measures your own model, data and recipe.
"""


Rows = list[tuple[dict[str, Any], dict[str, Any]]]
"""What was measured, each with all of the file that tells it."""


def read(folder: Path = FOLDER) -> dict[str, Rows]:
    """Claim → what was measured: for a case and a class of machine the newest. Raises ValueError
    for a file that is not in the form that README.md tells."""
    found: dict[str, dict[Any, tuple[dict[str, Any], dict[str, Any]]]] = {}
    files = []
    for path in sorted(folder.glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(told, dict) or {"command", "date", "machine", "results"} - told.keys():
            raise ValueError(f"{path} is not in the form that benchmarks/README.md tells")
        files.append(told)
    for told in sorted(files, key=lambda one: one["date"]):
        for result in told["results"]:
            key = (result.get("case"), result.get("peer"), machine_class(told["machine"]))
            found.setdefault(result["claim"], {})[key] = (result, told)
    return {claim: list(rows.values()) for claim, rows in found.items()}


def machine_class(machine: Mapping[str, Any]) -> str:
    """What decides how figures of two machines compare."""
    features = ", ".join(machine.get("features") or ["no vector extension known"])
    return f"{machine.get('cores', '?')} cores, {features}"


def page(results: Mapping[str, Rows]) -> str:
    """All of it; what no chapter asks for comes last."""
    parts = [HEAD]
    known = {claim.key for chapter in CHAPTERS for claim in chapter.claims}
    others = [Claim(key, key, "", "") for key in sorted(results.keys() - known)]
    last = [Chapter("More", "", others)] if others else []
    for chapter in (*CHAPTERS, *last):
        parts.append(f"## {chapter.title}\n")
        if chapter.text:
            parts.append(f"{chapter.text}\n")
        parts += [_claim(claim, results.get(claim.key, [])) for claim in chapter.claims]
    return "\n".join(parts)


def _claim(claim: Claim, rows: Rows) -> str:
    target = f" (target {claim.target})" if claim.target else ""
    lines = [f"### {claim.title}{target}\n"]
    if not rows:
        how = f": `{claim.command}`" if claim.command else ""
        return "\n".join([*lines, f"Not measured yet{how}.\n"])
    lines += [
        "| | against | ratio | spread | ours, theirs | machine | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for result, told in rows:
        lines.append(_row(result, machine_class(told["machine"])))
    lines.append("")
    for command in sorted({told["command"] for _, told in rows}):
        dates = sorted({told["date"] for _, told in rows if told["command"] == command})
        lines.append(f"`{command}`, {', '.join(dates)}\n")
    return "\n".join(lines)


def _row(result: Mapping[str, Any], machine: str) -> str:
    ratio, low, high = (result.get(key) for key in ("ratio", "low", "high"))
    spread = "–" if low is None or high is None else f"{low:.2f}–{high:.2f}"
    kind = result.get("spread")
    if kind and low is not None:
        spread += f" ({kind})"
    values = [v for v in (result.get("ours"), result.get("theirs")) if v is not None]
    told = ", ".join(_figure(value) for value in values)
    unit = result.get("unit", "")
    note = f"; {result['note']}" if result.get("note") else ""
    cells = [
        f"{result.get('case', '')}{note}",
        result.get("peer") or "–",
        "–" if ratio is None else f"**{ratio:.2f}×**",
        spread,
        f"{told} {unit}".strip() or "–",
        machine,
        _met(result),
    ]
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _figure(value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _met(result: Mapping[str, Any]) -> str:
    """Whether the target is met: a ratio, of which more is better, or else ours in its unit."""
    target = result.get("target")
    less = result.get("better") == "less"
    value = None if less else result.get("ratio")
    value = result.get("ours") if value is None else value
    if target is None or value is None:
        return "–"
    met = value <= target if less else value >= target
    unit = f" {result['unit']}" if less and result.get("unit") else ""
    return f"{'≤' if less else '≥'} {target:g}{unit}: {'met' if met else 'missed'}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail if the page is another")
    options = parser.parse_args(arguments)
    text = page(read())
    if options.check:
        if PAGE.read_text(encoding="utf-8") != text:
            sys.exit(f"{PAGE} is out of date: python benchmarks/page.py")
        return
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
