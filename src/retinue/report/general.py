"""The sections that every task shares: figures, curves, batches, recipe, the run itself."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from retinue.figures import Figure, plain
from retinue.page import plots
from retinue.page.pictures import picture
from retinue.page.record import RunRecord, number, reservation
from retinue.page.section import Section
from retinue.page.text import duration, flat, words
from retinue.report.task import figures_of, remark_of, sections_of, watched_by

NARROW = "\u202f"
"""A narrow space that does not break, before a unit."""
TEMPLATES = Path(__file__).parent / "templates"


def subtitle(record: RunRecord) -> str:
    """What was trained on what, in a line."""
    model = record.recipe.get("model")
    data = record.recipe.get("data")
    parts = [
        str(model["name"]) if isinstance(model, dict) and model.get("name") else "",
        sections_of(record.task).summary(record),
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
    """The declared figures of `metrics.json`, with what they were measured on."""
    metrics = record.metrics
    tiles = []
    for figure in figures_of(record):
        value = number(metrics.get(figure.name))
        if value is not None:
            shown = figure.shown(value).replace(" ", NARROW)
            tiles.append({"name": figure.title, "value": shown, "note": _note(figure, metrics)})
    images = number(metrics.get("images"))
    if not tiles and images is None:
        return None
    split = metrics.get("split")
    return _section(
        "figures", "Figures",
        {"tiles": tiles, "images": int(images or 0), "split": split,
         "meaning": reservation(metrics, own=bool(record.recipe)),
         "baseline": sections_of(record.task).baseline(record), "remark": remark_of(record),
         "rate": number(metrics.get("images_per_second")), "engine": metrics.get("engine")},
    )  # fmt: skip


def curves(record: RunRecord) -> Section | None:
    """Loss, the figure that is watched, and learning rate over the epochs."""
    rows = record.epochs
    measured = {key for row in rows for key, value in row.items() if number(value) is not None}
    kept = _kept_epoch(record)
    drawings = [
        ("loss", plots.curves(rows, ["train_loss", "val_loss"], title="Loss", fractions=False,
                              kept=kept), "Loss over the epochs"),
    ]  # fmt: skip
    if (figure := _curve(record, measured)) is not None:
        name, title = figure.name, figure.title
        drawing = plots.curves(rows, [f"train_{name}", f"val_{name}"], title=title,
                               fractions=figure.unit == "fraction", kept=kept)  # fmt: skip
        drawings.append((name, drawing, f"{title} over the epochs"))
    drawings.append(
        (
            "learning_rate",
            plots.learning_rate(rows, _schedules(record)),
            "Learning rate over the epochs",
        )
    )
    drawn = [
        plots.draw(record, name, drawing, label)
        for name, drawing, label in drawings
        if drawing is not None
    ]
    if not drawn:
        return None
    fitted = {words(key.removeprefix("fitted_")) for key in measured if key.startswith("fitted_")}
    return _section("curves", "Training", {"plots": drawn, "kept": kept, "epochs": len(rows),
                                           "fitted": sorted(fitted)})  # fmt: skip


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
    return _section("batches", "What the network saw", {"pictures": pictures})


def recipe(record: RunRecord) -> Section | None:
    """The recipe as it was run."""
    if not record.recipe_text:
        return None
    command = f"retinue train {shlex.quote(str(record.folder / 'recipe.yaml'))}"
    return _section("recipe", "Recipe", {"text": record.recipe_text, "command": command})


def skipped(record: RunRecord) -> Section | None:
    """Files that could not be used, each with the reason."""
    files = record.environment.get("skipped") or record.metrics.get("skipped") or {}
    if isinstance(files, list):
        files = {str(path): "" for path in files}
    if not files:
        return None
    shown = list(files.items())[:500]
    return _section("skipped", "Skipped files", {"count": len(files), "files": shown})


def run(record: RunRecord) -> Section | None:
    """Timings, machine and versions."""
    environment = dict(record.environment)
    for shown_elsewhere in ("skipped", "settings", "kept", "task_state"):
        environment.pop(shown_elsewhere, None)
    timings = environment.pop("timings", None) or {}
    versions = environment.pop("versions", None) or {}
    speed = [s for row in record.epochs if (s := number(row.get("images_per_second"))) is not None]
    times = [(words(str(key)), _timing(key, value)) for key, value in timings.items()]
    if record.epochs:
        times.append(("epochs", str(len(record.epochs))))
    if speed:
        times.append(("images a second, median epoch", f"{sorted(speed)[len(speed) // 2]:,.0f}"))
    tables = [
        ("Time", times),
        ("Machine and choices", [(words(k), flat(v)) for k, v in environment.items()]),
        ("Versions", [(str(k), flat(v)) for k, v in versions.items()]),
    ]
    tables = [(title, rows) for title, rows in tables if rows]
    return _section("run", "Time, machine, versions", {"tables": tables}) if tables else None


def _section(name: str, title: str, values: dict[str, Any]) -> Section:
    return Section(name, title, TEMPLATES / f"{name}.html", values)


def _curve(record: RunRecord, measured: set[str]) -> Figure | None:
    """The figure to draw beside the loss: the one that is watched, or the first that there is."""
    known = {figure.name: figure for figure in figures_of(record)}
    name = watched_by(record)
    first = known.get(name) or plain(name)
    return next(
        (f for f in (first, *known.values()) if f.name != "loss" and f"val_{f.name}" in measured),
        None,
    )


def _schedules(record: RunRecord) -> dict[str, str]:
    """Stage → the name of its schedule."""
    stages = record.recipe.get("stages")
    found = {}
    for stage in stages if isinstance(stages, list) else []:
        schedule = stage.get("schedule") if isinstance(stage, dict) else None
        if isinstance(schedule, dict):
            found[str(stage.get("name"))] = str(schedule.get("name"))
    return found


def _kept_epoch(record: RunRecord) -> float | None:
    """As the run has it written down; of older or unfinished ones, its best epoch so far."""
    kept = record.environment.get("kept")
    if isinstance(kept, dict) and (epoch := number(kept.get("epoch"))):
        return epoch
    name = watched_by(record)
    figure = next((f for f in figures_of(record) if f.name == name), plain(name))
    best: tuple[float | None, float | None] = None, None
    for row in record.epochs:
        value = number(row.get(f"val_{name}"))
        if figure.better(value, best[0]):
            best = value, float(row["epoch"])
    return best[1]


def _note(figure: Figure, values: dict[str, Any]) -> str:
    interval = figure.interval(values)
    if interval is None:
        return figure.note
    shown = f"95 % interval {figure.span(interval).replace(' ', NARROW)}"
    return f"{shown}; {figure.note}" if figure.note else shown


def _about(record: RunRecord) -> str:
    about = record.recipe.get("about")
    return str(about.get("title") or "") if isinstance(about, dict) else ""


def _timing(key: str, value: Any) -> str:
    seconds = number(value)
    return duration(seconds) if seconds is not None and key.endswith("_s") else flat(value)
