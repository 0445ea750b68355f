"""The sections that every task shares: figures, curves, batches, recipe, the run itself."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

from retinue.documents import read_json
from retinue.exporting import card
from retinue.figures import Figure, plain
from retinue.page import plots
from retinue.page.pictures import cut, picture
from retinue.page.record import RunRecord, number, picks, reservation
from retinue.page.section import Section
from retinue.page.text import duration, flat, percent, words
from retinue.report.studied import search, tries
from retinue.report.task import figures_of, remark_of, sections_of, watched_by
from retinue.text import counted, listed

NARROW = "\u202f"
"""A narrow space that does not break, before a unit."""
TEMPLATES = Path(__file__).parent / "templates"
_section = partial(Section.of, TEMPLATES)


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
    searched = search(record)
    if record.metrics or (searched and len(searched["done"]) >= searched["wanted"]):
        return ""
    done = len(searched["done"] if searched else record.epochs)
    count = counted(done, "trial" if searched else "epoch") if done else "nothing"
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
            tile = {"name": figure.title, "value": shown, "note": figure.note}
            tiles.append({**tile, "interval": interval(figure, metrics)})
    images = number(metrics.get("images"))
    if not tiles and images is None:
        return None
    split = metrics.get("split")
    return _section(
        "figures", "Figures",
        {"tiles": tiles, "images": int(images or 0), "split": split,
         "meaning": reservation(metrics, own=bool(record.recipe), picked=_picked(record)),
         "folds": len(metrics["folds"]) if isinstance(metrics.get("folds"), list) else 0,
         "baseline": sections_of(record.task).baseline(record), "remark": remark_of(record),
         "rate": number(metrics.get("images_per_second")), "engine": metrics.get("engine")},
    )  # fmt: skip


def _picked(record: RunRecord) -> list[str]:
    """What the validation split has chosen."""
    compared = [] if tries(record) is None else ["what was trained"]
    return [*compared, *(["the best epoch"] if picks(record) else [])]


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
    return _section("curves", "Training", {"plots": drawn, "kept": kept, "epochs": len(rows)})


def batches(record: RunRecord) -> Section | None:
    """Pictures of training images as the network saw them, of each stage."""
    stages: list[dict[str, Any]] = []
    rank = {str(stage.get("name")): k for k, stage in enumerate(_stages(record))}
    for stage, path in sorted(record.batches, key=lambda one: rank.get(one[0], len(rank)))[:8]:
        shown: dict[str, Any] = {"stage": stage, "pictures": [], "data": None, "error": ""}
        stages.append(shown)
        try:
            content = path.read_bytes()
            shown["pictures"] = _cut_out(content, path.with_suffix(".json"))
            if not shown["pictures"]:  # of an older run, which did not say what is where
                shown["data"] = picture(content, most=1100)
        except Exception as error:  # named in the page instead of the picture
            shown["error"] = f"{path.name}: {error}"
    return _section("batches", "What the network saw", {"stages": stages}) if stages else None


def _cut_out(sheet: bytes, told: Path) -> list[dict[str, str]]:
    """The pictures on a sheet, each with what it shows; none where nothing tells."""
    if not told.is_file():
        return []
    found = []
    for one in read_json(told)["pictures"][:60]:
        x, y, width, height = one["place"]
        classes = [str(name) for name in one["classes"]]
        caption = listed(classes, 4) if len(classes) > 1 else "".join(classes) or "no label"
        if one.get("mixed"):
            caption += ", with another mixed in"
        data = cut(sheet, (x, y, x + width, y + height))
        found.append({"data": data, "caption": caption, "name": str(one["name"])})
    return found


def pseudo_labels(record: RunRecord) -> Section | None:
    """What came of the labels that the model gave images itself."""
    file = record.folder / "stages/pseudo_labels.json"
    if not file.is_file():
        return None
    rank = {str(stage.get("name")): k for k, stage in enumerate(_stages(record))}
    rows = sorted(read_json(file), key=lambda row: rank.get(row["stage"], len(rank)))
    return _section("pseudo_labels", "Labels of its own", {"rows": rows})


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
    for shown_elsewhere in _ELSEWHERE:
        environment.pop(shown_elsewhere, None)
    timings, waited = environment.pop("timings", None), environment.pop("waited", None)
    plan = environment.pop("plan", None)
    versions = environment.pop("versions", None) or {}
    tables = [
        ("Time", [*_times(timings if isinstance(timings, dict) else {}), *_planned(plan)]),
        ("Waiting", _waits(waited if isinstance(waited, dict) else {})),
        ("Speed", _speeds(record)),
        ("Machine and choices", [(words(k), _short_flat(v)) for k, v in environment.items()]),
        ("Versions", [(str(k), flat(v)) for k, v in versions.items()]),
    ]
    tables = [(title, rows) for title, rows in tables if rows]
    return _section("run", "Time, machine, versions", {"tables": tables}) if tables else None


_ELSEWHERE = ("skipped", "settings", "kept", "fitted", "task_state", "model", "recipe")
"""Keys of `environment.json` that other sections show, or that nobody reads."""
_LONGEST = 400
"""So many characters of a value are shown; `environment.json` has it whole."""


def _short_flat(value: Any) -> str:
    text = flat(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (all of it in environment.json)"


_PARTS = {
    "frozen_s": "frozen part, computed once",
    "training_s": "training",
    "validation_s": "validation",
    "evaluation_s": "final evaluation",
}
"""The parts of a training's time, in their order."""


