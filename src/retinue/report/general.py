"""The sections that every task shares: figures, curves, batches, recipe, the run itself."""

from __future__ import annotations

import base64
import io
import shlex
from pathlib import Path
from typing import Any

from markupsafe import Markup

from retinue.report import plots, statistics
from retinue.report.html import Section, percent
from retinue.report.record import RunRecord, number
from retinue.report.statistics import is_fraction
from retinue.text import shorten


def subtitle(record: RunRecord) -> str:
    """What was trained on what, in a line."""
    model = record.recipe.get("model")
    data = record.recipe.get("data")
    parts = [
        str(model["name"]) if isinstance(model, dict) and model.get("name") else "",
        f"{len(record.classes):,} classes" if record.classes else "",
        _about(record),
        Path(str(data["path"])).name if isinstance(data, dict) and data.get("path") else "",
    ]
    return " · ".join(part for part in parts if part)


def status(record: RunRecord) -> str:
    """A sentence for a run that is not finished; empty for one that is."""
    if record.metrics:
        return ""
    done = len(record.epochs)
    count = f"{done} epoch{'s' if done != 1 else ''}" if done else "nothing"
    resume = f"retinue train {shlex.quote(str(record.folder))} --resume"
    return f"This run has no final figures yet: {count} so far. To go on with it: {resume}"


def headline(record: RunRecord) -> Section | None:
    """The figures of `metrics.json`, with what they were measured on."""
    figures = {k: v for k, value in record.metrics.items() if (v := number(value)) is not None}
    if not figures:
        return None
    images = int(figures.pop("images", 0))
    rate = figures.pop("images_per_second", None)
    tiles = []
    for name, value in figures.items():
        if name == f"top{len(record.classes)}":
            continue  # of all classes, the right one is always among them
        shown = percent(value) if is_fraction(name) else f"{value:.3f}"
        tiles.append({"name": _title(name), "value": shown, "note": _note(name, value, images)})
    split = record.metrics.get("split")
    return Section(
        "figures", "Figures", "figures.html",
        {"tiles": tiles, "images": images, "split": split, "meaning": _meaning(split),
         "baseline": _baseline(record), "rate": rate, "engine": record.metrics.get("engine")},
    )  # fmt: skip


def curves(record: RunRecord) -> Section | None:
    """Loss, accuracy and learning rate over the epochs."""
    rows = record.epochs
    measured = {key for row in rows for key, value in row.items() if number(value) is not None}
    watched = [key for key in ("top1", "map50_95", "map50", "auc") if f"val_{key}" in measured][:1]
    if not watched:
        watched = sorted(k[4:] for k in measured if k.startswith("val_") and is_fraction(k[4:]))[:1]
    kept = _kept_epoch(record, watched[0] if watched else "loss")
    figures = [
        ("loss", plots.curves(rows, ["train_loss", "val_loss"], title="Loss", fractions=False,
                              kept=kept), "Loss over the epochs"),
        *((key, plots.curves(rows, [f"train_{key}", f"val_{key}"], title=_title(key),
                             fractions=True, kept=kept), f"{_title(key)} over the epochs")
          for key in watched),
        ("learning_rate", plots.learning_rate(rows), "Learning rate over the epochs"),
    ]  # fmt: skip
    drawn = [
        draw(record, name, figure, label) for name, figure, label in figures if figure is not None
    ]
    if not drawn:
        return None
    return Section(
        "curves", "Training", "curves.html", {"plots": drawn, "kept": kept, "epochs": len(rows)}
    )


def batches(record: RunRecord) -> Section | None:
    """Pictures of training batches as the network saw them."""
    pictures: list[dict[str, str | None]] = []
    for stage, path in record.batches[:8]:
        try:
            pictures.append({"stage": stage, "data": picture(path.read_bytes(), most=1100)})
        except Exception as error:  # named in the page instead of the picture
            pictures.append({"stage": stage, "data": None, "error": f"{path.name}: {error}"})
    if not pictures:
        return None
    return Section("batches", "What the network saw", "batches.html", {"pictures": pictures})


def recipe(record: RunRecord) -> Section | None:
    """The recipe as it was run."""
    if not record.recipe_text:
        return None
    command = f"retinue train {shlex.quote(str(record.folder / 'recipe.yaml'))}"
    return Section(
        "recipe", "Recipe", "recipe.html", {"text": record.recipe_text, "command": command}
    )


def skipped(record: RunRecord) -> Section | None:
    """Files that could not be used, each with the reason."""
    files = record.environment.get("skipped") or record.metrics.get("skipped") or {}
    if isinstance(files, list):
        files = {str(path): "" for path in files}
    if not files:
        return None
    return Section(
        "skipped",
        "Skipped files",
        "skipped.html",
        {"count": len(files), "files": list(files.items())[:500]},
    )


