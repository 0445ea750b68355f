"""What each part of the staged fine-tuning brings, by folds of the training images.

    python benchmarks/ablation.py FOLDER [--parts NAME …] [--folds 5] [--out DIR] [--json]
    python benchmarks/ablation.py FOLDER --test NAME       the part that was chosen, once, on test/

FOLDER has `train/` and `val/` with class folders in each; its `test/` is not touched. Each part
adds to the one before it. A fold is tested once, by the last weights: a tenth of the other folds'
images settles the share of the two classifiers, `main` and `auxiliary`, in their `blend`, and
chooses no epoch, as all of it is soon answered right. `pseudo-labels` label the fold's own images
and learn from them: transductive. Gains are over the part that it adds to, on the same folds. What
is already in DIR is kept, so that the command can be interrupted.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import retinue
from spread import told

PLAIN: dict[str, Any] = {"zoom": [0.8, 1.2], "rotation": 10, "horizontal_flip": 0.5}
LIGHT: dict[str, Any] = {"zoom": [0.8, 1.2], "horizontal_flip": 0.5}
PASTED = {**PLAIN, "zoom_paste": True, "splice": 0.5}
RICH = {**PASTED, "mixing": {"quarter_mask": 0.5}}
PAIRS = {"name": "class_pairs", "classes": 16, "images": 2}
FOLDS = 5
FEATURES = 16
"""Of the gated linear unit: fewer than the classes."""


def stage(name: str, trainable: str | int, augment: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One of the published training's, shortened: views are cached, and rates are higher."""
    head = trainable == "head"
    rate = (
        {"name": "adam", "lr": 3e-3, "weight_decay": 0}
        if head
        else {"name": "sgd", "lr": 1e-2, "momentum": 0.9, "nesterov": False, "weight_decay": 0}
    )
    return {
        "name": name,
        "trainable": trainable,
        "epochs": 30 if head else 12,
        "views": 6 if head else 4,
        "batch_size": 32,
        "sampler": PAIRS,
        "validate_every": 3,
        "frozen_batchnorm": True,
        "optimizer": rate,
        "schedule": {"name": "cosine", "final": 0.05},
        "augment": augment,
        **more,
    }


def recipes() -> dict[str, tuple[dict[str, Any], str | None]]:
    """Part → its recipe, and the part that it adds to."""
    glu: dict[str, Any] = {"name": "glu", "features": FEATURES}
    both = {**glu, "auxiliary": True}
    head = stage("head", "head", PLAIN)
    blocks = stage("blocks", 2, PLAIN)
    light = stage("light", 2, LIGHT)
    pasted = [stage("head", "head", PASTED), stage("blocks", 2, PASTED), light]
    rich = [stage("head", "head", RICH), stage("blocks", 2, RICH), light]
    own = [
        stage("own", 2, RICH, data={"name": "pseudo_labels", "of": "test", "confidence": 0.5}),
        stage("own-light", 2, LIGHT),
        stage("labelled", 2, LIGHT, data="labelled", epochs=6),
    ]
    aux = {"auxiliary_weight": 0.25}
    centre = {**aux, "centre_weight": 0.25}
    rows: list[tuple[str, str | None, Any, dict[str, Any], list[dict[str, Any]]]] = [
        ("head alone", None, None, {}, [head]),
        ("+ GLU", "head alone", glu, {}, [head]),
        ("+ auxiliary", "+ GLU", both, aux, [head]),
        ("+ centre loss", "+ auxiliary", both, centre, [head]),
        ("+ unfreezing", "+ centre loss", both, centre, [head, blocks]),
        ("+ light last stage", "+ unfreezing", both, centre, [head, blocks, light]),
        ("+ splice, zoom-paste", "+ light last stage", both, centre, pasted),
        ("+ mask", "+ splice, zoom-paste", both, centre, rich),
        ("+ pseudo-labels", "+ mask", both, centre, [*rich, *own]),
        ("linear head, unfreezing", "+ unfreezing", None, {}, [head, blocks]),
        ("linear head, light", "linear head, unfreezing", None, {}, [head, blocks, light]),
    ]
    found = {}
    for name, base, chosen, options, stages in rows:
        model = {"name": "tf_efficientnet_lite0", "weights": "imagenet", "head": chosen}
        recipe = {
            "task_options": {**options, "calibration": "none"},
            "model": {k: v for k, v in model.items() if v is not None},
            "stages": stages,
            "tensorboard": False,
            "evaluation": {"split": "test", "keep": "last"},
        }
        found[name] = (recipe, base)
    return found


