"""What a recipe says about training: its stages, their optimisers and schedules, and the rest."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from retinue.data.options import AugmentOptions, SamplerOptions, ShuffledOptions, SideRange
from retinue.data.sizes import SizePlan
from retinue.options import Contradiction, OnResume, Options, Words
from retinue.sample import LARGEST_SIDE, SMALLEST_CROP, Preprocessing
from retinue.text import no_file_name
from retinue.training.stage_samples import StageDataOptions

Side = Annotated[int, Field(gt=0, le=LARGEST_SIDE)]
PositiveInt = Annotated[int, Field(gt=0, le=10**9)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
Decay = Annotated[float, Field(ge=0, lt=1)]


CacheDtype = Literal["float32", "float16", "int8"]
"""What cached features are kept as."""


def share_of(trainable: str | int) -> float | None:
    """`25%` as 0.25; None for what is no share above 0 and up to 100 %."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?) ?%", str(trainable))
    share = float(match[1]) / 100 if match else 0.0
    return share if 0 < share <= 1 else None


class OptimizerOptions(Options):
    """How gradients become new weights."""

    alone: ClassVar[str | None] = "name"

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = "adamw"
    """`sgd` (with `momentum` and Nesterov), `adam`, `adamw` or `rmsprop`."""
    lr: PositiveFloat = 1e-3
    """Learning rate that the schedule starts from, for the deepest layers."""
    weight_decay: NonNegative = 1e-4
    """Never applied to biases and to normalisation layers. Decoupled for `adamw`, L2 otherwise."""
    decay_of: Literal["weights", "convolutions"] = "weights"
    """What decays: the weights of convolutions and linear layers, or the kernels of `convolutions`
    alone, depthwise ones among them, so that a classifier does not."""
    decay_from: str | None = None
    """The first unit of the network whose weights decay, such as `neck`; null: all of them do."""
    momentum: Decay = 0.9
    """Momentum of `sgd` and `rmsprop`."""
    nesterov: bool = True
    """Nesterov's form of the momentum (`sgd` only)."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the two moments (`adam`, `adamw`)."""
    eps: PositiveFloat = 1e-8
    """Added to the denominator (`adam`, `adamw`, `rmsprop`)."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each unit of the network learns at this fraction of the rate of the unit after it."""
    head_lr_scale: PositiveFloat = 1.0
    """The head learns at this many times `lr`."""
    objective_lr_scale: PositiveFloat = 1.0
    """What the loss itself learns, such as class centres, learns at this many times `lr`, without
    weight decay."""


class ScheduleOptions(Options):
    """How the learning rate goes over a stage, step by step."""

    alone: ClassVar[str | None] = "name"

    name: Literal["constant", "cosine", "step", "poly"] = "cosine"
    """`constant`: no change; `cosine`: down along half a cosine; `step`: times `gamma` at each of
    `milestones`; `poly`: down along (1 − t)^`power`."""
    warmup_epochs: NonNegative = 0.0
    """Rise from `warmup_start` times the rate, in epochs (fractions are allowed)."""
    warmup_steps: PositiveInt | None = None
    """The same in optimiser steps, in place of `warmup_epochs`."""
    warmup_start: Fraction = 0.01
    """The fraction of the rate that the warm-up begins with."""
    warmup_power: PositiveFloat = 1.0
    """1: the rise is linear; 2: quadratic, slow at first."""
    counted_from: Literal["warmup", "start"] = "warmup"
    """Where the curve of `cosine` and `poly` begins: where the `warmup` ends, or at the `start`, so
    that the warm-up takes the place of the curve's first steps."""
    final: Fraction = 0.0
    """The fraction of the rate that `cosine` and `poly` end at."""
    flat_epochs: NonNegative = 0.0
    """Epochs at the end in which `cosine` and `poly` stay at `final`."""
    hold: Literal["step", "epoch"] = "step"
    """How often the rate changes."""
    over: Literal["stage", "training"] = "stage"
    """`training`: the curve goes over the epochs of all stages, of which this one has its part: it
    begins where the stage before it has ended, and warms up only if it is the first."""
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """Where in the stage `step` falls, as fractions of its length."""
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What `step` multiplies the rate with at each milestone."""
    power: PositiveFloat = 2.0
    """The exponent of `poly`."""

    @model_validator(mode="after")
    def _milestones_rise(self) -> Self:
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError("milestones must rise")
        return self

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_epochs > 0:
            raise ValueError("give warmup_epochs or warmup_steps, not both")
        return self


class EarlyStopOptions(Options):
    """When a stage ends before its time. The next stage goes on."""

    alone: ClassVar[str | None] = "patience"

    patience: PositiveInt = 10
    """How many judged epochs without a better figure end the stage."""
    min_delta: NonNegative = 0.0
    """What counts as better."""


class EmaOptions(Options):
    """An average of the weights, a moving one that forgets exponentially, or that of the last
    epochs; it is evaluated and kept instead of them."""

    alone: ClassVar[str | None] = "decay"

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Per optimiser step; rises to this value over a stage's first steps."""
    last_epochs: PositiveInt | None = None
    """In place of `decay`, the plain mean of the weights at the ends of a stage's last so many
    epochs (Izmailov et al., "Averaging Weights Leads to Wider Optima", UAI 2018); before them, the
    weights themselves are kept. Statistics of BatchNorm are averaged, too."""


