"""A network and pictures small enough to train in a second; also run as a script by tests that
kill, interrupt or distribute a training: `python tiny.py OUT DATA [--resume] [key=value …]`."""

from __future__ import annotations

import atexit
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retinue.models import registry
from retinue.models.network import Level, Network, Unit
from retinue.run.checkpoint import CheckpointStore
from retinue.sample import Preprocessing

COLOURS = {"blue 猫": (60, 60, 180), "green": (60, 180, 60), "red": (180, 60, 60)}


class TinyHead(nn.Module):
    def __init__(self, channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(x.mean((2, 3))))


class Tiny(Network):
    def __init__(self, *, num_classes: int = 1000, dropout: float = 0.2, norm: bool = True) -> None:
        super().__init__()

        def block(inside: int, outside: int, stride: int) -> nn.Sequential:
            layers: list[nn.Module] = [nn.Conv2d(inside, outside, 3, stride, 1)]
            if norm:
                layers.append(nn.BatchNorm2d(outside))
            return nn.Sequential(*layers, nn.ReLU())

        self.stem = block(3, 8, 4)
        self.middle = block(8, 8, 1)
        self.last = block(8, 16, 2)
        self.head = TinyHead(16, num_classes, dropout)

    def units(self) -> list[Unit]:
        return [
            Unit("stem", self.stem),
            Unit("middle", self.middle, 2),
            Unit("last", self.last, 3),
        ]

    @property
    def feature_levels(self) -> list[Level]:
        return [Level(2, 8, 4), Level(3, 16, 8)]

    def reset_head(self, num_classes: int) -> None:
        self.head = TinyHead(16, num_classes, self.head.dropout.p)


def register() -> None:
    """`tiny` becomes a network of the zoo."""
    if "tiny" in registry.list_models():
        return
    registry.register(
        registry.NetworkEntry(
            name="tiny",
            family="tiny",
            build=Tiny,
            preprocessing=Preprocessing(size=(32, 32), crop_fraction=1.0),
            parameters=sum(p.numel() for p in Tiny().parameters()),
            macs=0,
            paper="none",
            reference="none",
        )
    )


def write_pictures(root: Path, each: int = 16, side: int = 40) -> Path:
    """A folder of three classes; colour tells them apart, not too easily."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(each):
            noise = rng.normal(0, 60, (side, side, 3)) + rng.normal(0, 40, 3)
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02d}.png")
    return root


def recipe(data: Path | str, **changes: Any) -> dict[str, Any]:
    """Two stages: the head on cached features, then everything with EMA."""
    values: dict[str, Any] = {
        "model": {"name": "tiny", "weights": None},
        "data": {"path": str(data), "workers": 1},
        "stages": [
            {
                "name": "head",
                "trainable": "head",
                "epochs": 2,
                "batch_size": 8,
                "views": 2,
                "augment": {"crop_scale": [0.5, 1.0]},
                "optimizer": {"name": "adamw", "lr": 0.01},
            },
            {
                "name": "all",
                "trainable": "all",
                "epochs": 3,
                "batch_size": 8,
                "augment": {"colour": {"brightness": 0.2}},
                "optimizer": {"name": "sgd", "lr": 0.02},
                "schedule": {"name": "cosine", "warmup_epochs": 1},
            },
        ],
        "ema": {"decay": 0.9},
        "device": "cpu",
        "tensorboard": False,
        "evaluation": {"batch_size": 16},
    }
    values.update(changes)
    return values


def rows(run: Path) -> list[dict[str, str]]:
    """`metrics.csv`, an epoch after the other."""
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def last_network(run: Path) -> dict[str, Tensor]:
    """The network's weights as the last checkpoint of a run has them."""
    state = CheckpointStore(run / "last").load()["learner"]
    own = "network."
    return {k.removeprefix(own): v for k, v in state.items() if k.startswith(own)}


def learnt(run: Path) -> Tensor:
    """How the weights of a run that began at random, with seed 0, have changed: one vector."""
    torch.manual_seed(0)
    fresh = Tiny(num_classes=len(COLOURS)).state_dict()
    last = last_network(run)
    names = [name for name in fresh if name.endswith("weight")]
    return torch.cat([(last[name] - fresh[name]).flatten() for name in names])


def main() -> None:
    import retinue
    from retinue.cli.app import end
    from retinue.errors import RetinueError
    from retinue.options.overrides import parse_override

    for package in ("openvino", "onnxruntime"):  # compiling takes longer than training
        sys.modules[package] = None  # type: ignore[assignment]
    # Comes after whatever the training does at the end.
    atexit.register(
        lambda: print("left" if not torch.distributed.is_initialized() else "", flush=True)
    )
    torch.set_num_threads(1)
    register()
    out, data, *rest = sys.argv[1:]
    try:
        if "--resume" in rest:
            retinue.train(out, resume=True, report=False, quiet=True)
        else:
            overrides = dict(parse_override(text) for text in rest)
            retinue.train(recipe(data), out=out, overrides=overrides, report=False, quiet=True)
    except RetinueError as error:
        print(f"error: {error}", file=sys.stderr)
        end(error.exit_code)
    end(0)  # as the command line does


if __name__ == "__main__":
    main()
