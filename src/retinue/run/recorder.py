"""What a training writes into its run folder, and when."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from retinue import modelfile
from retinue.modelfile import MODEL_FILE
from retinue.run.folder import EPOCHS, RunFolder


class Recorder:
    """Writes checkpoints, the model file and the metrics of one run.

    A checkpoint is due every `every_minutes`, and every `every_steps` optimiser steps if given; a
    model file stays of every `keep_epochs` epochs.
    """

    def __init__(
        self,
        run: RunFolder,
        description: modelfile.ModelDescription,
        *,
        every_minutes: float,
        every_steps: int | None,
        tensorboard: bool,
        keep_epochs: int | None = None,
    ) -> None:
        self.run = run
        self.description = description
        self._every_minutes = every_minutes
        self._every_steps = every_steps
        self._keep_epochs = keep_epochs
        self._saved = time.monotonic()
        self._model_written: float | None = None
        self._charts: _Charts | None = None
        self._tensorboard = tensorboard
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        """Are told each new row; what they raise ends the training."""

    def load(self) -> dict[str, Any] | None:
        """The state to go on from; None for a training that has none yet."""
        return self.run.checkpoints.load() if self.run.checkpoints.exists() else None

    def due(self, steps: int) -> bool:
        """Whether it is time for a checkpoint, after so many steps of the whole training."""
        if self._every_steps is not None and steps % self._every_steps == 0:
            return True
        return time.monotonic() - self._saved >= 60 * self._every_minutes

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint."""
        self.run.checkpoints.save(state)
        self._saved = time.monotonic()

    def model_due(self) -> bool:
        """Whether it is time for a model file that a later one will replace in any case: there is
        none of this process yet, or it is as old as a checkpoint may be."""
        written = self._model_written
        return written is None or time.monotonic() - written >= 60 * self._every_minutes

    def write_best(
        self, tensors: dict[str, Tensor], figures: dict[str, float], task_state: dict[str, Any]
    ) -> None:
        """Replace the model file."""
        self._write_model(MODEL_FILE, tensors, figures, task_state)
        self._model_written = time.monotonic()

    def _write_model(
        self,
        name: str,
        tensors: dict[str, Tensor],
        figures: dict[str, float],
        task_state: dict[str, Any],
    ) -> None:
        cpu = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        changes = {"figures": figures, "task_state": task_state}
        self.run.write_model(name, cpu, self.description.model_copy(update=changes))

    def keeps(self, epoch: int) -> bool:
        """Whether the weights after `epoch`, counted from 1, stay in a file of their own."""
        return self._keep_epochs is not None and epoch % self._keep_epochs == 0

    def write_epoch(
        self,
        epoch: int,
        tensors: dict[str, Tensor],
        figures: dict[str, float],
        task_state: dict[str, Any],
    ) -> None:
        """The model file of that epoch."""
        self._write_model(f"{EPOCHS}/{epoch:04d}.safetensors", tensors, figures, task_state)

    def best_tensors(self) -> dict[str, Tensor]:
        """The weights of the model file."""
        return modelfile.read(self.run.path / MODEL_FILE)[1]

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Replace `metrics.csv`; the last row is new."""
        self.run.write_metrics(rows)
        if self._tensorboard:
            if self._charts is None:
                self._charts = _Charts(self.run.path / "tensorboard", epochs=len(rows) - 1)
            self._charts.add(rows[-1])
        for listener in self.listeners:
            listener(rows[-1])


class _Charts:
    """The rows for TensorBoard: event files in `folder`; rows after a resumed training's begin
    replace those of before."""

    def __init__(self, folder: Path, *, epochs: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and optional

        self._writer = SummaryWriter(str(folder), purge_step=epochs + 1 if epochs else None)

    def add(self, row: dict[str, Any]) -> None:
        """`train_loss` becomes the chart `loss/train`, and so on."""
        for name, value in row.items():
            if not isinstance(value, float):
                continue
            split, _, figure = name.partition("_")
            chart = f"{figure}/{split}" if split in {"train", "val"} else name
            self._writer.add_scalar(chart, value, row["epoch"])
        self._writer.flush()
