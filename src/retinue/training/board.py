"""The rows of `metrics.csv` for TensorBoard, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Board:
    """Event files in `folder`; rows after a resumed training's begin replace those of before."""

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
