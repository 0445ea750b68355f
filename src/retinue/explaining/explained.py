"""What is told of one image that was explained, by one model or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retinue.sample import Result

COLUMNS = ("path", "model", "target", "score", "method")


@dataclass(frozen=True, slots=True)
class Row:
    """One explanation, but for its map."""

    model: str
    """The path that was given."""
    target: str
    """The class; empty: whatever was found."""
    score: float
    method: str
    check: dict[str, float]
    """Figures that say whether the map matters; empty where that was not asked."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        told = {"model": self.model, "target": self.target or None, "score": self.score}
        return {**told, "method": self.method, **self.check}


@dataclass(frozen=True, slots=True)
class Explained(Result):
    """The explanations of one image, a row each."""

    path: str
    given: Sequence[Row]

    def as_dict(self) -> dict[str, Any]:
        """The line of `explanations.jsonl`."""
        return {"path": self.path, "explanations": [row.as_dict() for row in self.given]}

    def columns(self) -> list[str]:
        """See `Result`."""
        return [*COLUMNS, *(self.given[0].check if self.given else ())]

    def rows(self) -> list[list[Any]]:
        """See `Result`: one an explanation."""
        return [[self.path, *row.as_dict().values()] for row in self.given]

    def fields(self) -> list[str]:
        """See `Result`."""
        return [str(value) for row in self.rows() for value in row[1:]]

    def answers(self) -> list[tuple[str, float]]:
        """See `Result`: the class of each, and its score."""
        return [(row.target or "everything found", row.score) for row in self.given]

    def told(self) -> list[str]:
        """See `Result`: with the method, and what the check says."""
        return [
            f"{name} {score:.1%} {row.method}"
            + "".join(f" {key.replace('_', ' ')} {value:.3f}" for key, value in row.check.items())
            for (name, score), row in zip(self.answers(), self.given, strict=True)
        ]
