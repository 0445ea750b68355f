"""A training as data: the schema of a recipe, and reading one from YAML with overrides.

The schema only composes the options of other rooms. Mistakes are refused before any data is
touched, with the YAML line and the nearest valid key.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from retinue.data.options import DataOptions
from retinue.documents import yaml_text
from retinue.models.options import ModelOptions
from retinue.options import Contradiction, OnResume, Options, Words
from retinue.options.overrides import dotted, put_all
from retinue.options.refusal import Written
from retinue.options.typed import meant
from retinue.options.wording import Location
from retinue.tasks.shipped import DEFAULT
from retinue.tasks.task import task_names, task_type
from retinue.training.options import (
    BudgetOptions,
    CacheOptions,
    CheckpointOptions,
    EmaOptions,
    EvaluationOptions,
    InputOptions,
    RoundsOptions,
    StageOptions,
)
from retinue.training.planning import machine
from retinue.training.rounds import unrolled
from retinue.training.written_recipes import About, parse, read_text

LOGGER = logging.getLogger("retinue")


class Recipe(Options):
    """A whole training. `retinue recipes` shows the shipped ones."""

    about: Annotated[About, OnResume.FREE] = About()
    task: str = DEFAULT
    """What is recognised: the name of a task."""
    task_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the task, such as `label_smoothing`; checked against its own schema."""
    teacher: Annotated[str | None, OnResume.FREE] = None
    """A model file or run folder to learn from as well: what it answers for the training images
    joins the loss, as the task says."""
    data: DataOptions = DataOptions()
    model: ModelOptions
    input: InputOptions = InputOptions()
    stages: Annotated[tuple[StageOptions, ...], Field(min_length=1)]
    """Run one after the other, each going on from the last weights."""
    rounds: RoundsOptions | None = None
    """The last stages again, so often in all: `3` says `{times: 3}`."""
    budget: BudgetOptions | None = None
    """The time that the training may take: epochs, views and what learns are fitted to it, once,
    before the first step. `10m` says `{time: 10m}`."""
    ema: EmaOptions | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the training's arithmetic; `auto`: bf16 on a GPU that has it; on a CPU that has it
    whichever is faster, which a long training finds out by timing its own first step; fp32
    otherwise."""
    device: Annotated[
        str,
        Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$"),
        Words("auto, cpu, cuda, cuda:N or mps"),
        OnResume.CLOSE,
    ] = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    compile: bool = False
    """Compile the network with `torch.compile`; steps on CPUs were no faster (docs/train.md)."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of every random draw; the split has its own, `data.split.seed`."""
    evaluation: EvaluationOptions = EvaluationOptions()
    checkpoint: Annotated[CheckpointOptions, OnResume.FREE] = CheckpointOptions()
    cache: Annotated[CacheOptions, OnResume.FREE] = CacheOptions()
    tensorboard: Annotated[bool, OnResume.FREE] = True
    """Write event files into the run's `tensorboard/`."""
    log_steps: Annotated[Annotated[int, Field(gt=0)] | None, OnResume.FREE] = None
    """After every so many steps, a line with their loss, the learning rate and the speed; null: a
    line an epoch."""
    trackers: Annotated[tuple[Literal["mlflow", "wandb"], ...], OnResume.FREE] = ()
    """Who is told of the training, too: `[mlflow]`, `[wandb]` (Weights & Biases). Each is an extra
    of its own, and takes its address from its own environment variables."""
    on_gpu: dict[str, Any] | None = None
    """Fields that take the place of the others where the training runs on a GPU: a section within
    a section field by field, the stages as a whole. It is settled when the training begins, before
    overrides, and the run's recipe holds what came of it."""

    @classmethod
    def wanted(cls, field: str, values: Mapping[str, Any]) -> Any:
        """The options of a task are of the task's own type."""
        task = values.get("task", DEFAULT)
        if field == "task_options" and task in task_names():
            return task_type(str(task)).options_type
        return super().wanted(field, values)

    @field_validator("device", mode="before")
    @classmethod
    def _numbered(cls, device: Any) -> Any:
        """A number alone is that of a GPU, as elsewhere."""
        return f"cuda:{device}" if re.fullmatch(r"\d{1,3}", str(device)[:9]) else device

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len({name.casefold() for name in names}) < len(names):  # files are called by them
            raise ValueError(f"two stages have one name: {', '.join(sorted(names))}")
        return self

    @model_validator(mode="after")
    def _an_average_has_shares(self) -> Self:
        for index, stage in enumerate(self.stages):
            if stage.start_half_life and self.ema is None:
                raise Contradiction(
                    f"start_half_life of stage {stage.name} is that of a share in the average of"
                    " the weights, but ema is null",
                    ("stages", index, "start_half_life"),
                    ("ema",),
                    mend="ema.decay=0.99, or leave start_half_life out",
                )
        return self

    @model_validator(mode="after")
    def _the_last_epochs_are_known(self) -> Self:
        for index, stage in enumerate(self.stages):
            if stage.early_stop and self.ema is not None and self.ema.last_epochs:
                raise Contradiction(
                    f"ema.last_epochs averages the last epochs of stage {stage.name}, but"
                    " early_stop may end it before they have come",
                    ("stages", index, "early_stop"),
                    ("ema", "last_epochs"),
                    mend="ema.last_epochs=null, or leave early_stop out",
                )
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


