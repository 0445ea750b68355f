"""The loop: for stage, for epoch, for step. It knows tasks, networks and feeds, no recipe by name.

Everything random is drawn from (seed, step), everything else that a step depends on is in the
checkpoint; so a training that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from retinue.data.sources import Dataset
from retinue.errors import Interrupted, RetinueError
from retinue.models.network import Network
from retinue.sample import Batch, Preprocessing, Sample
from retinue.tasks.task import Task
from retinue.training import guards
from retinue.training.console import LOGGER, Bar
from retinue.training.ema import Ema
from retinue.training.environment import Settings, build_accelerator
from retinue.training.feeds import Feed, StepPlan
from retinue.training.keeper import Keeper
from retinue.training.optim import build_optimizer, set_rate
from retinue.training.options import StageOptions
from retinue.training.progress import Progress
from retinue.training.recipe import Recipe
from retinue.training.schedules import factor
from retinue.training.stage import cut_of, freeze, train_mode
from retinue.training.suppliers import Supplies
from retinue.training.validation import validate


class Trainer:
    """One training in one run folder."""

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        network: Network,
        dataset: Dataset,
        preprocessing: Preprocessing,
        settings: Settings,
        keeper: Keeper,
        bar: Bar,
    ) -> None:
        self.recipe = recipe
        self.task = task
        self.train: list[Sample] = dataset.splits["train"]
        task.observe(self.train)
        self.keeper = keeper
        self.bar = bar
        self.accelerator = build_accelerator(settings.device, settings.precision)
        self.device: torch.device = self.accelerator.device
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.metric = recipe.evaluation.metric or task.default_metric
        self.progress = Progress()
        self.supplies = Supplies(recipe, dataset, preprocessing, self.accelerator, keeper.run, bar)

    # --- the loop --------------------------------------------------------------------------------

    def fit(self) -> Progress:
        """Run every stage; afterwards the run folder has `best.safetensors` and `metrics.csv`."""
        state = self.keeper.load()
        if state is not None:
            self.progress = Progress.from_dict(state["progress"])
            self.network.load_state_dict(state["network"])
            LOGGER.info("going on after step %d", self.progress.steps)
        if self.progress.stage == len(self.recipe.stages):
            return self.progress  # only the final evaluation is missing
        with guards.Interruptions() as self.interruptions:
            for index, stage in enumerate(self.recipe.stages):
                if index < self.progress.stage:
                    continue
                self._begin(index, stage, state)
                state = None
                while not self._ended(stage):
                    self._epoch(stage)
                self.supplies.finish(stage)
            self.progress.stage = len(self.recipe.stages)
            self._checkpoint()
            self._check_signal()  # one that came with the last validation
        return self.progress

    def _begin(self, index: int, stage: StageOptions, state: dict[str, Any] | None) -> None:
        """Freeze, cut, and build what the stage's steps need, from `state` if it is resumed."""
        progress = self.progress
        if state is None:
            progress.begin_stage(index)
            if stage.from_best and progress.kept_epoch:
                self.network.load_state_dict(self.keeper.best_tensors())
        torch.manual_seed(_mix(self.recipe.seed, index, 0xB1A5))
        self.cut = cut_of(self.network, stage.trainable, f"key stages.{index}.trainable")
        freeze(self.network, self.cut)
        self.optimizer = build_optimizer(self.network, stage.optimizer)
        self.ema = Ema(self.network, self.recipe.ema.decay) if self.recipe.ema else None
        if state is not None:
            self.optimizer.load_state_dict(state["optimizer"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
        self._prepare()
        if state is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.plan = StepPlan(
            np.array([sample.weight for sample in self.train], np.float64),
            batch_size=stage.batch_size,
            accumulate=stage.accumulate,
            world=self.accelerator.num_processes,
            rank=self.accelerator.process_index,
            seed=self.recipe.seed,
        )
        self.total = stage.steps or (stage.epochs or 0) * self.plan.steps
        learning = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        LOGGER.info(
            "stage %s: %d steps of %d images, %s of %s parameters learn",
            stage.name,
            self.total,
            self.plan.batch_size,
            f"{learning:,}",
            f"{sum(p.numel() for p in self.network.parameters()):,}",
        )
        if state is None:
            self._checkpoint()
        self.feed, self.validation = self.supplies.begin(
            stage, self.network, self.cut, self._check_signal, progress.trunk
        )
        progress.trunk[stage.name] = self.supplies.trunk

    def _prepare(self) -> None:
        """Wrap the network for several processes and `torch.compile`, as the recipe says."""
        self.accelerator.free_memory()
        model: nn.Module = self.network
        if self.accelerator.num_processes > 1:
            model = self.accelerator.prepare_model(model)
        if self.recipe.compile:
            model = torch.compile(model)  # type: ignore[assignment]
        self.model = model
        self.optimizer = self.accelerator.prepare_optimizer(self.optimizer)

    def _epoch(self, stage: StageOptions) -> None:
        progress = self.progress
        count = min(self.plan.steps - progress.step, self.total - progress.stage_steps)
        text = f"{stage.name} epoch {progress.epoch + 1}"
        self.bar.begin(text, progress.step + count, progress.step)
        train_mode(self.network, self.cut, stage)
        began = time.monotonic()
        for portions in self._steps(stage, count):
            self._step(stage, portions)
            self.bar.advance(progress.step)
            now = time.monotonic()
            progress.seconds += now - began
            progress.epoch_seconds += now - began
            began = now
            self._check_signal()
            if self.keeper.due(stage_ends=False):
                self._checkpoint()
        self._end_epoch(stage)

    def _steps(self, stage: StageOptions, count: int) -> Iterator[list[Batch]]:
        """The portions of each of the epoch's next `count` steps, with their shares as weights."""
        progress = self.progress
        positions, shares = self.plan.epoch(progress.epochs, start=progress.step)
        wanted = count * stage.accumulate
        feed: Feed = self.feed
        batches = feed.batches(positions[:wanted], epoch=progress.epochs)
        portions: list[Batch] = []
        for batch, share in zip(batches, shares[:wanted], strict=True):
            batch.weight = torch.from_numpy(share).to(self.device)
            portions.append(batch)
            if len(portions) == stage.accumulate:
                yield portions
                portions = []

    def _step(self, stage: StageOptions, portions: list[Batch]) -> None:
        progress = self.progress
        paths = [path for batch in portions for path in batch.paths]
        where = f"stage {stage.name}, epoch {progress.epoch + 1}, step {progress.step + 1}"
        set_rate(self.optimizer, self._rate(stage, progress.stage_steps))
        for number, batch in enumerate(portions):
            torch.manual_seed(
                _mix(self.recipe.seed, progress.steps, number, self.accelerator.process_index)
            )
            last = number == len(portions) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                try:
                    loss = self._loss(batch)
                    guards.refuse_not_finite(float(loss.detach()), "the loss", paths, where)
                    self.accelerator.backward(loss)
                except torch.OutOfMemoryError as error:
                    raise self._out_of_memory(stage, batch) from error
        if stage.clip_norm is not None:
            norm = self.accelerator.clip_grad_norm_(self.network.parameters(), stage.clip_norm)
            if self.accelerator.scaler is None:
                guards.refuse_not_finite(float(norm), "the gradient's norm", paths, where)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
        progress.step += 1
        progress.stage_steps += 1
        progress.steps += 1

    def _rate(self, stage: StageOptions, step: int) -> float:
        """The learning rate of the stage's `step`."""
        return stage.optimizer.lr * factor(stage.schedule, step, self.total, self.plan.steps)

    def _loss(self, batch: Batch) -> Tensor:
        """The batch's part of the step's mean loss; notes sums for the epoch's figures."""
        with self.accelerator.autocast():
            outputs = self.model(batch.inputs, start=self.feed.cut)
            parts = self.task.loss(outputs, batch)
        each = torch.stack([part.float() for part in parts.values()]).sum(0)
        assert batch.weight is not None
        with torch.no_grad():
            shown = {"loss": each, **self.task.running(outputs, batch)}
            if len(parts) > 1:
                shown |= {f"loss_{name}": part for name, part in parts.items()}
            sums = self.progress.sums
            for name, value in shown.items():
                total = float((value.detach().float() * batch.weight).sum())
                sums[name] = sums.get(name, 0.0) + total
            sums[""] = sums.get("", 0.0) + float(batch.weight.sum())
        return (each * batch.weight).sum()

    def _end_epoch(self, stage: StageOptions) -> None:
        """Validate, write the row, keep the weights if they are the best, count."""
        progress = self.progress
        names = sorted(progress.sums)
        mine = torch.tensor([progress.sums[name] for name in names], dtype=torch.float64)
        sums = self.accelerator.reduce(mine.to(self.device, torch.float32)).cpu().tolist()
        totals = dict(zip(names, sums, strict=True))
        weight = totals.pop("", 0.0) or 1.0
        train = {f"train_{name}": total / weight for name, total in totals.items()}
        images = progress.step * self.plan.batch_size
        progress.epochs += 1
        progress.epoch += 1
        figures = self._validate()
        for skipped in gather_object([self.supplies.skipped()]):
            progress.skipped.update(skipped)
        row = {
            "stage": stage.name,
            "epoch": progress.epochs,
            "step": progress.steps,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(images / max(progress.epoch_seconds, 1e-9), 2),
            "lr": self._rate(stage, progress.stage_steps - 1),
            **train,
            **{f"val_{name}": value for name, value in figures.items()},
        }
        progress.rows.append(row)
        self._judge(stage, figures)
        progress.step = 0
        progress.sums = {}
        progress.epoch_seconds = 0.0
        if self.accelerator.is_main_process:
            self.keeper.write_rows(progress.rows)
        best = bool(figures) and self.recipe.evaluation.keep == "best"
        LOGGER.info("%s", _line(row, best=best and progress.kept_epoch == progress.epochs))
        if self.keeper.due(stage_ends=self._ended(stage)):
            self._checkpoint()

    def _validate(self) -> dict[str, float]:
        """Scalar figures of the validation split with the weights that would be kept."""
        if self.validation is None:
            return {}
        self.network.eval()
        with self.ema.applied() if self.ema else nullcontext():
            if self.accelerator.num_processes > 1:  # each has its own BatchNorm statistics
                for buffer in self.network.buffers():
                    torch.distributed.broadcast(buffer, 0)  # the ones that are kept
            return validate(self.network, self.task, self.validation, self.accelerator)

    def _judge(self, stage: StageOptions, figures: dict[str, float]) -> None:
        """Keep the weights if they are the best of the run; count towards the early stop."""
        progress = self.progress
        figure = figures.get(self.metric)
        if figures and figure is None:
            known = ", ".join(figures)
            raise RetinueError(
                f"the validation gives no figure {self.metric!r}",
                where="key evaluation.metric",
                mend=f"it gives {known}",
            )
        less = self.metric in self.task.lower_is_better
        margin = stage.early_stop.min_delta if stage.early_stop else 0.0
        if figure is None or _better(figure, progress.stage_best, less, margin):
            progress.stage_best = figure
            progress.stale = 0
        else:
            progress.stale += 1
        # Without a validation split the last weights are the ones that are kept.
        last = self.recipe.evaluation.keep == "last"
        if figure is None or last or _better(figure, progress.best, less, 0.0):
            progress.best = figure
            progress.kept_epoch = progress.epochs
            progress.kept_figures = figures
            if self.accelerator.is_main_process:
                kept = self.ema.shadow if self.ema else self.network.state_dict()
                self.keeper.write_best(kept, figures)

    def _ended(self, stage: StageOptions) -> bool:
        """Whether the stage's last epoch is over."""
        progress = self.progress
        if progress.step > 0:  # taken up in an epoch, perhaps after the last of its steps
            return False
        stopped = stage.early_stop is not None and progress.stale >= stage.early_stop.patience
        return stopped or progress.stage_steps >= self.total

    # --- what can happen -------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        """Write down everything that going on needs."""
        if not self.accelerator.is_main_process:
            return
        self.progress.skipped.update(self.supplies.skipped())
        scaler = self.accelerator.scaler
        self.keeper.save(
            {
                "progress": self.progress.as_dict(),
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema.state_dict() if self.ema else None,
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
        )

    def _check_signal(self) -> None:
        """End in good order if SIGINT or SIGTERM came to any of the processes."""
        number = self.interruptions.signal or 0
        if self.accelerator.num_processes > 1:
            noted = torch.tensor(number, device=self.device)
            torch.distributed.all_reduce(noted, torch.distributed.ReduceOp.MAX)
            number = int(noted)
        if number:
            self._checkpoint()
            raise Interrupted(
                number,
                where=f"{self.keeper.run.path}, after step {self.progress.steps}",
                mend=f"go on with: retinue train {self.keeper.run.path} --resume",
            )

    def _out_of_memory(self, stage: StageOptions, batch: Batch) -> RetinueError:
        """The error that says which portion fits, and the accumulation that changes nothing."""
        self.optimizer.zero_grad(set_to_none=True)

        def attempt(size: int) -> None:
            state = batch.inputs
            first = tuple(t[:size] for t in state) if isinstance(state, tuple) else state[:size]
            with self.accelerator.autocast():
                outputs = self.network(first, start=self.feed.cut)
            sum(value.float().sum() for value in outputs.values()).backward()
            self.optimizer.zero_grad(set_to_none=True)

        fits = guards.largest_that_fits(len(batch), attempt)
        index = self.progress.stage
        if fits is None:
            mend = "not even one image fits: choose a smaller network or input size"
        else:
            share = stage.batch_size // self.accelerator.num_processes
            portions = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= fits)
            mend = (
                f"{fits} images fit: stages.{index}.accumulate={portions} computes the same"
                f" batch of {stage.batch_size} in {portions} portions"
            )
        return RetinueError(
            f"the device ran out of memory with {len(batch)} images",
            where=f"stage {stage.name}",
            mend=mend,
        )


def _mix(*numbers: int) -> int:
    """One 63-bit seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _better(figure: float, best: float | None, less: bool, margin: float) -> bool:
    if math.isnan(figure):
        return False
    if best is None:
        return True
    return figure < best - margin if less else figure > best + margin


def _line(row: dict[str, Any], *, best: bool) -> str:
    shown = {k: v for k, v in row.items() if k.startswith(("train_", "val_"))}
    figures = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
    star = "  * best" if best else ""
    return (
        f"{row['stage']} epoch {row['epoch']}  {figures}"
        f"  {row['images_per_second']:.0f} images/s  lr {row['lr']:.2e}{star}"
    )
