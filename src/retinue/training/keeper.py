"""What a training keeps in its run folder, and when."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from retinue import modelfile
from retinue.modelfile import MODEL_FILE
from retinue.training.board import Board
from retinue.training.options import CheckpointOptions
from retinue.training.run_folder import RunFolder


class Keeper:
    """Writes checkpoints, the model file and the metrics of one run."""

    def __init__(
        self,
        run: RunFolder,
        options: CheckpointOptions,
        description: modelfile.ModelDescription,
        *,
        tensorboard: bool,
    ) -> None:
        self.run = run
        self.description = description
        self._options = options
        self._saved = time.monotonic()
        self._asked = 0
        self._tensorboard = tensorboard
        self._board: Board | None = None

    def load(self) -> dict[str, Any] | None:
        """The state to go on from; None for a training that has none yet."""
        return self.run.checkpoints.load() if self.run.checkpoints.exists() else None

    def due(self, *, stage_ends: bool) -> bool:
        """Whether it is time for a checkpoint; asked once a step."""
        self._asked += 1
        every = self._options.every_steps
        if stage_ends or (every is not None and self._asked % every == 0):
            return True
        return time.monotonic() - self._saved >= 60 * self._options.every_minutes

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint."""
        self.run.checkpoints.save(state)
        self._saved = time.monotonic()

    def write_best(self, tensors: dict[str, Tensor], figures: dict[str, float]) -> None:
        """Replace the model file."""
        cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        self.run.write_model(cpu, self.description.model_copy(update={"figures": figures}))

    def best_tensors(self) -> dict[str, Tensor]:
        """The weights of the model file."""
        return modelfile.read(self.run.path / MODEL_FILE)[1]

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Replace `metrics.csv`; the last row is new."""
        self.run.write_metrics(rows)
        if self._tensorboard:
            if self._board is None:
                self._board = Board(self.run.path / "tensorboard", epochs=len(rows) - 1)
            self._board.add(rows[-1])