def load_recipe(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = LOGGER.info,
    *,
    begun: bool = False,
) -> Recipe:
    """The recipe with `overrides` (dotted key → value, `stages.1.epochs` → 5) put in; where a key
    is taken for another (`lr`), or a rule about machines holds, `say` is told.

    `recipe`: a shipped name, a YAML file, a run folder, the values themselves, or a `Recipe`. What
    it says of machines (`on_gpu`) is settled for this one first. Who gives a stage's length means
    it: the stage's `min_steps` and `max_steps` give way, and so does what is said of a frozen part
    where all is to learn; unless they are given, too, or the training has `begun`, when they have
    had their say. Raises `UsageError` for unknown
    keys, bad values and contradictions, naming file, line and key.
    """
    values: Any
    if isinstance(recipe, Recipe):
        where, values = "recipe", recipe.model_dump(mode="json", exclude_unset=True)
    elif isinstance(recipe, Mapping):
        where, values = "recipe", meant(Any, recipe)
    else:
        where, text = read_text(str(recipe))
        values = parse(text, where)
    values, note = machine.settle(values, overrides or {}, where)
    if note is not None:
        say(note)
    before = meant(Recipe, values)
    given = put_all(Recipe, values, overrides or {}, say)
    if not begun:
        _give_way(values, given, say)
    if ("data", "path") in given and ("data", "format") not in given:
        # A path of one's own replaces the source that the recipe came with.
        values["data"].pop("format", None)
    written = Written(Recipe, where, values, meant(Recipe, values), before, given)
    try:
        loaded = Recipe.model_validate(written.plain)
    except ValidationError as error:
        raise written.refusal(error) from None
    try:
        task_type(loaded.task).options_type.model_validate(loaded.task_options)
    except ValidationError as error:
        raise written.refusal(error, ("task_options",)) from None
    named = written.plain["model"]["name"] if "model" in written.plain else loaded.model.name
    if named != loaded.model.name:
        say(f"{named} is called {loaded.model.name} here, with the weights {loaded.model.weights}")
    if loaded.rounds is None:
        return loaded
    stages = unrolled(loaded.stages, loaded.rounds)
    return loaded.model_copy(update={"stages": stages, "rounds": None})


def _give_way(
    values: dict[str, Any], given: Sequence[Location], say: Callable[[str], None]
) -> None:
    """Take out of the stages in `values` what makes no sense beside what is `given`: the bounds of
    a length that is given itself, and what is said of a frozen part where everything learns."""
    for location in given:
        if len(location) != 3 or location[0] != "stages":
            continue
        stage, key = values["stages"][location[1]], str(location[2])
        if key == "trainable" and stage[key] == "all":
            idle: tuple[str, ...] = ("views", "cache_features")
        else:
            idle = ("min_steps", "max_steps") if key in ("epochs", "steps") else ()
        for other in idle:
            if (*location[:2], other) not in given and stage.pop(other, None) is not None:
                told = f"{dotted(location)} is given"
                told += f" as {stage[key]}" if key == "trainable" else ""
                say(f"{told}: {dotted((*location[:2], other))} gives way")


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every field spelled out."""
    return yaml_text(recipe.model_dump(mode="json"))


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
