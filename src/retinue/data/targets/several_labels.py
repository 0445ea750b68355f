"""Any number of labels an image, none included (multi-label classification)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from retinue.sample import Target

if TYPE_CHECKING:  # a label is read without torch, which batches of them need
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class SeveralLabels(Target):
    """The labels `of` the image: names, or indices among `classes` of them. Of those in `unknown`
    nobody has said whether they are true of it."""

    of: tuple[str | int, ...]
    classes: int = 0
    unknown: tuple[str | int, ...] = ()

    def names(self) -> tuple[str | int, ...]:
        """See `Target`."""
        return tuple(dict.fromkeys(self.of))

    def mentioned(self) -> tuple[str | int, ...]:
        """See `Target`: the unknown ones, too."""
        return tuple(dict.fromkeys((*self.of, *self.unknown)))

    def remap(self, classes: Mapping[Any, int]) -> Self | None:
        """See `Target`. An image without any label has something to teach, too."""
        moved = {classes[k] for k in self.of if k in classes}
        unknown = {classes[k] for k in self.unknown if k in classes} - moved
        count = max(classes.values(), default=-1) + 1
        return type(self)(tuple(sorted(moved)), count, tuple(sorted(unknown)))

    def leaving_open(self, classes: Sequence[int]) -> Self:
        """See `Target`: nobody has said whether they are there."""
        if not classes:
            return self
        unknown = tuple(sorted({*map(int, self.unknown), *classes} - set(map(int, self.of))))
        return type(self)(self.of, max(self.classes, *(k + 1 for k in classes)), unknown)

    def fingerprint(self) -> str:
        """See `Target`."""
        text = repr((self.of, self.classes, self.unknown))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def agrees(self, other: Target) -> bool:
        """See `Target`: of no class one says that it is there and the other that it is not."""
        if not isinstance(other, SeveralLabels):
            return False
        own, theirs = set(self.of), set(other.of)
        return not (own - theirs - set(other.unknown) or theirs - own - set(self.unknown))

    def stratum(self) -> str:
        """See `Target`: all of the labels."""
        return "|".join(sorted(map(str, self.of)))

    @classmethod
    def mix(cls, parts: Sequence[tuple[Self, float]]) -> Self:
        """See `Target`: whatever shows on the canvas is true of it."""
        there = [target for target, share in parts if share > 0]
        true = {name for target in there for name in target.of}
        unknown = {name for target in there for name in target.unknown} - true
        return cls(tuple(sorted(true, key=str)), there[0].classes, tuple(sorted(unknown, key=str)))

    @classmethod
    def collate(cls, targets: Sequence[Self | None]) -> dict[str, Tensor]:
        """`labels`: float32 (n, classes), 1 for what is true and 0 for what is not; `known`:
        float32 (n, classes), 0 where nobody has said."""
        import torch

        classes = max((target.classes for target in targets if target is not None), default=0)
        labels = torch.zeros(len(targets), classes)
        known = torch.zeros(len(targets), classes)
        for row, target in enumerate(targets):
            if target is None:
                continue
            labels[row, [int(k) for k in target.of]] = 1
            known[row] = 1
            known[row, [int(k) for k in target.unknown]] = 0
        return {"labels": labels, "known": known}

    @classmethod
    def mix_batch(
        cls, targets: dict[str, Tensor], partner: Tensor, share: Tensor
    ) -> dict[str, Tensor]:
        """See `Target`. Known is what is known of both."""
        import torch

        own, labels, known = share[:, None], targets["labels"], targets["known"]
        return {
            **targets,
            "labels": labels * own + labels[partner] * (1 - own),
            "known": torch.where(own == 1, known, known * known[partner]),
        }

    def as_dict(self) -> dict[str, Any]:
        """See `Target`."""
        return {"of": list(self.of), "classes": self.classes, "unknown": list(self.unknown)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """See `Target`."""
        return cls(tuple(values["of"]), values["classes"], tuple(values["unknown"]))
