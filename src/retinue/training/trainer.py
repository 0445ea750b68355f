"""The loop: for stage, for epoch, for step. It knows tasks, learners and feeds, no recipe by name.

Everything random is drawn from (seed, step), everything else that a step depends on is in the
checkpoint; so a training that was killed goes on as if nothing had happened. Within a step nothing
waits for the device: what is to be known of it is looked at later, together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from retinue.errors import Interrupted, RetinueError
from retinue.figures import plain, refuse_not_finite
from retinue.run.checkpoint import taking_up
from retinue.run.log import LOGGER, epoch_line
from retinue.run.progress import Progress
from retinue.sample import Batch, Sample
from retinue.tasks.objective import Losses
from retinue.training import guards
from retinue.training.changes import go_on
from retinue.training.compiled import as_it_is, compile_network, release
from retinue.training.ema import build_ema
from retinue.training.environment import build_accelerator
from retinue.training.labelling import Labeller, labels_images
from retinue.training.losses import Sums, add_up, portion_loss
from retinue.training.mixed import autocast
from retinue.training.optim import build_optimizer, set_rate, take_up
from retinue.training.options import StageOptions
from retinue.training.planning.clock import part
from retinue.training.planning.lengths import steps_of_epochs
from retinue.training.schedules import factor, span
from retinue.training.stage import cut_before, first_to_learn, freeze, is_over, train_mode
from retinue.training.stage_data import StageData, StageDataMaker
from retinue.training.stage_samples import stage_samples
from retinue.training.step_lines import StepLines
from retinue.training.training import Training
from retinue.training.validation import validate
from retinue.training.waiting import Waiting


class Trainer:
    """One training in one run folder."""

    def __init__(self, training: Training) -> None:
        self.recipe = training.recipe
        self.task = training.task
        self.splits = training.splits
        self.recorder = training.recorder
        self.bar = training.bar
        self.clock = training.clock
        self.epoch_steps = training.epoch_steps
        self.settings = training.settings
        self.accelerator = build_accelerator(self.settings.device, self.settings.precision)
        self.device: torch.device = self.accelerator.device
        self.learner = training.learner.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = self.learner.network
        if self.learner.teacher is not None:
            self.learner.teacher.to(self.device)
        self.metric = self.recipe.evaluation.metric or self.task.default_metric
        declared = {figure.name: figure for figure in self.task.figures()}
        self.judge = declared.get(self.metric, plain(self.metric))
        self.progress = Progress()
        self.sums: Sums = {}
        self.watch = guards.FiniteWatch()
        self.lines = StepLines(self.recipe.log_steps, self._over_all)
        self.signals = guards.SignalExchange(self.accelerator.num_processes)
        self.maker = StageDataMaker(
            self.recipe,
            self.splits.get("val", ()),
            training.preprocessing,
            self.accelerator,
            self.bar,
            self.learner.teacher,
            training.taught_by,
        )

        self.labeller = Labeller(self.recorder.run, self.recipe, self.accelerator, self.bar)

    # --- the loop --------------------------------------------------------------------------------

    def fit(self) -> Progress:
        """Run every stage; afterwards the run folder has `best.safetensors` and `metrics.csv`."""
        state = self.recorder.load()
        if state is not None:
            self._restore(state)
        for stage in self.recipe.stages[: self.progress.stage]:
            self.clock.finish_stage(stage.name)
        if self.progress.stage == len(self.recipe.stages):
            if is_over(self.recipe.stages[-1], self.progress):
                return self.progress  # only the final evaluation is missing
            self.progress.stage -= 1  # the last stage was given more to do
        samples: Sequence[Sample] = self.splits["train"]
        with guards.Interruptions() as self.interruptions:
            for index, stage in enumerate(self.recipe.stages):
                samples = stage_samples(
                    self.recorder.run, stage.name, stage.data, samples, self.splits,
                    write=self.accelerator.is_main_process, label=self.labeller,
                )  # fmt: skip
                if labels_images(stage):  # how many images it is, is known only now
                    self.accelerator.wait_for_everyone()  # the first process writes it down
                    self.epoch_steps = steps_of_epochs(self.recipe, self.splits, self.recorder.run)
                if index < self.progress.stage:
                    continue
                try:
                    self._begin(index, stage, samples, state)
                    state = None
                    while not is_over(stage, self.progress):
                        self._epoch(stage)
                finally:
                    self._close()
                self.clock.finish_stage(stage.name)
            self.progress.stage = len(self.recipe.stages)
            self._checkpoint()
            self._agree(due=False)  # a signal that came with the last validation
        return self.progress

    def _close(self) -> None:
        if hasattr(self, "data"):
            self.data.close()
        release(self.network)

    def _restore(self, state: dict[str, Any]) -> None:
        with taking_up(self.recorder.run.checkpoints.folder):
            self.progress = Progress.from_dict(state["progress"])
            self.clock.take_up(self.progress.total_seconds)
            self.learner.load_state_dict(state["learner"])
            self.task = type(self.task)(self.task.classes, self.task.options, state["task"])
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        mine = self.accelerator.is_main_process  # the sums are of all processes
        self.sums = {
            name: torch.tensor(value if mine else 0.0, dtype=wide, device=self.device)
            for name, value in self.progress.sums.items()
        }
        LOGGER.info("going on after step %d", self.progress.steps)

    def _begin(
        self,
        index: int,
        stage: StageOptions,
        samples: Sequence[Sample],
        state: dict[str, Any] | None,
    ) -> None:
        """Freeze, cut, and build what the stage's steps need, from `state` if it is resumed."""
        progress = self.progress
        if state is None:
            progress.begin_stage(index)
            self.sums = {}
            if stage.from_best and progress.kept_epoch:
                self.accelerator.wait_for_everyone()  # the first process writes it
                self.network.load_state_dict(self.recorder.best_tensors())
        torch.manual_seed(_mix(self.recipe.seed, index, 0xB1A5))
        where = f"key stages.{index}.trainable"
        self.first = first_to_learn(self.network, stage.trainable, where)
        freeze(self.network, self.first)
        own = list(self.learner.objective.parameters())
        self.optimizer = build_optimizer(self.network, stage.optimizer, [("objective", own)])
        self.ema = build_ema(self.learner, self.recipe.ema, stage)
        with taking_up(self.recorder.run.checkpoints.folder):
            if state is not None:
                take_up(self.optimizer, state["optimizer"])
                if self.ema is not None:
                    self.ema.load_state_dict(state["ema"])
        self._prepare()
        with taking_up(self.recorder.run.checkpoints.folder):
            if state is not None and state["scaler"] is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        if state is None:
            self._checkpoint()
        self.clock.begin()
        cut = cut_before(self.network, self.first)
        self.data: StageData = self.maker.make(
            stage,
            samples,
            self.network,
            cut,
            check=lambda: self._agree(due=False),
            tell=lambda done: self._computed(stage, done),
            decided=progress.trunk,
            skipped=progress.skipped,
        )
        self._computed(stage, 1.0)
        progress.trunk[stage.name] = self.data.cached
        progress.packed = self.data.packed or {}
        if self.recipe.compile:
            sizes = stage.input_sizes(self.maker.preprocessing.size, self.recipe.seed)[1]
            what = compile_network(self.network, self.data.train.cut, len(sizes))
            LOGGER.info("compiling %s: the first steps take longer", what)
        self.plans = self.data.plans
        self.total = stage.total_steps(self.plans.steps)
        self.clock.resume_stage(stage.name, progress.stage_steps / self.total)
        self.waiting = Waiting(progress, stage, self.data, cut, self.device)
        self._tell(stage)

    def _tell(self, stage: StageOptions) -> None:
        learning = sum(p.numel() for p in self.learner.parameters() if p.requires_grad)
        LOGGER.info(
            "stage %s: %d steps of %d images, %s of %s parameters learn",
            stage.name,
            self.total,
            self.plans.batch_size,
            f"{learning:,}",
            f"{sum(p.numel() for p in self.learner.parameters()):,}",
        )

    def _computed(self, stage: StageOptions, done: float) -> None:
        """The share `done` of the stage's frozen part is there."""
        seconds = self.clock.lap(part(stage.name, "frozen part"), done)
        spent = self.progress.frozen_seconds
        spent[stage.name] = spent.get(stage.name, 0.0) + seconds

    def _prepare(self) -> None:
        """Wrap the learner for several processes."""
        self.accelerator.free_memory()
        self.model: nn.Module = self.learner
        if self.accelerator.num_processes > 1:
            self.model = self.accelerator.prepare_model(self.learner)
        self.optimizer = self.accelerator.prepare_optimizer(self.optimizer)

    def _epoch(self, stage: StageOptions) -> None:
        progress = self.progress
        count = min(self.plans.steps - progress.step, self.total - progress.stage_steps)
        self.bar.begin(self._named(), progress.step + count, progress.step)
        train_mode(self.learner, self.first, stage)
        self.clock.begin()
        self.waiting.begin()
        for portions in self._steps(stage, count):
            self._step(stage, portions)
            seconds = self.clock.lap(part(stage.name, "steps"), progress.stage_steps / self.total)
            progress.seconds += seconds
            progress.epoch_seconds += seconds
            self.waiting.step(seconds)
            self.bar.advance(progress.step)
            rate = self._rate(stage, progress.stage_steps - 1)
            self.lines.note(progress, self.sums, stage.name, self.total, rate)
            if self.watch.full:
                self.watch.look()
            self._agree()
        self._end_epoch(stage)

    def _named(self) -> str:
        """The running epoch, `blocks epoch 21/28`, of all that the training will have as far as is
        known."""
        here = self.progress.stage
        later = zip(self.recipe.stages[here + 1 :], self.epoch_steps[here + 1 :], strict=True)
        steps = self.progress.stage_steps - self.progress.step
        rest = -(-(self.total - steps) // self.plans.steps)
        rest += sum(-(-stage.total_steps(each) // each) for stage, each in later)
        done = self.progress.epochs
        return f"{self.recipe.stages[here].name} epoch {done + 1}/{done + rest}"

    def _steps(self, stage: StageOptions, count: int) -> Iterator[list[Batch]]:
        """The portions of each of the epoch's next `count` steps."""
        progress = self.progress
        plans = self.plans.epoch(progress.epochs, start=progress.step)
        wanted = (plan for plan, _ in zip(plans, range(count * stage.accumulate), strict=False))
        portions: list[Batch] = []
        for batch in self.data.train.batches(wanted):
            portions.append(batch)
            if len(portions) == stage.accumulate:
                yield portions
                portions = []

    def _step(self, stage: StageOptions, portions: list[Batch]) -> None:
        """Forward, backward, update. Reads nothing back from the device."""
        progress = self.progress
        keys = [sample.key for batch in portions for sample in batch.samples]
        where = f"stage {stage.name}, epoch {progress.epochs + 1}, step {progress.step + 1}"
        self.waiting.came()
        set_rate(self.optimizer, self._rate(stage, progress.stage_steps))
        for number, batch in enumerate(portions):
            torch.manual_seed(
                _mix(self.recipe.seed, progress.steps, number, self.accelerator.process_index)
            )
            last = number == len(portions) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                try:
                    loss = self._loss(batch, len(portions))
                    self.watch.note(loss, "the loss", keys, where)
                    self.accelerator.backward(loss)
                except torch.OutOfMemoryError as error:
                    release(self.network)
                    raise guards.out_of_memory(
                        self.learner, batch, self.data.train.cut, self.accelerator, stage,
                        progress.stage,
                    ) from error  # fmt: skip
        self.waiting.learnt()
        if stage.clip_norm is not None:
            norm = self.accelerator.clip_grad_norm_(self.learner.parameters(), stage.clip_norm)
            if self.accelerator.scaler is None:
                self.watch.note(norm, "the gradient's norm", keys, where)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
        progress.step += 1
        progress.stage_steps += 1
        progress.steps += 1

    def _rate(self, stage: StageOptions, step: int) -> float:
        """The learning rate of the stage's `step`."""
        before, total = span(self.recipe.stages, self.epoch_steps, self.progress.stage)
        return stage.optimizer.lr * factor(stage.schedule, before + step, total, self.plans.steps)

    def _loss(self, batch: Batch, portions: int) -> Tensor:
        """The batch's part of the step's mean loss; notes sums for the epoch's figures."""
        with autocast(self.accelerator):
            losses: Losses = self.model(batch.inputs, batch.targets, self.data.train.cut)
        loss, shown = portion_loss(
            losses,
            batch.weight,
            batch.total,
            portions=portions,
            processes=self.accelerator.num_processes,
            over_all=self._over_all,
        )
        add_up(self.sums, shown)
        return loss

    def _over_all(self, value: Tensor) -> Tensor:
        if self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(value)
        return value

    def _end_epoch(self, stage: StageOptions) -> None:
        """Validate, write the row, keep the weights if they are the best, count."""
        progress = self.progress
        self.watch.look()
        train = self._train_figures()
        images = progress.step * self.plans.batch_size
        named = self._named()
        progress.epochs += 1
        progress.epoch += 1
        figures: dict[str, float] = {}
        last = progress.stage_steps >= self.total
        if self.ema is not None:
            left = -(-(self.total - progress.stage_steps) // self.plans.steps)
            self.ema.end_epoch(progress.epoch, left)
        judged = self.data.validation is not None and stage.validates(progress.epoch, last=last)
        if judged:
            figures = self._validate(stage, named)
        for skipped in gather_object([self.data.skipped()]):
            progress.skipped.update(skipped)
        row = {
            "stage": stage.name,
            "epoch": progress.epochs,
            "step": progress.steps,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(images / max(progress.epoch_seconds, 1e-9), 2),
            **self.waiting.columns(),
            "lr": self._rate(stage, progress.stage_steps - 1),
            **train,
            **{f"val_{name}": value for name, value in figures.items()},
            **{f"fitted_{k}": v for k, v in self.task.fitted().items() if isinstance(v, float)},
        }
        progress.rows.append(row)
        progress.step = 0
        if judged or self.data.validation is None:
            self._keep(stage, figures)
        if self.accelerator.is_main_process and self.recorder.keeps(progress.epochs):
            kept = self._kept()
            self.recorder.write_epoch(progress.epochs, kept, figures, self.task.state())
        # Short epochs that nobody judged have a row in metrics.csv, and no line of their own.
        worth_a_line = judged or last or progress.epoch_seconds > 1
        self.sums = {}
        progress.epoch_seconds = 0.0
        if self.accelerator.is_main_process:
            self.recorder.write_rows(progress.rows)
        best = judged and self.recipe.evaluation.keep == "best"
        best = best and progress.kept_epoch == progress.epochs
        if worth_a_line:
            time = self.bar.time_left()
            self._tell_epoch(epoch_line(named, row, self.metric, best=best, left=time))
        if is_over(stage, progress):
            self._checkpoint()

    def _tell_epoch(self, line: str) -> None:
        LOGGER.info("%s", line)

    def _train_figures(self) -> dict[str, float]:
        """Means over the epoch's steps, of all the processes."""
        names = sorted(self.sums)
        values = torch.stack([self.sums[name] for name in names])
        totals = dict(zip(names, self._over_all(values).cpu().tolist(), strict=True))
        weight = totals.pop("", 0.0) or 1.0
        figures = {f"train_{name}": total / weight for name, total in totals.items()}
        refuse_not_finite(figures, "training", mend="lower optimizer.lr, or set clip_norm")
        return figures

    def _validate(self, stage: StageOptions, named: str) -> dict[str, float]:
        """Scalar figures of the validation split with the weights that would be kept."""
        self.bar.begin(f"{named}, validation", len(self.data.judged))
        self.clock.begin()
        self.network.eval()
        with as_it_is(when=self.recipe.compile), self.ema.applied() if self.ema else nullcontext():
            if self.accelerator.num_processes > 1:  # each has its own BatchNorm statistics
                for buffer in self.network.buffers():
                    torch.distributed.broadcast(buffer, 0)  # the ones that are kept
            figures, state = validate(
                self.network, self.task, self.data, self.accelerator, self.bar.advance
            )
        done = self.progress.stage_steps / self.total
        seconds = self.clock.lap(part(stage.name, "validation"), done)
        self.progress.validation_seconds += seconds
        self.task = type(self.task)(self.task.classes, self.task.options, state)
        return figures

    def _keep(self, stage: StageOptions, figures: dict[str, float]) -> None:
        """Keep the weights if they are the best of the run; count towards the early stop."""
        progress = self.progress
        figure = figures.get(self.metric)
        if figures and figure is None:
            raise RetinueError(
                f"the figure {self.metric} is not defined on the validation split",
                where="key evaluation.metric",
                mend=f"there are {', '.join(figures)}; or give the split what it needs",
            )
        margin = stage.early_stop.min_delta if stage.early_stop else 0.0
        if figure is None or self.judge.better(figure, progress.stage_best, margin):
            progress.stage_best = figure
            progress.stale = 0
        else:
            progress.stale += 1
        # Without a validation split the last weights are the ones that are kept.
        last = figure is None or self.recipe.evaluation.keep == "last"
        # Of equally good ones the later: a small split is soon all right, long before the rate has
        # come down.
        if last or not self.judge.better(progress.best, figure):
            progress.best = figure
            progress.kept_epoch = progress.epochs
            progress.kept_figures = figures
            # Of weights that the next epoch replaces anyhow, a file now and then is enough.
            due = not last or is_over(stage, progress) or self.recorder.model_due()
            if self.accelerator.is_main_process and due:
                self.recorder.write_best(self._kept(), figures, self.task.state())

    def _kept(self) -> dict[str, Tensor]:
        """The weights that are judged and kept."""
        state = self.ema.shadow if self.ema else self.learner.state_dict()
        kept: dict[str, Tensor] = self.learner.network_state(state)
        guards.refuse_not_finite(kept, f"after step {self.progress.steps}")
        return kept

    # --- what can happen -------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        """Write down everything that going on needs, if it is worth going on from. A collective
        operation: the sums are those of all processes."""
        self.watch.look()
        names = sorted(self.sums)
        sums: Sequence[Tensor] = ()
        if names:
            sums = self._over_all(torch.stack([self.sums[name] for name in names])).unbind()
        if not self.accelerator.is_main_process:
            return
        if hasattr(self, "data"):
            self.progress.skipped.update(self.data.skipped())
        self.progress.total_seconds = self.clock.total
        self.progress.sums = {n: float(value) for n, value in zip(names, sums, strict=True)}
        scaler = self.accelerator.scaler
        learner = self.learner.state_dict()
        guards.refuse_not_finite(learner, f"after step {self.progress.steps}")
        self.recorder.save(
            {
                "progress": self.progress.as_dict(),
                "learner": learner,
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema.state_dict() if self.ema else None,
                "scaler": scaler.state_dict() if scaler is not None else None,
                "task": self.task.state(),
            }
        )

    def _agree(self, *, due: bool = True) -> None:
        """What all processes do together: write a checkpoint if the first one finds that it is
        `due`, end in good order if SIGINT or SIGTERM came to any of them."""
        due = due and self.accelerator.is_main_process and self.recorder.due(self.progress.steps)
        told = self.signals.largest(2 * (self.interruptions.signal or 0) + due)
        if told:
            self._checkpoint()
        number = told // 2
        if number:
            raise Interrupted(
                number,
                where=f"{self.recorder.run.path}, after step {self.progress.steps}",
                mend=f"go on with: {go_on(self.recorder.run.path)}",
            )


def _mix(*numbers: int) -> int:
    """One 63-bit seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
