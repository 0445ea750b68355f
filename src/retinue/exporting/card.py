"""The model card: what a model is, weighs, costs and began from, told in one place: as values for
`environment.json`, as rows for the report, and as the `README.md` that goes with it to a hub."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinue.documents import yaml_text
from retinue.exporting import preparing
from retinue.exporting.header import header
from retinue.page import splits
from retinue.page.record import RunRecord, number, reservation
from retinue.tasks.shipped import SHIPPED
from retinue.text import counted, utf8, visible

if TYPE_CHECKING:
    from retinue.inference.predictor import Predictor
    from retinue.modelfile import ModelDescription
    from retinue.sample import Sample

MOST_CLASSES = 200
"""Names that the text lists; the model file has all."""
Facts = Mapping[str, Any]
"""What `model_card` gives."""


def model_card(
    predictor: Predictor, file: Path, samples: Sequence[Sample] = (), *, batch_size: int = 32
) -> dict[str, Any]:
    """Plain JSON values: `network, parameters, macs, file_bytes, input, prepared, weights`, and
    `speed` as `retinue.inference.speed` measures it on `samples`, `batch_size` of them together.
    What cannot be told is None."""
    from retinue.exporting.weights import began_from
    from retinue.inference.speed import measured
    from retinue.models.anatomy import count_macs

    network, preprocessing = predictor.network, predictor.preprocessing
    weights = began_from(predictor.description)
    return {
        "network": _network(predictor.description),
        "parameters": sum(p.numel() for p in network.parameters()),
        "macs": _or_none(lambda: count_macs(network, preprocessing.size), "multiply-adds"),
        "file_bytes": file.stat().st_size,
        "input": list(preprocessing.size),
        "prepared": preparing.words(preprocessing),
        "weights": None if weights is None else weights.model_dump(exclude_none=True),
        "speed": _or_none(lambda: measured(predictor, samples, most=batch_size), "speed")
        if samples
        else None,
    }


def _network(description: ModelDescription) -> str:
    """As the recipe calls it: of a detector, its backbone."""
    model: Any = (description.recipe or {}).get("model")
    name = model.get("name") if isinstance(model, dict) else None
    return name if isinstance(name, str) else description.network


def _or_none(work: Callable[[], Any], what: str) -> Any:
    try:
        return work()
    except Exception as error:  # the training is done, whatever its card lacks
        log = logging.getLogger("retinue")
        log.warning("the model card lacks its %s (%s: %s)", what, type(error).__name__, error)
        return None


# --- in words ------------------------------------------------------------------------------------


def rows(facts: Facts, environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What each fact is called, and it in words. `environment`: what the run that it was measured
    in says of its machine, `threads` and `cpu`."""
    found = [("network", str(facts.get("network") or "unknown"))]
    if (count := number(facts.get("parameters"))) is not None:
        found.append(("parameters", f"{count:,.0f}"))
    if (macs := number(facts.get("macs"))) is not None:
        found.append(("multiply-adds (MACs)", f"{macs:,.0f} for one image"))
    if (size := number(facts.get("file_bytes"))) is not None:
        found.append(("model file", f"{size / 1e6:,.1f} MB"))
    shape = facts.get("input")
    if isinstance(shape, list) and len(shape) == 2:
        found.append(("input", f"{shape[0]} × {shape[1]} pixels (height × width)"))
    if facts.get("prepared"):
        found.append(("images are prepared", str(facts["prepared"])))
    found += _answering(facts.get("speed"), environment)
    found.append(("began from", _beginning(facts.get("weights"))))
    return found


