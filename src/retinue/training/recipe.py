"""A training as data: the schema of a recipe, and reading one from YAML with overrides.

The schema only composes the options of other rooms. Mistakes are refused before any data is
touched, with the YAML line and the nearest valid key.
"""

from __future__ import annotations

import io
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from retinue.data.options import DataOptions
from retinue.documents import load_yaml
from retinue.errors import UsageError, suggest
from retinue.models.options import ModelOptions
from retinue.options import Contradiction, Options
from retinue.tasks.shipped import DEFAULT
from retinue.tasks.task import task_names, task_type
from retinue.training.options import (
    CacheOptions,
    CheckpointOptions,
    EmaOptions,
    EvaluationOptions,
    InputOptions,
    StageOptions,
)


class About(Options):
    """The header of a recipe: where the training comes from and what to expect of it."""

    title: str = ""
    source: str = ""
    """The publication or page that the training follows."""
    command: str = ""
    """How it is run."""
    cost: str = ""
    """Time and machine."""
    figure: str = ""
    """What it reaches, and where that is measured."""


class Recipe(Options):
    """A whole training. `retinue recipes` shows the shipped ones."""

    about: About = About()
    task: str = DEFAULT
    """What is recognised: the name of a task."""
    task_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the task, such as `label_smoothing`; checked against its own schema."""
    teacher: str | None = None
    """A model file or run folder to learn from as well: what it answers for the training images
    joins the loss, as the task says."""
    data: DataOptions = DataOptions()
    model: ModelOptions
    input: InputOptions = InputOptions()
    stages: Annotated[tuple[StageOptions, ...], Field(min_length=1)]
    """Run one after the other, each going on from the last weights."""
    ema: EmaOptions | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the training's arithmetic; `auto`: bf16 on a GPU that has it, fp32 otherwise."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    compile: bool = False
    """Compile the network with `torch.compile`."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of every random draw; the split has its own, `data.split.seed`."""
    evaluation: EvaluationOptions = EvaluationOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    cache: CacheOptions = CacheOptions()
    tensorboard: bool = True
    """Write event files into the run's `tensorboard/`."""

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"two stages have one name: {', '.join(sorted(names))}")
        return self

    @model_validator(mode="after")
    def _best_is_kept(self) -> Self:
        for index, stage in enumerate(self.stages):
            if stage.from_best and self.evaluation.keep == "last":
                raise Contradiction(
                    f"stage {stage.name} begins from the best weights, but evaluation.keep is last:"
                    " the best ones are not kept",
                    ("stages", index, "from_best"),
                    ("evaluation", "keep"),
                    mend="evaluation.keep=best, or leave from_best out",
                )
        return self


Location = tuple[int | str, ...]


def shipped() -> dict[str, str]:
    """The recipes inside the package: name → YAML text, by name."""
    folder = resources.files("retinue.training") / "recipes"
    return {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".yaml")
    }


def header(text: str) -> About:
    """The `about` section of a recipe's YAML."""
    return About.model_validate(_parse(text, "recipe").get("about", {}))


def read_text(name: str) -> tuple[str, str]:
    """(where it stands, YAML text) of a shipped recipe, a YAML file or a run folder."""
    path = Path(name)
    if path.is_dir() and (path / "recipe.yaml").is_file():
        path = path / "recipe.yaml"
    if path.is_file():
        try:
            return str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the recipe cannot be read ({error})", where=str(path)) from error
    recipes = shipped()
    if name in recipes:
        return f"recipe {name!r}", recipes[name]
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        raise UsageError("there is no such recipe file", where=name)
    raise UsageError(
        f"there is no recipe {name!r}",
        mend=suggest(name, recipes) or f"shipped are {', '.join(recipes)}",
    )


