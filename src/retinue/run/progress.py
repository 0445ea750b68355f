"""Where a training stands: plain values, all of them part of a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from retinue.errors import RetinueError


@dataclass
class Progress:
    """Counters and figures. What a step changes here, a resumed training finds again."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    stage: int = 0
    """Index of the stage."""
    epoch: int = 0
    """Epochs finished in this stage."""
    step: int = 0
    """Steps done in the running epoch."""
    stage_steps: int = 0
    """Steps done in this stage."""
    steps: int = 0
    """Steps done in the whole training."""
    epochs: int = 0
    """Epochs finished in the whole training."""
    stale: int = 0
    """Epochs of this stage since its best figure."""
    stage_best: float | None = None
    best: float | None = None
    """The figure of the weights that the model file holds."""
    kept_epoch: int = 0
    """Where those are from: the run's best epoch, or its last one with `evaluation.keep: last`."""
    kept_figures: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    """Of the running epoch: losses and running figures times weight, and the weight."""
    seconds: float = 0.0
    """Spent on steps, over all interruptions."""
    epoch_seconds: float = 0.0
    waited: dict[str, dict[str, float]] = field(default_factory=dict)
    """Stage → what its steps waited for, over all interruptions; see `training.waiting`."""
    epoch_waited: dict[str, float] = field(default_factory=dict)
    """The same of the running epoch."""
    frozen_seconds: dict[str, float] = field(default_factory=dict)
    """Stage → spent on its frozen part, over all interruptions."""
    validation_seconds: float = 0.0
    """Spent judging between epochs, over all interruptions."""
    total_seconds: float = 0.0
    """From the beginning to this moment, without the interruptions."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """`metrics.csv`."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Files that were replaced because they could not be read."""
    trunk: dict[str, Any] = field(default_factory=dict)
    """Stage → how its frozen part was computed."""
    packed: dict[str, Any] = field(default_factory=dict)
    """How small training images were made beforehand; empty: they were not."""

    def __post_init__(self) -> None:
        self.seconds_before = self.seconds
        """What earlier sittings spent on steps; no part of a checkpoint."""

    def begin_stage(self, index: int) -> None:
        """The counters of a new stage."""
        self.stage = index
        self.epoch = self.step = self.stage_steps = self.stale = 0
        self.stage_best = None
        self.sums = {}
        self.epoch_seconds = 0.0
        self.epoch_waited = {}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse; RetinueError for what `as_dict` never gives."""
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise RetinueError(
                f"the checkpoint is not what a training writes ({first['msg']})",
                where=f"progress, key {key}",
                mend="start a new training from the run's recipe.yaml",
            ) from None