_TIME = re.compile(r"(?!.*[hm].*\d$)(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,7}(?:\.\d{1,3})?)s?)?")
"""Of `1h30` nobody knows whether it ends in minutes."""


class BudgetOptions(Options):
    """The time that the training may take."""

    alone: ClassVar[str | None] = "time"

    time: str | PositiveFloat
    """`90s`, `10m`, `1h30m`, or seconds."""
    fitted: bool = False
    """Whether the stages have been fitted to it. That is done once, when the training begins."""

    @field_validator("time")
    @classmethod
    def _is_a_time(cls, time: str | float) -> str | float:
        if isinstance(time, str):
            match = _TIME.fullmatch(time)
            if match is None or not any(float(part or 0) for part in match.groups()):
                raise ValueError("it is no time: say 90s, 10m, 1h30m, or seconds")
        return time

    @property
    def seconds(self) -> float:
        """The time in seconds."""
        if not isinstance(self.time, str):
            return self.time
        match = _TIME.fullmatch(self.time)
        assert match is not None
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return 3600 * hours + 60 * minutes + seconds


class StageOptions(Options):
    """A part of a training: what learns, for how long, and how."""

    own: ClassVar[frozenset[str]] = frozenset(
        {"name", "trainable", "epochs", "steps", "epoch_steps", "data", "validate_from",
         "from_best"}
    )  # fmt: skip

    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"),
        Words("letters, digits, '.', '_' and '-', with a letter or digit first"),
    ] = "train"
    """Appears in logs, metrics and plots."""
    trainable: str | Annotated[int, Field(ge=0, strict=True)] = "all"
    """`all`; `head`; a number N: the last N units and the head; a share such as `25%`: the last
    units that together cost at most so much of a forward pass, and the head; or a unit's name, from
    which on everything learns. `retinue models NAME` lists the units."""
    epochs: Annotated[PositiveInt | None, OnResume.LENGTH] = None
    """Passes over the stage's samples, or what `epoch_steps` makes of them. Exactly one of `epochs`
    and `steps`."""
    steps: Annotated[PositiveInt | None, OnResume.LENGTH] = None
    """Optimiser steps."""
    min_steps: PositiveInt | None = None
    """At least so many steps, however few the images are: `epochs` are raised to that when the
    training begins, and the views with them."""
    max_steps: PositiveInt | None = None
    """At most so many, however many the images are: `epochs` are lowered to that, not below one."""
    batch_size: PositiveInt = 32
    """Images an optimiser step, over all processes and accumulation."""
    sampler: SamplerOptions = ShuffledOptions()
    """Which images make up a batch."""
    data: StageDataOptions | None = None
    """Which samples the stage learns from; null: those of the stage before it."""
    sizes: Annotated[tuple[Side, ...], Field(min_length=1)] | SideRange | None = None
    """Sides of square inputs, of which each step draws one (multi-scale training): a list, or
    `min`, `max` and `step`; null: the input's size."""
    epoch_steps: PositiveInt | None = None
    """Optimiser steps that count as an epoch; null: as many as there are batches."""
    validate_every: PositiveInt = 1
    """Every how many epochs the validation split is judged; the last one always is."""
    validate_from: PositiveInt | None = None
    """The first epoch of the stage that is; null: the first of every `validate_every`."""
    accumulate: Annotated[PositiveInt, OnResume.CLOSE] = 1
    """Portions that each step's batch is computed in: saves memory. BatchNorm that learns and
    mixing see a portion at a time; nothing else changes."""
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    augment: AugmentOptions = AugmentOptions()
    frozen_batchnorm: bool = False
    """Keep BatchNorm in eval mode in what learns, too (it always is in what is frozen)."""
    clip_norm: PositiveFloat | None = None
    """Gradients are scaled down to this L2 norm."""
    early_stop: Annotated[EarlyStopOptions | None, OnResume.LENGTH] = None
    cache_features: Literal["auto", "on", "off"] = "auto"
    """Compute the frozen units once per view of an image and train on what they give."""
    views: PositiveInt | None = None
    """How many augmented views of each image are computed when features are cached; the epochs
    take turns with them. Without it, `auto` caches only where nothing is drawn at random."""
    cache_dtype: CacheDtype = "float16"
    """What cached features are kept as: `int8` takes about half the room of `float16`, a channel of
    an image in 256 steps. Where that would change an image's features by more than 2 % (`float16`:
    0.1 %), the next finer kind is taken, and said."""
    start_half_life: PositiveInt | None = None
    """After how many steps the weights that the stage began with still make up half of those that
    are judged and kept; after twice as many a quarter, and so on. The rest is the average of what
    was learnt. Steadies stages that begin from a trained head (Wortsman et al., "Robust fine-tuning
    of zero-shot models", CVPR 2022), the more, the less they learn from. Needs `ema`."""
    from_best: bool = False
    """Begin this stage from the best weights so far instead of the last ones."""

    @field_validator("name")
    @classmethod
    def _can_be_a_file(cls, name: str) -> str:
        if problem := no_file_name(name):
            raise ValueError(f"files are called by it, and it is a name {problem}")
        return name

    @field_validator("trainable")
    @classmethod
    def _one_of_these(cls, trainable: str | int) -> str | int:
        switches = ("true", "false", "yes", "no", "none", "null")
        if isinstance(trainable, str) and trainable.lower() in switches:
            raise ValueError(
                "it is all, head, a number of units, a share such as 25%, or a unit's name"
            )
        if isinstance(trainable, str) and trainable.endswith("%") and share_of(trainable) is None:
            raise ValueError("a share of the network is more than 0% and at most 100%")
        return trainable

    @field_validator("sampler", mode="before")
    @classmethod
    def _by_name(cls, sampler: Any) -> Any:
        """A name alone will do."""
        return {"name": sampler} if isinstance(sampler, str) else sampler

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise Contradiction(
                "give exactly one of epochs and steps",
                ("steps",),
                ("epochs",),
                mend="set the other to null: epochs=null, or steps=null",
            )
        if self.epochs is None and self.steps is None:
            raise ValueError("give exactly one of epochs and steps")
        for name in ("min_steps", "max_steps"):
            if self.steps is not None and getattr(self, name) is not None:
                raise ValueError(f"{name} bounds epochs, and steps is given instead")
        if self.min_steps and self.max_steps and self.min_steps > self.max_steps:
            raise ValueError("min_steps is above max_steps")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be divided into {self.accumulate} portions"
            )
        if self.cache_features == "on" and self.augment.mixes_pixels:
            raise ValueError("cache_features: on contradicts augment.mixing, which mixes pixels")
        if self.cache_features == "on" and self.trainable == "all":
            raise ValueError("cache_features: on needs a frozen part, but trainable is all")
        if self.cache_features == "on" and self.views is None and self.augment.draws:
            raise ValueError(
                "cache_features: on with an augmentation that is drawn at random needs views, the"
                " number of views of each image; with one alone it would be the same for ever"
            )
        if self.views is not None:
            for without, why in (
                (self.cache_features == "off", "cache_features: off"),
                (self.trainable == "all", "trainable: all, which leaves nothing to cache"),
                (self.augment.mixes_pixels, "augment.mixing, which mixes pixels"),
                (not self.augment.draws, "an augmentation that draws nothing: all would be equal"),
            ):
                if without:
                    raise ValueError(f"views has no effect with {why}")
        return self

    def input_sizes(
        self, size: tuple[int, int], seed: int
    ) -> tuple[Callable[[int, int], tuple[int, int]], list[tuple[int, int]]]:
        """The height and width of a step's images, by epoch and step; and all that there are.
        `size`: the input's own."""
        if self.sizes is None:
            return (lambda epoch, step: size), [size]
        plan = SizePlan(self.sizes, seed)
        return plan.size, sorted({(side, side) for side in plan.sides})

    def total_steps(self, epoch_steps: int) -> int:
        """All its steps, where an epoch has `epoch_steps`."""
        return self.steps or (self.epochs or 0) * epoch_steps

    def validates(self, epoch: int, *, last: bool) -> bool:
        """Whether the validation split is judged after the stage's `epoch`, counted from 1."""
        if last:
            return True
        since = epoch - (self.validate_from or self.validate_every)
        return since >= 0 and since % self.validate_every == 0


_COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0)}


class InputOptions(Options):
    """How images are brought to the network; what is not given is as its weights were trained."""

    size: Side | tuple[Side, Side] | None = None
    """Side of the square input, or height and width, in pixels."""
    fit: Literal["crop", "squash", "letterbox"] | None = None
    """`crop`: the centre; `squash`: the whole image, out of proportion; `letterbox`: the whole
    image, padded."""
    crop_fraction: Annotated[float, Field(ge=SMALLEST_CROP, le=1)] | None = None
    """Side of the centre crop as a fraction of the resized image's."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    """How pixels between pixels are made up when images are resized."""
    mean: tuple[Fraction, Fraction, Fraction] | None = None
    """What is taken from red, green and blue, as values between 0 and 1."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """What the difference is divided by; `mean: [0, 0, 0]` with `std: [1, 1, 1]` leaves the values
    between 0 and 1."""
    pad_value: Byte | None = None
    """Grey of a letterbox's padding, from 0 to 255."""
    background: Literal["white", "black"] | tuple[Byte, Byte, Byte] | None = None
    """What transparent pixels lie on: `white`, `black`, or red, green and blue from 0 to 255;
    by default white."""
    depth: Annotated[int, Field(ge=8, le=16)] | None = None
    """How many bits the values of 16-bit grey images use (12 where the largest is 4095); by
    default all 16."""

    def applied(self, published: Preprocessing) -> Preprocessing:
        """`published` with what is given here in place."""
        given = {name: value for name, value in self if value is not None}
        if isinstance(self.size, int):
            given["size"] = (self.size, self.size)
        if isinstance(self.background, str):
            given["background"] = _COLOURS[self.background]
        return replace(published, **given)