def rank(path: Path) -> bytes:
    """The same wherever the folder lies."""
    return hashlib.sha256("/".join(path.parts[-2:]).encode()).digest()


def write_fold(root: Path, fold: int, folds: int, table: Path) -> None:
    """A table that tests on one fold of `train/` and `val/`, and validates on a tenth of the
    rest."""
    images: dict[str, list[Path]] = {}
    for split in ("train", "val"):
        for folder in sorted((root / split).iterdir()):
            images.setdefault(folder.name, []).extend(sorted(folder.iterdir()))
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for label, paths in images.items():
            kept = []
            for k, path in enumerate(sorted(paths, key=rank)):
                if k % folds == fold:
                    rows.writerow([path.relative_to(root).as_posix(), label, "test"])
                else:
                    kept.append(path)
            for k, path in enumerate(kept):
                split = "val" if k < max(len(kept) // 10, 1) else "train"
                rows.writerow([path.relative_to(root).as_posix(), label, split])


def train(name: str, recipe: dict[str, Any], root: Path, fold: int, folds: int, out: Path) -> Any:
    """The figures of one part on one fold."""
    of = "" if folds == FOLDS else f"-of-{folds}"  # other folds are other trainings
    place = out / f"{name.replace(' ', '_')}-{fold}{of}"
    done = place / "metrics.json"
    if not done.is_file():
        table = out / f"fold-{fold}{of}.csv"
        write_fold(root, fold, folds, table)
        data = {"path": str(table.absolute()), "images": str(root.absolute())}
        recipe = {**recipe, "data": data, "seed": fold}
        shutil.rmtree(place, ignore_errors=True)  # of one that was interrupted
        retinue.train(recipe, out=place, report=False, quiet=True)
    figures = json.loads(done.read_text("utf-8"))
    main = figures.get("top1_main", figures["top1"])
    return {"main": main, "auxiliary": figures.get("top1_auxiliary"), "blend": figures["top1"]}


def test(name: str, recipe: dict[str, Any], root: Path, out: Path) -> Any:
    """The figures of one part on `test/`."""
    place = out / f"{name.replace(' ', '_')}-test"
    if not (place / "metrics.json").is_file():
        shutil.rmtree(place, ignore_errors=True)
        data = {"path": str(root.absolute())}
        retinue.train({**recipe, "data": data}, out=place, report=False, quiet=True)
    figures = json.loads((place / "metrics.json").read_text("utf-8"))
    return {k: v for k, v in figures.items() if k.startswith("top1") or k == "transductive"}


def main() -> None:
    known = recipes()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", nargs="+", choices=known, default=list(known), metavar="NAME")
    parser.add_argument("--test", choices=known, metavar="NAME")
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    out = asked.out or Path(tempfile.mkdtemp(prefix="ablation-"))
    out.mkdir(parents=True, exist_ok=True)
    if asked.test is not None:
        figures = test(asked.test, known[asked.test][0], asked.folder, out)
        print(json.dumps({"part": asked.test, "test": figures}))
        return
    found: dict[str, list[dict[str, Any]]] = {}
    for name in asked.parts:
        recipe, base = known[name]
        rows = [
            train(name, recipe, asked.folder, fold, asked.folds, out) for fold in range(asked.folds)
        ]
        found[name] = rows
        line: dict[str, Any] = {"part": name}
        for what in ("main", "auxiliary", "blend"):
            values = [row[what] for row in rows if row[what] is not None]
            line[what] = told(values) if values else None
        if base in found:
            both = zip(rows, found[base], strict=True)
            line["gain"] = told([own["blend"] - theirs["blend"] for own, theirs in both])
        if asked.json:
            print(json.dumps(line), flush=True)
            continue
        parts = [
            f"{what} {value['mean']:.3f} ± {value['sd']:.3f}"
            for what in ("main", "auxiliary", "blend", "gain")
            if (value := line.get(what))
        ]
        print(f"{name:26} {'  '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