def load_recipe(
    recipe: str | Path | Mapping[str, Any] | Recipe, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe with `overrides` (dotted key → value, `stages.1.epochs` → 5) put in.

    `recipe`: a shipped name, a YAML file, a run folder, the values themselves, or a `Recipe`.
    Raises `UsageError` for unknown keys, bad values and contradictions, naming file, line and key.
    """
    values: Any
    if isinstance(recipe, Recipe):
        where, values = "recipe", recipe.model_dump(mode="json", exclude_unset=True)
    elif isinstance(recipe, Mapping):
        where, values = "recipe", _plain(recipe)
    else:
        where, text = read_text(str(recipe))
        values = _parse(text, where)
    before = _plain(values)
    given = [_put(values, key, value) for key, value in (overrides or {}).items()]

    def refuse(
        error: ValidationError, schema: type[BaseModel], prefix: Location = ()
    ) -> UsageError:
        # A misspelt key is what the other complaints (a missing field, say) come from.
        errors = error.errors(include_url=False)
        first = min(errors, key=lambda e: e["type"] != "extra_forbidden")
        location = (*prefix, *_named(schema, first))
        # What is wrong without the overrides, too, is no fault of theirs.
        own = _errors(schema, before.get("task_options", {}) if prefix else before)
        guilty = [] if _said(first) in map(_said, own) else given
        return _refusal(first, location, schema, prefix, where, values, guilty)

    try:
        loaded = Recipe.model_validate(_plain(values))
    except ValidationError as error:
        raise refuse(error, Recipe) from None
    task_options = task_type(loaded.task).options_type
    try:
        task_options.model_validate(loaded.task_options)
    except ValidationError as error:
        raise refuse(error, task_options, ("task_options",)) from None
    return loaded


def parse_override(text: str) -> tuple[str, Any]:
    """`stages.1.epochs=5` to its key and value; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(
            f"an override must look like key=value, got {text!r}", mend="for example seed=1"
        )
    try:
        return key.strip(), load_yaml(value) if value else None
    except YAMLError:
        return key.strip(), value


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every field spelled out."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    stream = io.StringIO()
    yaml.dump(recipe.model_dump(mode="json"), stream)
    return stream.getvalue()


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe file, for editors."""
    schema = Recipe.model_json_schema()
    # A union typed by `task`: each brings its own options.
    branches = []
    for name in task_names():
        options = task_type(name).options_type.model_json_schema(ref_template="#/$defs/{model}")
        schema["$defs"].update(options.pop("$defs", {}))
        schema["$defs"][f"task_options_{name}"] = options
        chosen: dict[str, Any] = {"properties": {"task": {"const": name}}}
        if name != DEFAULT:
            chosen["required"] = ["task"]
        its = {"properties": {"task_options": {"$ref": f"#/$defs/task_options_{name}"}}}
        branches.append({"if": chosen, "then": its})
    schema["allOf"] = branches
    schema["properties"]["task"]["enum"] = task_names()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


# --- reading YAML --------------------------------------------------------------------------------


def _parse(text: str, where: str) -> Any:
    try:
        values = load_yaml(text, YAML(typ="rt", pure=True))
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = str(error.problem or "not YAML").splitlines()[0]
        raise UsageError(f"this is not valid YAML ({problem})", where=where + line) from None
    except YAMLError as error:
        raise UsageError(f"this is not valid YAML ({error})", where=where) from None
    if not isinstance(values, Mapping):
        raise UsageError("a recipe is a mapping of keys to values", where=where)
    return values


def _plain(value: Any) -> Any:
    """Without ruamel's own types."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _put(values: Any, key: str, value: Any) -> Location:
    """Set dotted `key` in the nested `values`; `data=PATH` means `data.path=PATH`."""
    location: list[int | str] = [int(p) if _is_index(p) else p for p in key.split(".")]
    if location == ["data"] and not isinstance(value, Mapping):
        location = ["data", "path"]
    if location == ["model"] and not isinstance(value, Mapping):
        location = ["model", "name"]
    if location[-1] == "path" and value is not None:
        value = str(value)
    if location == ["data", "path"] and isinstance(values.get("data"), Mapping):
        # A path of one's own replaces the source that the recipe came with.
        values["data"].pop("format", None)
    inner: Any = values
    for depth, part in enumerate(location[:-1]):
        step = ".".join(map(str, location[: depth + 1]))
        if isinstance(part, int):
            if not isinstance(inner, list) or part >= len(inner):
                raise _no_such(step, key, location, inner)
            inner = inner[part]
        else:
            if not isinstance(inner, Mapping):
                raise UsageError(f"{step} has no fields", where=f"key {key}")
            if inner.get(part) is None:
                inner[part] = {}  # type: ignore[index]
            inner = inner[part]
    last = location[-1]
    if isinstance(inner, list):
        if not isinstance(last, int) or last >= len(inner):
            raise _no_such(key, key, location, inner)
        inner[last] = value
    elif isinstance(inner, Mapping):
        inner[last] = value  # type: ignore[index]
    else:
        raise UsageError(f"{'.'.join(map(str, location[:-1]))} has no fields", where=f"key {key}")
    return tuple(location)


def _is_index(part: str) -> bool:
    """Whether it numbers a place in a list; a superscript is a digit, too, but no such number."""
    return part.isdecimal() and len(part) < 10


def _no_such(step: str, key: str, location: Sequence[int | str], inner: Any) -> UsageError:
    """Of a place in a list that is not there, or a list that is not."""
    first = str(location[0])
    if first not in Recipe.model_fields:
        mend = suggest(first, Recipe.model_fields) or f"known are {', '.join(Recipe.model_fields)}"
        where = f"given as an override, key {key}"
        return UsageError(f"unknown key {first!r}", where=where, mend=mend)
    last = len(inner) - 1 if isinstance(inner, list) else -1
    mend = f"they are numbered 0 to {last}" if last >= 0 else "it is no list"
    return UsageError(f"there is no {step}", where=f"key {key}", mend=mend)


# --- telling what is wrong -----------------------------------------------------------------------


def _errors(schema: type[BaseModel], values: Any) -> list[Any]:
    """What is wrong with `values`; empty if nothing is."""
    try:
        schema.model_validate(values)
    except ValidationError as error:
        return list(error.errors(include_url=False))
    return []


def _said(error: Any) -> tuple[Location, str]:
    """What makes two errors the same."""
    return error["loc"], error["msg"]


def _refusal(
    error: Any,
    location: Location,
    schema: type[BaseModel],
    prefix: Location,
    where: str,
    values: Any,
    guilty: list[Location],
) -> UsageError:
    """`guilty`: the overrides that may have caused it."""
    raised = error.get("ctx", {}).get("error")
    message = str(raised) if isinstance(raised, ValueError) else error["msg"]
    mend = None
    if error["type"] == "extra_forbidden":
        known = _fields(schema, location[len(prefix) : -1])
        message = f"unknown key {str(location[-1])!r}"
        mend = suggest(str(location[-1]), known) or f"known are {', '.join(known)}"
    elif error["type"] == "union_tag_invalid":
        tag = error["ctx"]["tag"]
        known = [name.strip("'") for name in error["ctx"]["expected_tags"].split(", ")]
        message = f"unknown {error['ctx']['discriminator'].strip(chr(39))} {tag!r}"
        mend = suggest(tag, known) or f"there are {', '.join(known)}"
    elif error["type"] == "missing":
        message = f"{_dotted(location)} is missing"
    elif not isinstance(error["input"], Mapping):
        message = f"{error['input']!r} will not do: {message[0].lower()}{message[1:]}"
    together: list[Location] = []
    if isinstance(raised, Contradiction):
        mend, together = raised.mend, [(*location, *key) for key in raised.keys]
        guilty = [g for g in guilty if any(_holds(g, k) or _holds(k, g) for k in together)]
    if any(_holds(g, location) for g in guilty):
        place, keys = "given as an override", [location]
    elif inside := [g for g in guilty if _holds(location, g)]:
        # A contradiction between fields stands at what holds them all.
        place, keys = "given as an override", inside
    else:
        keys = together or [location]
        line = _line(values, keys[0])
        place = f"{where}{f', line {line}' if line else ''}"
    named = f"key{'s' * (len(keys) > 1)} {', '.join(map(_dotted, keys))}"
    return UsageError(message, where=f"{place}, {named}", mend=mend)


def _holds(outer: Location, inner: Location) -> bool:
    return inner[: len(outer)] == outer


def _dotted(location: Location) -> str:
    return ".".join(map(str, location)) or "the recipe"


def _line(values: Any, location: Location) -> int | None:
    """The line (from 1) where the value at `location`, or the nearest thing around it, stands."""
    line = None
    for part in location:
        marks = getattr(values, "lc", None)
        try:
            if marks is not None and isinstance(values, Mapping):
                line = marks.key(part)[0] + 1
            elif marks is not None:
                line = marks.item(part)[0] + 1
            values = values[part]
        except (KeyError, IndexError, TypeError):
            break
    return line


def _named(schema: Any, error: Any) -> Location:
    """Where the error is, without the branches of unions that pydantic adds to that."""
    named: list[int | str] = []
    unknown = error["type"] == "extra_forbidden"
    for depth, part in enumerate(error["loc"], 1):
        is_key = isinstance(part, int) or part in _fields(schema, tuple(named))
        if is_key or (unknown and depth == len(error["loc"])):
            named.append(part)
    return tuple(named)


def _fields(schema: Any, location: Location) -> list[str]:
    """The names of the fields at `location`; empty where there are none."""
    for part in location:
        candidates = _classes(schema)
        if isinstance(part, int):
            schema = candidates[0] if candidates else None
            continue
        schema = next(
            (c.model_fields[part].annotation for c in candidates if part in c.model_fields), None
        )
    return [name for c in _classes(schema) for name in c.model_fields]


def _classes(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models that an annotation holds, through unions, tuples and lists."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        return [c for inner in typing.get_args(annotation) for c in _classes(inner)]
    return []