class EvaluationOptions(Options):
    """How the network is judged during training, and once at its end."""

    metric: str | None = None
    """The figure of the validation split that picks the best weights (default: the task's)."""
    keep: Literal["best", "last"] = "best"
    """The weights of the model file: those of the epoch with the best figure, of equally good ones
    the latest, or the last ones. Where the schedule ends at zero and the validation split is small,
    the best figure is mostly luck."""
    split: Literal["auto", "val", "test"] = "auto"
    """The split that the final figures are of; `auto`: the test split where there is one."""
    tta: Literal["none", "flip", "dihedral"] = "none"
    """Views that are averaged in the final evaluation and in every later prediction."""
    batch_size: PositiveInt = 64
    """Images that are judged at a time; the figures do not depend on it."""


class RoundsOptions(Options):
    """Stages that are run through several times."""

    alone: ClassVar[str | None] = "times"

    times: Annotated[int, Field(ge=1, le=100)] = 2
    """How often in all. The run's recipe spells the stages out: `NAME-2` is the second time."""
    first: str | None = None
    """The name of the first stage of a round, which lasts until the last stage; null: the first
    one that labels images (`data: pseudo_labels`)."""


class CheckpointOptions(Options):
    """How often the state of a training is written down, beside the ends of its stages."""

    every_minutes: NonNegative = 1.0
    """0: after every step."""
    every_steps: PositiveInt | None = None
    """Optimiser steps of the whole training."""
    keep_epochs: PositiveInt | None = None
    """After every so many epochs of the training, a model file of its weights that no later one
    replaces, `epochs/0001.safetensors` and so on; null: none."""


class CacheOptions(Options):
    """Where cached features may go."""

    max_gb: PositiveFloat = 20.0
    """Disk that all cached features together may take, in 10⁹ bytes; what was used least recently
    goes first."""
    folder: str | None = None
    """Where they lie; null: `$RETINUE_CACHE`, or `retinue/features` in the user's cache folder."""