def run(record: RunRecord) -> Section | None:
    """Timings, machine and versions."""
    environment = dict(record.environment)
    for shown_elsewhere in ("skipped", "settings", "kept"):
        environment.pop(shown_elsewhere, None)
    timings = environment.pop("timings", None) or {}
    versions = environment.pop("versions", None) or {}
    speed = [s for row in record.epochs if (s := number(row.get("images_per_second"))) is not None]
    times = [(_words(str(key)), _duration(key, value)) for key, value in timings.items()]
    if record.epochs:
        times.append(("epochs", str(len(record.epochs))))
    if speed:
        times.append(("images a second, median epoch", f"{sorted(speed)[len(speed) // 2]:,.0f}"))
    tables = [
        ("Time", times),
        ("Machine and choices", [(_words(k), _flat(v)) for k, v in environment.items()]),
        ("Versions", [(str(k), _flat(v)) for k, v in versions.items()]),
    ]
    tables = [(title, rows) for title, rows in tables if rows]
    return (
        Section("run", "Time, machine, versions", "run.html", {"tables": tables})
        if tables
        else None
    )


def draw(record: RunRecord, name: str, figure: Any, label: str) -> dict[str, Any]:
    """Writes `plots/<name>.png`; returns the same drawing as markup for the page."""
    plots.png(figure, record.folder / "plots" / f"{name}.png")
    return {"svg": Markup(plots.svg(figure, name=name, label=label)), "label": label}


def picture(content: bytes, *, most: int, quality: int = 82) -> str:
    """An image file as a `data:` address of a JPEG whose longer side is at most `most` pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        small = image.convert("RGB")
    small.thumbnail((most, most))
    return data_address(small, quality)


def data_address(image: Any, quality: int = 82) -> str:
    """A Pillow image as a `data:` address."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _kept_epoch(record: RunRecord, key: str) -> float | None:
    kept = record.environment.get("kept")
    if isinstance(kept, dict) and (epoch := number(kept.get("epoch"))):
        return epoch
    column = f"val_{key}"
    scored = [(v, float(r["epoch"])) for r in record.epochs
              if (v := number(r.get(column))) is not None]  # fmt: skip
    if not scored:
        return None
    return min(scored)[1] if key == "loss" else max(scored, key=lambda pair: (pair[0], -pair[1]))[1]


def _title(name: str) -> str:
    known = {
        "loss": "Loss",
        "ece": "Calibration error",
        "auc": "AUC",
        "f1_macro": "F1, mean of the classes",
        "map50": "mAP at 0.5",
        "map50_95": "mAP",
        "voc_ap50": "VOC AP",
    }
    if name in known:
        return known[name]
    if name.startswith("top") and name[3:].isdigit():
        return f"Top-{name[3:]} accuracy"
    return _words(name).capitalize()


def _note(name: str, value: float, images: int) -> str:
    if name == "top1" and images:
        low, high = statistics.wilson(round(value * images), images)
        return f"95 % interval {100 * low:.1f}–{percent(high)}"
    return {
        "ece": "mean gap between confidence and accuracy",
        "loss": "mean cross-entropy",
        "balanced_accuracy": "mean recall of the classes",
        "auc": "chance that a positive ranks above a negative",
    }.get(name, "")


def _meaning(split: Any) -> str:
    if split in ("val", "valid", "validation"):
        return (
            "This split also chose the best epoch, so the figures lean to the bright side; "
            "a test split is the fair judge."
        )
    if split == "train":
        return "The network was trained on these images: the figures say nothing about new ones."
    return ""


def _baseline(record: RunRecord) -> str:
    if record.scored is None or not record.classes:
        return ""
    counts = [int((record.scored.labels == k).sum()) for k in range(len(record.classes))]
    k = max(range(len(counts)), key=counts.__getitem__)
    share = counts[k] / max(1, sum(counts))
    name = shorten(record.classes[k], 60)
    return f"Answering “{name}” for every image would be right for {percent(share)}."


def _about(record: RunRecord) -> str:
    about = record.recipe.get("about")
    return str(about.get("title") or "") if isinstance(about, dict) else ""


def _words(key: str) -> str:
    return key.removesuffix("_s").replace("_", " ")


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_words(str(k))} {_flat(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(v) for v in value)
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _duration(key: str, value: Any) -> str:
    seconds = number(value)
    return _seconds(seconds) if seconds is not None and key.endswith("_s") else _flat(value)


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