def _times(timings: dict[str, Any]) -> list[tuple[str, str]]:
    """Each part, what is left of the whole, and the whole."""
    seconds = {key: s for key, value in timings.items() if (s := number(value)) is not None}
    rows = [(name, duration(seconds[key])) for key, name in _PARTS.items() if key in seconds]
    stages = timings.get("frozen_of_stages_s")
    told = {k: s for k, v in stages.items() if (s := number(v))} if isinstance(stages, dict) else {}
    if rows and len(told) > 1:
        each = ", ".join(f"{stage} {duration(spent)}" for stage, spent in told.items())
        rows = [(n, f"{t} ({each})" if n == _PARTS["frozen_s"] else t) for n, t in rows]
    rows += [(words(str(key)), _timing(key, value)) for key, value in timings.items()
             if key not in (*_PARTS, "total_s", "frozen_of_stages_s")]  # fmt: skip
    if (total := seconds.get("total_s")) is not None:
        rest = total - sum(seconds.get(key, 0.0) for key in _PARTS)
        if rest >= 0.1:
            rows.append(("estimates, checkpoints and the rest", duration(rest)))
        rows.append(("total", duration(total)))
    return rows


def _planned(plan: Any) -> list[tuple[str, str]]:
    """What the estimate before the first step came to."""
    total = number(plan.get("total_s")) if isinstance(plan, dict) else None
    return [] if total is None else [("as estimated before the first step", duration(total))]


def _waits(stages: dict[str, Any]) -> list[tuple[str, str]]:
    """What the steps of each stage waited for, where they waited at all."""
    rows = []
    for stage, spent in stages.items():
        steps = number(spent.get("steps")) or 0.0
        for key, name in (("data", "its data"), ("host", "Python to say what comes next")):
            seconds = number(spent.get(key)) or 0.0
            if steps > 0 and seconds >= 0.005 * steps:
                share = f"{percent(seconds / steps, 0)} of {duration(steps)}"
                rows.append((f"stage {stage}, for {name}", share))
    return rows


def _speeds(record: RunRecord) -> list[tuple[str, str]]:
    """Images a second, each with what was done to an image; an epoch on cached features reads no
    images at all."""
    trunk = record.environment.get("trunk")
    cached = {stage for stage, how in trunk.items() if how} if isinstance(trunk, dict) else set()
    stages: dict[str, list[float]] = {}
    for row in record.epochs:
        if (speed := number(row.get("images_per_second"))) is not None:
            stages.setdefault(str(row.get("stage", "")), []).append(speed)
    rows = []
    for stage, speeds in stages.items():
        middle = sorted(speeds)[len(speeds) // 2]
        what = "cached features, not images," if stage in cached else "images"
        epochs = f"median of {len(speeds)} epochs" if len(speeds) > 1 else "its epoch"
        rows.append((f"training, stage {stage}" if stage else "training",
                     f"{middle:,.0f} {what} a second ({epochs})"))  # fmt: skip
    if (rate := number(record.metrics.get("images_per_second"))) is not None:
        rows.append(("final evaluation", f"{rate:,.0f} images a second, read and decoded"))
    return rows


def model(record: RunRecord) -> Section | None:
    """The model card: what it is, weighs and costs, and where it comes from."""
    facts = record.environment.get("model")
    if not isinstance(facts, dict):
        return None
    rows = card.rows(facts, record.environment)
    return _section("model", "Model card", {"rows": rows})


def _curve(record: RunRecord, measured: set[str]) -> Figure | None:
    """The figure to draw beside the loss: the one that is watched, or the first that there is."""
    known = {figure.name: figure for figure in figures_of(record)}
    name = watched_by(record)
    first = known.get(name) or plain(name)
    return next(
        (f for f in (first, *known.values()) if f.name != "loss" and f"val_{f.name}" in measured),
        None,
    )


def _stages(record: RunRecord) -> list[dict[str, Any]]:
    """Those of the recipe, in their order."""
    stages = record.recipe.get("stages")
    return [one for one in stages if isinstance(one, dict)] if isinstance(stages, list) else []


def _schedules(record: RunRecord) -> dict[str, str]:
    """Stage → the name of its schedule."""
    found = {}
    for stage in _stages(record):
        schedule = stage.get("schedule")
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
        if value is not None and not figure.better(best[0], value):
            best = value, float(row["epoch"])
    return best[1]


def interval(figure: Figure, values: dict[str, Any]) -> str:
    """The 95 % interval of a figure among the `values` of a run, as text; empty without one."""
    found = figure.interval(values)
    return "" if found is None else figure.span(found).replace(" ", NARROW)


def _about(record: RunRecord) -> str:
    about = record.recipe.get("about")
    return str(about.get("title") or "") if isinstance(about, dict) else ""


def _timing(key: str, value: Any) -> str:
    seconds = number(value)
    return duration(seconds) if seconds is not None and key.endswith("_s") else flat(value)