def _answering(speed: Any, environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Latency and throughput, with what they were measured with."""
    if not isinstance(speed, dict):
        return []
    latency, rate = number(speed.get("latency_ms")), number(speed.get("images_per_second"))
    threads = number(environment.get("threads"))
    on = [str(speed.get("engine") or ""), str(speed.get("device") or "")]
    if threads is not None and speed.get("device") == "cpu":
        on.append(counted(round(threads), "thread"))
        on.append(str(environment.get("cpu") or ""))
    how = ", ".join(part for part in on if part)
    views = number(speed.get("views")) or 1
    each = f" of {views:.0f} views" if views > 1 else ""
    found = []
    if latency is not None:
        found.append(("one image alone", f"{_short(latency)} ms{each}"))
    if rate is not None:
        found.append((f"{number(speed.get('batch')) or 1:.0f} images together",
                      f"{_short(rate)} images a second"))  # fmt: skip
    if found:
        found.append(("measured with", f"{how}; from decoded pixels to the answer, without reading"
                                       " and decoding the file"))  # fmt: skip
    return found


def _short(value: float) -> str:
    """Three figures before and after the point, or all before it."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _beginning(weights: Any) -> str:
    if not isinstance(weights, dict):
        return "random weights"
    said = f"the weights “{weights.get('name')}”"
    if weights.get("source"):
        said += f" ({weights['source']})"
    licence = weights.get("licence")
    return f"{said}, licence {licence}" if licence else f"{said}, whose licence is not known here"


# --- as a page -----------------------------------------------------------------------------------


def readme(
    file: Path,
    *,
    repository: str | None = None,
    licence: str | None = None,
    data: str | None = None,
) -> str:
    """The card of the model file `file` as Markdown with a YAML header, as hubs read it. Where it
    lies in the folder of a run, the figures and splits are those of the run.

    `repository`: where it will lie, OWNER/REPO. `licence`: by which the model may be used, in the
    hub's words (`apache-2.0`). `data`: a sentence or more of your own about the images it is meant
    for.

    Raises UsageError, RetinueError as loading the model does.
    """
    from retinue.inference.predictor import load
    from retinue.page.record import read_run

    predictor = load(file, device="cpu", engine="torch")
    description, task = predictor.description, predictor.task
    run = read_run(file.parent) if (file.parent / "recipe.yaml").is_file() else None
    facts = model_card(predictor, file)
    environment: Mapping[str, Any] = {}
    if run is not None and isinstance(kept := run.environment.get("model"), dict):
        facts, environment = {**facts, "speed": kept.get("speed")}, run.environment
    metrics = run.metrics if run is not None and run.metrics else description.figures
    figures = task.figures_among(list(metrics), description.classes)
    title = (repository or description.network).rpartition("/")[2]
    measured = [
        (figure.title, figure.shown(value), span and figure.span(span), figure.note)
        for figure in figures
        if (value := number(metrics.get(figure.name))) is not None
        for span in [figure.interval(metrics)]
    ]
    parts = [
        f"# {_plain(title)}",
        f"{_kind(description)}, made with retinue"
        f" {_plain(description.versions.get('retinue', ''))}".rstrip()
        + ".",
        "## What it is for",
        *([data.strip()] if data else []),
        *_intended(description, run, places=task.places),
        "## Figures",
        *_measured(metrics, measured),
        "## How to use it",
        _use(repository, file),
        "## What it is",
        _table(("what", "value"), [(_plain(a), _plain(b)) for a, b in rows(facts, environment)]),
        "## Licence",
        *_licences(facts, licence),
        *_recipe(description),
    ]
    values = _header(description, title, licence, metrics, figures, facts)
    return f"---\n{header(values)}---\n\n" + "\n\n".join(parts) + "\n"


def _header(
    description: ModelDescription,
    title: str,
    licence: str | None,
    metrics: Mapping[str, Any],
    figures: Sequence[Any],
    facts: Facts,
) -> dict[str, Any]:
    shipped = SHIPPED.get(description.task)
    values: dict[str, Any] = {"library_name": "retinue"}
    if licence:
        values["license"] = licence
    if shipped and shipped.on_hubs:
        values["pipeline_tag"] = shipped.on_hubs
    weights = facts.get("weights")
    source = weights.get("source") or weights.get("name") if isinstance(weights, dict) else None
    if isinstance(source, str) and source.startswith("hub:"):
        values["base_model"] = [source.removeprefix("hub:").partition("@")[0]]
    values["tags"] = ["retinue", description.task, description.network]
    values["classes"] = list(description.classes)
    found = [
        {"type": figure.name, "name": figure.title, "value": round(value, 6)}
        for figure in figures
        if (value := number(metrics.get(figure.name))) is not None
    ]
    if found and shipped and shipped.on_hubs:
        data = {"type": "images", "name": _data_of(description) or "images",
                "split": str(metrics.get("split") or "unknown")}  # fmt: skip
        result = {"task": {"type": shipped.on_hubs}, "dataset": data, "metrics": found}
        values["model-index"] = [{"name": title, "results": [result]}]
    return values


def _kind(description: ModelDescription) -> str:
    classes = counted(len(description.classes), "class", "classes")
    shipped = SHIPPED.get(description.task)
    does = shipped.in_words if shipped and shipped.in_words else description.task
    return f"A model for {_plain(does)}, {classes} ({_code(description.network)})"


def _data_of(description: ModelDescription) -> str:
    data: Any = (description.recipe or {}).get("data")
    if not isinstance(data, dict):
        return ""
    path, form = data.get("path"), data.get("format")
    if isinstance(path, str):
        return Path(path).name
    return form if isinstance(form, str) and form != "auto" else ""  # data that a package brings


def _intended(description: ModelDescription, run: RunRecord | None, *, places: bool) -> list[str]:
    does = "finds, and says where each is" if places else "says which of these an image shows"
    names = [_code(name) for name in description.classes[:MOST_CLASSES]]
    more = len(description.classes) - len(names)
    told = ", ".join(names) + (f" and {more:,} more, which the model file names" if more else "")
    data = _data_of(description)
    found = None if run is None else splits.counted(run)
    held = {} if found is None else found.images
    counts = ", ".join(f"{count:,} {_plain(name)}" for name, count in held.items() if count)
    learnt = f"It was trained on {_code(data)}" if data else "What it was trained on is not known"
    return [
        f"It {does}: {told}. It knows nothing else: whatever else an image shows is passed over, or"
        " taken for one of these.",
        f"{learnt}{f' ({counts} images)' if counts else ''}. Its figures hold for images like"
        " those. How good it is on others (another camera, light, place or selection) is not known"
        " until it has been evaluated on some.",
    ]


def _measured(
    metrics: Mapping[str, Any], measured: Sequence[tuple[str, str, str | None, str]]
) -> list[str]:
    if not measured:
        return ["None are known: evaluate it on images of your own, `retinue evaluate`."]
    split, count = metrics.get("split"), number(metrics.get("images"))
    of = f"Of the {_plain(split)} split" if split else "Of the split that chose these weights"
    images = "" if count is None else f", {counted(round(count), 'image')}"
    intervals = "; in brackets 95 % intervals" if any(span for _, _, span, _ in measured) else ""
    found = [f"{of}{images}{intervals}."]
    if doubt := reservation(metrics, own=True):
        found.append(f"**{_plain(doubt)}**")
    table = [
        (_plain(title), shown + (f" ({span})" if span else ""), _plain(note or "–"))
        for title, shown, span, note in measured
    ]
    return [*found, _table(("figure", "value", "what it means"), table)]


def _use(repository: str | None, file: Path) -> str:
    if repository is None:
        name, get = file.name, ""
    else:
        name, get = repository.rpartition("/")[2], f"retinue pull {repository}\n"
    return (
        f"```\npip install retinue\n{get}retinue predict {name} photo.jpg\n```\n\n"
        f"```python\nimport retinue\n\npredict = retinue.load({name!r})\n"
        'print(predict("photo.jpg"))\n```'
    )


def _licences(facts: Facts, licence: str | None) -> list[str]:
    own = (
        f"The model is licensed {_code(licence)}."
        if licence
        else "Whoever made the model has not said by which licence it may be used."
    )
    weights = facts.get("weights")
    if not isinstance(weights, dict):
        return [own, "Its training began from random weights."]
    terms = "" if weights.get("licence") else ": ask whoever published them"
    return [own, f"Its training began from {_plain(_beginning(weights))}{terms}."]


def _recipe(description: ModelDescription) -> list[str]:
    if not description.recipe:
        return []
    text = utf8(yaml_text(description.recipe)).rstrip("\n")
    fence = "```"
    while fence in text:
        fence += "`"
    about: Any = description.recipe.get("about")
    title = about.get("title") if isinstance(about, dict) else None
    said = f"{_plain(title)}. " if isinstance(title, str) and title else ""
    return [
        "## Recipe",
        f"{said}`retinue train FILE data=PATH` repeats it from a file of these lines:",
        f"<details><summary>All fields</summary>\n\n{fence}yaml\n{text}\n{fence}\n\n</details>",
    ]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, lines)])


def _plain(value: object) -> str:
    """Text that Markdown and HTML take for nothing but text."""
    text = utf8(visible(value)).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in text)


def _code(value: object) -> str:
    """The same between backticks, which show what stands in them as it is."""
    text = utf8(visible(value)).replace("|", "\\|")
    ticks = "`"
    while ticks in text:
        ticks += "`"
    blank = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{ticks}{blank}{text}{blank}{ticks}"
